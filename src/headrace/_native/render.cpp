#include "render.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace headrace {
namespace {

using Clock = std::chrono::steady_clock;

double since(Clock::time_point& then) {
  const Clock::time_point now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - then).count();
  then = now;
  return seconds;
}

template <class T>
T* room(std::vector<T>& held, std::size_t count) {
  if (held.size() < count) held.resize(count);
  return held.data();
}

// ---- the last step: a line of bytes becomes a line of the batch ----

template <class T>
void look_up(T* out, std::ptrdiff_t step, const std::uint8_t* in, std::ptrdiff_t apart, int count, const T* table) {
  for (int i = 0; i < count; ++i) out[i * step] = table[in[i * apart]];
}

class Writer {
 public:
  Writer(const Recipe& recipe, Scratch& scratch, void* out)
      : recipe_(recipe), out_(static_cast<std::uint8_t*>(out)), pixels_(static_cast<std::size_t>(recipe.width)) {
    plane_ = room(scratch.plane, (pixels_ + slack) * 8);
  }

  // A run of pixels that begins at pixel `at` of the row of the batch; `pixels_` says how many.
  void put(const std::uint8_t* line, std::size_t at, bool flipped) {
    const Values& values = recipe_.values;
    const int channels = values.channels;
    const std::size_t size = static_cast<std::size_t>(values.itemsize);
    const std::size_t plane = static_cast<std::size_t>(recipe_.height) * recipe_.width;
    const int count = static_cast<int>(pixels_);
    const bool computed = values.computed && recipe_.rows->exact;
    if (!recipe_.channels_first) {
      std::uint8_t* row = out_ + at * channels * size;
      if (flipped) line = mirrored(line, channels);
      if (size == 1 && values.table.empty())
        std::memcpy(row, line, pixels_ * channels);
      else if (computed)
        recipe_.rows->floats_mixed(reinterpret_cast<float*>(row), line, pixels_, channels, values.mean, values.std);
      else
        for (int c = 0; c < channels; ++c) by_table(row + c * size, channels, line + c, channels, count, c);
      return;
    }
    std::uint8_t* rows[4];
    for (int c = 0; c < channels; ++c) rows[c] = out_ + (c * plane + at) * size;
    std::uint8_t* planes[4];
    const bool direct = size == 1 && values.table.empty();
    for (int c = 0; c < channels; ++c) planes[c] = direct ? rows[c] : plane_ + c * (pixels_ + slack);
    if (channels == 3) {
      recipe_.rows->apart3(planes, line, count, flipped);
    } else {
      if (flipped) line = mirrored(line, channels);
      for (int c = 0; c < channels; ++c)
        for (int i = 0; i < count; ++i) planes[c][i] = line[static_cast<std::ptrdiff_t>(i) * channels + c];
    }
    if (direct) return;
    for (int c = 0; c < channels; ++c) {
      if (computed)
        recipe_.rows->floats(reinterpret_cast<float*>(rows[c]), planes[c], pixels_, values.mean[c], values.std[c]);
      else
        by_table(rows[c], 1, planes[c], 1, count, c);
    }
  }

  void take(std::size_t pixels, Scratch& scratch) {
    pixels_ = pixels;
    plane_ = room(scratch.plane, (pixels_ + slack) * 8);
  }

 private:
  void by_table(std::uint8_t* out, std::ptrdiff_t step, const std::uint8_t* in, std::ptrdiff_t apart, int count, int c) {
    const std::uint8_t* table =
        recipe_.values.table.data() + static_cast<std::size_t>(c) * 256 * recipe_.values.itemsize;
    switch (recipe_.values.itemsize) {
      case 1:
        return look_up(out, step, in, apart, count, table);
      case 2:
        return look_up(reinterpret_cast<std::uint16_t*>(out), step, in, apart, count,
                       reinterpret_cast<const std::uint16_t*>(table));
      default:
        return look_up(reinterpret_cast<std::uint32_t*>(out), step, in, apart, count,
                       reinterpret_cast<const std::uint32_t*>(table));
    }
  }

  const std::uint8_t* mirrored(const std::uint8_t* line, int channels) {
    const int count = static_cast<int>(pixels_);
    std::uint8_t* turned = plane_ + 4 * (pixels_ + slack);
    for (int i = 0; i < count; ++i)
      for (int c = 0; c < channels; ++c) turned[(count - 1 - i) * channels + c] = line[i * channels + c];
    return turned;
  }

