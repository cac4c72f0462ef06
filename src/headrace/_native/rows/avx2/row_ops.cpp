#include "../row_ops.hpp"

#include <immintrin.h>

namespace headrace {

extern const PlaneOps plane_ops_avx2;

namespace avx2 {

#include "../common.hpp"

// Four outputs at a time, two in each register. Each output takes two 16-bit inputs at a time, which `madd` adds up.
// A weight of 23 bits does not fit into 16: it is split into two parts of 11 bits, which give the same sum exactly.
static std::size_t lane_bytes(int taps, int outputs) {
  return static_cast<std::size_t>((outputs + 3) / 4) * ((taps + 3) / 4) * 256;
}

static void pack_lanes(std::int16_t* lanes, const std::int32_t* value, int taps, int outputs) {
  for (int four = 0; four < outputs; four += 4)
    for (int group = 0; group < taps; group += 4)
      for (int half = 0; half < 4; half += 2)      // outputs: a and b, c and d
        for (int part = 0; part < 2; ++part)       // high bits, low bits
          for (int pair = 0; pair < 4; pair += 2)  // inputs: 0 and 1, 2 and 3
            for (int side = 0; side < 2; ++side) {
              std::int16_t two[2];
              for (int k = 0; k < 2; ++k) {
                const int output = four + half + side, tap = group + pair + k;
                const std::int32_t all =
                    output < outputs && tap < taps ? value[static_cast<std::size_t>(taps) * output + tap] : 0;
                two[k] = static_cast<std::int16_t>(part == 0 ? all >> 11 : all & 2047);
              }
              for (int channel = 0; channel < 4; ++channel) *lanes++ = two[0], *lanes++ = two[1];
            }
}

static inline __m256i two_pixels(const std::uint8_t* a, const std::uint8_t* b) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a))),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(b)), 1);
}

static inline void add_products(__m256i& high, __m256i& low, __m256i values, const __m256i* weights) {
  high = _mm256_add_epi32(high, _mm256_madd_epi16(values, _mm256_loadu_si256(weights)));
  low = _mm256_add_epi32(low, _mm256_madd_epi16(values, _mm256_loadu_si256(weights + 2)));
}

static inline __m256i rounded(__m256i high, __m256i low) {
  return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, 11), low), 22);
}

// `two_taps` is known when this is compiled: an image that is enlarged has no more.
static inline __attribute__((always_inline)) void scale_across_by(std::uint8_t* out, const std::uint8_t* in,
                                                                  const int* first, const std::int16_t* lanes, int taps,
                                                                  int outputs, bool two_taps) {
  const __m256i front = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
  const __m256i back = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
  const __m128i close = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
  const __m256i half = _mm256_set1_epi32(1 << 21);
  const __m256i* weights = reinterpret_cast<const __m256i*>(lanes);
  for (int four = 0; four < outputs; four += 4) {
    const std::uint8_t* place[4];
    for (int k = 0; k < 4; ++k) place[k] = in + 3 * static_cast<std::ptrdiff_t>(first[four + k < outputs ? four + k : four]);
    __m256i high_ab = _mm256_setzero_si256(), low_ab = half, high_cd = high_ab, low_cd = half;
    for (int group = 0; group < taps; group += 4, weights += 8) {
      const __m256i ab = two_pixels(place[0] + 3 * group, place[1] + 3 * group);
      const __m256i cd = two_pixels(place[2] + 3 * group, place[3] + 3 * group);
      add_products(high_ab, low_ab, _mm256_shuffle_epi8(ab, front), weights);
      add_products(high_cd, low_cd, _mm256_shuffle_epi8(cd, front), weights + 4);
      if (two_taps) continue;
      add_products(high_ab, low_ab, _mm256_shuffle_epi8(ab, back), weights + 1);
      add_products(high_cd, low_cd, _mm256_shuffle_epi8(cd, back), weights + 5);
    }
    const __m256i words = _mm256_packs_epi32(rounded(high_ab, low_ab), rounded(high_cd, low_cd));  // a c | b d
    const __m256i bytes = _mm256_packus_epi16(words, words);
    const __m128i abcd = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 3 * static_cast<std::ptrdiff_t>(four)), _mm_shuffle_epi8(abcd, close));
  }
}

static void scale_across3(std::uint8_t* out, const std::uint8_t* in, const int* first, const std::int32_t*,
                          const std::int16_t* lanes, int taps, int outputs) {
  if (taps <= 2)
    scale_across_by(out, in, first, lanes, taps, outputs, true);
  else
    scale_across_by(out, in, first, lanes, taps, outputs, false);
}

