// What each pixel of a scaled row or column is made of.
#pragma once

#include <cstdint>
#include <vector>

namespace headrace {

enum class Filter { nearest, bilinear, bicubic, lanczos, box };

// Weights are whole numbers of 2**-22, as in Pillow, whose results they give to the last bit.
constexpr int weight_bits = 22;

struct Weights {
  int outputs = 0;
  int taps = 0;               // of the output that has most
  int low = 0, high = 0;      // what is looked at, [low, high)
  bool same = false;          // each output is one input: nothing is weighed
  std::vector<int> first;     // by output: the first input
  std::vector<int> count;     // by output: how many inputs
  std::vector<std::int32_t> value;  // by output, `taps` of them; those past `count` are 0
  std::vector<std::int16_t> lanes;  // the same, as the vectorised rows want them
  std::vector<double> scratch;

  // Scale inputs [0, size), of which the stretch from `begin` to `end` counts, to `scaled` outputs, of which those from
  // `from` to `to` are wanted. Antialiased as Pillow does it; else as OpenCV does, which looks at the nearest inputs
  // only.
  void make(Filter filter, bool antialias, int size, double begin, double end, int scaled, int from, int to);
  // Let no output look past `high`, not even with weights of 0, as the vectorised rows do, who take `taps` of each.
  void keep_inside();
};

}  // namespace headrace