  const Recipe& recipe_;
  std::uint8_t* out_;
  std::uint8_t* plane_;
  std::size_t pixels_;
};

void fill(std::uint8_t* line, int pixels, const Recipe& recipe) {
  const int channels = recipe.values.channels;
  for (int i = 0; i < pixels; ++i)
    for (int c = 0; c < channels; ++c) line[i * channels + c] = recipe.fill[c];
}

// ---- where rows come from: `next` gives one after the other, from the column that was asked for ----

class FromMemory {
 public:
  FromMemory(const Pixels& pixels, std::vector<std::uint8_t>& strip) : pixels_(pixels), strip_(strip) {}

  bool begin(int top, int, int left, int right) {
    row_ = top, left_ = left;
    bytes_ = static_cast<std::size_t>(right - left) * pixels_.channels;
    room(strip_, bytes_ + slack);
    return true;
  }

  // Copied, for what is weighed may be read a little past its end.
  const std::uint8_t* next() {
    const std::size_t at = (static_cast<std::size_t>(row_++) * pixels_.width + left_) * pixels_.channels;
    std::memcpy(strip_.data(), pixels_.data + at, bytes_);
    return strip_.data();
  }

 private:
  const Pixels& pixels_;
  std::vector<std::uint8_t>& strip_;
  int row_ = 0, left_ = 0;
  std::size_t bytes_ = 0;
};

class FromJpeg {
 public:
  static constexpr int rows = 8;

  FromJpeg(Jpeg& jpeg, int shrink, std::vector<std::uint8_t>& strip, Seconds& seconds, Clock::time_point& then)
      : jpeg_(jpeg), shrink_(shrink), strip_(strip), seconds_(seconds), then_(then) {}

  bool begin(int top, int bottom, int left, int right) {
    seconds_.transform += since(then_);
    left_ = left, rest_ = bottom - top;
    if (!jpeg_.begin(shrink_, top, left, right)) return false;
    stride_ = static_cast<std::ptrdiff_t>(jpeg_.columns()) * 3 + slack;
    room(strip_, static_cast<std::size_t>(stride_) * rows);
    seconds_.decode += since(then_);
    return true;
  }

  const std::uint8_t* next() {
    if (at_ == held_) {
      seconds_.transform += since(then_);
      held_ = std::min(rows, rest_), at_ = 0;
      if (held_ <= 0 || !jpeg_.read(strip_.data(), stride_, held_)) return nullptr;
      rest_ -= held_;
      seconds_.decode += since(then_);
    }
    return strip_.data() + stride_ * at_++ + 3 * static_cast<std::ptrdiff_t>(left_ - jpeg_.left());
  }

 private:
  Jpeg& jpeg_;
  int shrink_;
  std::vector<std::uint8_t>& strip_;
  Seconds& seconds_;
  Clock::time_point& then_;
  int left_ = 0, rest_ = 0, at_ = 0, held_ = 0;
  std::ptrdiff_t stride_ = 0;
};

// The geometry of a picture that is decoded smaller: `source` is what of it is looked at, of which the stretch from
// `begin` on, `span` long, is what was to be scaled.
struct View {
  Box source;
  double begin_y, begin_x, span_y, span_x;
};

void weigh_mixed(std::uint8_t* to, const std::uint8_t* in, const Weights& w, int channels) {
  const std::int32_t* value = w.value.data();
  for (int i = 0; i < w.outputs; ++i, value += w.taps)
    for (int c = 0; c < channels; ++c) {
      std::int32_t sum = 1 << (weight_bits - 1);
      for (int k = 0; k < w.count[i]; ++k)
        sum += in[static_cast<std::ptrdiff_t>(w.first[i] + k) * channels + c] * value[k];
      to[i * channels + c] = static_cast<std::uint8_t>(std::clamp(sum >> weight_bits, 0, 255));
    }
}

