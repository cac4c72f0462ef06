// A whole JPEG file decoded and scaled down to a longest side: what a packed dataset stores.
#pragma once

#include "../recipe.hpp"
#include "../render.hpp"

namespace headrace {

struct WholeImage {
  Buffer pixels;        // RGB, line after line
  int height = 0, width = 0;
  // Whether the file has these very pixels: it was neither scaled nor turned.
  bool as_stored = false;
};

// Scale the longer side to `max_side`, where it is longer; 0 for never. False for a file that is left to the
// step-by-step path.
bool read_whole(const Sample& sample, int max_side, std::int64_t max_pixels, bool oriented, const RowOps& ops,
                Scratch& scratch, WholeImage& out);

}  // namespace headrace
