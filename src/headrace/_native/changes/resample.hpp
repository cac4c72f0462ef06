// Interleaved pixels resampled once for maps that follow each other: only those that a window of the result shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../buffer.hpp"
#include "../geometry/geometry.hpp"
#include "../geometry/lines.hpp"
#include "../rows/row_ops.hpp"
#include "planes.hpp"

namespace headrace {

struct ResampleBuffers {
  std::vector<std::uint32_t> framed;
  Buffer bytes;
  std::vector<double> points;
  std::vector<std::int32_t> places;

  void shrink_to(std::size_t bytes);
};

class Resampler {
 public:
  // `parts` are the maps, `window` is the part of the last image that is made, then mirrored left to right if `flipped`.
  // What lies outside of the last image is `outside`, bytes of a pixel.
  Resampler(const RowOps& ops, const std::vector<WarpPart>& parts, bool nearest, const Box& window, bool flipped,
            const std::uint8_t* outside, ResampleBuffers& buffers);

  // Write planes of the window, each so many bytes after the one before, from an image of up to 4 channels.
  void planes(const Pixels& pixels, std::uint8_t* out, std::size_t plane);
  // Write the window, interleaved, each pixel the nearest one; `pixels.channels` are its bytes, any number.
  void nearest_pixels(const Pixels& pixels, std::uint8_t* out);

 private:
  bool shows(int row) const { return row >= 0 && row < height_ && first_ < last_; }
  // The middle of a column of the last image, counted from the first that is shown.
  double column(std::size_t i) const { return start_ + (flipped_ ? -1 : 1) * static_cast<int>(i) + 0.5; }
  void begin(int height, int width);
  LinePlaces line(int row, int height, int width);

  const PlaneOps& ops_;
  const std::vector<WarpPart>& parts_;
  const bool nearest_;
  const Box window_;
  const bool flipped_;
  const std::uint8_t* outside_;
  ResampleBuffers& buffers_;
  int height_, width_;
  // The window's columns that lie in the last image.
  int first_, last_;
  int start_ = 0;
  bool affine_ = false;
  std::int32_t* shares_ = nullptr;
};

}  // namespace headrace
