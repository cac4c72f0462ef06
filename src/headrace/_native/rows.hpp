// The inner loops, once for each level of vector instructions; which level runs is chosen when the program runs.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headrace {

// Rows of pixels may be read and written this many bytes past their end.
constexpr std::size_t slack = 128;

struct Rows {
  const char* name;

  // Scale a row of 3 channels: `lanes` as `pack` makes them, or the plain `value` where that is null.
  void (*across3)(std::uint8_t* out, const std::uint8_t* in, const int* first, const std::int32_t* value,
                  const std::int16_t* lanes, int taps, int outputs);
  // Bytes of `lanes`, and how they are made; 0 where this level wants none.
  std::size_t (*packed)(int taps, int outputs);
  void (*pack)(std::int16_t* lanes, const std::int32_t* value, int taps, int outputs);

  // Weigh whole rows into one.
  void (*down)(std::uint8_t* out, const std::uint8_t* const* in, const std::int32_t* value, int taps, int bytes);

  // Pixels of 3 channels, one behind the other, to three planes; from right to left if `flipped`.
  void (*apart3)(std::uint8_t* const* out, const std::uint8_t* in, int pixels, bool flipped);

  // (x / 255 - mean) / std for a plane.
  void (*floats)(float* out, const std::uint8_t* in, std::size_t count, float mean, float std);
  // The same for pixels of up to 4 channels.
  void (*floats_mixed)(float* out, const std::uint8_t* in, std::size_t pixels, int channels, const float* mean,
                       const float* std);
  // Whether the two above give, on this level, what their formula gives when each step is rounded by itself.
  bool exact;
};

// The levels that this processor has, from the plainest to the best; `levels` says how many.
extern const Rows* const* rows_available(int* levels);

}  // namespace headrace
