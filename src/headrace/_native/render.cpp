#include "render.hpp"

#include <algorithm>
#include <cstring>

#include "clock.hpp"
#include "color/line_writer.hpp"
#include "decode/formats.hpp"
#include "decode/jpeg_lines.hpp"
#include "decode/png.hpp"
#include "decode/ppm.hpp"

namespace headrace {
namespace {

bool fits(const Recipe& recipe, const Geometry& geometry) {
  return geometry.window.height == recipe.row.height && geometry.window.width == recipe.row.width;
}

// By how much an image may be decoded smaller and still be at least as large as what is made of it.
int shrinks(const Geometry& geometry) {
  const Box& source = geometry.source;
  int most = 8;
  while (most > 1 && (source.height < most * geometry.height || source.width < most * geometry.width)) most /= 2;
  return most;
}

// `height` and `width` are those of the image decoded at 1/`shrink` of its size.
View view_of(const Box& box, int shrink, int height, int width) {
  if (shrink == 1) return {box, 0, 0, static_cast<double>(box.height), static_cast<double>(box.width)};
  View view{};
  const double d = shrink;
  view.source.top = box.top / shrink, view.source.left = box.left / shrink;
  view.source.height = std::min(height, (box.top + box.height + shrink - 1) / shrink) - view.source.top;
  view.source.width = std::min(width, (box.left + box.width + shrink - 1) / shrink) - view.source.left;
  view.begin_y = box.top / d - view.source.top, view.begin_x = box.left / d - view.source.left;
  view.span_y = box.height / d, view.span_x = box.width / d;
  return view;
}

ImageSize size_of(const RowFormat& row) { return {row.height, row.width, row.values.channels}; }

// What writes the lines of an image: to the row of the batch, or to memory where changes are to come.
LineWriter writer_of(const Recipe& recipe, bool changes, Scratch& s, void* row) {
  if (!changes) return {recipe.row, s.planes, row};
  return {recipe.bytes, s.planes, room(s.changes.image, recipe.bytes.bytes() + slack)};
}

// Erase a part of a row of the batch.
void erase(const RowFormat& row, const Op& op, std::uint8_t* out) {
  const std::size_t size = static_cast<std::size_t>(row.values.itemsize), channels = static_cast<std::size_t>(row.values.channels);
  std::uint8_t pixel[16];
  for (std::size_t i = 4; i < op.numbers.size(); ++i) pixel[i - 4] = static_cast<std::uint8_t>(op.numbers[i]);
  const std::size_t top = static_cast<std::size_t>(op.numbers[0]), left = static_cast<std::size_t>(op.numbers[1]);
  const std::size_t bottom = top + static_cast<std::size_t>(op.numbers[2]), right = left + static_cast<std::size_t>(op.numbers[3]);
  const std::size_t width = static_cast<std::size_t>(row.width), plane = width * static_cast<std::size_t>(row.height);
  for (std::size_t y = top; y < bottom; ++y)
    for (std::size_t x = left; x < right; ++x)
      for (std::size_t c = 0; c < channels; ++c) {
        const std::size_t at = row.channels_first ? c * plane + y * width + x : (y * width + x) * channels + c;
        std::memcpy(out + at * size, pixel + c * size, size);
      }
}

// Change the planes of an image, and write the row of the batch.
void change_planes(const Recipe& recipe, const std::vector<Op>& ops, Scratch& s, void* row) {
  Planes planes(*recipe.row.ops, size_of(recipe.row), s.changes);
  planes.run(ops);
  LineWriter(recipe.row, s.planes, row).put_all(planes.plane(0));
}

// Do what is drawn for the image after its geometry, and write the row of the batch.
void change(const Recipe& recipe, Philox& random, Scratch& s, void* row) {
  std::vector<Op>& ops = s.changes.ops;
  ops.clear();
  if (!recipe.changes.empty()) {
    for (const Change& change : recipe.changes) draw(change, size_of(recipe.row), random, ops);
    change_planes(recipe, ops, s, row);
    ops.clear();
  }
  for (const Change& change : recipe.erasings) draw(change, size_of(recipe.row), random, ops);
  for (const Op& op : ops) erase(recipe.row, op, static_cast<std::uint8_t*>(row));
}

bool render_jpeg(const Recipe& recipe, const Sample& sample, Philox& random, Scratch& s, void* row, Seconds& seconds) {
  Clock::time_point then = Clock::now();
  Jpeg& jpeg = s.jpeg;
  if (!jpeg.open(sample.data, sample.size)) return false;
  if (static_cast<std::int64_t>(jpeg.width()) * jpeg.height() > recipe.max_pixels) return false;
  seconds.decode += since(then);
  const int orientation = recipe.oriented ? jpeg.orientation() : 1;
  const Orientation how(orientation);
  const int height = how.swapped ? jpeg.width() : jpeg.height(), width = how.swapped ? jpeg.height() : jpeg.width();
  Geometry geometry;
  if (!place(recipe.steps, height, width, random, geometry) || !fits(recipe, geometry)) return false;
  const int shrink = recipe.shrink ? shrinks(geometry) : 1;
  const int rows = (height + shrink - 1) / shrink, columns = (width + shrink - 1) / shrink;
  const View view = view_of(geometry.source, shrink, rows, columns);
  JpegLines stored(jpeg, shrink, s.strip, seconds, then);
  UprightLines upright(stored, how, rows, columns, s.upright);
  LineWriter writer = writer_of(recipe, !recipe.changes.empty(), s, row);
  Scaler scaler(recipe, geometry, view, s.scale, writer);
  const bool good = orientation == 1 ? scaler.run(stored) : scaler.run(upright);
  seconds.transform += since(then);
  const bool whole = good && jpeg.finish(s.strip);
  seconds.decode += since(then);
  if (!whole) return false;
  change(recipe, random, s, row);
  seconds.transform += since(then);
  return true;
}

// The pixel in [0, length) that stands for one outside; -1 for the fill.
int inside(int at, int length, Edge edge) {
  if (at >= 0 && at < length) return at;
  switch (edge) {
    case Edge::edge:
      return at < 0 ? 0 : length - 1;
    case Edge::reflect:
      return at < 0 ? -at : 2 * (length - 1) - at;
    case Edge::symmetric:
      return at < 0 ? -at - 1 : 2 * length - 1 - at;
    default:
      return -1;
  }
}

// A window of an image that is not scaled: its lines are copied, and continued where they reach outside.
class Copier {
 public:
  Copier(const Recipe& recipe, const Geometry& geometry, const Pixels& pixels, Scratch& scratch, LineWriter& writer)
      : recipe_(recipe), geometry_(geometry), pixels_(pixels), scratch_(scratch), writer_(writer) {
    const Box& window = geometry.window;
    top_ = geometry.source.top + window.top, left_ = geometry.source.left + window.left;
    first_ = std::clamp(-left_, 0, window.width);
    last_ = std::clamp(pixels.width - left_, first_, window.width);
  }

