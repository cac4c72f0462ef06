#include "../plane_ops.hpp"

#include <immintrin.h>

namespace headrace {
namespace avx2 {

#include "../common.hpp"

// Two weights at a time: `madd` multiplies by 16 bits, and adds two products.
static inline __m256i pair(const std::int16_t* weights) {
  std::int32_t both;
  __builtin_memcpy(&both, weights, sizeof both);
  return _mm256_set1_epi32(both);
}

static inline __m256i words(const void* at) { return _mm256_loadu_si256(static_cast<const __m256i*>(at)); }

// Sixteen entries of a table at a time: `shuffle` looks up the low four bits, or gives 0 where the highest bit is set.
// Each step subtracts 16, after which what lay below is negative and stays so: it has its value already. The steps
// after the first hold differences to the entries before, so that all steps together give the value.
static void look_up(std::uint8_t* plane, std::size_t count, const std::uint8_t* table) {
  __m256i entries[16];
  for (int i = 0; i < 16; ++i) {
    const __m128i these = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table) + i);
    const __m128i before = i % 8 == 0 ? _mm_setzero_si128() : _mm_loadu_si128(reinterpret_cast<const __m128i*>(table) + i - 1);
    entries[i] = _mm256_broadcastsi128_si256(_mm_xor_si128(these, before));
  }
  const __m256i sixteen = _mm256_set1_epi8(16), top = _mm256_set1_epi8(static_cast<char>(0x80));
  std::size_t done = 0;
  for (; done + 32 <= count; done += 32) {
    __m256i low = words(plane + done), high = _mm256_xor_si256(low, top);
    __m256i first = _mm256_shuffle_epi8(entries[0], low), second = _mm256_shuffle_epi8(entries[8], high);
    for (int i = 1; i < 8; ++i) {
      low = _mm256_subs_epi8(low, sixteen), high = _mm256_subs_epi8(high, sixteen);
      first = _mm256_xor_si256(first, _mm256_shuffle_epi8(entries[i], low));
      second = _mm256_xor_si256(second, _mm256_shuffle_epi8(entries[i + 8], high));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(plane + done), _mm256_or_si256(first, second));
  }
  look_up_all(plane + done, count - done, table);
}

// Gray values of eight pixels, of words: the share of green is split into two equal ones.
static inline __m256i gray8(__m256i red_green, __m256i green_blue) {
  const __m256i of_red = _mm256_set1_epi32(19595 | 19235 << 16), of_blue = _mm256_set1_epi32(19235 | 7471 << 16);
  const __m256i all = _mm256_add_epi32(_mm256_madd_epi16(red_green, of_red), _mm256_madd_epi16(green_blue, of_blue));
  return _mm256_srli_epi32(_mm256_add_epi32(all, _mm256_set1_epi32(0x8000)), 16);
}

static inline __m256i sixteen_words(const std::uint8_t* at) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
}

static inline void put_words(std::uint8_t* out, __m256i all) {
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
}

static void gray(std::uint8_t* out, const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b, std::size_t count) {
  std::size_t done = 0;
  for (; done + 16 <= count; done += 16) {
    const __m256i red = sixteen_words(r + done), green = sixteen_words(g + done), blue = sixteen_words(b + done);
    const __m256i low = gray8(_mm256_unpacklo_epi16(red, green), _mm256_unpacklo_epi16(green, blue));
    const __m256i high = gray8(_mm256_unpackhi_epi16(red, green), _mm256_unpackhi_epi16(green, blue));
    put_words(out + done, _mm256_packus_epi32(low, high));
  }
  gray_all(out + done, r + done, g + done, b + done, count - done);
}

static inline __m256 eight_floats(const std::uint8_t* at) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at))));
}

static inline void put16(std::uint8_t* out, __m256i first, __m256i second) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(first, second), 0xD8);
  const __m128i bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), bytes);
}

// Eight values as `blended` in common.hpp; those below 0 are left to the packing.
static inline __m256i blended8(const std::uint8_t* values, __m256 other, __m256 factor) {
  const __m256 mixed = _mm256_add_ps(other, _mm256_mul_ps(factor, _mm256_sub_ps(eight_floats(values), other)));
  return _mm256_cvttps_epi32(_mm256_min_ps(mixed, _mm256_set1_ps(255.0F)));
}

