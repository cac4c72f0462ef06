#include "../row_ops.hpp"

namespace headrace {

extern const PlaneOps plane_ops_plain;

namespace plain {

#include "../common.hpp"

static inline std::uint8_t clipped(std::int32_t sum) {
  sum >>= 22;
  return static_cast<std::uint8_t>(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static void scale_down(std::uint8_t* out, const std::uint8_t* const* in, const std::int32_t* value, int taps, int bytes) {
  // Bytes past the end are weighed too: rows have that much slack.
  for (int begin = 0; begin < bytes; begin += 64) {
    std::int32_t sum[64];
    for (int i = 0; i < 64; ++i) sum[i] = 1 << 21;
    for (int k = 0; k < taps; ++k) {
      const std::uint8_t* row = in[k] + begin;
      const std::int32_t weight = value[k];
      for (int i = 0; i < 64; ++i) sum[i] += row[i] * weight;
    }
    for (int i = 0; i < 64; ++i) out[begin + i] = clipped(sum[i]);
  }
}

static std::size_t lane_bytes(int, int) { return 0; }

static void pack_lanes(std::int16_t*, const std::int32_t*, int, int) {}

static void scale_across3(std::uint8_t* out, const std::uint8_t* in, const int* first, const std::int32_t* value,
                          const std::int16_t*, int taps, int outputs) {
  for (int i = 0; i < outputs; ++i, value += taps) {
    const std::uint8_t* pixel = in + 3 * static_cast<std::ptrdiff_t>(first[i]);
    std::int32_t r = 1 << 21, g = r, b = r;
    for (int k = 0; k < taps; ++k, pixel += 3) {
      r += pixel[0] * value[k];
      g += pixel[1] * value[k];
      b += pixel[2] * value[k];
    }
    out[3 * i] = clipped(r), out[3 * i + 1] = clipped(g), out[3 * i + 2] = clipped(b);
  }
}

static void split3(std::uint8_t* const* out, const std::uint8_t* in, int pixels, bool flipped) {
  for (int i = 0; i < pixels; ++i) {
    const int at = flipped ? pixels - i - 1 : i;
    for (int c = 0; c < 3; ++c) out[c][at] = in[3 * static_cast<std::ptrdiff_t>(i) + c];
  }
}

static const RowOps ops{"plain", scale_across3, lane_bytes, pack_lanes, scale_down, split3, normalize, nullptr, nullptr,
                        nullptr, normalize_interleaved, exact, &plane_ops_plain, &plane_ops_plain, nullptr};

}  // namespace plain

extern const RowOps* const row_ops_plain = &plain::ops;

}  // namespace headrace
