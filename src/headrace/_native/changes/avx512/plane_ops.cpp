#include "../plane_ops.hpp"

#include <immintrin.h>

namespace headrace {

extern const PlaneOps plane_ops_avx2;

namespace avx512 {

#include "../common.hpp"

static inline __m512i words(const void* at) { return _mm512_loadu_si512(at); }

static inline void put(void* out, __m512i all) { _mm512_storeu_si512(out, all); }

static inline __m512i bytes_as_words(const std::uint8_t* at) {
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

static inline __m512 bytes_as_floats(const std::uint8_t* at) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at))));
}

// Words of 32 pixels as bytes: what is too large or too small becomes the nearest byte.
static inline void put_words(std::uint8_t* out, __m512i all) {
  const __m256i bytes = _mm512_cvtusepi16_epi8(_mm512_max_epi16(all, _mm512_setzero_si512()));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), bytes);
}

// The two halves of the table are looked up at once, each by the lower seven bits.
static void look_up(std::uint8_t* plane, std::size_t count, const std::uint8_t* table) {
  const __m512i first = words(table), second = words(table + 64), third = words(table + 128), last = words(table + 192);
  std::size_t done = 0;
  for (; done + 64 <= count; done += 64) {
    const __m512i values = words(plane + done);
    const __m512i low = _mm512_permutex2var_epi8(first, values, second), high = _mm512_permutex2var_epi8(third, values, last);
    put(plane + done, _mm512_mask_blend_epi8(_mm512_movepi8_mask(values), low, high));
  }
  look_up_all(plane + done, count - done, table);
}

// Gray values of sixteen pixels, of words: the share of green is split into two equal ones.
static inline __m512i gray16(__m512i red_green, __m512i green_blue) {
  const __m512i of_red = _mm512_set1_epi32(19595 | 19235 << 16), of_blue = _mm512_set1_epi32(19235 | 7471 << 16);
  const __m512i all = _mm512_add_epi32(_mm512_madd_epi16(red_green, of_red), _mm512_madd_epi16(green_blue, of_blue));
  return _mm512_srli_epi32(_mm512_add_epi32(all, _mm512_set1_epi32(0x8000)), 16);
}

static inline __m512i gray32(__m512i red, __m512i green, __m512i blue) {
  const __m512i low = gray16(_mm512_unpacklo_epi16(red, green), _mm512_unpacklo_epi16(green, blue));
  const __m512i high = gray16(_mm512_unpackhi_epi16(red, green), _mm512_unpackhi_epi16(green, blue));
  return _mm512_packus_epi32(low, high);
}

static void gray(std::uint8_t* out, const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b, std::size_t count) {
  std::size_t done = 0;
  for (; done + 32 <= count; done += 32)
    put_words(out + done, gray32(bytes_as_words(r + done), bytes_as_words(g + done), bytes_as_words(b + done)));
  gray_all(out + done, r + done, g + done, b + done, count - done);
}

static inline void put16(std::uint8_t* out, __m512i all) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(all));
}

// Sixteen values as `blended` in common.hpp.
static inline __m512i blended16(const std::uint8_t* plane, __m512 other, __m512 factor) {
  const __m512 mixed = _mm512_add_ps(other, _mm512_mul_ps(factor, _mm512_sub_ps(bytes_as_floats(plane), other)));
  return _mm512_cvttps_epi32(_mm512_min_ps(_mm512_max_ps(mixed, _mm512_setzero_ps()), _mm512_set1_ps(255.0F)));
}

static void blend(std::uint8_t* plane, const std::uint8_t* other, std::size_t count, float factor) {
  const __m512 times = _mm512_set1_ps(factor);
  std::size_t done = 0;
  for (; done + 16 <= count; done += 16)
    put16(plane + done, blended16(plane + done, bytes_as_floats(other + done), times));
  blend_all(plane + done, other + done, count - done, factor);
}

static void blend_value(std::uint8_t* plane, float value, std::size_t count, float factor) {
  const __m512 times = _mm512_set1_ps(factor), other = _mm512_set1_ps(value);
  std::size_t done = 0;
  for (; done + 16 <= count; done += 16) put16(plane + done, blended16(plane + done, other, times));
  for (; done < count; ++done) plane[done] = blended(static_cast<float>(plane[done]), value, factor);
}