static void blend(std::uint8_t* plane, const std::uint8_t* other, std::size_t count, float factor) {
  const __m256 times = _mm256_set1_ps(factor);
  std::size_t done = 0;
  for (; done + 16 <= count; done += 16)
    put16(plane + done, blended8(plane + done, eight_floats(other + done), times),
          blended8(plane + done + 8, eight_floats(other + done + 8), times));
  blend_all(plane + done, other + done, count - done, factor);
}

static void blend_value(std::uint8_t* plane, float value, std::size_t count, float factor) {
  const __m256 times = _mm256_set1_ps(factor), other = _mm256_set1_ps(value);
  std::size_t done = 0;
  for (; done + 16 <= count; done += 16)
    put16(plane + done, blended8(plane + done, other, times), blended8(plane + done + 8, other, times));
  for (; done < count; ++done) plane[done] = blended(static_cast<float>(plane[done]), value, factor);
}

static void sharpen(std::uint8_t* out, const std::uint8_t* above, const std::uint8_t* line, const std::uint8_t* below,
                    int width, float factor) {
  const __m256 times = _mm256_set1_ps(factor);
  const auto three = [](const std::uint8_t* at) {
    return _mm256_add_epi16(_mm256_add_epi16(sixteen_words(at - 1), sixteen_words(at)), sixteen_words(at + 1));
  };
  int done = 1;
  for (; done + 16 < width; done += 16) {
    const std::uint8_t* const at = line + done;
    __m256i all = _mm256_add_epi16(_mm256_add_epi16(three(above + done), three(at)), three(below + done));
    all = _mm256_add_epi16(all, _mm256_slli_epi16(sixteen_words(at), 2));
    // Divided by 26: exact for all that nine bytes can give.
    all = _mm256_add_epi16(_mm256_slli_epi16(all, 1), _mm256_set1_epi16(13));
    const __m256i smooth = _mm256_srli_epi16(_mm256_mulhi_epu16(all, _mm256_set1_epi16(20165)), 3);
    const __m256i low = _mm256_cvtepu16_epi32(_mm256_castsi256_si128(smooth));
    const __m256i high = _mm256_cvtepu16_epi32(_mm256_extracti128_si256(smooth, 1));
    put16(out + done, blended8(at, _mm256_cvtepi32_ps(low), times), blended8(at + 8, _mm256_cvtepi32_ps(high), times));
  }
  --done;
  sharpen_all(out + done, above + done, line + done, below + done, width - done, factor);
}

static void blur_across(std::int16_t* out, const std::int16_t* line, int width, const std::int16_t* weights, int taps) {
  // The weights are the same on both sides: two neighbors are added first, which fit 16 bits.
  const int half = taps / 2, sides = half + 1;
  const __m256i sign = _mm256_set1_epi16(static_cast<short>(0x8000));
  for (int begin = 0; begin < width; begin += 16) {
    const std::int16_t* const in = line + begin;
    __m256i low = _mm256_set1_epi32(1 << 5), high = low;
    for (int k = 0; k < sides; k += 2) {
      const __m256i weight = pair(weights + k);
      const __m256i a = k == half ? words(in + k) : _mm256_add_epi16(words(in + k), words(in + taps - 1 - k));
      __m256i b = _mm256_setzero_si256();
      if (k + 1 < half) b = _mm256_add_epi16(words(in + k + 1), words(in + taps - 2 - k));
      if (k + 1 == half) b = words(in + k + 1);
      low = _mm256_add_epi32(low, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), weight));
      high = _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), weight));
    }
    const __m256i all = _mm256_packus_epi32(_mm256_srli_epi32(low, 6), _mm256_srli_epi32(high, 6));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + begin), _mm256_xor_si256(all, sign));
  }
}

static inline void put_sums(std::uint8_t* out, int count, __m256i low, __m256i high) {
  const __m256i all = _mm256_packus_epi32(_mm256_srli_epi32(low, 22), _mm256_srli_epi32(high, 22));
  if (count >= 16) return put_words(out, all);
  std::uint8_t last[16];
  put_words(last, all);
  __builtin_memcpy(out, last, static_cast<std::size_t>(count));
}

