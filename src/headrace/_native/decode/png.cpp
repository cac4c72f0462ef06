#include "png.hpp"

#include <cstdlib>
#include <cstring>

#include "inflate.hpp"

namespace headrace {

const bool reads_png = inflates;

namespace {

constexpr std::uint8_t signature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
constexpr std::size_t frame = 12;  // bytes of a chunk around its data: length, name, checksum

// A small file may ask for much time and memory: another reader decides about those with more.
constexpr std::int64_t pixels_at_most = std::int64_t{1} << 26;
constexpr std::size_t chunks_at_most = 4096, text_at_most = std::size_t{1} << 20;

constexpr std::uint32_t name_of(const char (&name)[5]) {
  return static_cast<std::uint32_t>(name[0]) << 24 | static_cast<std::uint32_t>(name[1]) << 16 |
         static_cast<std::uint32_t>(name[2]) << 8 | static_cast<std::uint32_t>(name[3]);
}

std::uint32_t number(const std::uint8_t* at) {
  return static_cast<std::uint32_t>(at[0]) << 24 | static_cast<std::uint32_t>(at[1]) << 16 |
         static_cast<std::uint32_t>(at[2]) << 8 | at[3];
}

// Whether a chunk changes no pixel, and is as long as it must be. `text` is how many bytes of text there may yet be.
bool is_harmless(std::uint32_t name, std::size_t length, bool palette, int channels, std::size_t& text) {
  const std::size_t colors = channels < 3 ? 1 : 3;
  switch (name) {
    case name_of("gAMA"):
      return length == 4;
    case name_of("cHRM"):
      return length == 32;
    case name_of("sRGB"):
      return length == 1;
    case name_of("pHYs"):
      return length == 9;
    case name_of("tIME"):
      return length == 7;
    case name_of("sBIT"):
      return length == (palette ? 3 : static_cast<std::size_t>(channels));
    case name_of("bKGD"):
      return length == (palette ? 1 : 2 * colors);
    case name_of("tRNS"):
      return palette ? length >= 1 && length <= 256 : channels % 2 == 1 && length == 2 * colors;
    case name_of("tEXt"):
      if (length > text) return false;
      text -= length;
      return true;
    default:
      return false;
  }
}

// The filters of a line (PNG, 9.2), by bytes of a pixel. `above` is the line before, of zeros for the first one.
void undo_sub(std::uint8_t* out, const std::uint8_t* in, std::size_t count, std::size_t step) {
  for (std::size_t i = 0; i < step && i < count; ++i) out[i] = in[i];
  for (std::size_t i = step; i < count; ++i) out[i] = static_cast<std::uint8_t>(in[i] + out[i - step]);
}

void undo_up(std::uint8_t* __restrict out, const std::uint8_t* __restrict in, const std::uint8_t* __restrict above,
             std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<std::uint8_t>(in[i] + above[i]);
}

void undo_average(std::uint8_t* out, const std::uint8_t* in, const std::uint8_t* above, std::size_t count, std::size_t step) {
  for (std::size_t i = 0; i < count; ++i) {
    const int left = i < step ? 0 : out[i - step];
    out[i] = static_cast<std::uint8_t>(in[i] + ((left + above[i]) >> 1));
  }
}

int predicted(int left, int above, int corner) {
  const int to_left = std::abs(above - corner), to_above = std::abs(left - corner);
  const int to_corner = std::abs(left + above - 2 * corner);
  if (to_left <= to_above && to_left <= to_corner) return left;
  return to_above <= to_corner ? above : corner;
}

void undo_paeth(std::uint8_t* out, const std::uint8_t* in, const std::uint8_t* above, std::size_t count, std::size_t step) {
  std::size_t i = 0;
  for (; i < step && i < count; ++i) out[i] = static_cast<std::uint8_t>(in[i] + above[i]);
  while (i < count) {
    // Masks are flat: where nothing is added, and eight pixels above and their left neighbors are alike, so are these.
    if (step == 1 && i + 8 <= count) {
      std::uint64_t added, over, before;
      std::memcpy(&added, in + i, 8), std::memcpy(&over, above + i, 8), std::memcpy(&before, above + i - 1, 8);
      const std::uint64_t same = 0x0101010101010101U * out[i - 1];
      if (added == 0 && over == same && before == same) {
        std::memcpy(out + i, &same, 8);
        i += 8;
        continue;
      }
    }
    const std::size_t stop = step == 1 && i + 8 <= count ? i + 8 : count;
    for (; i < stop; ++i) out[i] = static_cast<std::uint8_t>(in[i] + predicted(out[i - step], above[i], above[i - step]));
  }
}

bool undo(int filter, std::uint8_t* out, const std::uint8_t* in, const std::uint8_t* above, std::size_t count, std::size_t step) {
  switch (filter) {
    case 0:
      std::memcpy(out, in, count);
      return true;
    case 1:
      undo_sub(out, in, count, step);
      return true;
    case 2:
      undo_up(out, in, above, count);
      return true;
    case 3:
      undo_average(out, in, above, count, step);
      return true;
    case 4:
      undo_paeth(out, in, above, count, step);
      return true;
    default:
      return false;
  }
}

// Pixels of less than 8 bits, the first in the highest bits; each is multiplied by `scale`.
void unpack(std::uint8_t* out, const std::uint8_t* in, std::size_t count, int depth, int scale) {
  const std::size_t each = static_cast<std::size_t>(8 / depth);
  const int mask = (1 << depth) - 1;
  for (std::size_t i = 0; i < count; ++i) {
    const int shift = 8 - depth * (1 + static_cast<int>(i % each));
    out[i] = static_cast<std::uint8_t>((in[i / each] >> shift & mask) * scale);
  }
}

// Gray is repeated, and alpha left out.
void to_rgb(std::uint8_t* out, const std::uint8_t* in, std::size_t count, int channels) {
  const int green = channels < 3 ? 0 : 1, blue = channels < 3 ? 0 : 2;
  for (std::size_t i = 0; i < count; ++i, out += 3, in += channels) out[0] = in[0], out[1] = in[green], out[2] = in[blue];
}

void swap_bytes(std::uint8_t* out, const std::uint8_t* in, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint16_t value = static_cast<std::uint16_t>(in[2 * i] << 8 | in[2 * i + 1]);
    std::memcpy(out + 2 * i, &value, 2);
  }
}

}  // namespace

