#include "../plane_ops.hpp"

namespace headrace {
namespace plain {

#include "../common.hpp"

static void blur_across(std::int16_t* out, const std::int16_t* line, int width, const std::int16_t* weights, int taps) {
  // The weights are the same on both sides: two neighbors are added first, which fit 16 bits.
  for (int begin = 0; begin < width; begin += 16) {
    const std::int16_t* const in = line + begin;
    std::int32_t all[16];
    for (int i = 0; i < 16; ++i) all[i] = (1 << 5) + in[taps / 2 + i] * weights[taps / 2];
    for (int k = 0; k < taps / 2; ++k)
      for (int i = 0; i < 16; ++i) all[i] += static_cast<std::int16_t>(in[k + i] + in[taps - 1 - k + i]) * weights[k];
    for (int i = 0; i < 16; ++i) out[begin + i] = static_cast<std::int16_t>((all[i] >> 6) - 32768);
  }
}

static void blur_down(std::uint8_t* out, int rows, const std::int16_t* const* lines, int width,
                      const std::int16_t* weights, int taps) {
  for (int row = 0; row < rows; ++row, ++lines, out += width)
    for (int begin = 0; begin < width; begin += 16) {
      std::int32_t all[16];
      for (int i = 0; i < 16; ++i) all[i] = (1 << 29) + (1 << 21);
      for (int k = 0; k < taps; ++k) {
        const std::int16_t* const line = lines[k] + begin;
        for (int i = 0; i < 16; ++i) all[i] += line[i] * weights[k];
      }
      std::uint8_t bytes[16];
      for (int i = 0; i < 16; ++i) bytes[i] = static_cast<std::uint8_t>(all[i] >> 22);
      __builtin_memcpy(out + begin, bytes, static_cast<std::size_t>(width - begin < 16 ? width - begin : 16));
    }
}

static constexpr PlaneOps ops{merge_all, look_up_all, nullptr, gray_all, sum, limits, blend_all, hue_all, pillow_hue, torch_hue, torch_gray, torch_blend, sharpen_all, blur_across, blur_down,
                              map_points, nearest_places_all, bilinear_places_all, whole_places, nullptr, shares, gather_all, widen_all,
                              gather_pixels_all, cover};

}  // namespace plain

extern const PlaneOps plane_ops_plain;
const PlaneOps plane_ops_plain = plain::ops;

}  // namespace headrace