static void blur_down(std::uint8_t* out, int rows, const std::int16_t* const* lines, int width,
                      const std::int16_t* weights, int taps) {
  // Both lines are made of the same pairs of neighbors: the second one's weights are those of the first, one later.
  // 1 << 29: the weights add up to 16384, and all was lowered by 32768.
  const __m256i start = _mm256_set1_epi32((1 << 29) + (1 << 21));
  for (int begin = 0; begin < width; begin += 16) {
    __m256i low = start, high = start, low2 = start, high2 = start;
    for (int k = 0; k <= taps; k += 2) {
      const __m256i a = words(lines[k] + begin), b = k + 1 < taps + rows - 1 ? words(lines[k + 1] + begin) : a;
      const __m256i first = _mm256_unpacklo_epi16(a, b), second = _mm256_unpackhi_epi16(a, b);
      const __m256i weight = pair(weights + k);
      low = _mm256_add_epi32(low, _mm256_madd_epi16(first, weight));
      high = _mm256_add_epi32(high, _mm256_madd_epi16(second, weight));
      if (rows == 1) continue;
      const __m256i later = pair(weights + k - 1);
      low2 = _mm256_add_epi32(low2, _mm256_madd_epi16(first, later));
      high2 = _mm256_add_epi32(high2, _mm256_madd_epi16(second, later));
    }
    put_sums(out + begin, width - begin, low, high);
    if (rows == 2) put_sums(out + width + begin, width - begin, low2, high2);
  }
}

// One channel of eight turned hues, as `turned` in common.hpp. Floats that are not negative are ordered as their bits are,
// and negative ones lie above them: the smaller of two bits is the number before a wrap, or the one after it.
static inline __m256i turned8(__m256 high, __m256 chroma, __m256 place, bool far) {
  const auto wrapped = [](__m256 at, float turn) {
    const __m256 after = _mm256_sub_ps(at, _mm256_set1_ps(turn));
    return _mm256_castsi256_ps(_mm256_min_epu32(_mm256_castps_si256(at), _mm256_castps_si256(after)));
  };
  if (far) {
    const __m256 low = _mm256_cmp_ps(place, _mm256_set1_ps(-2.0F), _CMP_LT_OQ);
    place = _mm256_add_ps(place, _mm256_and_ps(low, _mm256_set1_ps(6.0F)));
    place = wrapped(place, 12.0F);
  }
  place = wrapped(place, 6.0F);
  __m256 part = _mm256_min_ps(place, _mm256_sub_ps(_mm256_set1_ps(4.0F), place));
  part = _mm256_min_ps(_mm256_max_ps(part, _mm256_setzero_ps()), _mm256_set1_ps(1.0F));
  return _mm256_cvtps_epi32(_mm256_sub_ps(high, _mm256_mul_ps(chroma, part)));
}

struct Turned {
  __m256i r, g, b;
};

static inline Turned turn8(const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b, __m256 turn, bool far) {
  const __m256 red = eight_floats(r), green = eight_floats(g), blue = eight_floats(b);
  const __m256 high = _mm256_max_ps(_mm256_max_ps(red, green), blue);
  const __m256 chroma = _mm256_sub_ps(high, _mm256_min_ps(_mm256_min_ps(red, green), blue));
  const __m256 is_green = _mm256_cmp_ps(high, green, _CMP_EQ_OQ), is_red = _mm256_cmp_ps(high, red, _CMP_EQ_OQ);
  __m256 over = _mm256_blendv_ps(_mm256_sub_ps(red, green), _mm256_sub_ps(blue, red), is_green);
  over = _mm256_blendv_ps(over, _mm256_sub_ps(green, blue), is_red);
  __m256 base = _mm256_blendv_ps(_mm256_set1_ps(4.0F), _mm256_set1_ps(2.0F), is_green);
  base = _mm256_andnot_ps(is_red, base);
  const __m256 share = _mm256_div_ps(over, _mm256_max_ps(chroma, _mm256_set1_ps(1.0F)));
  const __m256 angle = _mm256_add_ps(_mm256_add_ps(base, share), turn);
  return {turned8(high, chroma, _mm256_add_ps(angle, _mm256_set1_ps(5.0F)), far),
          turned8(high, chroma, _mm256_add_ps(angle, _mm256_set1_ps(3.0F)), far),
          turned8(high, chroma, _mm256_add_ps(angle, _mm256_set1_ps(1.0F)), far)};
}

static inline std::size_t turn_all(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::size_t count, float turn, bool far) {
  const __m256 by = _mm256_set1_ps(turn);
  std::size_t done = 0;
  for (; done + 16 <= count; done += 16) {
    const Turned first = turn8(r + done, g + done, b + done, by, far);
    const Turned second = turn8(r + done + 8, g + done + 8, b + done + 8, by, far);
    put16(r + done, first.r, second.r), put16(g + done, first.g, second.g), put16(b + done, first.b, second.b);
  }
  return done;
}