// Two rows at a time, 32 bytes of each, by weights in two parts as above. Bytes past the end are weighed too: rows have
// that much slack.
static void scale_down(std::uint8_t* out, const std::uint8_t* const* in, const std::int32_t* value, int taps, int bytes) {
  const __m256i zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(1 << 21);
  for (int at = 0; at < bytes; at += 32) {
    __m256i high[4] = {zero, zero, zero, zero}, low[4] = {half, half, half, half};
    for (int k = 0; k < taps; k += 2) {
      const int other = k + 1 < taps ? k + 1 : k;
      const std::int32_t a = value[k], b = other > k ? value[other] : 0;
      const __m256i highs = _mm256_set1_epi32(static_cast<std::int32_t>((b >> 11) * 65536U + ((a >> 11) & 0xFFFF)));
      const __m256i lows = _mm256_set1_epi32((b & 2047) << 16 | (a & 2047));
      const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in[k] + at));
      const __m256i y = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in[other] + at));
      const __m256i front = _mm256_unpacklo_epi8(x, y), back = _mm256_unpackhi_epi8(x, y);
      const __m256i pairs[4] = {_mm256_unpacklo_epi8(front, zero), _mm256_unpackhi_epi8(front, zero),
                                _mm256_unpacklo_epi8(back, zero), _mm256_unpackhi_epi8(back, zero)};
      for (int i = 0; i < 4; ++i) {
        high[i] = _mm256_add_epi32(high[i], _mm256_madd_epi16(pairs[i], highs));
        low[i] = _mm256_add_epi32(low[i], _mm256_madd_epi16(pairs[i], lows));
      }
    }
    // Packing undoes the order of unpacking.
    const __m256i words = _mm256_packs_epi32(rounded(high[0], low[0]), rounded(high[1], low[1]));
    const __m256i more = _mm256_packs_epi32(rounded(high[2], low[2]), rounded(high[3], low[3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + at), _mm256_packus_epi16(words, more));
  }
}

// 16 pixels to 16 bytes of each channel.
static inline void split16(std::uint8_t* a, std::uint8_t* b, std::uint8_t* c, const std::uint8_t* in, bool flipped) {
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in));
  const __m128i y = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 16));
  const __m128i z = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 32));
  __m128i r = _mm_or_si128(
      _mm_or_si128(_mm_shuffle_epi8(x, _mm_setr_epi8(0, 3, 6, 9, 12, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1)),
                   _mm_shuffle_epi8(y, _mm_setr_epi8(-1, -1, -1, -1, -1, -1, 2, 5, 8, 11, 14, -1, -1, -1, -1, -1))),
      _mm_shuffle_epi8(z, _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 1, 4, 7, 10, 13)));
  __m128i g = _mm_or_si128(
      _mm_or_si128(_mm_shuffle_epi8(x, _mm_setr_epi8(1, 4, 7, 10, 13, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1)),
                   _mm_shuffle_epi8(y, _mm_setr_epi8(-1, -1, -1, -1, -1, 0, 3, 6, 9, 12, 15, -1, -1, -1, -1, -1))),
      _mm_shuffle_epi8(z, _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 2, 5, 8, 11, 14)));
  __m128i l = _mm_or_si128(
      _mm_or_si128(_mm_shuffle_epi8(x, _mm_setr_epi8(2, 5, 8, 11, 14, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1)),
                   _mm_shuffle_epi8(y, _mm_setr_epi8(-1, -1, -1, -1, -1, 1, 4, 7, 10, 13, -1, -1, -1, -1, -1, -1))),
      _mm_shuffle_epi8(z, _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 3, 6, 9, 12, 15)));
  if (flipped) {
    const __m128i mirror = _mm_setr_epi8(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    r = _mm_shuffle_epi8(r, mirror), g = _mm_shuffle_epi8(g, mirror), l = _mm_shuffle_epi8(l, mirror);
  }
  _mm_storeu_si128(reinterpret_cast<__m128i*>(a), r);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(b), g);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(c), l);
}

static void split3(std::uint8_t* const* out, const std::uint8_t* in, int pixels, bool flipped) {
  int done = 0;
  for (; done + 16 <= pixels; done += 16) {
    const int at = flipped ? pixels - done - 16 : done;
    split16(out[0] + at, out[1] + at, out[2] + at, in + 3 * static_cast<std::ptrdiff_t>(done), flipped);
  }
  for (; done < pixels; ++done) {
    const int at = flipped ? pixels - done - 1 : done;
    for (int c = 0; c < 3; ++c) out[c][at] = in[3 * static_cast<std::ptrdiff_t>(done) + c];
  }
}