// One channel of sixteen turned hues, as `turned` in common.hpp. Floats that are not negative are ordered as their bits
// are, and negative ones lie above them: the smaller of two bits is the number before a wrap, or the one after it.
static inline __m512i turned16(__m512 high, __m512 chroma, __m512 place, bool far) {
  const auto wrapped = [](__m512 at, float turn) {
    const __m512 after = _mm512_sub_ps(at, _mm512_set1_ps(turn));
    return _mm512_castsi512_ps(_mm512_min_epu32(_mm512_castps_si512(at), _mm512_castps_si512(after)));
  };
  if (far) {
    const __mmask16 low = _mm512_cmp_ps_mask(place, _mm512_set1_ps(-2.0F), _CMP_LT_OQ);
    place = wrapped(_mm512_mask_add_ps(place, low, place, _mm512_set1_ps(6.0F)), 12.0F);
  }
  place = wrapped(place, 6.0F);
  __m512 part = _mm512_min_ps(place, _mm512_sub_ps(_mm512_set1_ps(4.0F), place));
  part = _mm512_min_ps(_mm512_max_ps(part, _mm512_setzero_ps()), _mm512_set1_ps(1.0F));
  return _mm512_cvtps_epi32(_mm512_sub_ps(high, _mm512_mul_ps(chroma, part)));
}

static inline std::size_t turn_all(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::size_t count, float turn, bool far) {
  const __m512 by = _mm512_set1_ps(turn), one = _mm512_set1_ps(1.0F), two = _mm512_set1_ps(2.0F), four = _mm512_set1_ps(4.0F);
  std::size_t done = 0;
  for (; done + 16 <= count; done += 16) {
    const __m512 red = bytes_as_floats(r + done), green = bytes_as_floats(g + done), blue = bytes_as_floats(b + done);
    const __m512 high = _mm512_max_ps(_mm512_max_ps(red, green), blue);
    const __m512 chroma = _mm512_sub_ps(high, _mm512_min_ps(_mm512_min_ps(red, green), blue));
    const __mmask16 is_green = _mm512_cmp_ps_mask(high, green, _CMP_EQ_OQ), is_red = _mm512_cmp_ps_mask(high, red, _CMP_EQ_OQ);
    __m512 over = _mm512_mask_sub_ps(_mm512_sub_ps(red, green), is_green, blue, red);
    over = _mm512_mask_sub_ps(over, is_red, green, blue);
    const __m512 base = _mm512_maskz_mov_ps(static_cast<__mmask16>(~is_red), _mm512_mask_mov_ps(four, is_green, two));
    const __m512 share = _mm512_div_ps(over, _mm512_max_ps(chroma, one));
    const __m512 angle = _mm512_add_ps(_mm512_add_ps(base, share), by);
    put16(r + done, turned16(high, chroma, _mm512_add_ps(angle, _mm512_set1_ps(5.0F)), far));
    put16(g + done, turned16(high, chroma, _mm512_add_ps(angle, _mm512_set1_ps(3.0F)), far));
    put16(b + done, turned16(high, chroma, _mm512_add_ps(angle, one), far));
  }
  return done;
}

static void hue(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::size_t count, float turn) {
  const bool far = is_far(turn);
  const std::size_t done = far ? turn_all(r, g, b, count, turn, true) : turn_all(r, g, b, count, turn, false);
  hue_all(r + done, g + done, b + done, count - done, turn);
}

// The low halves of sixteen numbers of 64 bits.
static inline __m512i low_halves(__m512d first, __m512d second) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  return _mm512_permutex2var_epi32(_mm512_castpd_si512(first), even, _mm512_castpd_si512(second));
}

// One coordinate of the points of a line: what their column adds comes from memory, what the line adds is in registers. A
// power of two by which all is multiplied changes no rounding.
struct Axis {
  const double* columns;
  __m512d first, second;
  double grains, most;

  Axis(const double* columns, double by, double plus, double grains, int pixels)
      : columns(columns), first(_mm512_set1_pd(by * grains)), second(_mm512_set1_pd(plus * grains)), grains(grains), most(pixels * grains) {}

  __m512d at(int i) const { return _mm512_add_pd(_mm512_add_pd(_mm512_loadu_pd(columns + i), first), second); }

