#include "planes.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace headrace {
namespace {

std::uint8_t as_byte(double value) {
  return static_cast<std::uint8_t>(std::nearbyint(std::min(std::max(value, 0.0), 255.0)));
}

std::uint8_t blended(float value, float other, float factor) {
  return static_cast<std::uint8_t>(std::min(std::max(other + factor * (value - other), 0.0F), 255.0F));
}

float as_float(double factor) {
  constexpr double most = std::numeric_limits<float>::max();
  return static_cast<float>(std::min(std::max(factor, -most), most));
}

double negative_from(double value, double threshold, double) { return value >= threshold ? 255 - value : value; }

double stretched(double value, double low, double high) {
  const double scale = 255 / (high - low);
  return std::trunc(value * scale - low * scale);
}

void make_table(std::uint8_t* table, double (*function)(double, double, double), double a, double b) {
  for (int i = 0; i < 256; ++i) table[i] = as_byte(function(i, a, b));
}

// The weights of headrace.image.color.gaussian_weights, in 1/16384, between two zeros. What rounds to zero at both ends is
// left out: of 23 weights, 9 stay at a sigma of 1.
std::vector<std::int16_t> gaussian(int size, double sigma) {
  std::vector<double> weights(static_cast<std::size_t>(size));
  double sum = 0;
  for (int i = 0; i < size; ++i) {
    const double far = (i - (size - 1) / 2.0) / sigma;
    weights[static_cast<std::size_t>(i)] = std::exp(-0.5 * (far * far));
    sum += weights[static_cast<std::size_t>(i)];
  }
  std::vector<std::int16_t> rounded(weights.size());
  int left = 1 << 14;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    rounded[i] = static_cast<std::int16_t>(std::nearbyint(weights[i] / sum * (1 << 14)));
    left -= rounded[i];
  }
  rounded[weights.size() / 2] = static_cast<std::int16_t>(rounded[weights.size() / 2] + left);
  std::ptrdiff_t first = 0;
  while (first < size / 2 && rounded[static_cast<std::size_t>(first)] == 0) ++first;
  std::vector<std::int16_t> kept(rounded.begin() + first, rounded.end() - first);
  kept.insert(kept.begin(), 0), kept.push_back(0);
  return kept;
}

// The place inside that a place outside is mirrored to, without the outermost one twice.
int mirrored(int at, int count) {
  const int period = 2 * count - 2;
  at = std::abs(at);
  if (at >= period) at = period == 0 ? 0 : at % period;  // seldom, and a division
  return std::min(at, period - at);
}

}  // namespace

bool is_of_pixels(const Op& op) {
  switch (op.kind) {
    case Change::brightness:
    case Change::contrast:
    case Change::saturation:
    case Change::hue:
    case Change::pillow_hue:
    case Change::torch_contrast:
    case Change::torch_saturation:
    case Change::torch_hue:
    case Change::torch_grayscale:
    case Change::grayscale:
    case Change::invert:
    case Change::solarize:
    case Change::posterize:
    case Change::channels:
      return true;
    default:
      return false;
  }
}

void ChangeBuffers::shrink_to(std::size_t bytes) {
  for (Buffer* buffer : {&image, &spare, &gray})
    if (buffer->capacity() > bytes) Buffer().swap(*buffer);
  if (framed.capacity() * sizeof(std::uint32_t) > bytes) std::vector<std::uint32_t>().swap(framed);
  if (blurred.capacity() * sizeof(std::int16_t) > bytes) std::vector<std::int16_t>().swap(blurred);
}

Planes::Planes(const RowOps& ops, const ImageSize& size, ChangeBuffers& buffers)
    : rows_(ops), ops_(ops.planes_of(std::int64_t{1} * size.height * size.width)), size_(size), buffers_(buffers) {
  room(buffers.image, area() * static_cast<std::size_t>(size.channels) + slack);
}

void Planes::split(const std::uint8_t* interleaved) {
  const std::size_t channels = static_cast<std::size_t>(size_.channels), count = area();
  if (channels == 3) {
    std::uint8_t* const planes[] = {plane(0), plane(1), plane(2)};
    return rows_.split3(planes, interleaved, static_cast<int>(count), false);
  }
  for (int c = 0; c < size_.channels; ++c) {
    std::uint8_t* const out = plane(c);
    for (std::size_t i = 0; i < count; ++i) out[i] = interleaved[i * channels + static_cast<std::size_t>(c)];
  }
}

