#include "line_writer.hpp"

#include <cstring>

namespace headrace {
namespace {

// Bytes of a row of a batch that is too large for the caches: when it is read, it is no longer in them in either way.
constexpr std::size_t streamed_at_least = std::size_t{1} << 19;

template <class T>
void look_up_all(T* out, std::ptrdiff_t step, const std::uint8_t* in, std::ptrdiff_t apart, int count, const T* table) {
  for (int i = 0; i < count; ++i) out[i * step] = table[in[i * apart]];
}

}  // namespace

LineWriter::LineWriter(const RowFormat& format, Buffer& planes, void* out)
    : format_(format),
      plain_(format.values.itemsize == 1 && format.values.table.empty()),
      computed_(format.values.computed && format.ops->exact),
      streamed_(computed_ && format.ops->stream != nullptr && format.bytes() >= streamed_at_least),
      normalizes3_(computed_ && !streamed_ && format.channels_first && format.values.channels == 3 &&
                   format.ops->normalize3 != nullptr),
      buffer_(planes),
      out_(static_cast<std::uint8_t*>(out)) {
  set_width(static_cast<std::size_t>(format.width));
}

LineWriter::~LineWriter() {
  if (streamed_) format_.ops->fence();
}

void LineWriter::set_width(std::size_t pixels) {
  pixels_ = pixels;
  planes_ = room(buffer_, (pixels_ + slack) * 8);
}

void LineWriter::put(const std::uint8_t* line, std::size_t at, bool flipped, const std::uint8_t* ahead) {
  if (!normalizes3_ && ahead != nullptr) prefetch(ahead, pixels_ * static_cast<std::size_t>(format_.values.channels));
  format_.channels_first ? put_planes(line, at, flipped, ahead) : put_interleaved(line, at, flipped);
}

void LineWriter::put_interleaved(const std::uint8_t* line, std::size_t at, bool flipped) {
  const Values& values = format_.values;
  const int channels = values.channels;
  const std::size_t size = static_cast<std::size_t>(values.itemsize);
  std::uint8_t* row = out_ + at * channels * size;
  if (flipped) line = mirrored(line);
  if (plain_)
    std::memcpy(row, line, pixels_ * channels);
  else if (computed_)
    format_.ops->normalize_interleaved(reinterpret_cast<float*>(row), line, pixels_, channels, values.mean, values.std);
  else
    for (int c = 0; c < channels; ++c) look_up(row + c * size, channels, line + c, channels, c);
}

void LineWriter::put_planes(const std::uint8_t* line, std::size_t at, bool flipped, const std::uint8_t* ahead) {
  const Values& values = format_.values;
  const int channels = values.channels, count = static_cast<int>(pixels_);
  const std::size_t size = static_cast<std::size_t>(values.itemsize);
  const std::size_t plane = static_cast<std::size_t>(format_.height) * format_.width;
  if (normalizes3_) {
    float* const first = reinterpret_cast<float*>(out_) + at;
    float* const rows[3] = {first, first + plane, first + 2 * plane};
    return format_.ops->normalize3(rows, line, count, flipped, values.mean, values.std, ahead ? ahead : line);
  }
  std::uint8_t *rows[4], *planes[4];
  for (int c = 0; c < channels; ++c) {
    rows[c] = out_ + (c * plane + at) * size;
    planes[c] = plain_ ? rows[c] : planes_ + c * (pixels_ + slack);
  }
  if (channels == 3) {
    format_.ops->split3(planes, line, count, flipped);
  } else {
    if (flipped) line = mirrored(line);
    for (int c = 0; c < channels; ++c)
      for (int i = 0; i < count; ++i) planes[c][i] = line[static_cast<std::ptrdiff_t>(i) * channels + c];
  }
  if (plain_) return;
  for (int c = 0; c < channels; ++c) convert(rows[c], planes[c], c);
}

bool LineWriter::takes_blends() const {
  return computed_ && format_.channels_first && format_.values.channels == 3 && format_.ops->blends != nullptr;
}

void LineWriter::put_blend(const float* const* a, const float* const* b, const Blend& blend, std::size_t at) {
  const Values& values = format_.values;
  const std::size_t plane = static_cast<std::size_t>(format_.height) * format_.width;
  float* out = reinterpret_cast<float*>(out_) + at;
  for (int c = 0; c < 3; ++c, out += plane)
    format_.ops->blends->down(out, a[c], b[c], blend, pixels_, values.mean[c], values.std[c], streamed_);
}

void LineWriter::put_all(const std::uint8_t* planes) {
  const Values& values = format_.values;
  const std::size_t channels = static_cast<std::size_t>(values.channels), size = static_cast<std::size_t>(values.itemsize);
  const std::size_t width = static_cast<std::size_t>(format_.width), plane = width * static_cast<std::size_t>(format_.height);
  if (format_.channels_first) {
    pixels_ = plane;
    for (std::size_t c = 0; c < channels; ++c)
      if (plain_)
        std::memcpy(out_ + c * plane, planes + c * plane, plane);
      else
        convert(out_ + c * plane * size, planes + c * plane, static_cast<int>(c));
    return;
  }
  std::uint8_t* const line = planes_ + 4 * (pixels_ + slack);
  for (std::size_t at = 0; at < plane; at += width) {
    const std::uint8_t* const in = planes + at;
    if (channels == 3)
      format_.ops->planes->merge3(line, in, in + plane, in + 2 * plane, width);
    else
      for (std::size_t c = 0; c < channels; ++c)
        for (std::size_t i = 0; i < width; ++i) line[i * channels + c] = in[c * plane + i];
    put_interleaved(line, at, false);
  }
}

void LineWriter::put_part(const std::uint8_t* planes, const Box& part) {
  const std::size_t channels = static_cast<std::size_t>(format_.values.channels);
  const std::size_t width = static_cast<std::size_t>(format_.width), height = static_cast<std::size_t>(format_.height);
  const std::size_t top = static_cast<std::size_t>(part.top), left = static_cast<std::size_t>(part.left);
  const std::size_t rows = static_cast<std::size_t>(part.height), columns = static_cast<std::size_t>(part.width);
  const std::size_t plane = columns * (rows + 1), size = static_cast<std::size_t>(format_.values.itemsize);
  // Lines of the row of the batch, one for each channel: what is outside of the part stays in them.
  std::uint8_t* const lines = planes_;
  const std::size_t apart = width + slack;
  std::uint8_t* const pixels = planes_ + 4 * (pixels_ + slack);
  for (std::size_t c = 0; c < channels; ++c) std::memset(lines + c * apart, planes[c * plane + columns * rows], width);
  bool clean = true;
  for (std::size_t y = 0; y < height; ++y) {
    const bool shown = y >= top && y < top + rows;
    for (std::size_t c = 0; c < channels; ++c) {
      std::uint8_t* const line = lines + c * apart;
      const std::uint8_t* const from = planes + c * plane;
      if (shown)
        std::memcpy(line + left, from + columns * (y - top), columns);
      else if (!clean)
        std::memset(line + left, from[columns * rows], columns);
      if (!format_.channels_first) continue;
      std::uint8_t* const out = out_ + (c * height + y) * width * size;
      plain_ ? static_cast<void>(std::memcpy(out, line, width)) : convert(out, line, static_cast<int>(c));
    }
    clean = !shown;
    if (format_.channels_first) continue;
    if (channels == 3)
      format_.ops->planes->merge3(pixels, lines, lines + apart, lines + 2 * apart, width);
    else
      for (std::size_t c = 0; c < channels; ++c)
        for (std::size_t i = 0; i < width; ++i) pixels[i * channels + c] = lines[c * apart + i];
    put_interleaved(pixels, y * width, false);
  }
}

void LineWriter::convert(std::uint8_t* row, const std::uint8_t* plane, int channel) const {
  const Values& values = format_.values;
  const auto normalize = streamed_ ? format_.ops->stream : format_.ops->normalize;
  if (computed_)
    normalize(reinterpret_cast<float*>(row), plane, pixels_, values.mean[channel], values.std[channel]);
  else
    look_up(row, 1, plane, 1, channel);
}

void LineWriter::look_up(std::uint8_t* out, std::ptrdiff_t step, const std::uint8_t* in, std::ptrdiff_t apart,
                         int channel) const {
  const Values& values = format_.values;
  const int count = static_cast<int>(pixels_);
  const std::uint8_t* table = values.table.data() + static_cast<std::size_t>(channel) * 256 * values.itemsize;
  switch (values.itemsize) {
    case 1:
      return look_up_all(out, step, in, apart, count, table);
    case 2:
      return look_up_all(reinterpret_cast<std::uint16_t*>(out), step, in, apart, count,
                         reinterpret_cast<const std::uint16_t*>(table));
    default:
      return look_up_all(reinterpret_cast<std::uint32_t*>(out), step, in, apart, count,
                         reinterpret_cast<const std::uint32_t*>(table));
  }
}

const std::uint8_t* LineWriter::mirrored(const std::uint8_t* line) {
  const int count = static_cast<int>(pixels_), channels = format_.values.channels;
  std::uint8_t* reversed = planes_ + 4 * (pixels_ + slack);
  for (int i = 0; i < count; ++i)
    for (int c = 0; c < channels; ++c) reversed[(count - 1 - i) * channels + c] = line[i * channels + c];
  return reversed;
}

}  // namespace headrace
