#include "resample.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace headrace {
namespace {

// Write a pixel of some bytes several times.
void repeat(std::uint8_t* out, const std::uint8_t* pixel, std::size_t bytes, std::size_t times) {
  if (bytes == 1) {
    std::memset(out, pixel[0], times);
    return;
  }
  for (std::size_t i = 0; i < times; ++i) std::memcpy(out + i * bytes, pixel, bytes);
}

}  // namespace

void ResampleBuffers::shrink_to(std::size_t bytes) {
  if (this->bytes.capacity() > bytes) Buffer().swap(this->bytes);
  if (framed.capacity() * sizeof(std::uint32_t) > bytes) std::vector<std::uint32_t>().swap(framed);
}

Resampler::Resampler(const RowOps& ops, const std::vector<WarpPart>& parts, bool nearest, const Box& window, bool flipped,
                     const std::uint8_t* outside, ResampleBuffers& buffers)
    : ops_(ops.planes_of(std::int64_t{1} * window.height * window.width)),
      parts_(parts),
      nearest_(nearest),
      window_(window),
      flipped_(flipped),
      outside_(outside),
      buffers_(buffers),
      height_(parts.back().height),
      width_(parts.back().width) {
  const int before = std::clamp(-window.left, 0, window.width);
  const int after = std::clamp(width_ - window.left, before, window.width);
  first_ = flipped ? window.width - after : before;
  last_ = flipped ? window.width - before : after;
}

// Decide how places are found, and compute what all rows have in common.
void Resampler::begin(int height, int width) {
  const std::size_t columns = static_cast<std::size_t>(last_ - first_);
  start_ = flipped_ ? window_.left + window_.width - 1 - first_ : window_.left + first_;
  const double* const matrix = parts_[0].inverse;
  constexpr int sides_at_most = 1 << 19;
  // Numbers near the largest ones would no longer be finite once they are counted in smaller units.
  affine_ = ops_.affine_places != nullptr && parts_.size() == 1 && columns >= 4 && height < sides_at_most && width < sides_at_most &&
            matrix[6] == 0 && matrix[7] == 0 && matrix[8] == 1 &&
            std::all_of(matrix, matrix + 6, [](double number) { return std::abs(number) < 1e100; });
  double* const numbers = room(buffers_.points, 2 * columns);
  if (!affine_) return;
  const double grains = nearest_ ? 1.0 : AffineLine::grains;
  for (std::size_t i = 0; i < columns; ++i) {
    const double x = column(i);
    numbers[i] = matrix[0] * x * grains, numbers[columns + i] = matrix[3] * x * grains;
  }
}

// Where the pixels of a row come from, and how much is shown of each image on the way.
LinePlaces Resampler::line(int row, int height, int width) {
  const int count = last_ - first_;
  const std::size_t columns = static_cast<std::size_t>(count);
  std::int32_t* const numbers = room(buffers_.places, columns * (2 + parts_.size()));
  shares_ = numbers + 3 * columns;
  const LinePlaces places{numbers, nearest_ ? nullptr : numbers + columns, nearest_ ? nullptr : numbers + 2 * columns};
  const double down = row + 0.5;
  double* const x = buffers_.points.data();
  double* const y = x + columns;
  if (affine_) {
    const double* const matrix = parts_[0].inverse;
    ops_.affine_places(places, {x, y, matrix[1] * down, matrix[2], matrix[4] * down, matrix[5]}, count, height, width);
    return places;
  }
  for (std::size_t i = 0; i < columns; ++i) x[i] = column(i), y[i] = down;
  for (std::size_t part = parts_.size(); part-- > 0;) {
    const WarpPart& map = parts_[part];
    ops_.map_points(x, y, count, map.inverse);
    if (part > 0)
      ops_.shares(shares_ + columns * (part - 1), x, y, count, map.before_height, map.before_width, nearest_);
  }
  (nearest_ ? ops_.nearest_places : ops_.bilinear_places)(places, x, y, count, height, width);
  return places;
}