void Planes::merge(std::uint8_t* interleaved) {
  const std::size_t channels = static_cast<std::size_t>(size_.channels), count = area();
  if (channels == 3) return ops_.merge3(interleaved, plane(0), plane(1), plane(2), count);
  for (int c = 0; c < size_.channels; ++c) {
    const std::uint8_t* const in = plane(c);
    for (std::size_t i = 0; i < count; ++i) interleaved[i * channels + static_cast<std::size_t>(c)] = in[i];
  }
}

void Planes::run(const std::vector<Op>& ops) {
  for (std::size_t i = 0; i < ops.size();) i = ops[i].kind == Change::warp ? run_warps(ops, i) : (run_one(ops[i]), i + 1);
}

void Planes::run_one(const Op& op) {
  const std::vector<double>& n = op.numbers;
  switch (op.kind) {
    case Change::brightness:
      return blend_value(0, as_float(n[0]));
    case Change::contrast:
      return contrast(n[0]);
    case Change::saturation:
      return saturate(as_float(n[0]));
    case Change::hue:
      if (size_.channels >= 3 && n[0] != 0)
        ops_.hue(plane(0), plane(1), plane(2), area(), static_cast<float>(n[0]));
      return;
    case Change::pillow_hue:
      if (size_.channels >= 3) ops_.pillow_hue(plane(0), plane(1), plane(2), area(), static_cast<int>(n[0]));
      return;
    case Change::pillow_warp:
      return warp_as_pillow(n);
    case Change::torch_contrast:
      return torch_contrast(n[0]);
    case Change::torch_saturation:
      if (const std::uint8_t* values = gray(true); size_.channels >= 3)
        for (int c = 0; c < 3; ++c) ops_.torch_blend(plane(c), values, area(), as_float(n[0]), as_float(1 - n[0]));
      return;
    case Change::torch_hue:
      if (size_.channels >= 3) ops_.torch_hue(plane(0), plane(1), plane(2), area(), static_cast<float>(n[0]));
      return;
    case Change::grayscale:
    case Change::torch_grayscale:
      if (const std::uint8_t* values = gray(op.kind == Change::torch_grayscale); size_.channels >= 3)
        for (int c = 0; c < 3; ++c) std::memcpy(plane(c), values, area());
      return;
    case Change::invert:
      return by_value(negative_from, 0, 0);
    case Change::solarize:
      return by_value(negative_from, n[0], 0);
    case Change::posterize: {
      std::uint8_t table[256];
      for (int i = 0; i < 256; ++i) table[i] = static_cast<std::uint8_t>(i & (0xFF & -(1 << (8 - static_cast<int>(n[0])))));
      return look_up(0, colors(), table);
    }
    case Change::autocontrast:
      return autocontrast();
    case Change::equalize:
      for (int c = 0; c < colors(); ++c) equalize(c);
      return;
    case Change::channels:
      return permute(n);
    case Change::sharpness:
      return sharpen(as_float(n[0]));
    case Change::blur:
      return blur(n);
    case Change::upside_down:
      return turn_upside_down();
    case Change::erase:
      return erase(n);
    default:
      return;
  }
}

std::uint8_t* Planes::spare(std::size_t area) {
  return room(buffers_.spare, area * static_cast<std::size_t>(size_.channels) + slack);
}

void Planes::look_up(int first, int last, const std::uint8_t* table) {
  ops_.look_up(plane(first), area() * static_cast<std::size_t>(last - first), table);
}

void Planes::by_value(double (*function)(double, double, double), double a, double b) {
  std::uint8_t table[256];
  make_table(table, function, a, b);
  look_up(0, colors(), table);
}

void Planes::blend_value(double value, float factor) {
  const std::size_t count = area() * static_cast<std::size_t>(colors());
  const float other = static_cast<float>(value);
  if (ops_.blend_value != nullptr) return ops_.blend_value(plane(0), other, count, factor);
  std::uint8_t table[256];
  for (int i = 0; i < 256; ++i) table[i] = blended(static_cast<float>(i), other, factor);
  ops_.look_up(plane(0), count, table);
}

