// The inner loops that need no intrinsics. Each instruction set's row_ops.cpp includes this file inside its own namespace.
// No functions or templates of the standard library here: the linker keeps one copy of those for all instruction sets,
// and that copy could be compiled for a processor that is not there.

#if defined(__FMA__) || defined(__aarch64__)

// A quotient from the divisor's reciprocal, corrected by one Newton step so that it rounds as division does. The caller
// checks all 256 values of a byte before using it.
static inline float quotient(float x, float divisor, float reciprocal) {
  const float guess = x * reciprocal;
  return __builtin_fmaf(__builtin_fmaf(-guess, divisor, x), reciprocal, guess);
}

static inline float standard(std::uint8_t x, float mean, float std, float reciprocal) {
  return quotient(quotient(static_cast<float>(x), 255.0F, 1.0F / 255.0F) - mean, std, reciprocal);
}

static void normalize(float* out, const std::uint8_t* in, std::size_t count, float mean, float std) {
  const float reciprocal = 1.0F / std;
  for (std::size_t i = 0; i < count; ++i) out[i] = standard(in[i], mean, std, reciprocal);
}

static void normalize_interleaved(float* out, const std::uint8_t* in, std::size_t pixels, int channels,
                                  const float* mean, const float* std) {
  // 48 values: whole pixels of 1, 2, 3 or 4 channels, and whole registers.
  float means[48], stds[48], reciprocals[48];
  for (int i = 0; i < 48; ++i) means[i] = mean[i % channels], stds[i] = std[i % channels], reciprocals[i] = 1.0F / stds[i];
  const std::size_t count = pixels * static_cast<std::size_t>(channels);
  std::size_t done = 0;
  for (; done + 48 <= count; done += 48)
    for (int i = 0; i < 48; ++i) out[done + i] = standard(in[done + i], means[i], stds[i], reciprocals[i]);
  for (int i = 0; done < count; ++i, ++done) out[done] = standard(in[done], means[i], stds[i], reciprocals[i]);
}

static constexpr bool exact = true;

#else

static void normalize(float*, const std::uint8_t*, std::size_t, float, float) {}

static void normalize_interleaved(float*, const std::uint8_t*, std::size_t, int, const float*, const float*) {}

static constexpr bool exact = false;

#endif