template <class Source>
bool scale(const Recipe& recipe, const Geometry& g, const View& view, Source& source, Scratch& s, void* out) {
  const int channels = recipe.values.channels;
  const Box& window = g.window;
  const int top = std::clamp(-window.top, 0, window.height), left = std::clamp(-window.left, 0, window.width);
  const int bottom = std::clamp(g.height - window.top, top, window.height);
  const int right = std::clamp(g.width - window.left, left, window.width);
  Writer writer(recipe, s, out);
  const std::size_t row = static_cast<std::size_t>(window.width) * channels;
  std::uint8_t* line = room(s.line, row + 2 * slack);
  if (top > 0 || left > 0 || bottom < window.height || right < window.width) {
    fill(line, window.width, recipe);
    for (int y = 0; y < window.height; ++y)
      if (y < top || y >= bottom || left == right) writer.put(line, static_cast<std::size_t>(y) * window.width, g.flipped);
    if (left == right || top == bottom) return true;
  }
  s.across.make(recipe.filter, recipe.antialias, view.source.width, view.begin_x, view.begin_x + view.span_x, g.width,
                window.left + left, window.left + right);
  s.down.make(recipe.filter, recipe.antialias, view.source.height, view.begin_y, view.begin_y + view.span_y, g.height,
              window.top + top, window.top + bottom);
  const Weights &across = s.across, &down = s.down;
  const Rows& rows = *recipe.rows;
  const int outputs = right - left;
  s.across.keep_inside();
  std::int16_t* lanes = nullptr;
  if (!across.same && channels == 3)
    if (const std::size_t bytes = rows.packed(across.taps, outputs); bytes > 0) {
      lanes = room(s.across.lanes, bytes / sizeof(std::int16_t));
      rows.pack(lanes, across.value.data(), across.taps, outputs);
    }
  // Rows are asked for from the first column that is looked at: the places are counted from there.
  for (int& first : s.across.first) first -= across.low;
  if (!source.begin(view.source.top + down.low, view.source.top + down.high, view.source.left + across.low,
                    view.source.left + across.high))
    return false;
  const auto weigh_across = [&](std::uint8_t* to, const std::uint8_t* in) {
    if (across.same) {
      std::memcpy(to, in + static_cast<std::ptrdiff_t>(across.first[0]) * channels,
                  static_cast<std::size_t>(outputs) * channels);
    } else if (channels == 3) {
      rows.across3(to, in, across.first.data(), across.value.data(), lanes, across.taps, outputs);
    } else {
      weigh_mixed(to, in, across, channels);
    }
  };
  // As Pillow does since 13: first down where that leaves less to do.
  const int fewer = view.source.height - g.height;
  const bool down_first = recipe.antialias && recipe.filter != Filter::nearest && !across.same && fewer > 0 &&
                          fewer > 2 * (view.source.width - g.width);
  const std::size_t bytes = static_cast<std::size_t>(down_first ? across.high - across.low : outputs) * channels;
  const std::size_t stride = bytes + slack;
  room(s.ring, stride * (down.taps + 1));
  room(s.taps, static_cast<std::size_t>(down.taps));
  std::uint8_t* mixed = &s.ring[stride * down.taps];
  std::uint8_t* inside = line + static_cast<std::size_t>(left) * channels;
  int next = down.low;
  for (int y = top; y < bottom; ++y) {
    const int first = down.first[y - top], count = down.count[y - top];
    for (; next < first + count; ++next) {
      const std::uint8_t* in = source.next();
      if (in == nullptr) return false;
      if (next < first) continue;
      std::uint8_t* kept = &s.ring[stride * (next % down.taps)];
      if (down_first)
        std::memcpy(kept, in, bytes);
      else
        weigh_across(kept, in);
    }
    for (int k = 0; k < count; ++k) s.taps[k] = &s.ring[stride * ((first + k) % down.taps)];
    const std::int32_t* value = &down.value[static_cast<std::size_t>(down.taps) * (y - top)];
    std::uint8_t* to = down_first ? mixed : inside;
    if (count == 1 && *value == 1 << weight_bits)
      std::memcpy(to, s.taps[0], bytes);
    else
      rows.down(to, s.taps.data(), value, count, static_cast<int>(bytes));
    if (down_first) weigh_across(inside, mixed);
    // Whole registers were written, past the end too.
    if (right < window.width) fill(line + static_cast<std::size_t>(right) * channels, window.width - right, recipe);
    writer.put(line, static_cast<std::size_t>(y) * window.width, g.flipped);
  }
  return true;
}

// ---- pictures of a JPEG file ----

// EXIF's orientation: what stands at (y, x) of the upright picture, and where in the file.
struct Turn {
  bool swapped, down, across;

  explicit Turn(int orientation)
      : swapped(orientation >= 5),
        down(orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8),
        across(orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7) {}
};

