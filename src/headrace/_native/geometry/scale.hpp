// Scaling: the lines of an image become the lines of its row of the batch, a few of them in memory at a time.
#pragma once

#include <cstdint>
#include <vector>

#include "../buffer.hpp"
#include "../color/line_writer.hpp"
#include "../recipe.hpp"
#include "geometry.hpp"
#include "lines.hpp"
#include "weights.hpp"

namespace headrace {

// The part of the decoded image that is scaled. It may have been decoded smaller, so the part begins and ends between
// pixels: it reaches from `begin` to `begin + span` inside `source`.
struct View {
  Box source;
  double begin_y, begin_x, span_y, span_x;
};

struct ScaleBuffers {
  Weights across, down;
  Buffer line, ring;
  std::vector<const std::uint8_t*> taps;
  std::vector<Blends> blends_across;
  std::vector<Blend> blends_down;
  std::vector<float> floats;
};

class Scaler {
 public:
  Scaler(const Recipe& recipe, const Geometry& geometry, const View& view, ScaleBuffers& buffers, LineWriter& writer);

  // Read the lines and write the row of the batch; false if a line cannot be decoded.
  bool run(Lines& lines);

 private:
  void fill_outside();
  void make_weights();
  void scale_across(std::uint8_t* out, const std::uint8_t* in) const;
  bool scale_down(Lines& lines);
  void pack_lanes();
  bool make_blends();
  bool blend_down(Lines& lines);

  const Recipe& recipe_;
  const Geometry& geometry_;
  const View& view_;
  ScaleBuffers& buffers_;
  LineWriter& writer_;
  const int channels_;
  // The part of the window that lies inside the scaled image; the rest is filled.
  int top_, bottom_, left_, right_;
  std::uint8_t* line_;
  std::int16_t* lanes_ = nullptr;
  bool down_first_ = false;
  bool blends_across_ = false;
};

// Fill pixels with the recipe's color.
void fill(std::uint8_t* line, int pixels, const Recipe& recipe);

}  // namespace headrace
