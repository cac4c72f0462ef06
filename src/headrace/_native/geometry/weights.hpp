// What each pixel of a scaled row or column is made of.
#pragma once

#include <cstdint>
#include <vector>

namespace headrace {

enum class Filter { nearest, bilinear, bicubic, lanczos, box };

// Weights are whole multiples of 2**-22, as in Pillow, so that the results agree to the last bit.
constexpr int weight_bits = 22;

struct Weights {
  int outputs = 0;
  int taps = 0;               // of the output that has the most
  int low = 0, high = 0;      // the inputs that are read, [low, high)
  bool same = false;          // each output is one input: nothing is weighed
  std::vector<int> first;     // by output: the first input
  std::vector<int> count;     // by output: how many inputs
  std::vector<std::int32_t> value;  // by output, `taps` of them; those past `count` are 0
  std::vector<std::int16_t> lanes;  // the same, as the vectorized loops read them
  std::vector<double> scratch;

  // Scale the stretch from `begin` to `end` of the inputs [0, size) to `scaled` outputs, and make the weights for the
  // outputs [from, to). Antialiased as in Pillow; else as in OpenCV, which reads the nearest inputs only.
  void make(Filter filter, bool antialias, int size, double begin, double end, int scaled, int from, int to);
  // Let no output read past `high`, not even with weights of 0: vectorized loops read `taps` inputs for each output.
  void keep_inside();
};

}  // namespace headrace
