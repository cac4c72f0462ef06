// The inner loops that need no intrinsics. Each instruction set's row_ops.cpp includes this file inside its own namespace.
// No functions or templates of the standard library here: the linker keeps one copy of those for all instruction sets,
// and that copy could be compiled for a processor that is not there.

#if defined(__FMA__) || defined(__aarch64__)

#include "reciprocal.hpp"

static void normalize(float* out, const std::uint8_t* in, std::size_t count, float mean, float std) {
  const Reciprocal whole(255.0F), part(std);
  for (std::size_t i = 0; i < count; ++i) out[i] = standard(in[i], mean, whole, part.high, part.low);
}

static void normalize_interleaved(float* out, const std::uint8_t* in, std::size_t pixels, int channels,
                                  const float* mean, const float* std) {
  // 48 values: whole pixels of 1, 2, 3 or 4 channels, and whole registers.
  float means[48], highs[48], lows[48];
  for (int i = 0; i < 48; ++i) {
    const Reciprocal part(std[i % channels]);
    means[i] = mean[i % channels], highs[i] = part.high, lows[i] = part.low;
  }
  const Reciprocal whole(255.0F);
  const std::size_t count = pixels * static_cast<std::size_t>(channels);
  std::size_t done = 0;
  for (; done + 48 <= count; done += 48)
    for (int i = 0; i < 48; ++i) out[done + i] = standard(in[done + i], means[i], whole, highs[i], lows[i]);
  for (int i = 0; done < count; ++i, ++done) out[done] = standard(in[done], means[i], whole, highs[i], lows[i]);
}

static constexpr bool exact = true;

#else

static void normalize(float*, const std::uint8_t*, std::size_t, float, float) {}

static void normalize_interleaved(float*, const std::uint8_t*, std::size_t, int, const float*, const float*) {}

static constexpr bool exact = false;

#endif
