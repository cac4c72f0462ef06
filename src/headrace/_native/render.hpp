// One sample becomes its row of the batch: decode -> geometry -> color -> rows.
#pragma once

#include <vector>

#include "buffer.hpp"
#include "changes/planes.hpp"
#include "changes/resample.hpp"
#include "decode/jpeg.hpp"
#include "geometry/philox.hpp"
#include "geometry/scale.hpp"
#include "recipe.hpp"
#include "source/source.hpp"

namespace headrace {

// What one thread needs on the way, reused from sample to sample.
struct Scratch {
  Reading reading;
  Jpeg jpeg;
  ScaleBuffers scale;
  Buffer strip, upright, planes;
  Buffer inflated, image;  // of a PNG file
  std::vector<int> columns;
  ChangeBuffers changes;
  ResampleBuffers resample;

  // Free the buffers that only an uncommonly large image needed.
  void shrink_to(std::size_t bytes);
};

// False for a sample that is left to the step-by-step path, which makes it or says what is wrong with it.
bool render(const Recipe& recipe, const Sample& sample, Philox& random, Scratch& scratch, void* row, Seconds& seconds);

// What was drawn for one image: it is scaled, or resampled for maps, and a window of that is changed.
struct DrawnImage {
  Geometry geometry;            // with maps, only its window and whether it is flipped
  std::vector<WarpPart> maps;
  bool nearest = false;         // how maps take pixels
  std::vector<Op> ops;
};

// Make of an image in memory what was drawn for it; false for an image that is left to the step-by-step path. The size of
// the recipe's row is the window's.
bool render_drawn(const Recipe& recipe, const DrawnImage& drawn, const Pixels& pixels, Scratch& scratch, void* row);

}  // namespace headrace