void Resampler::planes(const Pixels& pixels, std::uint8_t* out, std::size_t plane) {
  const std::size_t height = static_cast<std::size_t>(pixels.height), width = static_cast<std::size_t>(pixels.width);
  const std::size_t channels = static_cast<std::size_t>(pixels.channels), stride = width + 2;
  const std::size_t columns = static_cast<std::size_t>(window_.width);
  // A pixel in four bytes, with a margin: one read gives two neighbors of all channels.
  std::uint32_t* const framed = room(buffers_.framed, stride * (height + 3) + slack);
  std::uint32_t margin = 0;
  std::memcpy(&margin, parts_[0].fill, channels);
  std::fill_n(framed, stride, margin), std::fill_n(framed + stride * (height + 1), stride, margin);
  for (std::size_t y = 0; y < height; ++y) {
    std::uint32_t* const line = framed + stride * (y + 1);
    line[0] = line[width + 1] = margin;
    ops_.widen(line + 1, pixels.data + y * width * channels, width, pixels.channels);
  }
  begin(pixels.height, pixels.width);
  for (int y = 0; y < window_.height; ++y) {
    const int row = window_.top + y;
    const std::size_t at = columns * static_cast<std::size_t>(y);
    const bool shown = shows(row);
    const std::size_t first = static_cast<std::size_t>(shown ? first_ : window_.width);
    const std::size_t last = static_cast<std::size_t>(shown ? last_ : window_.width);
    std::uint8_t* lines[4] = {};
    for (std::size_t c = 0; c < channels; ++c) {
      std::uint8_t* const to = out + c * plane + at;
      std::memset(to, outside_[c], first), std::memset(to + last, outside_[c], columns - last);
      lines[c] = to + first;
    }
    if (!shown) continue;
    const int count = last_ - first_;
    const LinePlaces places = line(row, pixels.height, pixels.width);
    ops_.gather_pixels(lines, pixels.channels, framed, places, count, pixels.width + 2);
    for (std::size_t part = 1; part < parts_.size(); ++part)
      for (std::size_t c = 0; c < channels; ++c)
        ops_.cover(lines[c], shares_ + static_cast<std::size_t>(count) * (part - 1), count, parts_[part].fill[c]);
  }
}

void Resampler::nearest_pixels(const Pixels& pixels, std::uint8_t* out) {
  const std::size_t height = static_cast<std::size_t>(pixels.height), width = static_cast<std::size_t>(pixels.width);
  const std::size_t bytes = static_cast<std::size_t>(pixels.channels), stride = (width + 2) * bytes;
  const std::size_t columns = static_cast<std::size_t>(window_.width);
  std::uint8_t* const framed = room(buffers_.bytes, stride * (height + 2) + slack);
  for (std::size_t y = 0; y < height + 2; ++y) {
    std::uint8_t* const line = framed + stride * y;
    const bool edge = y == 0 || y == height + 1;
    repeat(line, parts_[0].fill, bytes, edge ? width + 2 : 1);
    if (edge) continue;
    std::memcpy(line + bytes, pixels.data + (y - 1) * width * bytes, width * bytes);
    repeat(line + (width + 1) * bytes, parts_[0].fill, bytes, 1);
  }
  begin(pixels.height, pixels.width);
  for (int y = 0; y < window_.height; ++y) {
    const int row = window_.top + y;
    std::uint8_t* const to = out + columns * bytes * static_cast<std::size_t>(y);
    const bool shown = shows(row);
    repeat(to, outside_, bytes, static_cast<std::size_t>(shown ? first_ : window_.width));
    if (shown) repeat(to + bytes * static_cast<std::size_t>(last_), outside_, bytes, static_cast<std::size_t>(window_.width - last_));
    if (!shown) continue;
    const int count = last_ - first_;
    const LinePlaces places = line(row, pixels.height, pixels.width);
    std::uint8_t* const shown_at = to + bytes * static_cast<std::size_t>(first_);
    if (bytes == 1)
      ops_.gather(shown_at, framed, places, count, pixels.width + 2);
    else
      for (int i = 0; i < count; ++i)
        std::memcpy(shown_at + bytes * static_cast<std::size_t>(i), framed + bytes * static_cast<std::size_t>(places.at[i]), bytes);
    for (std::size_t part = 1; part < parts_.size(); ++part) {
      const std::int32_t* const share = shares_ + static_cast<std::size_t>(count) * (part - 1);
      for (int i = 0; i < count; ++i)
        if (share[i] == 0) std::memcpy(shown_at + bytes * static_cast<std::size_t>(i), parts_[part].fill, bytes);
    }
  }
}

}  // namespace headrace