  bool run() {
    const Box& window = geometry_.window;
    if (top_ == 0 && left_ == 0 && window.height == pixels_.height && window.width == pixels_.width &&
        !geometry_.flipped) {
      writer_.set_width(static_cast<std::size_t>(pixels_.height) * pixels_.width);
      writer_.put(pixels_.data, 0, false, scratch_.reading.ahead.data);
      return true;
    }
    scratch_.reading.ahead.ask();
    const bool within = first_ == 0 && last_ == window.width;
    if (!within && !find_columns()) return false;
    const std::size_t stride = static_cast<std::size_t>(pixels_.width) * pixels_.channels;
    std::uint8_t* line = room(scratch_.scale.line, static_cast<std::size_t>(window.width) * pixels_.channels + 2 * slack);
    for (int y = 0; y < window.height; ++y) {
      const int row = inside(top_ + y, pixels_.height, recipe_.edge);
      const std::size_t at = static_cast<std::size_t>(y) * window.width;
      if (row >= pixels_.height || (row < 0 && recipe_.edge != Edge::constant)) return false;
      if (row < 0) {
        fill(line, window.width, recipe_);
        writer_.put(line, at, geometry_.flipped);
        continue;
      }
      const std::uint8_t* in = pixels_.data + stride * row;
      if (!within) continue_line(line, in);
      writer_.put(within ? in + static_cast<std::ptrdiff_t>(left_) * pixels_.channels : line, at, geometry_.flipped);
    }
    return true;
  }

