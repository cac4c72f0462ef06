// A PNG file in memory: gray values, indices of a palette, or colors of 8 bits. Nothing else is read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../buffer.hpp"

namespace headrace {

struct Png {
  int width = 0, height = 0;
  int depth = 0;         // bits of a number: 1, 2, 4, 8 or 16
  int channels = 1;      // numbers of a pixel; those with more than one have 8 bits each. 2 and 4 have alpha
  bool palette = false;  // pixels are indices

  // Each returns false for files that it does not read, and for what is wrong with them. Other readers decide about those:
  // interlaced and animated files, colors of 16 bits, and chunks that need more than a look at their length.

  // Read the header and check every chunk; the bytes must stay where they are. Without `texts`, a file with text, which may
  // hold an orientation, is not read.
  bool open(const std::uint8_t* data, std::size_t size, bool texts);
  // Write the pixels, `channels` numbers each: of 16 bits where `depth` is 16, else bytes. Gray values of 2 and 4 bits are spread over 0 to
  // 255, and those of 1 bit are 0 and 1. `raw` is memory for this.
  bool read(std::uint8_t* out, Buffer& raw) const;
  // Write three bytes a pixel: gray is repeated, alpha left out. False for palettes, and where a number has not 8 bits.
  bool read_rgb(std::uint8_t* out, Buffer& raw) const;

 private:
  std::size_t line_bytes() const { return (static_cast<std::size_t>(width) * static_cast<std::size_t>(depth * channels) + 7) / 8; }
  bool make(std::uint8_t* out, Buffer& raw, bool rgb) const;

  const std::uint8_t* first_ = nullptr;  // the first chunk of pixels
  std::size_t packed_ = 0;               // bytes of all of them
  int chunks_ = 0;
};

// Whether there is a library that inflates.
extern const bool reads_png;

}  // namespace headrace