// Put rows of the file where they stand in the upright part [top, bottom) x [left, right), which begins `begin` rows in.
void turn(std::uint8_t* upright, int columns, const std::uint8_t* in, int row, int count, int rows, const Turn& how) {
  for (int x = 0; x < count; ++x) {
    int up = how.swapped ? x : row, over = how.swapped ? row : x;
    const int height = how.swapped ? count : rows, width = columns;
    if (how.down) up = height - 1 - up;
    if (how.across) over = width - 1 - over;
    std::memcpy(upright + 3 * (static_cast<std::size_t>(up) * columns + over), in + 3 * x, 3);
  }
}

class Turned {
 public:
  Turned(FromJpeg& source, const Turn& how, int height, int width, Scratch& scratch)
      : source_(source), how_(how), height_(height), width_(width), scratch_(scratch) {}

  // `height` and `width` are those of the whole upright picture, as it is decoded.
  bool begin(int top, int bottom, int left, int right) {
    const int rows = bottom - top;
    columns_ = right - left;
    const int y0 = how_.down ? height_ - bottom : top, x0 = how_.across ? width_ - right : left;
    const int in_file = how_.swapped ? columns_ : rows, across_file = how_.swapped ? rows : columns_;
    const int from_row = how_.swapped ? x0 : y0, from_column = how_.swapped ? y0 : x0;
    if (!source_.begin(from_row, from_row + in_file, from_column, from_column + across_file)) return false;
    std::uint8_t* upright = room(scratch_.turned, static_cast<std::size_t>(rows) * columns_ * 3 + slack);
    for (int i = 0; i < in_file; ++i) {
      const std::uint8_t* row = source_.next();
      if (row == nullptr) return false;
      turn(upright, columns_, row, i, across_file, in_file, how_);
    }
    at_ = upright;
    return true;
  }

  const std::uint8_t* next() {
    const std::uint8_t* row = at_;
    at_ += 3 * static_cast<std::ptrdiff_t>(columns_);
    return row;
  }

 private:
  FromJpeg& source_;
  Turn how_;
  int height_, width_;
  Scratch& scratch_;
  int columns_ = 0;
  const std::uint8_t* at_ = nullptr;
};

// How much smaller a picture may be decoded without being smaller than what is made of it.
int shrinks(const Geometry& g) {
  int most = 8;
  while (most > 1 && (g.source.height < most * g.height || g.source.width < most * g.width)) most /= 2;
  return most;
}

View seen(const Box& box, int shrink, int height, int width) {
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

}  // namespace

void Scratch::shrink_to(std::size_t most) {
  for (std::vector<std::uint8_t>* held : {&file, &strip, &ring, &line, &turned, &plane})
    if (held->capacity() > most) std::vector<std::uint8_t>().swap(*held);
}

bool render(const Recipe& recipe, const std::uint8_t* data, std::size_t size, Philox& random, Scratch& scratch,
            void* out, Seconds& seconds) {
  Clock::time_point then = Clock::now();
  Jpeg& jpeg = scratch.jpeg;
  if (!jpeg.open(data, size)) return false;
  const std::int64_t pixels = static_cast<std::int64_t>(jpeg.width()) * jpeg.height();
  if (pixels > recipe.max_pixels) return false;
  seconds.decode += since(then);
  const Turn how(jpeg.orientation());
  const int height = how.swapped ? jpeg.width() : jpeg.height(), width = how.swapped ? jpeg.height() : jpeg.width();
  Geometry g;
  if (!place(recipe.steps, height, width, random, g)) return false;
  if (g.window.height != recipe.height || g.window.width != recipe.width) return false;
  const int shrink = recipe.shrink ? shrinks(g) : 1;
  const int rows = (height + shrink - 1) / shrink, columns = (width + shrink - 1) / shrink;
  const View view = seen(g.source, shrink, rows, columns);
  FromJpeg source(jpeg, shrink, scratch.strip, seconds, then);
  bool good;
  if (jpeg.orientation() == 1) {
    good = scale(recipe, g, view, source, scratch, out);
  } else {
    Turned turned(source, how, rows, columns, scratch);
    good = scale(recipe, g, view, turned, scratch, out);
  }
  seconds.transform += since(then);
  good = good && jpeg.finish(scratch.strip);
  seconds.decode += since(then);
  return good;
}

