#include "../plane_ops.hpp"

namespace headrace {
namespace plain {

#include "../common.hpp"

static void blur_across(std::uint16_t* out, const std::int16_t* line, int width, const std::int16_t* weights, int taps) {
  for (int begin = 0; begin < width; begin += 16) {
    std::int32_t all[16];
    for (int i = 0; i < 16; ++i) all[i] = 1 << 5;
    for (int k = 0; k < taps; ++k)
      for (int i = 0; i < 16; ++i) all[i] += line[begin + k + i] * weights[k];
    for (int i = 0; i < 16; ++i) out[begin + i] = static_cast<std::uint16_t>(all[i] >> 6);
  }
}

static void blur_down(std::uint8_t* out, const std::uint16_t* const* lines, int width, const std::int16_t* weights,
                      int taps) {
  for (int begin = 0; begin < width; begin += 16) {
    std::int32_t all[16];
    for (int i = 0; i < 16; ++i) all[i] = 1 << 21;
    for (int k = 0; k < taps; ++k) {
      const std::uint16_t* const line = lines[k] + begin;
      for (int i = 0; i < 16; ++i) all[i] += line[i] * weights[k];
    }
    for (int i = 0; i < 16; ++i) out[begin + i] = static_cast<std::uint8_t>(all[i] >> 22);
  }
}

static constexpr PlaneOps ops{merge_all, look_up, gray, sum, limits, blend, hue, sharpen, blur_across, blur_down,
                              map_points, nearest_places, bilinear_places, shares, gather_all, cover};

}  // namespace plain

extern const PlaneOps plane_ops_plain;
const PlaneOps plane_ops_plain = plain::ops;

}  // namespace headrace