static void stream(float* out, const std::uint8_t* in, std::size_t count, float mean, float std) {
  // Only stores to multiples of their size go past the caches.
  const std::size_t off = reinterpret_cast<std::uintptr_t>(out) / sizeof(float) % 8, head = off == 0 ? 0 : 8 - off;
  if (head >= count) return normalize(out, in, count, mean, std);
  if (head > 0) normalize(out, in, head, mean, std);
  const Reciprocal whole(255.0F), part(std);
  const __m256 high = _mm256_set1_ps(whole.high), low = _mm256_set1_ps(whole.low), middle = _mm256_set1_ps(mean);
  const __m256 part_high = _mm256_set1_ps(part.high), part_low = _mm256_set1_ps(part.low);
  std::size_t done = head;
  for (; done + 8 <= count; done += 8) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(in + done));
    const __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    const __m256 above = _mm256_sub_ps(_mm256_fmadd_ps(x, high, _mm256_mul_ps(x, low)), middle);
    _mm256_stream_ps(out + done, _mm256_fmadd_ps(above, part_high, _mm256_mul_ps(above, part_low)));
  }
  if (done < count) normalize(out + done, in + done, count - done, mean, std);
}

static void fence() { _mm_sfence(); }

static void normalize3(float* const* out, const std::uint8_t* in, int pixels, bool flipped, const float* mean,
                       const float* std, const std::uint8_t* ahead) {
  const Reciprocal whole(255.0F);
  const __m256 high = _mm256_set1_ps(whole.high), low = _mm256_set1_ps(whole.low);
  const __m256i mirror = _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  for (int c = 0; c < 3; ++c) {
    const Reciprocal part(std[c]);
    const __m256 middle = _mm256_set1_ps(mean[c]), part_high = _mm256_set1_ps(part.high), part_low = _mm256_set1_ps(part.low);
    // Eight pixels are 24 bytes: the first four lie in the bytes from 0 on, the others in those from 8 on.
    const __m256i pick = _mm256_add_epi32(
        _mm256_setr_epi8(0, -1, -1, -1, 3, -1, -1, -1, 6, -1, -1, -1, 9, -1, -1, -1, 4, -1, -1, -1, 7, -1, -1, -1, 10, -1, -1,
                         -1, 13, -1, -1, -1),
        _mm256_set1_epi32(c));
    int done = 0;
    for (; done + 8 <= pixels; done += 8) {
      // A few at a time: more would wait for each other.
      if (done % 64 == 0) __builtin_prefetch(ahead + static_cast<std::ptrdiff_t>(pixels) * c + done, 0, 2);
      const std::uint8_t* const from = in + 3 * static_cast<std::ptrdiff_t>(done);
      __m256i bytes = _mm256_shuffle_epi8(two_pixels(from, from + 8), pick);
      if (flipped) bytes = _mm256_permutevar8x32_epi32(bytes, mirror);
      const __m256 x = _mm256_cvtepi32_ps(bytes);
      const __m256 above = _mm256_sub_ps(_mm256_fmadd_ps(x, high, _mm256_mul_ps(x, low)), middle);
      _mm256_storeu_ps(out[c] + (flipped ? pixels - done - 8 : done),
                       _mm256_fmadd_ps(above, part_high, _mm256_mul_ps(above, part_low)));
    }
    for (; done < pixels; ++done)
      out[c][flipped ? pixels - done - 1 : done] =
          standard(in[3 * static_cast<std::ptrdiff_t>(done) + c], mean[c], whole, part.high, part.low);
  }
}

static inline __m256 raised8(__m256i pixels, __m256i pick, bool flipped) {
  const __m256i bits = _mm256_castps_si256(_mm256_set1_ps(raised));
  const __m256i values = _mm256_or_si256(_mm256_shuffle_epi8(pixels, pick), bits);
  return _mm256_castsi256_ps(
      flipped ? _mm256_permutevar8x32_epi32(values, _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0)) : values);
}

