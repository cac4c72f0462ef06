// Quotients of floats, for instruction sets that multiply and add in one step. Included inside a namespace, as common.hpp is.

// 1 / x in two floats: a quotient made with both rounds as division does. The caller checks all 256 values of a byte
// before using it.
struct Reciprocal {
  explicit Reciprocal(float x) : high(1.0F / x), low(__builtin_fmaf(-high, x, 1.0F) / x) {}
  float high, low;
};

static inline float product(float x, float high, float low) { return __builtin_fmaf(x, high, x * low); }

static inline float standard(float x, float mean, const Reciprocal& whole, float high, float low) {
  return product(product(x, whole.high, whole.low) - mean, high, low);
}
