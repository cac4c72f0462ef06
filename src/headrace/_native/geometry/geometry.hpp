// Which part of an image becomes which part of a row of the batch: the crops and sizes of a chain, put together.
#pragma once

#include <vector>

#include "philox.hpp"

namespace headrace {

struct Box {
  int top, left, height, width;
};

// One transform of the chain; its numbers mean what the Python class of that name says (transforms/).
struct Step {
  enum Kind { resize_shorter, resize_exact, center_crop, random_crop, random_resized_crop, flip, pad };
  Kind kind;
  int height = 0, width = 0;
  int left = 0, top = 0, right = 0, bottom = 0;
  bool pad_if_needed = false;
  double chance = 0;                          // of a flip
  double area_least = 0, area_most = 0;       // fractions of the image's
  double ratio_least = 0, ratio_most = 0;     // width to height
  double log_ratio_least = 0, log_ratio_most = 0;
};

// The part `source` of the image is scaled to `height` x `width`; `window` cuts the row of the batch out of that. A window
// may reach outside, where it is filled.
struct Geometry {
  Box source;
  int height, width;
  Box window;
  bool flipped;
};

// False if only the step-by-step path can say what is wrong with an image of this size.
bool place(const std::vector<Step>& steps, int height, int width, Philox& random, Geometry& geometry);

}  // namespace headrace
