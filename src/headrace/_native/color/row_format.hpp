// What a row of the batch looks like: its shape, its layout, and the value that each byte becomes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../rows/row_ops.hpp"

namespace headrace {

// The value of a byte: from a table, or computed if that gives exactly what the table holds.
struct Values {
  int itemsize = 1;  // bytes of a value
  int channels = 3;
  std::vector<std::uint8_t> table;  // 256 values of `itemsize` bytes for each channel; empty: the byte itself
  bool computed = false;            // as (x / 255 - mean) / std, each step rounded to float
  float mean[4] = {0, 0, 0, 0};
  float std[4] = {1, 1, 1, 1};
};

struct RowFormat {
  int height = 0, width = 0;
  bool channels_first = false;
  Values values;
  const RowOps* ops = nullptr;

  std::size_t bytes() const {
    return static_cast<std::size_t>(height) * width * values.channels * values.itemsize;
  }
};

}  // namespace headrace