static void hue(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::size_t count, float turn) {
  const bool far = is_far(turn);
  const std::size_t done = far ? turn_all(r, g, b, count, turn, true) : turn_all(r, g, b, count, turn, false);
  hue_all(r + done, g + done, b + done, count - done, turn);
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

// The place of four points along one axis, in 1/2048 and counted from the margin. Where a share rounds up to a whole
// pixel, it is the next pixel, and nothing of the one behind it.
static inline __m128i shifted(__m256d place, double count) {
  const __m256d zero = _mm256_setzero_pd(), one = _mm256_set1_pd(1.0);
  // What is no number becomes -1.
  place = _mm256_max_pd(_mm256_sub_pd(place, _mm256_set1_pd(0.5)), _mm256_set1_pd(-1.0));
  place = _mm256_min_pd(place, _mm256_set1_pd(count));
  const __m256d before = _mm256_cmp_pd(place, zero, _CMP_LT_OQ);
  // Places before the first pixel are counted from the margin before they are rounded, as by NumPy.
  place = _mm256_add_pd(place, _mm256_and_pd(before, one));
  const __m128i whole = _mm256_cvtpd_epi32(_mm256_mul_pd(place, _mm256_set1_pd(2048.0)));
  const __m256d behind = _mm256_andnot_pd(before, _mm256_castsi256_pd(_mm256_set1_epi64x(2048)));
  const __m256i narrow = _mm256_permutevar8x32_epi32(_mm256_castpd_si256(behind), _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
  return _mm_add_epi32(whole, _mm256_castsi256_si128(narrow));
}

static inline void put_bilinear(const LinePlaces& places, int i, __m128i column, __m128i row, __m128i stride) {
  const __m128i share = _mm_set1_epi32(2047);
  const __m128i at = _mm_add_epi32(_mm_mullo_epi32(_mm_srli_epi32(row, 11), stride), _mm_srli_epi32(column, 11));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(places.at + i), at);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(places.right + i), _mm_and_si128(column, share));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(places.below + i), _mm_and_si128(row, share));
}

static void bilinear_places(const LinePlaces& places, const double* x, const double* y, int count, int height, int width) {
  if (height >= 1 << 19 || width >= 1 << 19) return bilinear_places_all(places, x, y, count, height, width);
  const __m128i stride = _mm_set1_epi32(width + 2);
  int done = 0;
  for (; done + 4 <= count; done += 4) {
    const __m128i across = shifted(_mm256_loadu_pd(x + done), width), down = shifted(_mm256_loadu_pd(y + done), height);
    put_bilinear(places, done, across, down, stride);
  }
  bilinear_places_all({places.at + done, places.right + done, places.below + done}, x + done, y + done, count - done, height, width);
}

// The pixel under each of four points along one axis, counted from the margin.
static inline __m128i under(__m256d place, double count) {
  place = _mm256_min_pd(_mm256_max_pd(place, _mm256_set1_pd(-1.0)), _mm256_set1_pd(count));  // no number becomes -1
  return _mm_add_epi32(_mm256_cvttpd_epi32(_mm256_floor_pd(place)), _mm_set1_epi32(1));
}

static void nearest_places(const LinePlaces& places, const double* x, const double* y, int count, int height, int width) {
  const __m128i stride = _mm_set1_epi32(width + 2);
  int done = 0;
  for (; done + 4 <= count; done += 4) {
    const __m128i column = under(_mm256_loadu_pd(x + done), width), row = under(_mm256_loadu_pd(y + done), height);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(places.at + done), _mm_add_epi32(_mm_mullo_epi32(row, stride), column));
  }
  nearest_places_all({places.at + done, nullptr, nullptr}, x + done, y + done, count - done, height, width);
}

// Four points of a line of a map: what their column adds comes from memory, what the line adds is in registers. A power of
// two by which all is multiplied changes no rounding.
struct FourPoints {
  const double *across, *down;
  __m256d by, c, ey, f;

  __m256d x(int i) const { return _mm256_add_pd(_mm256_add_pd(_mm256_loadu_pd(across + i), by), c); }
  __m256d y(int i) const { return _mm256_add_pd(_mm256_add_pd(_mm256_loadu_pd(down + i), ey), f); }
};

static inline __m256i both(__m128i first, __m128i second) { return _mm256_set_m128i(second, first); }

