// The inner loops that need no intrinsics. As rows/common.hpp: included by each instruction set inside its own namespace,
// and without functions of the standard library. NumPy computes the same in headrace.image.color and warp.

static void look_up_all(std::uint8_t* plane, std::size_t count, const std::uint8_t* table) {
  for (std::size_t i = 0; i < count; ++i) plane[i] = table[plane[i]];
}

static void gray_all(std::uint8_t* __restrict out, const std::uint8_t* __restrict r, const std::uint8_t* __restrict g,
                 const std::uint8_t* __restrict b, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i)
    out[i] = static_cast<std::uint8_t>((r[i] * 19595 + g[i] * 38470 + b[i] * 7471 + 0x8000) >> 16);
}

static std::uint64_t sum(const std::uint8_t* plane, std::size_t count) {
  std::uint64_t all = 0;
  while (count > 0) {
    const std::size_t part = count < 65536 ? count : 65536;
    std::uint32_t some = 0;
    for (std::size_t i = 0; i < part; ++i) some += plane[i];
    all += some, plane += part, count -= part;
  }
  return all;
}

static void limits(const std::uint8_t* plane, std::size_t count, std::uint8_t* low, std::uint8_t* high) {
  std::uint8_t least = 255, most = 0;
  for (std::size_t i = 0; i < count; ++i) {
    least = plane[i] < least ? plane[i] : least;
    most = plane[i] > most ? plane[i] : most;
  }
  *low = least, *high = most;
}

static inline std::uint8_t blended(float value, float other, float factor) {
  float mixed = other + factor * (value - other);
  mixed = mixed > 0.0F ? mixed : 0.0F;
  mixed = mixed < 255.0F ? mixed : 255.0F;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(mixed));
}

static void blend_all(std::uint8_t* __restrict plane, const std::uint8_t* __restrict other, std::size_t count, float factor) {
  for (std::size_t i = 0; i < count; ++i)
    plane[i] = blended(static_cast<float>(plane[i]), static_cast<float>(other[i]), factor);
}

// One channel of a turned hue; `place` is where it is on the circle, in sixths. Adding the large number rounds to the
// nearest whole one, halves to the even one. Places below -2 and from 12 up only come from turns by more than 2 sixths.
static inline float turned(float high, float chroma, float place, bool far) {
  if (far) {
    place = place < -2.0F ? place + 6.0F : place;
    place = place >= 12.0F ? place - 12.0F : place;
  }
  place = place >= 6.0F ? place - 6.0F : place;
  float part = 4.0F - place;
  part = place < part ? place : part;
  part = part < 0.0F ? 0.0F : part;
  part = part > 1.0F ? 1.0F : part;
  return (high - chroma * part + 12582912.0F) - 12582912.0F;
}

// Pixels at a time: all floats first, because compilers vectorize loops over values of one size best.
static constexpr int hues = 64;

static inline void turn_hues(std::uint8_t* __restrict r, std::uint8_t* __restrict g, std::uint8_t* __restrict b,
                             float turn, bool far) {
  float red[hues], green[hues], blue[hues];
  for (int i = 0; i < hues; ++i) red[i] = static_cast<float>(r[i]);
  for (int i = 0; i < hues; ++i) green[i] = static_cast<float>(g[i]);
  for (int i = 0; i < hues; ++i) blue[i] = static_cast<float>(b[i]);
  for (int i = 0; i < hues; ++i) {
    const float x = red[i], y = green[i], z = blue[i];
    float high = x > y ? x : y, low = x < y ? x : y;
    high = high > z ? high : z, low = low < z ? low : z;
    const float chroma = high - low;
    float over = x - y, base = 4.0F;
    over = high == y ? z - x : over, base = high == y ? 2.0F : base;
    over = high == x ? y - z : over, base = high == x ? 0.0F : base;
    const float angle = (base + over / (chroma > 1.0F ? chroma : 1.0F)) + turn;
    red[i] = turned(high, chroma, angle + 5.0F, far);
    green[i] = turned(high, chroma, angle + 3.0F, far);
    blue[i] = turned(high, chroma, angle + 1.0F, far);
  }
  for (int i = 0; i < hues; ++i) r[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(red[i]));
  for (int i = 0; i < hues; ++i) g[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(green[i]));
  for (int i = 0; i < hues; ++i) b[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(blue[i]));
}

