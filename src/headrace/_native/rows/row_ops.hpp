// The inner loops over rows of pixels, one set for each instruction set; the processor decides at run time which one runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "../changes/plane_ops.hpp"

namespace headrace {

// The inner loops may read and write this many bytes past the end of a row.
constexpr std::size_t slack = 128;

// Pixels that are a + (b - a) * weight, from two neighbors, in floats: the sum is rounded once, as that of integers is.
// Floats hold a byte as `raised` + byte, where floats are whole numbers, so that each multiply-add gives a whole number.
constexpr float raised = 8388608.0F;  // 2**23

// The weight of b. The nudge, added to b - a, takes halves upwards, as Pillow does; it is 0 where no halves can occur.
struct Blend {
  float weight, nudge;
};

// As many outputs as are made at once: `index` counts from the input `from`, and gives a; b is the input after it.
struct Blends {
  int from;
  int index[16];
  float weight[16], nudge[16];
};

struct BlendOps {
  // How many outputs are made at once, 16 at most.
  int lanes;
  // Split interleaved pixels of 3 channels into three planes of raised floats, from right to left if `flipped`.
  void (*raise3)(float* const* out, const std::uint8_t* in, int pixels, bool flipped);
  // Make `count` times `lanes` outputs of each of three planes. `planes` is memory for the pixels, as `raise3` splits them,
  // readable nine floats past the last `from`.
  void (*across3)(float* const* out, float* const* planes, const std::uint8_t* in, int pixels, const Blends* blends, int count);
  // Blend two rows, and normalize the bytes as `normalize` below does, or as `stream` if `streamed`.
  void (*down)(float* out, const float* a, const float* b, const Blend& blend, std::size_t count, float mean, float std,
               bool streamed);
};

struct RowOps {
  static constexpr std::int64_t large = 1 << 17;

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
  // The same, past the caches: no line of memory is read to be written. Null where this instruction set has no such loop.
  // Other threads see what was written after `fence`.
  void (*stream)(float* out, const std::uint8_t* in, std::size_t count, float mean, float std);
  void (*fence)();
  // `split3` and `normalize` in one pass, which asks meanwhile for as many bytes from `ahead` on. Null where this
  // instruction set has no such loop.
  void (*normalize3)(float* const* out, const std::uint8_t* in, int pixels, bool flipped, const float* mean,
                     const float* std, const std::uint8_t* ahead);
  // As `normalize`, for interleaved pixels of up to 4 channels.
  void (*normalize_interleaved)(float* out, const std::uint8_t* in, std::size_t pixels, int channels, const float* mean,
                                const float* std);
  // Whether those above round each step by itself, as NumPy does.
  bool exact;

  const PlaneOps* planes;
  // The same for images of `large` pixels and more. Wide registers are faster there, and slow down the code around them:
  // small images took longer with them.
  const PlaneOps* large_planes;
  const PlaneOps& planes_of(std::int64_t pixels) const { return pixels >= large ? *large_planes : *planes; }
  // Null where this instruction set has no such loops.
  const BlendOps* blends;
};

// The instruction sets that this processor has, the plainest first.
extern const RowOps* const* row_ops_available(int* count);

// The instruction set of this name, for images of any size; or by default the best for each size. Throws where the processor
// does not have it.
const RowOps& row_ops_of(const std::string& name);

}  // namespace headrace