const std::uint8_t* Planes::gray(bool of_torch) {
  if (size_.channels < 3) return plane(0);
  std::uint8_t* const out = room(buffers_.gray, area());
  (of_torch ? ops_.torch_gray : ops_.gray)(out, plane(0), plane(1), plane(2), area());
  return out;
}

// The gray values of all pixels added up, and how many these are.
std::pair<std::uint64_t, std::size_t> Planes::sum_gray(bool of_torch) {
  const std::uint8_t* const values = gray(of_torch);
  if (left_out_ == 0) return {ops_.sum(values, area()), area()};
  const std::size_t shown = area() - static_cast<std::size_t>(size_.width), left_out = static_cast<std::size_t>(left_out_);
  return {ops_.sum(values, shown) + left_out * values[shown], shown + left_out};
}

void Planes::contrast(double factor) {
  const auto [sum, count] = sum_gray(false);
  blend_value(std::floor(static_cast<double>(sum) / static_cast<double>(count) + 0.5), as_float(factor));
}

void Planes::torch_contrast(double factor) {
  const auto [sum, count] = sum_gray(true);
  const float mean = static_cast<float>(sum) / static_cast<float>(count);
  std::uint8_t table[256];
  for (int i = 0; i < 256; ++i) {
    const double value = static_cast<double>(static_cast<float>(i) * as_float(factor));
    const float mixed = static_cast<float>(value + static_cast<double>(mean) * static_cast<double>(as_float(1 - factor)));
    table[i] = static_cast<std::uint8_t>(std::min(std::max(mixed, 0.0F), 255.0F));
  }
  look_up(0, colors(), table);
}

void Planes::saturate(float factor) {
  if (size_.channels < 3) return;
  const std::uint8_t* const values = gray(false);
  for (int c = 0; c < 3; ++c) ops_.blend(plane(c), values, area(), factor);
}

void Planes::autocontrast() {
  for (int c = 0; c < colors(); ++c) {
    std::uint8_t low = 0, high = 0, table[256];
    ops_.limits(plane(c), area(), &low, &high);
    if (high <= low) continue;
    make_table(table, stretched, low, high);
    look_up(c, c + 1, table);
  }
}

void Planes::equalize(int channel) {
  // Four histograms: the same value several times in a row does not wait for itself.
  std::uint32_t counts[4][256] = {};
  const std::uint8_t* const in = plane(channel);
  const std::size_t count = area();
  std::size_t done = 0;
  for (; done + 4 <= count; done += 4)
    ++counts[0][in[done]], ++counts[1][in[done + 1]], ++counts[2][in[done + 2]], ++counts[3][in[done + 3]];
  for (; done < count; ++done) ++counts[0][in[done]];
  std::int64_t all[256], last = 0;
  int used = 0;
  for (int i = 0; i < 256; ++i) {
    all[i] = std::int64_t{0} + counts[0][i] + counts[1][i] + counts[2][i] + counts[3][i];
    if (all[i] > 0) last = all[i], ++used;
  }
  const std::int64_t step = (static_cast<std::int64_t>(count) - last) / 255;
  if (used < 2 || step == 0) return;
  std::uint8_t table[256];
  std::int64_t before = step / 2;
  for (int i = 0; i < 256; before += all[i], ++i) table[i] = static_cast<std::uint8_t>(std::min<std::int64_t>(before / step, 255));
  look_up(channel, channel + 1, table);
}

void Planes::permute(const std::vector<double>& order) {
  std::uint8_t* const out = spare(area());
  for (std::size_t c = 0; c < order.size(); ++c) std::memcpy(out + c * area(), plane(static_cast<int>(order[c])), area());
  buffers_.image.swap(buffers_.spare);
}

void Planes::sharpen(float factor) {
  const std::size_t width = static_cast<std::size_t>(size_.width);
  if (size_.height < 3 || size_.width < 3) return;
  std::uint8_t* out = spare(area());
  std::memcpy(out, buffers_.image.data(), area() * static_cast<std::size_t>(size_.channels));
  for (int c = 0; c < colors(); ++c, out += area())
    for (int y = 1; y < size_.height - 1; ++y) {
      const std::uint8_t* const line = plane(c) + width * static_cast<std::size_t>(y);
      ops_.sharpen(out + width * static_cast<std::size_t>(y), line - width, line, line + width, size_.width, factor);
    }
  buffers_.image.swap(buffers_.spare);
}