// Turn hues in blocks, of which the last is filled up.
template <typename Turn>
static inline void by_blocks(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::size_t count, Turn turn) {
  std::size_t done = 0;
  for (; done + hues <= count; done += hues) turn(r + done, g + done, b + done);
  if (done == count) return;
  std::uint8_t last[3][hues] = {};
  __builtin_memcpy(last[0], r + done, count - done);
  __builtin_memcpy(last[1], g + done, count - done);
  __builtin_memcpy(last[2], b + done, count - done);
  turn(last[0], last[1], last[2]);
  __builtin_memcpy(r + done, last[0], count - done);
  __builtin_memcpy(g + done, last[1], count - done);
  __builtin_memcpy(b + done, last[2], count - done);
}

static inline bool is_far(float turn) { return turn < -2.0F || turn > 2.0F; }

static void hue_all(std::uint8_t* __restrict r, std::uint8_t* __restrict g, std::uint8_t* __restrict b,
                    std::size_t count, float turn) {
  if (is_far(turn))
    return by_blocks(r, g, b, count, [turn](std::uint8_t* x, std::uint8_t* y, std::uint8_t* z) { turn_hues(x, y, z, turn, true); });
  by_blocks(r, g, b, count, [turn](std::uint8_t* x, std::uint8_t* y, std::uint8_t* z) { turn_hues(x, y, z, turn, false); });
}

// Hues and saturations become whole numbers of 1/255 on the way, fractions cut off. Which steps need doubles, and which not,
// was tried with all colors.
static inline void turn_pillow_hues(std::uint8_t* __restrict r, std::uint8_t* __restrict g, std::uint8_t* __restrict b, int turn) {
  float red[hues], green[hues], blue[hues], hue[hues], share[hues];
  for (int i = 0; i < hues; ++i) red[i] = static_cast<float>(r[i]);
  for (int i = 0; i < hues; ++i) green[i] = static_cast<float>(g[i]);
  for (int i = 0; i < hues; ++i) blue[i] = static_cast<float>(b[i]);
  for (int i = 0; i < hues; ++i) {
    const float x = red[i], y = green[i], z = blue[i];
    float high = x > y ? x : y, low = x < y ? x : y;
    high = high > z ? high : z, low = low < z ? low : z;
    const float chroma = high - low, over = chroma > 1.0F ? chroma : 1.0F;
    float base = 4.0F, more = y, less = x;
    base = high == y ? 2.0F : base, more = high == y ? x : more, less = high == y ? z : less;
    base = high == x ? 0.0F : base, more = high == x ? z : more, less = high == x ? y : less;
    const float plus = (high - more) / over, minus = (high - less) / over;
    const float sixths = static_cast<float>(static_cast<double>(base) + static_cast<double>(plus) - static_cast<double>(minus));
    double round = static_cast<double>(sixths) / 6.0 + 1.0;
    round = round >= 1.0 ? round - 1.0 : round;
    hue[i] = static_cast<float>(round) * 255.0F;
    share[i] = chroma / (high > 1.0F ? high : 1.0F) * 255.0F;
    red[i] = high;
  }
  for (int i = 0; i < hues; ++i) {
    const float high = red[i];
    const std::int32_t place = (static_cast<std::int32_t>(hue[i]) + turn) & 255;
    const float sixths = static_cast<float>(place) * 6.0F / 255.0F, part = static_cast<float>(static_cast<std::int32_t>(sixths));
    const float rest = sixths - part, of = static_cast<float>(static_cast<std::int32_t>(share[i])) / 255.0F;
    const float low = high * (1.0F - of) + 0.5F, falling = high * (1.0F - of * rest) + 0.5F;
    const float rising = high * (1.0F - of * (1.0F - rest)) + 0.5F;
    // The sixth that a color lies in decides which channel has which of the four values: 6 is as 0.
    const bool none = part < 1.0F || part > 5.0F, one = part == 1.0F, two = part == 2.0F, three = part == 3.0F, four = part == 4.0F;
    float first = high, second = low, third = falling;  // 5
    first = four ? rising : three || two ? low : one ? falling : first;
    second = four ? low : three ? falling : two || one ? high : none ? rising : second;
    third = four || three ? high : two ? rising : one || none ? low : third;
    red[i] = first, green[i] = second, blue[i] = third;
  }
  for (int i = 0; i < hues; ++i) r[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(red[i]));
  for (int i = 0; i < hues; ++i) g[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(green[i]));
  for (int i = 0; i < hues; ++i) b[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(blue[i]));
}