// The whole numbers nearest to eight floats, halves to the even one, and 1024: the large number leaves no bits below 1.
static inline __m256i whole8(__m256d first, __m256d second) {
  const __m256d magic = _mm256_set1_pd(6755399441055744.0 + 1024);
  const __m256 low = _mm256_castpd_ps(_mm256_add_pd(first, magic)), high = _mm256_castpd_ps(_mm256_add_pd(second, magic));
  return _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(low, high, 0x88)), 0xD8);
}

static void affine_places(const LinePlaces& places, const AffineLine& line, int count, int height, int width) {
  const bool nearest = places.right == nullptr;
  const double grains = nearest ? 1.0 : AffineLine::grains, shift = nearest ? 0.0 : 0.5 * grains;
  const FourPoints points{line.across, line.down, _mm256_set1_pd(line.by * grains), _mm256_set1_pd(line.c * grains),
                          _mm256_set1_pd(line.ey * grains), _mm256_set1_pd(line.f * grains)};
  std::int32_t *const at = places.at, *const right = places.right, *const below = places.below;
  // Rounded sums and products grow as what is added and multiplied: between two points inside, all are inside.
  const auto inside = [&](int i) {
    const double x = line.across[i] + line.by * grains + line.c * grains - shift;
    const double y = line.down[i] + line.ey * grains + line.f * grains - shift;
    return x >= 0 && x <= width * grains && y >= 0 && y <= height * grains;
  };
  const __m256i stride = _mm256_set1_epi32(width + 2), one = _mm256_set1_epi32(1), share = _mm256_set1_epi32(2047);
  const __m256d pixel = _mm256_set1_pd(1.0 / grains);
  constexpr int part = 32;
  for (int i = 0; i < count;) {
    if (i + part <= count && inside(i) && inside(i + part - 1)) {
      for (const int stop = i + part; i < stop; i += 8) {
        if (nearest) {
          const __m256i column = both(_mm256_cvttpd_epi32(points.x(i)), _mm256_cvttpd_epi32(points.x(i + 4)));
          const __m256i row = both(_mm256_cvttpd_epi32(points.y(i)), _mm256_cvttpd_epi32(points.y(i + 4)));
          const __m256i place = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_add_epi32(row, one), stride), _mm256_add_epi32(column, one));
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(at + i), place);
          continue;
        }
        // 1024 more: half a pixel less, for pixels are at their middles, and one more, the margin.
        const __m256i column = whole8(points.x(i), points.x(i + 4)), row = whole8(points.y(i), points.y(i + 4));
        const __m256i place = _mm256_add_epi32(_mm256_mullo_epi32(_mm256_srli_epi32(row, 11), stride), _mm256_srli_epi32(column, 11));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(at + i), place);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(right + i), _mm256_and_si256(column, share));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(below + i), _mm256_and_si256(row, share));
      }
      continue;
    }
    const int from = i + 4 <= count ? i : count - 4;  // the last four may be made twice
    const __m256d x = _mm256_mul_pd(points.x(from), pixel), y = _mm256_mul_pd(points.y(from), pixel);
    const __m128i lines = _mm256_castsi256_si128(stride);
    if (nearest) {
      const __m128i place = _mm_add_epi32(_mm_mullo_epi32(under(y, height), lines), under(x, width));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at + from), place);
    } else {
      put_bilinear(places, from, shifted(x, width), shifted(y, height), lines);
    }
    i = from + 4;
  }
}

static void widen(std::uint32_t* out, const std::uint8_t* in, std::size_t pixels, int channels) {
  std::size_t done = 0;
  if (channels == 3) {
    const __m128i apart = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    for (; done + 6 <= pixels; done += 4) {  // 16 bytes are read for 12
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 3 * done));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + done), _mm_shuffle_epi8(bytes, apart));
    }
  }
  widen_all(out + done, in + static_cast<std::size_t>(channels) * done, pixels - done, channels);
}

// Two pixels at each of two places, the channels of both side by side in 16 bits; of the 16 bytes that are read, 8 are used.
static inline __m256i neighbors_of_two(const std::uint32_t* framed, std::int32_t one, std::int32_t other) {
  const __m256i apart = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1));
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(framed + one));
  const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(framed + other));
  return _mm256_shuffle_epi8(_mm256_set_m128i(second, first), apart);
}