void Planes::blur(const std::vector<double>& numbers) {
  const std::vector<std::int16_t> down = gaussian(static_cast<int>(numbers[0]), numbers[2]);
  const std::vector<std::int16_t> across = gaussian(static_cast<int>(numbers[1]), numbers[2]);
  if (down.size() == 3 && across.size() == 3) return;  // one weight each
  std::uint8_t* out = spare(area());
  for (int c = 0; c < size_.channels; ++c, out += area()) blur_plane(out, plane(c), across, down);
  buffers_.image.swap(buffers_.spare);
}

void Planes::blur_plane(std::uint8_t* out, const std::uint8_t* in, const std::vector<std::int16_t>& across,
                        const std::vector<std::int16_t>& down) {
  const int width = size_.width, height = size_.height;
  const int taps = static_cast<int>(across.size()) - 2, lines = static_cast<int>(down.size()) - 2;
  const std::size_t stride = static_cast<std::size_t>(width + 31) / 16 * 16;
  std::int16_t* const line = room(buffers_.line, stride + across.size() + 16);
  std::int16_t* const blurred = room(buffers_.blurred, stride * static_cast<std::size_t>(height));
  for (int y = 0; y < height; ++y) {
    const std::uint8_t* const from = in + static_cast<std::size_t>(width) * static_cast<std::size_t>(y);
    for (int x = 0; x < width; ++x) line[taps / 2 + x] = from[x];
    for (int x = -(taps / 2); x < 0; ++x) line[taps / 2 + x] = from[mirrored(x, width)];
    for (int x = width; x < width + taps / 2; ++x) line[taps / 2 + x] = from[mirrored(x, width)];
    ops_.blur_across(blurred + stride * static_cast<std::size_t>(y), line, width, across.data() + 1, taps);
  }
  const std::int16_t** const near = room(buffers_.lines, down.size() + 1);
  for (int y = 0; y < height; y += 2) {
    for (int k = 0; k <= lines; ++k)
      near[k] = blurred + stride * static_cast<std::size_t>(mirrored(y - lines / 2 + k, height));
    ops_.blur_down(out + static_cast<std::size_t>(width) * static_cast<std::size_t>(y), std::min(2, height - y), near, width,
                   down.data() + 1, lines);
  }
}

void Planes::turn_upside_down() {
  const std::size_t width = static_cast<std::size_t>(size_.width), height = static_cast<std::size_t>(size_.height);
  for (int c = 0; c < size_.channels; ++c)
    for (std::size_t y = 0; y < height / 2; ++y) {
      std::uint8_t* const line = plane(c) + y * width;
      std::swap_ranges(line, line + width, plane(c) + (height - 1 - y) * width);
    }
}

void Planes::erase(const std::vector<double>& numbers) {
  const std::size_t top = static_cast<std::size_t>(numbers[0]), left = static_cast<std::size_t>(numbers[1]);
  const std::size_t rows = static_cast<std::size_t>(numbers[2]), columns = static_cast<std::size_t>(numbers[3]);
  for (int c = 0; c < size_.channels; ++c)
    for (std::size_t y = top; y < top + rows; ++y)
      std::memset(plane(c) + y * static_cast<std::size_t>(size_.width) + left,
                  static_cast<int>(numbers[4 + static_cast<std::size_t>(c)]), columns);
}

std::size_t Planes::run_warps(const std::vector<Op>& ops, std::size_t first) {
  std::size_t last = first + 1;
  while (last < ops.size() && ops[last].joins) ++last;
  std::vector<WarpPart> parts;
  std::vector<std::uint8_t> fills;
  fills.reserve((last - first) * static_cast<std::size_t>(size_.channels));
  for (std::size_t i = first; i < last; ++i) {
    const std::uint8_t* const fill = fills.data() + fills.size();
    for (std::size_t c = 10; c < ops[i].numbers.size(); ++c) fills.push_back(static_cast<std::uint8_t>(ops[i].numbers[c]));
    parts.push_back({ops[i].numbers.data(), size_.height, size_.width, size_.height, size_.width, fill});
  }
  warp(parts, ops[first].numbers[9] == 0);
  return last;
}