 private:
  // Which column stands for each of the window's; false where the edge does not reach that far.
  bool find_columns() {
    const int width = geometry_.window.width;
    int* columns = room(scratch_.columns, static_cast<std::size_t>(width));
    for (int x = 0; x < width; ++x) {
      columns[x] = inside(left_ + x, pixels_.width, recipe_.edge);
      if (columns[x] >= pixels_.width || (columns[x] < 0 && recipe_.edge != Edge::constant)) return false;
    }
    return true;
  }

  void continue_line(std::uint8_t* line, const std::uint8_t* in) const {
    const int channels = pixels_.channels, width = geometry_.window.width;
    std::memcpy(line + static_cast<std::size_t>(first_) * channels,
                in + static_cast<std::ptrdiff_t>(left_ + first_) * channels,
                static_cast<std::size_t>(last_ - first_) * channels);
    for (int x = 0; x < width; ++x) {
      if (x == first_) x = last_;
      if (x >= width) break;
      const int from = scratch_.columns[static_cast<std::size_t>(x)];
      for (int c = 0; c < channels; ++c)
        line[x * channels + c] = from < 0 ? recipe_.fill[c] : in[static_cast<std::ptrdiff_t>(from) * channels + c];
    }
  }

  const Recipe& recipe_;
  const Geometry& geometry_;
  const Pixels& pixels_;
  Scratch& scratch_;
  LineWriter& writer_;
  int top_, left_;
  // The window's columns that lie inside the image.
  int first_, last_;
};

bool copy_or_scale(const Recipe& recipe, const Geometry& geometry, const Pixels& pixels, Scratch& s, LineWriter writer) {
  const Box& box = geometry.source;
  const Box& window = geometry.window;
  const bool whole = box.height == pixels.height && box.width == pixels.width;
  const bool within = window.top >= 0 && window.left >= 0 && window.top + window.height <= geometry.height &&
                      window.left + window.width <= geometry.width;
  // Where a window reaches outside of a part of the image, it is filled, and the rest of the image must not show.
  if (box.height == geometry.height && box.width == geometry.width && (whole || within))
    return Copier(recipe, geometry, pixels, s, writer).run();
  s.reading.ahead.ask();
  const View view = view_of(box, 1, pixels.height, pixels.width);
  PixelLines lines(pixels, s.strip);
  return Scaler(recipe, geometry, view, s.scale, writer).run(lines);
}

bool render_pixels(const Recipe& recipe, const Sample& sample, Philox& random, Scratch& s, void* row) {
  const Pixels pixels{sample.data, sample.height, sample.width, sample.channels};
  Geometry geometry;
  if (!place(recipe.steps, pixels.height, pixels.width, random, geometry) || !fits(recipe, geometry)) return false;
  if (!copy_or_scale(recipe, geometry, pixels, s, writer_of(recipe, !recipe.changes.empty(), s, row))) return false;
  change(recipe, random, s, row);
  return true;
}

// As FREE in image/budget.py: a file of any size may have this many pixels, and Python judges those with more.
constexpr std::int64_t free_pixels = 178'956'970 / 4;

bool render_png(const Recipe& recipe, const Sample& sample, Philox& random, Scratch& s, void* row, Seconds& seconds) {
  Clock::time_point then = Clock::now();
  Png png;
  if (!png.open(sample.data, sample.size, !recipe.oriented)) return false;
  const std::int64_t pixels = std::int64_t{1} * png.width * png.height;
  if (pixels > std::min(recipe.max_pixels, free_pixels)) return false;
  std::uint8_t* const image = room(s.image, static_cast<std::size_t>(pixels) * 3 + slack);
  const bool read = png.read_rgb(image, s.inflated);
  seconds.decode += since(then);
  if (!read) return false;
  const bool made = render_pixels(recipe, {image, 0, png.height, png.width, 3}, random, s, row);
  seconds.transform += since(then);
  return made;
}

bool render_ppm(const Recipe& recipe, const Sample& sample, Philox& random, Scratch& s, void* row, Seconds& seconds) {
  Clock::time_point then = Clock::now();
  Ppm ppm;
  if (!ppm.open(sample.data, sample.size) || std::int64_t{1} * ppm.width * ppm.height > recipe.max_pixels) return false;
  const bool made = render_pixels(recipe, {ppm.pixels, 0, ppm.height, ppm.width, 3}, random, s, row);
  seconds.transform += since(then);
  return made;
}

}  // namespace

void Scratch::shrink_to(std::size_t bytes) {
  for (Buffer* buffer : {&reading.buffer, &strip, &scale.ring, &scale.line, &upright, &planes, &inflated, &image})
    if (buffer->capacity() > bytes) Buffer().swap(*buffer);
  changes.shrink_to(bytes), resample.shrink_to(bytes);
}

bool render(const Recipe& recipe, const Sample& sample, Philox& random, Scratch& scratch, void* row, Seconds& seconds) {
  if (!sample.encoded()) return render_pixels(recipe, sample, random, scratch, row);
  scratch.reading.ahead.ask();
  if (sample.size < 2) return false;
  const auto made = begins_as_png(sample.data) ? render_png : begins_as_ppm(sample.data) ? render_ppm : render_jpeg;
  return made(recipe, sample, random, scratch, row, seconds);
}

namespace {

// The part of a window, as it is mirrored or not, that shows an image of this size.
Box shown_of(const Box& window, int height, int width, bool flipped) {
  const int top = std::clamp(-window.top, 0, window.height), bottom = std::clamp(height - window.top, top, window.height);
  const int left = std::clamp(-window.left, 0, window.width), right = std::clamp(width - window.left, left, window.width);
  return {top, flipped ? window.width - right : left, bottom - top, right - left};
}

// Make the part of a window that shows the image, and change its colors; the color of all else is changed once.
bool render_part(const Recipe& recipe, const DrawnImage& drawn, const Pixels& pixels, const Box& part, Scratch& s, void* row) {
  const Box& window = drawn.geometry.window;
  Geometry geometry = drawn.geometry;
  const int left = geometry.flipped ? window.width - part.left - part.width : part.left;
  geometry.window = {window.top + part.top, window.left + left, part.height, part.width};
  const ImageSize size{part.height + 1, part.width, pixels.channels};
  Planes planes(*recipe.row.ops, size, s.changes);
  if (drawn.maps.empty()) {
    Recipe inner = recipe;
    inner.bytes.height = size.height, inner.bytes.width = size.width;
    if (!copy_or_scale(inner, geometry, pixels, s, LineWriter(inner.bytes, s.planes, planes.plane(0)))) return false;
  } else {
    Resampler(*recipe.row.ops, drawn.maps, drawn.nearest, geometry.window, geometry.flipped, recipe.fill, s.resample)
        .planes(pixels, planes.plane(0), planes.area());
  }
  const std::size_t shown = planes.area() - static_cast<std::size_t>(part.width);
  for (int c = 0; c < pixels.channels; ++c)
    std::memset(planes.plane(c) + shown, recipe.fill[c], static_cast<std::size_t>(part.width));
  planes.set_left_out(std::int64_t{1} * window.height * window.width - static_cast<std::int64_t>(shown));
  planes.run(drawn.ops);
  LineWriter(recipe.row, s.planes, row).put_part(planes.plane(0), part);
  return true;
}

}  // namespace

bool render_drawn(const Recipe& recipe, const DrawnImage& drawn, const Pixels& pixels, Scratch& s, void* row) {
  const Geometry& geometry = drawn.geometry;
  const bool maps = !drawn.maps.empty();
  const Box part = shown_of(geometry.window, maps ? drawn.maps.back().height : geometry.height,
                            maps ? drawn.maps.back().width : geometry.width, geometry.flipped);
  const bool smaller = part.height < geometry.window.height || part.width < geometry.window.width;
  if (smaller && part.height > 0 && part.width > 0 && (maps || !drawn.ops.empty()) &&
      std::all_of(drawn.ops.begin(), drawn.ops.end(), is_of_pixels))
    return render_part(recipe, drawn, pixels, part, s, row);
  if (drawn.maps.empty()) {
    const bool changes = !drawn.ops.empty();
    if (!copy_or_scale(recipe, geometry, pixels, s, writer_of(recipe, changes, s, row))) return false;
    if (changes) change_planes(recipe, drawn.ops, s, row);
    return true;
  }
  std::uint8_t* const planes = room(s.changes.image, recipe.bytes.bytes() + slack);
  const std::size_t plane = recipe.bytes.bytes() / static_cast<std::size_t>(pixels.channels);
  Resampler(*recipe.row.ops, drawn.maps, drawn.nearest, geometry.window, geometry.flipped, recipe.fill, s.resample)
      .planes(pixels, planes, plane);
  change_planes(recipe, drawn.ops, s, row);
  return true;
}

}  // namespace headrace
