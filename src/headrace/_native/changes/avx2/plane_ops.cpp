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

static void merge3(std::uint8_t* out, const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b, std::size_t count) {
  // Where each byte of 16 pixels comes from, by part of the output and channel; -1: not from this channel.
  alignas(16) std::int8_t from[3][3][16];
  for (int i = 0; i < 48; ++i)
    for (int c = 0; c < 3; ++c) from[i / 16][c][i % 16] = static_cast<std::int8_t>(i % 3 == c ? i / 3 : -1);
  std::size_t done = 0;
  for (; done + 16 <= count; done += 16) {
    const __m128i planes[3] = {_mm_loadu_si128(reinterpret_cast<const __m128i*>(r + done)),
                               _mm_loadu_si128(reinterpret_cast<const __m128i*>(g + done)),
                               _mm_loadu_si128(reinterpret_cast<const __m128i*>(b + done))};
    for (int part = 0; part < 3; ++part) {
      __m128i bytes = _mm_setzero_si128();
      for (int c = 0; c < 3; ++c)
        bytes = _mm_or_si128(bytes, _mm_shuffle_epi8(planes[c], *reinterpret_cast<const __m128i*>(from[part][c])));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * done + 16 * static_cast<std::size_t>(part)), bytes);
    }
  }
  merge_all(out + 3 * done, r + done, g + done, b + done, count - done);
}

// Two neighbors at each of eight places, weighed; of the four bytes that are read, two are used.
static inline __m256i neighbors(const std::uint8_t* framed, __m256i at, __m256i weights) {
  const __m256i apart = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 1, -1, 4, -1, 5, -1, 8, -1, 9, -1, 12, -1, 13, -1));
  const __m256i four = _mm256_i32gather_epi32(reinterpret_cast<const int*>(framed), at, 1);
  return _mm256_madd_epi16(_mm256_shuffle_epi8(four, apart), weights);
}

static void gather(std::uint8_t* out, const std::uint8_t* framed, const LinePlaces& places, int count, int stride) {
  if (places.right == nullptr) return gather_all(out, framed, places, count, stride);
  const __m256i one = _mm256_set1_epi32(2048), half = _mm256_set1_epi32(1 << 21);
  const __m256i first_bytes = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
  int done = 0;
  for (; done + 8 <= count; done += 8) {
    const __m256i at = words(places.at + done), right = words(places.right + done), below = words(places.below + done);
    const __m256i weights = _mm256_or_si256(_mm256_sub_epi32(one, right), _mm256_slli_epi32(right, 16));
    const __m256i upper = neighbors(framed, at, weights), lower = neighbors(framed + stride, at, weights);
    const __m256i all = _mm256_add_epi32(_mm256_add_epi32(_mm256_mullo_epi32(upper, _mm256_sub_epi32(one, below)), half),
                                         _mm256_mullo_epi32(lower, below));
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_srli_epi32(all, 22), first_bytes);
    const std::uint64_t low = static_cast<std::uint32_t>(_mm256_extract_epi32(bytes, 0));
    const std::uint64_t eight = low | static_cast<std::uint64_t>(static_cast<std::uint32_t>(_mm256_extract_epi32(bytes, 4))) << 32;
    __builtin_memcpy(out + done, &eight, 8);
  }
  const LinePlaces left{places.at + done, places.right + done, places.below + done};
  gather_all(out + done, framed, left, count - done, stride);
}

static constexpr PlaneOps ops{merge3, look_up, gray, sum, limits, blend, hue, sharpen, blur_across, blur_down,
                              map_points, nearest_places, bilinear_places, shares, gather, cover};

}  // namespace avx2

extern const PlaneOps plane_ops_avx2;
const PlaneOps plane_ops_avx2 = avx2::ops;

}  // namespace headrace
