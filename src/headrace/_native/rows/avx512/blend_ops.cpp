// Sixteen outputs at a time, straight from the pixels' bytes. Other loops were slower with wide registers: docs/decisions/0008.
#include "../row_ops.hpp"

#include <immintrin.h>

namespace headrace {
namespace avx512 {

#include "../reciprocal.hpp"

// The low bytes of 16 floats come from the pixels, and the rest from `raised`.
static inline __m512 raised16(__m512i index, __m512i pixels) {
  const __m512i bits = _mm512_castps_si512(_mm512_set1_ps(raised));
  return _mm512_castsi512_ps(_mm512_mask_permutexvar_epi8(bits, 0x1111111111111111U, index, pixels));
}

static void raise3(float* const* out, const std::uint8_t* in, int pixels, bool flipped) {
  const __m512i up = _mm512_setr_epi32(0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45);
  const __m512i first = flipped ? _mm512_sub_epi32(_mm512_set1_epi32(45), up) : up;
  int done = 0;
  for (; done + 16 <= pixels; done += 16) {
    const int at = flipped ? pixels - done - 16 : done;
    const __m512i all = _mm512_loadu_si512(in + 3 * static_cast<std::ptrdiff_t>(done));
    for (int c = 0; c < 3; ++c)
      _mm512_storeu_ps(out[c] + at, raised16(_mm512_add_epi32(first, _mm512_set1_epi32(c)), all));
  }
  for (; done < pixels; ++done) {
    const int at = flipped ? pixels - done - 1 : done;
    for (int c = 0; c < 3; ++c) out[c][at] = raised + in[3 * static_cast<std::ptrdiff_t>(done) + c];
  }
}

static void across3(float* const* out, float* const*, const std::uint8_t* in, int, const Blends* blends, int count) {
  float* to[3] = {out[0], out[1], out[2]};
  for (const Blends* const end = blends + count; blends < end; ++blends) {
    // Sixteen outputs of an image that is enlarged are made of 17 pixels at most: 51 bytes.
    const std::uint8_t* const from = in + 3 * static_cast<std::ptrdiff_t>(blends->from);
    const __m512i here = _mm512_loadu_si512(from), next = _mm512_loadu_si512(from + 3);
    const __m512i one = _mm512_loadu_si512(blends->index);
    __m512i index = _mm512_add_epi32(_mm512_slli_epi32(one, 1), one);
    const __m512 weight = _mm512_loadu_ps(blends->weight), nudge = _mm512_loadu_ps(blends->nudge);
    for (int c = 0; c < 3; ++c, to[c - 1] += 16) {
      const __m512 a = raised16(index, here), b = raised16(index, next);
      const __m512 difference = _mm512_add_ps(_mm512_sub_ps(b, a), nudge);
      _mm512_storeu_ps(to[c], _mm512_fmadd_ps(difference, weight, a));
      index = _mm512_add_epi32(index, _mm512_set1_epi32(1));
    }
  }
}

static void down(float* out, const float* a, const float* b, const Blend& blend, std::size_t count, float mean, float std,
                 bool streamed) {
  const bool nudged = blend.nudge != 0;
  const Reciprocal whole(255.0F), part(std);
  const __m512 high = _mm512_set1_ps(whole.high), low = _mm512_set1_ps(whole.low), middle = _mm512_set1_ps(mean);
  const __m512 part_high = _mm512_set1_ps(part.high), part_low = _mm512_set1_ps(part.low);
  const __m512 weight = _mm512_set1_ps(blend.weight), nudge = _mm512_set1_ps(blend.nudge), zero = _mm512_set1_ps(raised);
  const auto blended = [&](__m512 first, __m512 second) {
    __m512 difference = _mm512_sub_ps(second, first);
    if (nudged) difference = _mm512_add_ps(difference, nudge);
    const __m512 x = _mm512_sub_ps(_mm512_fmadd_ps(difference, weight, first), zero);
    const __m512 above = _mm512_sub_ps(_mm512_fmadd_ps(x, high, _mm512_mul_ps(x, low)), middle);
    return _mm512_fmadd_ps(above, part_high, _mm512_mul_ps(above, part_low));
  };
  const auto some = [&](std::size_t at, std::size_t many) {
    const __mmask16 mask = static_cast<__mmask16>((1U << many) - 1);
    _mm512_mask_storeu_ps(out + at, mask, blended(_mm512_maskz_loadu_ps(mask, a + at), _mm512_maskz_loadu_ps(mask, b + at)));
  };
  std::size_t done = 0;
  // Only stores to multiples of their size go past the caches.
  if (const std::size_t off = reinterpret_cast<std::uintptr_t>(out) / sizeof(float) % 16; streamed && off > 0) {
    done = count < 16 - off ? count : 16 - off;
    some(0, done);
  }
  for (; done + 16 <= count; done += 16) {
    const __m512 value = blended(_mm512_loadu_ps(a + done), _mm512_loadu_ps(b + done));
    streamed ? _mm512_stream_ps(out + done, value) : _mm512_storeu_ps(out + done, value);
  }
  if (done < count) some(done, count - done);
}

static const BlendOps ops{16, raise3, across3, down};

}  // namespace avx512

extern const BlendOps* const blend_ops_avx512 = &avx512::ops;

}  // namespace headrace