bool Png::open(const std::uint8_t* data, std::size_t size, bool texts) {
  if (!inflates || size < sizeof signature + 3 * frame || std::memcmp(data, signature, sizeof signature) != 0) return false;
  first_ = nullptr, packed_ = 0, chunks_ = 0;
  bool colors = false, ended = false;  // whether there is a palette; whether the pixels have ended
  std::size_t at = sizeof signature, seen = 0, text = texts ? text_at_most : 0;
  while (size - at >= frame) {
    const std::size_t length = number(data + at);
    const std::uint32_t name = number(data + at + 4);
    const std::uint8_t* const body = data + at + 8;
    if (length > size - at - frame || ++seen > chunks_at_most) return false;
    if (number(body + length) != crc32_of(data + at + 4, length + 4)) return false;
    at += frame + length;
    if (seen == 1) {
      if (name != name_of("IHDR") || length != 13) return false;
      const std::uint32_t columns = number(body), rows = number(body + 4);
      const int color = body[9];
      depth = body[8], palette = color == 3;
      channels = color == 2 ? 3 : color == 4 ? 2 : color == 6 ? 4 : 1;
      const bool known = depth == 8 || (channels == 1 && (depth == 1 || depth == 2 || depth == 4 || (depth == 16 && !palette)));
      if (!known || (channels == 1 && color != 0 && !palette) || body[10] != 0 || body[11] != 0 || body[12] != 0) return false;
      if (columns == 0 || rows == 0 || columns > pixels_at_most || rows > pixels_at_most ||
          static_cast<std::int64_t>(columns) * rows > pixels_at_most)
        return false;
      width = static_cast<int>(columns), height = static_cast<int>(rows);
    } else if (name == name_of("IDAT")) {
      if (ended || length == 0 || (palette && !colors)) return false;
      if (first_ == nullptr) first_ = body - 8;
      packed_ += length, ++chunks_;
    } else if (name == name_of("IEND")) {
      return first_ != nullptr && length == 0 && at == size;
    } else {
      ended = first_ != nullptr;
      if (name == name_of("PLTE")) {
        if (colors || ended || !palette || length == 0 || length > 768 || length % 3 != 0) return false;
        colors = true;
      } else if (!is_harmless(name, length, palette, channels, text)) {
        return false;
      }
    }
  }
  return false;
}

bool Png::read(std::uint8_t* out, Buffer& raw) const { return make(out, raw, false); }

bool Png::read_rgb(std::uint8_t* out, Buffer& raw) const { return depth == 8 && !palette && make(out, raw, true); }

bool Png::make(std::uint8_t* out, Buffer& raw, bool rgb) const {
  const std::size_t line = line_bytes(), rows = static_cast<std::size_t>(height), columns = static_cast<std::size_t>(width);
  const std::size_t inflated = (line + 1) * rows;
  // The inflated lines, a line of zeros, two for lines that are not made in place, and the chunks in one piece.
  std::uint8_t* const lines = room(raw, inflated + 3 * line + (chunks_ > 1 ? packed_ : 0));
  std::uint8_t *const zeros = lines + inflated, *even = zeros + line, *odd = even + line;
  const std::uint8_t* packed = first_ + 8;
  if (chunks_ > 1) {
    std::uint8_t* joined = odd + line;
    const std::uint8_t* chunk = first_;
    packed = joined;
    for (int i = 0; i < chunks_; ++i) {
      const std::size_t length = number(chunk);
      std::memcpy(joined, chunk + 8, length);
      joined += length, chunk += frame + length;
    }
  }
  if (!inflate_exactly(packed, packed_, lines, inflated)) return false;
  std::memset(zeros, 0, line);
  const std::uint8_t* above = zeros;
  const std::size_t bytes = depth == 16 ? 2 : 1, step = bytes * static_cast<std::size_t>(channels);
  const std::size_t made_bytes = columns * (rgb ? 3 : step);
  const bool in_place = depth == 8 && (!rgb || channels == 3);
  const int scale = palette || depth == 1 ? 1 : 255 / ((1 << (depth < 8 ? depth : 8)) - 1);
  for (std::size_t y = 0; y < rows; ++y, out += made_bytes) {
    const std::uint8_t* const in = lines + (line + 1) * y;
    std::uint8_t* const made = in_place ? out : y % 2 == 0 ? even : odd;
    if (!undo(in[0], made, in + 1, above, line, step)) return false;
    if (depth == 8 && !in_place) to_rgb(out, made, columns, channels);
    if (depth == 16) swap_bytes(out, made, columns);
    if (depth < 8) unpack(out, made, columns, depth, scale);
    above = made;
  }
  return true;
}

}  // namespace headrace
