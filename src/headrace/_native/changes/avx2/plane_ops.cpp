#include "../plane_ops.hpp"

#include <immintrin.h>

namespace headrace {
namespace avx2 {

#include "../common.hpp"

// Two weights at a time: `madd` multiplies by 16 bits, and adds two products.
static inline __m256i pair(const std::int16_t* weights, int k, int taps) {
  const std::uint16_t first = static_cast<std::uint16_t>(weights[k]);
  const std::uint16_t second = k + 1 < taps ? static_cast<std::uint16_t>(weights[k + 1]) : std::uint16_t{0};
  return _mm256_set1_epi32(static_cast<int>(first | static_cast<std::uint32_t>(second) << 16));
}

static inline __m256i words(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }

static void blur_across(std::uint16_t* out, const std::int16_t* line, int width, const std::int16_t* weights, int taps) {
  // The weights are the same on both sides: two neighbors are added first, which fit 16 bits.
  const int half = taps / 2, sides = half + 1;
  for (int begin = 0; begin < width; begin += 16) {
    const std::int16_t* const in = line + begin;
    __m256i low = _mm256_set1_epi32(1 << 5), high = low;
    for (int k = 0; k < sides; k += 2) {
      const __m256i weight = pair(weights, k, sides);
      const __m256i a = k == half ? words(in + k) : _mm256_add_epi16(words(in + k), words(in + taps - 1 - k));
      __m256i b = a;
      if (k + 1 < half) b = _mm256_add_epi16(words(in + k + 1), words(in + taps - 2 - k));
      if (k + 1 == half) b = words(in + k + 1);
      low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), weight));
      high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), weight));
    }
    const __m256i all = _mm256_packus_epi32(_mm256_srli_epi32(low, 6), _mm256_srli_epi32(high, 6));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + begin), all);
  }
}

static void blur_down(std::uint8_t* out, const std::uint16_t* const* lines, int width, const std::int16_t* weights,
                      int taps) {
  // The numbers need 16 bits without a sign: they are lowered by 32768. The weights add up to 16384.
  const __m256i sign = _mm256_set1_epi16(static_cast<short>(0x8000));
  for (int begin = 0; begin < width; begin += 16) {
    __m256i low = _mm256_set1_epi32((1 << 29) + (1 << 21)), high = low;
    for (int k = 0; k < taps; k += 2) {
      const __m256i weight = pair(weights, k, taps);
      const __m256i a = _mm256_xor_si256(words(lines[k] + begin), sign);
      const __m256i b = k + 1 < taps ? _mm256_xor_si256(words(lines[k + 1] + begin), sign) : a;
      low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), weight));
      high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), weight));
    }
    const __m256i all = _mm256_packus_epi32(_mm256_srli_epi32(low, 22), _mm256_srli_epi32(high, 22));
    const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(all, all), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + begin), _mm256_castsi256_si128(bytes));
  }
}

static constexpr PlaneOps ops{look_up,    gray,       sum,            limits,          blend,  hue,    sharpen, blur_across,
                          blur_down,  map_points, nearest_places, bilinear_places, shares, gather, cover};

}  // namespace avx2

extern const PlaneOps plane_ops_avx2;
const PlaneOps plane_ops_avx2 = avx2::ops;

}  // namespace headrace