static void raise3(float* const* out, const std::uint8_t* in, int pixels, bool flipped) {
  const __m256i red = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, -1, -1, 3, -1, -1, -1, 6, -1, -1, -1, 9, -1, -1, -1));
  const __m256i green = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(1, -1, -1, -1, 4, -1, -1, -1, 7, -1, -1, -1, 10, -1, -1, -1));
  const __m256i blue = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(2, -1, -1, -1, 5, -1, -1, -1, 8, -1, -1, -1, 11, -1, -1, -1));
  int done = 0;
  for (; done + 8 <= pixels; done += 8) {
    const int at = flipped ? pixels - done - 8 : done;
    const std::uint8_t* from = in + 3 * static_cast<std::ptrdiff_t>(done);
    const __m256i both = two_pixels(from, from + 12);
    _mm256_storeu_ps(out[0] + at, raised8(both, red, flipped));
    _mm256_storeu_ps(out[1] + at, raised8(both, green, flipped));
    _mm256_storeu_ps(out[2] + at, raised8(both, blue, flipped));
  }
  for (; done < pixels; ++done) {
    const int at = flipped ? pixels - done - 1 : done;
    for (int c = 0; c < 3; ++c) out[c][at] = raised + in[3 * static_cast<std::ptrdiff_t>(done) + c];
  }
}

static void blend_across3(float* const* out, float* const* planes, const std::uint8_t* in, int pixels, const Blends* blends,
                          int count) {
  raise3(planes, in, pixels, false);
  const float* const from[3] = {planes[0], planes[1], planes[2]};
  float* to[3] = {out[0], out[1], out[2]};
  for (const Blends* const end = blends + count; blends < end; ++blends) {
    const __m256i index = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(blends->index));
    const __m256 weight = _mm256_loadu_ps(blends->weight), nudge = _mm256_loadu_ps(blends->nudge);
    for (int c = 0; c < 3; ++c, to[c - 1] += 8) {
      const __m256 a = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from[c] + blends->from), index);
      const __m256 b = _mm256_permutevar8x32_ps(_mm256_loadu_ps(from[c] + blends->from + 1), index);
      const __m256 difference = _mm256_add_ps(_mm256_sub_ps(b, a), nudge);
      _mm256_storeu_ps(to[c], _mm256_fmadd_ps(difference, weight, a));
    }
  }
}

static void blend_down(float* out, const float* a, const float* b, const Blend& blend, std::size_t count, float mean, float std,
                       bool streamed) {
  const bool nudged = blend.nudge != 0;
  const Reciprocal whole(255.0F), part(std);
  const auto one = [&](std::size_t i) {
    const float x = __builtin_fmaf(b[i] - a[i] + blend.nudge, blend.weight, a[i]) - raised;
    out[i] = standard(x, mean, whole, part.high, part.low);
  };
  std::size_t done = 0;
  // Only stores to multiples of their size go past the caches.
  if (streamed)
    for (; done < count && reinterpret_cast<std::uintptr_t>(out + done) % 32 != 0; ++done) one(done);
  const __m256 high = _mm256_set1_ps(whole.high), low = _mm256_set1_ps(whole.low), middle = _mm256_set1_ps(mean);
  const __m256 part_high = _mm256_set1_ps(part.high), part_low = _mm256_set1_ps(part.low);
  const __m256 weight = _mm256_set1_ps(blend.weight), nudge = _mm256_set1_ps(blend.nudge), zero = _mm256_set1_ps(raised);
  for (; done + 8 <= count; done += 8) {
    const __m256 first = _mm256_loadu_ps(a + done);
    __m256 difference = _mm256_sub_ps(_mm256_loadu_ps(b + done), first);
    if (nudged) difference = _mm256_add_ps(difference, nudge);
    const __m256 x = _mm256_sub_ps(_mm256_fmadd_ps(difference, weight, first), zero);
    const __m256 above = _mm256_sub_ps(_mm256_fmadd_ps(x, high, _mm256_mul_ps(x, low)), middle);
    const __m256 value = _mm256_fmadd_ps(above, part_high, _mm256_mul_ps(above, part_low));
    streamed ? _mm256_stream_ps(out + done, value) : _mm256_storeu_ps(out + done, value);
  }
  for (; done < count; ++done) one(done);
}

static const BlendOps blend_ops{8, raise3, blend_across3, blend_down};

static const RowOps ops{"avx2", scale_across3, lane_bytes, pack_lanes, scale_down, split3, normalize, stream, fence,
                        normalize3, normalize_interleaved, exact, &plane_ops_avx2, &plane_ops_avx2, &blend_ops};

}  // namespace avx2

extern const RowOps* const row_ops_avx2 = &avx2::ops;

}  // namespace headrace
