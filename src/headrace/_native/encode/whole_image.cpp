#include "whole_image.hpp"

#include <algorithm>

#include "../color/line_writer.hpp"
#include "../decode/jpeg_lines.hpp"

namespace headrace {
namespace {

// As `LongestSide` in Python has it.
int shorter(int max_side, int side, int longest) {
  return std::max(1, static_cast<int>(static_cast<double>(max_side) * side / longest + 0.5));
}

}  // namespace

bool read_whole(const Sample& sample, int max_side, std::int64_t max_pixels, bool oriented, const RowOps& ops, Scratch& s,
                WholeImage& out) {
  Jpeg& jpeg = s.jpeg;
  if (!jpeg.open(sample.data, sample.size)) return false;
  if (static_cast<std::int64_t>(jpeg.width()) * jpeg.height() > max_pixels) return false;
  const int orientation = oriented ? jpeg.orientation() : 1;
  const Orientation how(orientation);
  const int height = how.swapped ? jpeg.width() : jpeg.height(), width = how.swapped ? jpeg.height() : jpeg.width();
  const int longest = std::max(height, width);
  const bool scaled = max_side > 0 && longest > max_side;
  out.height = scaled ? (height == longest ? max_side : shorter(max_side, height, longest)) : height;
  out.width = scaled ? (width == longest ? max_side : shorter(max_side, width, longest)) : width;
  out.as_stored = !scaled && jpeg.orientation() == 1;

  Recipe recipe;
  recipe.max_pixels = max_pixels, recipe.max_bytes = INT64_MAX;
  recipe.row.height = out.height, recipe.row.width = out.width, recipe.row.ops = &ops;
  const Geometry geometry{{0, 0, height, width}, out.height, out.width, {0, 0, out.height, out.width}, false};
  const View view{geometry.source, 0, 0, static_cast<double>(height), static_cast<double>(width)};
  room(out.pixels, recipe.row.bytes() + slack);
  Seconds seconds;
  Clock::time_point then = Clock::now();
  JpegLines stored(jpeg, 1, s.strip, seconds, then);
  UprightLines upright(stored, how, height, width, s.upright);
  LineWriter writer(recipe.row, s.planes, out.pixels.data());
  Scaler scaler(recipe, geometry, view, s.scale, writer);
  return (orientation == 1 ? scaler.run(stored) : scaler.run(upright)) && jpeg.finish(s.strip);
}

}  // namespace headrace