namespace {

// The place inside [0, length) that stands for one outside; -1 where that is the fill.
int inside(int place, int length, Edge edge) {
  if (place >= 0 && place < length) return place;
  switch (edge) {
    case Edge::edge:
      return place < 0 ? 0 : length - 1;
    case Edge::reflect:
      return place < 0 ? -place : 2 * (length - 1) - place;
    case Edge::symmetric:
      return place < 0 ? -place - 1 : 2 * length - 1 - place;
    default:
      return -1;
  }
}

}  // namespace

bool render(const Recipe& recipe, const Pixels& pixels, Philox& random, Scratch& s, void* out) {
  Geometry g;
  if (!place(recipe.steps, pixels.height, pixels.width, random, g)) return false;
  const Box& window = g.window;
  if (window.height != recipe.height || window.width != recipe.width) return false;
  const Box& box = g.source;
  if (box.height != g.height || box.width != g.width) {
    const View view = seen(box, 1, pixels.height, pixels.width);
    FromMemory source(pixels, s.strip);
    return scale(recipe, g, view, source, s, out);
  }
  // Nothing is scaled: rows are copied, or written as they lie.
  Writer writer(recipe, s, out);
  const int channels = pixels.channels;
  const std::size_t stride = static_cast<std::size_t>(pixels.width) * channels;
  const int top = box.top + window.top, left = box.left + window.left;
  if (top == 0 && left == 0 && window.height == pixels.height && window.width == pixels.width && !g.flipped) {
    writer.take(static_cast<std::size_t>(pixels.height) * pixels.width, s);
    writer.put(pixels.data, 0, false);
    return true;
  }
  const int first = std::clamp(-left, 0, window.width), last = std::clamp(pixels.width - left, first, window.width);
  const bool whole = first == 0 && last == window.width;
  std::uint8_t* line = room(s.line, static_cast<std::size_t>(window.width) * channels + 2 * slack);
  if (!whole) {
    int* columns = room(s.columns, static_cast<std::size_t>(window.width));
    for (int x = 0; x < window.width; ++x) {
      columns[x] = inside(left + x, pixels.width, recipe.edge);
      if (columns[x] >= pixels.width || (columns[x] < 0 && recipe.edge != Edge::constant)) return false;
    }
  }
  for (int y = 0; y < window.height; ++y) {
    const int row = inside(top + y, pixels.height, recipe.edge);
    const std::size_t at = static_cast<std::size_t>(y) * window.width;
    if (row < 0) {
      if (recipe.edge != Edge::constant) return false;
      fill(line, window.width, recipe);
      writer.put(line, at, g.flipped);
      continue;
    }
    if (row >= pixels.height) return false;
    const std::uint8_t* in = pixels.data + stride * row;
    if (whole) {
      writer.put(in + static_cast<std::ptrdiff_t>(left) * channels, at, g.flipped);
      continue;
    }
    std::memcpy(line + static_cast<std::size_t>(first) * channels, in + static_cast<std::ptrdiff_t>(left + first) * channels,
                static_cast<std::size_t>(last - first) * channels);
    for (int x = 0; x < window.width; ++x) {
      if (x == first) x = last;
      if (x >= window.width) break;
      const int from = s.columns[x];
      for (int c = 0; c < channels; ++c)
        line[x * channels + c] = from < 0 ? recipe.fill[c] : in[static_cast<std::ptrdiff_t>(from) * channels + c];
    }
    writer.put(line, at, g.flipped);
  }
  return true;
}

bool read_file(const char* path, std::int64_t most, std::vector<std::uint8_t>& data, std::size_t& size) {
  // O_NONBLOCK: a named pipe opens at once, to be refused, rather than waiting for a writer for ever.
  const int file = ::open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) return false;
  struct stat facts;
  bool good = ::fstat(file, &facts) == 0 && S_ISREG(facts.st_mode) && facts.st_size > 0 && facts.st_size <= most;
  if (good) {
    size = static_cast<std::size_t>(facts.st_size);
    room(data, size);
    std::size_t got = 0;
    while (got < size) {
      // A file of another kind is read again, step by step: no more of it than tells that.
      const std::size_t wanted = got < 16 ? std::min<std::size_t>(size, std::size_t{1} << 16) : size;
      const ssize_t more = ::read(file, data.data() + got, wanted - got);
      if (more < 0 && errno == EINTR) continue;
      if (more <= 0) break;
      got += static_cast<std::size_t>(more);
      if (got >= 2 && (data[0] != 0xFF || data[1] != 0xD8)) break;
    }
    good = got == size;
  }
  ::close(file);
  return good;
}

}  // namespace headrace