// A float and a share of another one, rounded once, as torch adds them: the product is exact as a double.
static inline float added(float one, float other, float share) {
  return static_cast<float>(static_cast<double>(one) + static_cast<double>(other) * static_cast<double>(share));
}

static inline std::uint8_t torch_blended(float value, float other, float share, float rest) {
  float mixed = added(value * share, other, rest);
  mixed = mixed > 0.0F ? mixed : 0.0F;
  mixed = mixed < 255.0F ? mixed : 255.0F;
  return static_cast<std::uint8_t>(static_cast<std::int32_t>(mixed));
}

static void torch_blend(std::uint8_t* __restrict plane, const std::uint8_t* __restrict other, std::size_t count, float share,
                        float rest) {
  for (std::size_t i = 0; i < count; ++i)
    plane[i] = torch_blended(static_cast<float>(plane[i]), static_cast<float>(other[i]), share, rest);
}

static void torch_gray(std::uint8_t* __restrict out, const std::uint8_t* __restrict r, const std::uint8_t* __restrict g,
                       const std::uint8_t* __restrict b, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const float two = added(static_cast<float>(r[i]) * 0.2989F, static_cast<float>(g[i]), 0.587F);
    out[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(added(two, static_cast<float>(b[i]), 0.114F)));
  }
}

static inline float level(float value) { return value < 0.0F ? 0.0F : value > 1.0F ? 1.0F : value; }

static inline void turn_torch_hues(std::uint8_t* __restrict r, std::uint8_t* __restrict g, std::uint8_t* __restrict b, float turn) {
  constexpr float white = static_cast<float>(1.0 / 255), sixth = static_cast<float>(1.0 / 6);
  float red[hues], green[hues], blue[hues];
  for (int i = 0; i < hues; ++i) red[i] = static_cast<float>(r[i]) * white;
  for (int i = 0; i < hues; ++i) green[i] = static_cast<float>(g[i]) * white;
  for (int i = 0; i < hues; ++i) blue[i] = static_cast<float>(b[i]) * white;
  for (int i = 0; i < hues; ++i) {
    const float x = red[i], y = green[i], z = blue[i];
    float high = x > y ? x : y, low = x < y ? x : y;
    high = high > z ? high : z, low = low < z ? low : z;
    const float chroma = high - low, of = chroma / (chroma == 0.0F ? 1.0F : high), over = chroma == 0.0F ? 1.0F : chroma;
    float base = 4.0F, more = y, less = x;
    base = high == y ? 2.0F : base, more = high == y ? x : more, less = high == y ? z : less;
    base = high == x ? 0.0F : base, more = high == x ? z : more, less = high == x ? y : less;
    float at = ((high - more) / over + base - (high - less) / over) * sixth + 1.0F;
    at = (at >= 1.0F ? at - 1.0F : at) + turn;
    at = at < 0.0F ? at + 1.0F : at >= 1.0F ? at - 1.0F : at;
    const float place = at * 6.0F, part = static_cast<float>(static_cast<std::int32_t>(place)), rest = of * (place - part);
    const float falling = level((1.0F - rest) * high), rising = level((rest + (1.0F - of)) * high), flat = level((1.0F - of) * high);
    const bool none = part < 1.0F || part > 5.0F, one = part == 1.0F, two = part == 2.0F, three = part == 3.0F, four = part == 4.0F;
    float first = high, second = flat, third = falling;  // 5
    first = four ? rising : three || two ? flat : one ? falling : first;
    second = four ? flat : three ? falling : two || one ? high : none ? rising : second;
    third = four || three ? high : two ? rising : one || none ? flat : third;
    red[i] = first * 255.999F, green[i] = second * 255.999F, blue[i] = third * 255.999F;
  }
  for (int i = 0; i < hues; ++i) r[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(red[i]));
  for (int i = 0; i < hues; ++i) g[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(green[i]));
  for (int i = 0; i < hues; ++i) b[i] = static_cast<std::uint8_t>(static_cast<std::int32_t>(blue[i]));
}

static void pillow_hue(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::size_t count, int turn) {
  by_blocks(r, g, b, count, [turn](std::uint8_t* x, std::uint8_t* y, std::uint8_t* z) { turn_pillow_hues(x, y, z, turn); });
}