  // The pixels that sixteen points lie in, counted from the margin; adding the large number leaves no bits below 1.
  template <bool inside>
  __m512i nearest(int i) const {
    const auto under = [&](__m512d place) {
      // What is no number becomes -1.
      if (!inside) place = _mm512_min_pd(_mm512_max_pd(place, _mm512_set1_pd(-1.0)), _mm512_set1_pd(most));
      return _mm512_add_round_pd(place, _mm512_set1_pd(6755399441055744.0 + 1), _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    };
    return low_halves(under(at(i)), under(at(i + 8)));
  }

  // The places of sixteen points in 1/2048 of a pixel, counted from the margin.
  template <bool inside>
  __m512i bilinear(int i) const {
    const __m512d magic = _mm512_set1_pd(6755399441055744.0), half = _mm512_set1_pd(1024.0), one = _mm512_set1_pd(2048.0);
    // Half a pixel less, for pixels are at their middles, and one more, the margin.
    if (inside) {
      const __m512d more = _mm512_add_pd(magic, half);
      return low_halves(_mm512_add_pd(at(i), more), _mm512_add_pd(at(i + 8), more));
    }
    __mmask8 before[2];
    const auto clamped = [&](__m512d place, __mmask8& early) {
      place = _mm512_max_pd(_mm512_sub_pd(place, half), _mm512_set1_pd(-2048.0));
      place = _mm512_min_pd(place, _mm512_set1_pd(most));
      early = _mm512_cmp_pd_mask(place, _mm512_setzero_pd(), _CMP_LT_OQ);
      // Places before the first pixel are counted from the margin before they are rounded, as by NumPy.
      return _mm512_add_pd(_mm512_mask_add_pd(place, early, place, one), magic);
    };
    const __m512d first_eight = clamped(at(i), before[0]), last_eight = clamped(at(i + 8), before[1]);
    const __mmask16 behind = static_cast<__mmask16>(~(before[0] | before[1] << 8));
    const __m512i whole = low_halves(first_eight, last_eight);
    return _mm512_mask_add_epi32(whole, behind, whole, _mm512_set1_epi32(2048));
  }
};

template <bool inside>
static inline void put_places(const LinePlaces& places, const Axis& x, const Axis& y, int i, __m512i stride) {
  if (places.right == nullptr) {
    const __m512i at = _mm512_mullo_epi32(y.nearest<inside>(i), stride);
    return put(places.at + i, _mm512_add_epi32(at, x.nearest<inside>(i)));
  }
  const __m512i column = x.bilinear<inside>(i), row = y.bilinear<inside>(i), share = _mm512_set1_epi32(2047);
  put(places.at + i, _mm512_add_epi32(_mm512_mullo_epi32(_mm512_srli_epi32(row, 11), stride), _mm512_srli_epi32(column, 11)));
  put(places.right + i, _mm512_and_si512(column, share)), put(places.below + i, _mm512_and_si512(row, share));
}

static void affine_places(const LinePlaces& places, const AffineLine& line, int count, int height, int width) {
  if (count < 16) return plane_ops_avx2.affine_places(places, line, count, height, width);
  const bool nearest = places.right == nullptr;
  const double grains = nearest ? 1.0 : AffineLine::grains, shift = nearest ? 0.0 : 0.5 * grains;
  const Axis x(line.across, line.by, line.c, grains, width), y(line.down, line.ey, line.f, grains, height);
  // Rounded sums and products grow as what is added and multiplied: between two points inside, all are inside.
  const auto inside = [&](int i) {
    const double across = line.across[i] + line.by * grains + line.c * grains - shift;
    const double down = line.down[i] + line.ey * grains + line.f * grains - shift;
    return across >= 0 && across <= x.most && down >= 0 && down <= y.most;
  };
  const __m512i stride = _mm512_set1_epi32(width + 2);
  constexpr int part = 64;
  for (int i = 0; i < count;) {
    if (i + part <= count && inside(i) && inside(i + part - 1)) {
      for (const int stop = i + part; i < stop; i += 16) put_places<true>(places, x, y, i, stride);
    } else {
      const int from = i + 16 <= count ? i : count - 16;  // the last sixteen may be made twice
      put_places<false>(places, x, y, from, stride);
      i = from + 16;
    }
  }
}

static void widen(std::uint32_t* out, const std::uint8_t* in, std::size_t pixels, int channels) {
  if (channels != 3) return widen_all(out, in, pixels, channels);
  const __m512i apart = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1));
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
  for (std::size_t done = 0; done < pixels; done += 16) {
    const std::size_t left = pixels - done < 16 ? pixels - done : 16;
    const __m512i bytes = _mm512_maskz_loadu_epi8((std::uint64_t{1} << (3 * left)) - 1, in + 3 * done);
    const __m512i wide = _mm512_shuffle_epi8(_mm512_permutexvar_epi32(lanes, bytes), apart);
    _mm512_mask_storeu_epi32(out + done, static_cast<__mmask16>((1U << left) - 1), wide);
  }
}