// Up to four channels with a margin of one pixel, in four bytes for each pixel; weights of 0 may read the line behind it.
std::uint32_t* Planes::framed(int first, int channels, const std::uint8_t* fill) {
  const std::size_t width = static_cast<std::size_t>(size_.width), stride = width + 2;
  const std::size_t height = static_cast<std::size_t>(size_.height);
  std::uint32_t* const out = room(buffers_.framed, stride * (height + 3) + slack);
  std::uint32_t outside = 0;
  for (int c = 0; c < channels; ++c) outside |= static_cast<std::uint32_t>(fill[first + c]) << (8 * c);
  std::fill(out, out + stride, outside), std::fill(out + stride * (height + 1), out + stride * (height + 2), outside);
  for (std::size_t y = 0; y < height; ++y) {
    std::uint32_t* const line = out + stride * (y + 1) + 1;
    line[-1] = line[width] = outside;
    std::fill(line, line + width, 0);
    for (int c = 0; c < channels; ++c) {
      const std::uint8_t* const in = plane(first + c) + width * y;
      for (std::size_t x = 0; x < width; ++x) line[x] |= static_cast<std::uint32_t>(in[x]) << (8 * c);
    }
  }
  return out;
}

void Planes::warp(const std::vector<WarpPart>& parts, bool nearest) {
  const int height = parts.back().height, width = parts.back().width;
  const std::size_t columns = static_cast<std::size_t>(width), whole = columns * static_cast<std::size_t>(height);
  const std::size_t between = parts.size() - 1;
  double* const x = room(buffers_.points, 2 * columns);
  double* const y = x + columns;
  // Places, and how much is shown of each image on the way, for all pixels: they are the same for each channel.
  std::int32_t* const numbers = room(buffers_.places, whole * (3 + between));
  for (int row = 0; row < height; ++row) {
    const std::size_t line = columns * static_cast<std::size_t>(row);
    for (int i = 0; i < width; ++i) x[i] = i + 0.5, y[i] = row + 0.5;
    for (std::size_t part = parts.size(); part-- > 0;) {
      const WarpPart& map = parts[part];
      ops_.map_points(x, y, width, map.inverse);
      if (part > 0)
        ops_.shares(numbers + whole * (2 + part) + line, x, y, width, map.before_height, map.before_width, nearest);
    }
    const LinePlaces places{numbers + line, numbers + whole + line, numbers + 2 * whole + line};
    (nearest ? ops_.nearest_places : ops_.bilinear_places)(places, x, y, width, size_.height, size_.width);
  }
  take({numbers, nearest ? nullptr : numbers + whole, nearest ? nullptr : numbers + 2 * whole}, height, width, parts[0].fill);
  for (int c = 0; c < size_.channels; ++c)
    for (std::size_t part = 1; part < parts.size(); ++part)
      ops_.cover(plane(c), numbers + whole * (2 + part), static_cast<int>(whole), parts[part].fill[c]);
}

void Planes::warp_as_pillow(const std::vector<double>& numbers) {
  const auto number = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<std::int32_t>(numbers[i])); };
  std::int32_t* const places = room(buffers_.places, area());
  for (int row = 0; row < size_.height; ++row) {
    const std::uint32_t down = static_cast<std::uint32_t>(row);
    const WholePoint first{number(2) + down * number(1), number(5) + down * number(4)};
    ops_.whole_places(places + static_cast<std::size_t>(size_.width) * down, first, {number(0), number(3)}, size_.width,
                      size_.height, size_.width);
  }
  const std::vector<std::uint8_t> fill(numbers.begin() + 6, numbers.end());
  take({places, nullptr, nullptr}, size_.height, size_.width, fill.data());
}

// Let the image have a size, and at its places the pixels of what it was.
void Planes::take(const LinePlaces& places, int height, int width, const std::uint8_t* fill) {
  const std::size_t whole = static_cast<std::size_t>(height) * static_cast<std::size_t>(width);
  std::uint8_t* const made = spare(whole);
  for (int first = 0; first < size_.channels; first += 4) {
    const int channels = std::min(4, size_.channels - first);
    std::uint8_t* out[4] = {};
    for (int c = 0; c < channels; ++c) out[c] = made + whole * static_cast<std::size_t>(first + c);
    ops_.gather_pixels(out, channels, framed(first, channels, fill), places, static_cast<int>(whole), size_.width + 2);
  }
  buffers_.image.swap(buffers_.spare);
  size_.height = height, size_.width = width;
}

}  // namespace headrace