static void torch_hue(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::size_t count, float turn) {
  by_blocks(r, g, b, count, [turn](std::uint8_t* x, std::uint8_t* y, std::uint8_t* z) { turn_torch_hues(x, y, z, turn); });
}

static void sharpen_all(std::uint8_t* __restrict out, const std::uint8_t* __restrict above,
                        const std::uint8_t* __restrict line, const std::uint8_t* __restrict below, int width, float factor) {
  for (int i = 1; i < width - 1; ++i) {
    const std::int32_t all = above[i - 1] + above[i] + above[i + 1] + line[i - 1] + 5 * line[i] + line[i + 1] +
                             below[i - 1] + below[i] + below[i + 1];
    // Divided by 26: exact for all that nine bytes can give.
    const std::int32_t smooth = ((2 * all + 13) * 40330) >> 20;
    out[i] = blended(static_cast<float>(line[i]), static_cast<float>(smooth), factor);
  }
}

static void map_points(double* __restrict x, double* __restrict y, int count, const double* matrix) {
  const double a = matrix[0], b = matrix[1], c = matrix[2], d = matrix[3], e = matrix[4], f = matrix[5];
  const double g = matrix[6], h = matrix[7], i = matrix[8];
  if (g == 0 && h == 0 && i == 1) {  // nothing to divide by
    for (int k = 0; k < count; ++k) {
      const double across = a * x[k] + b * y[k] + c, down = d * x[k] + e * y[k] + f;
      x[k] = across, y[k] = down;
    }
    return;
  }
  if (g == 0 && h == 0) {
    for (int k = 0; k < count; ++k) {
      const double across = (a * x[k] + b * y[k] + c) / i, down = (d * x[k] + e * y[k] + f) / i;
      x[k] = across, y[k] = down;
    }
    return;
  }
  for (int k = 0; k < count; ++k) {
    const double under = g * x[k] + h * y[k] + i;
    const bool behind = under <= 1e-12;
    const double divisor = behind ? 1.0 : under;
    const double across = (a * x[k] + b * y[k] + c) / divisor, down = (d * x[k] + e * y[k] + f) / divisor;
    x[k] = behind ? -1e6 : across, y[k] = behind ? -1e6 : down;
  }
}

// Written so that what is no number becomes `low`: no place may lie outside.
static inline double within(double value, double low, double high) {
  value = value > low ? value : low;
  return value < high ? value : high;
}

static inline std::int32_t floored(double value) {
  const std::int32_t whole = static_cast<std::int32_t>(value);
  return whole - (value < static_cast<double>(whole) ? 1 : 0);
}

static void nearest_places_all(const LinePlaces& places, const double* __restrict x, const double* __restrict y, int count,
                           int height, int width) {
  std::int32_t* __restrict at = places.at;
  const double rows = height, columns = width;
  for (int i = 0; i < count; ++i) {
    const std::int32_t column = floored(within(x[i], -1.0, columns)) + 1, row = floored(within(y[i], -1.0, rows)) + 1;
    at[i] = row * (width + 2) + column;
  }
}

static void bilinear_places_all(const LinePlaces& places, const double* __restrict x, const double* __restrict y, int count,
                            int height, int width) {
  std::int32_t* __restrict at = places.at;
  std::int32_t* __restrict right = places.right;
  std::int32_t* __restrict below = places.below;
  const double rows = height, columns = width;
  // Adding this rounds to whole numbers, halves to the even one.
  const double magic = 6755399441055744.0;
  for (int i = 0; i < count; ++i) {
    const double across = within(x[i] - 0.5, -1.0, columns), down = within(y[i] - 0.5, -1.0, rows);
    std::int32_t column = floored(across), row = floored(down);
    column = column < width - 1 ? column : width - 1, row = row < height - 1 ? row : height - 1;
    right[i] = static_cast<std::int32_t>(((across - column) * 2048.0 + magic) - magic);
    below[i] = static_cast<std::int32_t>(((down - row) * 2048.0 + magic) - magic);
    at[i] = (row + 1) * (width + 2) + column + 1;
  }
}

static void whole_places(std::int32_t* __restrict at, WholePoint first, WholePoint step, int count, int height, int width) {
  const std::uint32_t rows = static_cast<std::uint32_t>(height), columns = static_cast<std::uint32_t>(width);
  for (int i = 0; i < count; ++i) {
    const std::int32_t column = static_cast<std::int32_t>(first.x + static_cast<std::uint32_t>(i) * step.x) >> 16;
    const std::int32_t row = static_cast<std::int32_t>(first.y + static_cast<std::uint32_t>(i) * step.y) >> 16;
    const bool inside = (static_cast<std::uint32_t>(column) < columns) & (static_cast<std::uint32_t>(row) < rows);
    at[i] = inside ? (row + 1) * (width + 2) + column + 1 : 0;
  }
}

