// What is done to every image of a dataset.
#pragma once

#include <cstdint>
#include <vector>

#include "changes/change.hpp"
#include "color/row_format.hpp"
#include "geometry/geometry.hpp"
#include "geometry/weights.hpp"

namespace headrace {

enum class Edge { constant, edge, reflect, symmetric };

struct Recipe {
  std::vector<Step> steps;
  Filter filter = Filter::bilinear;
  bool antialias = true;
  bool shrink = false;         // decode JPEG files at 1/2, 1/4 or 1/8 of their size where that is still large enough
  bool oriented = true;        // turn JPEG files upright by their EXIF orientation
  std::uint8_t fill[4] = {0, 0, 0, 0};
  Edge edge = Edge::constant;  // what lies outside the image; JPEG files know `constant` only
  RowFormat row;
  RowFormat bytes;               // the same image as planes of bytes, where changes are to come
  std::vector<Change> changes;   // done to these
  std::vector<Change> erasings;  // done to the row, when its values are made
  std::int64_t max_pixels = 0;
  std::int64_t max_bytes = 0;  // of an encoded image
};

// Seconds of each stage.
struct Seconds {
  double read = 0, decode = 0, transform = 0;
};

}  // namespace headrace
