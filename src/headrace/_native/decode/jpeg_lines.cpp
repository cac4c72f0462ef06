#include "jpeg_lines.hpp"

#include <algorithm>
#include <cstring>

namespace headrace {
namespace {

// libjpeg-turbo writes lines that begin at a multiple of 16 or 32 past the caches, from where they would be read at once.
constexpr std::size_t group = 64, off = 8;

std::size_t rounded_up(std::size_t bytes) { return (bytes + group - 1) / group * group; }

}  // namespace

bool JpegLines::begin(int top, int bottom, int left, int right) {
  seconds_.transform += since(then_);
  left_ = left, rest_ = bottom - top;
  if (!jpeg_.begin(shrink_, top, left, right)) return false;
  const std::size_t stride = rounded_up(static_cast<std::size_t>(jpeg_.columns()) * 3 + slack);
  const auto at = reinterpret_cast<std::uintptr_t>(room(strip_, stride * lines + group + off));
  begin_ = reinterpret_cast<std::uint8_t*>(rounded_up(at) + off);
  stride_ = static_cast<std::ptrdiff_t>(stride);
  seconds_.decode += since(then_);
  return true;
}

const std::uint8_t* JpegLines::next() {
  if (at_ == held_) {
    seconds_.transform += since(then_);
    held_ = std::min(lines, rest_), at_ = 0;
    if (held_ <= 0 || !jpeg_.read(begin_, stride_, held_)) return nullptr;
    rest_ -= held_;
    seconds_.decode += since(then_);
  }
  return begin_ + stride_ * at_++ + 3 * static_cast<std::ptrdiff_t>(left_ - jpeg_.left());
}

bool UprightLines::begin(int top, int bottom, int left, int right) {
  const int rows = bottom - top;
  columns_ = right - left;
  const int y0 = how_.down ? height_ - bottom : top, x0 = how_.across ? width_ - right : left;
  const int stored_rows = how_.swapped ? columns_ : rows, stored_columns = how_.swapped ? rows : columns_;
  const int from_row = how_.swapped ? x0 : y0, from_column = how_.swapped ? y0 : x0;
  if (!stored_.begin(from_row, from_row + stored_rows, from_column, from_column + stored_columns)) return false;
  at_ = room(upright_, static_cast<std::size_t>(rows) * columns_ * 3 + slack);
  for (int i = 0; i < stored_rows; ++i) {
    const std::uint8_t* line = stored_.next();
    if (line == nullptr) return false;
    place(line, i, stored_columns, stored_rows);
  }
  return true;
}

// Put a line of the file, row `row` of `rows`, where it belongs in the upright part.
void UprightLines::place(const std::uint8_t* in, int row, int count, int rows) const {
  const int height = how_.swapped ? count : rows;
  for (int x = 0; x < count; ++x) {
    int y = how_.swapped ? x : row, over = how_.swapped ? row : x;
    if (how_.down) y = height - 1 - y;
    if (how_.across) over = columns_ - 1 - over;
    std::memcpy(upright_.data() + 3 * (static_cast<std::size_t>(y) * columns_ + over), in + 3 * x, 3);
  }
}

}  // namespace headrace