static void shares(std::int32_t* __restrict share, const double* __restrict x, const double* __restrict y, int count,
                   int height, int width, bool nearest) {
  const double rows = height, columns = width;
  const double magic = 6755399441055744.0;
  if (nearest) {
    for (int i = 0; i < count; ++i)
      share[i] = (x[i] >= 0.0) & (x[i] < columns) & (y[i] >= 0.0) & (y[i] < rows) ? 2048 : 0;
    return;
  }
  for (int i = 0; i < count; ++i) {
    const double left = x[i], right = columns - x[i], top = y[i], bottom = rows - y[i];
    const double across = within((left < right ? left : right) + 0.5, 0.0, 1.0);
    const double down = within((top < bottom ? top : bottom) + 0.5, 0.0, 1.0);
    share[i] = static_cast<std::int32_t>((across * down * 2048.0 + magic) - magic);
  }
}

static void gather_all(std::uint8_t* __restrict out, const std::uint8_t* __restrict framed, const LinePlaces& places,
                   int count, int stride) {
  const std::int32_t* __restrict at = places.at;
  if (places.right == nullptr) {
    for (int i = 0; i < count; ++i) out[i] = framed[at[i]];
    return;
  }
  for (int i = 0; i < count; ++i) {
    const std::uint8_t* const upper = framed + at[i];
    const std::uint8_t* const lower = upper + stride;
    const std::int32_t right = places.right[i], left = 2048 - right, below = places.below[i];
    const std::int32_t first = upper[0] * left + upper[1] * right, second = lower[0] * left + lower[1] * right;
    out[i] = static_cast<std::uint8_t>((first * (2048 - below) + second * below + (1 << 21)) >> 22);
  }
}

static void widen_all(std::uint32_t* __restrict out, const std::uint8_t* __restrict in, std::size_t pixels, int channels) {
  for (std::size_t i = 0; i < pixels; ++i) {
    std::uint32_t pixel = 0;
    for (int c = 0; c < channels; ++c) pixel |= static_cast<std::uint32_t>(*in++) << (8 * c);
    out[i] = pixel;
  }
}

static void gather_pixels_all(std::uint8_t* const* out, int channels, const std::uint32_t* __restrict framed,
                              const LinePlaces& places, int count, int stride) {
  if (places.right == nullptr) {
    for (int c = 0; c < channels; ++c) {
      std::uint8_t* __restrict plane = out[c];
      for (int i = 0; i < count; ++i) plane[i] = static_cast<std::uint8_t>(framed[places.at[i]] >> (8 * c));
    }
    return;
  }
  for (int i = 0; i < count; ++i) {
    const std::uint32_t* const upper = framed + places.at[i];
    const std::uint32_t* const lower = upper + stride;
    const std::int32_t right = places.right[i], left = 2048 - right, below = places.below[i];
    for (int c = 0; c < channels; ++c) {
      const std::int32_t one = static_cast<std::int32_t>(upper[0] >> (8 * c) & 255), two = static_cast<std::int32_t>(upper[1] >> (8 * c) & 255);
      const std::int32_t three = static_cast<std::int32_t>(lower[0] >> (8 * c) & 255), four = static_cast<std::int32_t>(lower[1] >> (8 * c) & 255);
      const std::int32_t first = one * left + two * right, second = three * left + four * right;
      out[c][i] = static_cast<std::uint8_t>((first * (2048 - below) + second * below + (1 << 21)) >> 22);
    }
  }
}

static void merge_all(std::uint8_t* __restrict out, const std::uint8_t* __restrict r, const std::uint8_t* __restrict g,
                      const std::uint8_t* __restrict b, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) out[3 * i] = r[i], out[3 * i + 1] = g[i], out[3 * i + 2] = b[i];
}

static void cover(std::uint8_t* __restrict out, const std::int32_t* __restrict share, int count, std::uint8_t value) {
  for (int i = 0; i < count; ++i)
    out[i] = static_cast<std::uint8_t>((out[i] * share[i] + value * (2048 - share[i]) + 1024) >> 11);
}
