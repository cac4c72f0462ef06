// A PPM file in memory: three bytes for each pixel after a header in text, without comments.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headrace {

struct Ppm {
  int width = 0, height = 0;
  const std::uint8_t* pixels = nullptr;  // in the file itself

  // False for files that it does not read, and for those that are longer or shorter than their pixels.
  bool open(const std::uint8_t* data, std::size_t size) {
    std::size_t at = 2;
    int most = 0;
    if (!number(data, size, at, width) || !number(data, size, at, height) || !number(data, size, at, most)) return false;
    if (size < 2 || data[0] != 'P' || data[1] != '6' || width == 0 || height == 0 || most != 255) return false;
    if (at == size || !is_space(data[at])) return false;
    pixels = data + at + 1;
    return size - at - 1 == std::size_t{3} * static_cast<std::size_t>(width) * static_cast<std::size_t>(height);
  }

 private:
  static bool is_space(std::uint8_t byte) { return byte == ' ' || (byte >= '\t' && byte <= '\r'); }

  // Read the next number, of at most seven digits; `at` is left behind it.
  static bool number(const std::uint8_t* data, std::size_t size, std::size_t& at, int& value) {
    const std::size_t before = at;
    while (at < size && is_space(data[at])) ++at;
    const std::size_t begin = at;
    for (value = 0; at < size && data[at] >= '0' && data[at] <= '9' && at - begin < 8; ++at) value = 10 * value + (data[at] - '0');
    return begin > before && at > begin && at - begin < 8;
  }
};

}  // namespace headrace