// What `pick` chooses of each half, for a pixel of the lower half and one of the upper.
template <int pick>
static inline __m256i two_of_eight(const std::uint32_t* upper, const std::uint32_t* lower, const std::int32_t* at,
                                   __m256i weights, __m256i below) {
  const __m256i weight = _mm256_shuffle_epi32(weights, pick * 0x55), down = _mm256_shuffle_epi32(below, pick * 0x55);
  const __m256i above = _mm256_madd_epi16(neighbors_of_two(upper, at[pick], at[pick + 4]), weight);
  const __m256i under = _mm256_madd_epi16(neighbors_of_two(lower, at[pick], at[pick + 4]), weight);
  const __m256i all = _mm256_add_epi32(_mm256_slli_epi32(above, 11), _mm256_mullo_epi32(_mm256_sub_epi32(under, above), down));
  return _mm256_srli_epi32(_mm256_add_epi32(all, _mm256_set1_epi32(1 << 21)), 22);
}

static void put8(std::uint8_t* const* out, int channels, int at, __m128i front, __m128i back) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out[0] + at), front);
  if (channels > 1) _mm_storel_epi64(reinterpret_cast<__m128i*>(out[1] + at), _mm_unpackhi_epi64(front, front));
  if (channels > 2) _mm_storel_epi64(reinterpret_cast<__m128i*>(out[2] + at), back);
  if (channels > 3) _mm_storel_epi64(reinterpret_cast<__m128i*>(out[3] + at), _mm_unpackhi_epi64(back, back));
}

static void nearest_pixels(std::uint8_t* const* out, int channels, const std::uint32_t* framed, const LinePlaces& places,
                           int count, int stride) {
  const __m256i by_channel = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  int done = 0;
  for (; done + 8 <= count; done += 8) {
    const __m256i four = _mm256_i32gather_epi32(reinterpret_cast<const int*>(framed), words(places.at + done), 4);
    const __m256i sorted = _mm256_shuffle_epi8(four, by_channel);
    const __m128i first = _mm256_castsi256_si128(sorted), second = _mm256_extracti128_si256(sorted, 1);
    put8(out, channels, done, _mm_unpacklo_epi32(first, second), _mm_unpackhi_epi32(first, second));
  }
  std::uint8_t* left[4] = {};
  for (int c = 0; c < channels; ++c) left[c] = out[c] + done;
  gather_pixels_all(left, channels, framed, {places.at + done, nullptr, nullptr}, count - done, stride);
}

static void gather_pixels(std::uint8_t* const* out, int channels, const std::uint32_t* framed, const LinePlaces& places,
                          int count, int stride) {
  if (places.right == nullptr) return nearest_pixels(out, channels, framed, places, count, stride);
  const __m256i one = _mm256_set1_epi32(2048);
  const __m256i by_channel = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const std::uint32_t* const next = framed + stride;
  int done = 0;
  for (; done + 8 <= count; done += 8) {
    const __m256i right = words(places.right + done), below = words(places.below + done);
    const __m256i weights = _mm256_or_si256(_mm256_sub_epi32(one, right), _mm256_slli_epi32(right, 16));
    const std::int32_t* const at = places.at + done;
    const __m256i early = _mm256_packs_epi32(two_of_eight<0>(framed, next, at, weights, below),
                                             two_of_eight<1>(framed, next, at, weights, below));
    const __m256i late = _mm256_packs_epi32(two_of_eight<2>(framed, next, at, weights, below),
                                            two_of_eight<3>(framed, next, at, weights, below));
    const __m256i sorted = _mm256_shuffle_epi8(_mm256_packus_epi16(early, late), by_channel);
    const __m128i first = _mm256_castsi256_si128(sorted), second = _mm256_extracti128_si256(sorted, 1);
    put8(out, channels, done, _mm_unpacklo_epi32(first, second), _mm_unpackhi_epi32(first, second));
  }
  std::uint8_t* left[4] = {};
  for (int c = 0; c < channels; ++c) left[c] = out[c] + done;
  gather_pixels_all(left, channels, framed, {places.at + done, places.right + done, places.below + done}, count - done, stride);
}

static constexpr PlaneOps ops{merge3, look_up, blend_value, gray, sum, limits, blend, hue, pillow_hue, torch_hue, torch_gray, torch_blend, sharpen, blur_across, blur_down,
                              map_points, nearest_places, bilinear_places, whole_places, affine_places, shares, gather, widen, gather_pixels, cover};

}  // namespace avx2

extern const PlaneOps plane_ops_avx2;
const PlaneOps plane_ops_avx2 = avx2::ops;

}  // namespace headrace
