// The lines of an image, one after the other: what is scaled is read through this.
#pragma once

#include <cstdint>
#include <cstring>

#include "../buffer.hpp"
#include "../rows/row_ops.hpp"

namespace headrace {

class Lines {
 public:
  virtual ~Lines() = default;
  // Ask for the lines [top, bottom), each from column `left` to column `right`; false if there are none to be had.
  virtual bool begin(int top, int bottom, int left, int right) = 0;
  // The next line from column `left` on, readable `slack` bytes past its end; null if it cannot be decoded.
  virtual const std::uint8_t* next() = 0;
};

// Pixels in memory, interleaved, line after line.
struct Pixels {
  const std::uint8_t* data;
  int height, width, channels;
};

class PixelLines final : public Lines {
 public:
  PixelLines(const Pixels& pixels, Buffer& line) : pixels_(pixels), line_(line) {}

  bool begin(int top, int, int left, int right) override {
    row_ = top, left_ = left;
    bytes_ = static_cast<std::size_t>(right - left) * pixels_.channels;
    room(line_, bytes_ + slack);
    return true;
  }

  // A copy near the end: the bytes after the last pixel are not ours to read.
  const std::uint8_t* next() override {
    const std::size_t at = (static_cast<std::size_t>(row_++) * pixels_.width + left_) * pixels_.channels;
    // Lines of a part are too far apart for the processor to foresee the next.
    const std::size_t ahead = at + 6 * static_cast<std::size_t>(pixels_.width) * pixels_.channels;
    if (ahead + bytes_ <= size_) prefetch(pixels_.data + ahead, bytes_);
    if (at + bytes_ + slack <= size_) return pixels_.data + at;
    std::memcpy(line_.data(), pixels_.data + at, bytes_);
    return line_.data();
  }

 private:
  const Pixels& pixels_;
  Buffer& line_;
  int row_ = 0, left_ = 0;
  std::size_t bytes_ = 0;
  const std::size_t size_ = static_cast<std::size_t>(pixels_.height) * pixels_.width * pixels_.channels;
};

}  // namespace headrace
