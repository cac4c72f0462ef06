// The inner loops over rows of pixels, one set for each instruction set; the processor decides at run time which one runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "../changes/plane_ops.hpp"

namespace headrace {

// The inner loops may read and write this many bytes past the end of a row.
constexpr std::size_t slack = 128;

struct RowOps {
  const char* name;

  // Scale a row of 3 channels. The weights are `lanes`, made by `pack_lanes`, or the plain `value` if `lanes` is null.
  void (*scale_across3)(std::uint8_t* out, const std::uint8_t* in, const int* first, const std::int32_t* value,
                        const std::int16_t* lanes, int taps, int outputs);
  // Bytes of `lanes`; 0 if this instruction set reads the plain weights.
  std::size_t (*lane_bytes)(int taps, int outputs);
  void (*pack_lanes)(std::int16_t* lanes, const std::int32_t* value, int taps, int outputs);

  // Add up weighted rows into one row.
  void (*scale_down)(std::uint8_t* out, const std::uint8_t* const* in, const std::int32_t* value, int taps, int bytes);

  // Split interleaved pixels of 3 channels into three planes, from right to left if `flipped`.
  void (*split3)(std::uint8_t* const* out, const std::uint8_t* in, int pixels, bool flipped);

  // (x / 255 - mean) / std for one plane.
  void (*normalize)(float* out, const std::uint8_t* in, std::size_t count, float mean, float std);
  // The same for interleaved pixels of up to 4 channels.
  void (*normalize_interleaved)(float* out, const std::uint8_t* in, std::size_t pixels, int channels, const float* mean,
                                const float* std);
  // Whether the two above round each step by itself, as NumPy does.
  bool exact;

  const PlaneOps* planes;
};

// The instruction sets that this processor has, the plainest first.
extern const RowOps* const* row_ops_available(int* count);

// The instruction set of this name, or the best; throws where the processor does not have it.
const RowOps& row_ops_of(const std::string& name);

}  // namespace headrace