// Two pixels at each of four places, the channels of both side by side in 16 bits; of the 16 bytes that are read, 8 are used.
static inline __m512i neighbors_of_four(const std::uint32_t* framed, const std::int32_t* at) {
  const __m512i apart = _mm512_broadcast_i32x4(_mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1));
  const auto pair = [&](int i) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(framed + at[i])); };
  __m512i all = _mm512_castsi128_si512(pair(0));
  all = _mm512_inserti32x4(all, pair(4), 1);
  all = _mm512_inserti32x4(all, pair(8), 2);
  all = _mm512_inserti32x4(all, pair(12), 3);
  return _mm512_shuffle_epi8(all, apart);
}

// What `pick` chooses of each quarter of sixteen places.
template <int pick>
static inline __m512i four_of_sixteen(const std::uint32_t* upper, const std::uint32_t* lower, const std::int32_t* at,
                                      __m512i weights, __m512i below) {
  constexpr _MM_PERM_ENUM each = static_cast<_MM_PERM_ENUM>(pick * 0x55);
  const __m512i weight = _mm512_shuffle_epi32(weights, each), down = _mm512_shuffle_epi32(below, each);
  const __m512i above = _mm512_madd_epi16(neighbors_of_four(upper, at + pick), weight);
  const __m512i under = _mm512_madd_epi16(neighbors_of_four(lower, at + pick), weight);
  const __m512i all = _mm512_add_epi32(_mm512_slli_epi32(above, 11), _mm512_mullo_epi32(_mm512_sub_epi32(under, above), down));
  return _mm512_srli_epi32(_mm512_add_epi32(all, _mm512_set1_epi32(1 << 21)), 22);
}

static void gather_pixels(std::uint8_t* const* out, int channels, const std::uint32_t* framed, const LinePlaces& places,
                          int count, int stride) {
  const std::uint32_t* const next = framed + stride;
  int done = 0;
  if (places.right != nullptr) {
    const __m512i one = _mm512_set1_epi32(2048);
    // Bytes of pixels of four bytes each, and by channel.
    alignas(64) std::uint8_t from[64];
    for (int i = 0; i < 64; ++i) from[i] = static_cast<std::uint8_t>(i % 16 * 4 + i / 16);
    const __m512i by_channel = _mm512_load_si512(from);
    for (; done + 16 <= count; done += 16) {
      const __m512i right = words(places.right + done), below = words(places.below + done);
      const __m512i weights = _mm512_or_si512(_mm512_sub_epi32(one, right), _mm512_slli_epi32(right, 16));
      const std::int32_t* const at = places.at + done;
      const __m512i early = _mm512_packs_epi32(four_of_sixteen<0>(framed, next, at, weights, below),
                                               four_of_sixteen<1>(framed, next, at, weights, below));
      const __m512i late = _mm512_packs_epi32(four_of_sixteen<2>(framed, next, at, weights, below),
                                              four_of_sixteen<3>(framed, next, at, weights, below));
      const __m512i sorted = _mm512_permutexvar_epi8(by_channel, _mm512_packus_epi16(early, late));
      const auto store = [&](int channel, __m128i bytes) { _mm_storeu_si128(reinterpret_cast<__m128i*>(out[channel] + done), bytes); };
      store(0, _mm512_castsi512_si128(sorted));
      if (channels > 1) store(1, _mm512_extracti32x4_epi32(sorted, 1));
      if (channels > 2) store(2, _mm512_extracti32x4_epi32(sorted, 2));
      if (channels > 3) store(3, _mm512_extracti32x4_epi32(sorted, 3));
    }
  }
  if (done == count) return;
  std::uint8_t* rest[4] = {};
  for (int c = 0; c < channels; ++c) rest[c] = out[c] + done;
  const bool nearest = places.right == nullptr;
  const LinePlaces these{places.at + done, nearest ? nullptr : places.right + done, nearest ? nullptr : places.below + done};
  plane_ops_avx2.gather_pixels(rest, channels, framed, these, count - done, stride);
}

}  // namespace avx512

// The loops that are no faster with wider registers are those of AVX2.
const PlaneOps& plane_ops_avx512() {
  static const PlaneOps ops = [] {
    PlaneOps all = plane_ops_avx2;
    all.look_up = avx512::look_up, all.blend_value = avx512::blend_value, all.gray = avx512::gray, all.blend = avx512::blend;
    all.hue = avx512::hue, all.affine_places = avx512::affine_places;
    all.widen = avx512::widen, all.gather_pixels = avx512::gather_pixels;
    return all;
  }();
  return ops;
}

}  // namespace headrace
