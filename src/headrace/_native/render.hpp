// From the pixels of one picture to its row of the batch, a few lines of it at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "geometry.hpp"
#include "jpeg.hpp"
#include "rows.hpp"
#include "weights.hpp"

namespace headrace {

enum class Edge { constant, edge, reflect, symmetric };

// What the value of a byte becomes: a table; and, where they give the table to the last bit, the numbers it was made of.
struct Values {
  int itemsize = 1;             // 1: left as it is
  int channels = 3;
  std::vector<std::uint8_t> table;  // by channel, 256 values of `itemsize` bytes; empty: the byte itself
  bool computed = false;        // as (x / 255 - mean) / std, each step rounded to float
  float mean[4] = {0, 0, 0, 0};
  float std[4] = {1, 1, 1, 1};
};

// What is done to every picture of a dataset.
struct Recipe {
  std::vector<Step> steps;
  Filter filter = Filter::bilinear;
  bool antialias = true;
  bool shrink = false;           // decode at a half, a quarter or an eighth where that is more than is wanted
  std::uint8_t fill[4] = {0, 0, 0, 0};
  Edge edge = Edge::constant;    // what stands outside; pictures in memory only, but for the first
  Values values;
  bool channels_first = false;
  int height = 0, width = 0;     // of a row of the batch
  std::int64_t max_pixels = 0;
  std::int64_t max_bytes = 0;    // of a file
  const Rows* rows = nullptr;

  std::size_t row_bytes() const {
    return static_cast<std::size_t>(height) * width * values.channels * values.itemsize;
  }
};

// Pixels in memory, one behind the other, row behind row.
struct Pixels {
  const std::uint8_t* data;
  int height, width, channels;
};

struct Seconds {
  double read = 0, decode = 0, transform = 0;
};

// What one thread needs on the way, used again from picture to picture.
struct Scratch {
  Jpeg jpeg;
  Weights across, down;
  std::vector<std::uint8_t> file, strip, ring, line, turned, plane;
  std::vector<const std::uint8_t*> taps;
  std::vector<int> columns;

  // Let go of what only an uncommonly large picture needed.
  void shrink_to(std::size_t most);
};

// Each answers false where the step-by-step route must say what is wrong, or can do what is not done here.
bool render(const Recipe& recipe, const std::uint8_t* data, std::size_t size, Philox& random, Scratch& scratch,
            void* out, Seconds& seconds);
bool render(const Recipe& recipe, const Pixels& pixels, Philox& random, Scratch& scratch, void* out);

// Read a whole file; false for what is no plain file, or is larger than `most`.
bool read_file(const char* path, std::int64_t most, std::vector<std::uint8_t>& data, std::size_t& size);

}  // namespace headrace
