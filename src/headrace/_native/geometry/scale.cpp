#include "scale.hpp"

#include <algorithm>
#include <cstring>

namespace headrace {
namespace {

void scale_across_any(std::uint8_t* out, const std::uint8_t* in, const Weights& weights, int channels) {
  const std::int32_t* value = weights.value.data();
  for (int i = 0; i < weights.outputs; ++i, value += weights.taps)
    for (int c = 0; c < channels; ++c) {
      std::int32_t sum = 1 << (weight_bits - 1);
      for (int k = 0; k < weights.count[i]; ++k)
        sum += in[static_cast<std::ptrdiff_t>(weights.first[i] + k) * channels + c] * value[k];
      out[i * channels + c] = static_cast<std::uint8_t>(std::clamp(sum >> weight_bits, 0, 255));
    }
}

// The two weights of an output as a blend; false where they do not add up to 1, so that a difference would not do.
bool blend_of(std::int32_t first, std::int32_t second, Blend& blend) {
  constexpr std::int32_t one = 1 << weight_bits;
  if (first < 0 || second < 0 || first + second != one) return false;
  // A difference of 8 bits times the weight ends in a half only if the weight has 8 bits or fewer.
  const bool halves = second % (one >> 8) == 0 && second % one != 0;
  blend = {static_cast<float>(second) / one, halves ? 1.0F / 1024 : 0.0F};
  return true;
}

}  // namespace

void fill(std::uint8_t* line, int pixels, const Recipe& recipe) {
  const int channels = recipe.row.values.channels;
  for (int i = 0; i < pixels; ++i)
    for (int c = 0; c < channels; ++c) line[i * channels + c] = recipe.fill[c];
}

Scaler::Scaler(const Recipe& recipe, const Geometry& geometry, const View& view, ScaleBuffers& buffers,
               LineWriter& writer)
    : recipe_(recipe),
      geometry_(geometry),
      view_(view),
      buffers_(buffers),
      writer_(writer),
      channels_(recipe.row.values.channels) {
  const Box& window = geometry.window;
  top_ = std::clamp(-window.top, 0, window.height), left_ = std::clamp(-window.left, 0, window.width);
  bottom_ = std::clamp(geometry.height - window.top, top_, window.height);
  right_ = std::clamp(geometry.width - window.left, left_, window.width);
  line_ = room(buffers.line, static_cast<std::size_t>(window.width) * channels_ + 2 * slack);
}

bool Scaler::run(Lines& lines) {
  const Box& window = geometry_.window;
  if (top_ > 0 || left_ > 0 || bottom_ < window.height || right_ < window.width) fill_outside();
  if (left_ == right_ || top_ == bottom_) return true;
  make_weights();
  const Weights &across = buffers_.across, &down = buffers_.down;
  const Box& source = view_.source;
  const bool blends = make_blends();
  if (!blends_across_) pack_lanes();
  return lines.begin(source.top + down.low, source.top + down.high, source.left + across.low,
                     source.left + across.high) &&
         (blends ? blend_down(lines) : scale_down(lines));
}

void Scaler::fill_outside() {
  const Box& window = geometry_.window;
  fill(line_, window.width, recipe_);
  for (int y = 0; y < window.height; ++y)
    if (y < top_ || y >= bottom_ || left_ == right_)
      writer_.put(line_, static_cast<std::size_t>(y) * window.width, geometry_.flipped);
}

void Scaler::make_weights() {
  const Box &window = geometry_.window, &source = view_.source;
  Weights &across = buffers_.across, &down = buffers_.down;
  across.make(recipe_.filter, recipe_.antialias, source.width, view_.begin_x, view_.begin_x + view_.span_x,
              geometry_.width, window.left + left_, window.left + right_);
  down.make(recipe_.filter, recipe_.antialias, source.height, view_.begin_y, view_.begin_y + view_.span_y,
            geometry_.height, window.top + top_, window.top + bottom_);
  across.keep_inside();
  // Lines begin at the first column that is read: the weights count from there.
  for (int& first : across.first) first -= across.low;
  // Pillow (since 13) scales down first where that leaves less to do; the rounding depends on the order.
  const int fewer = source.height - geometry_.height;
  down_first_ = recipe_.antialias && recipe_.filter != Filter::nearest && !across.same && fewer > 0 &&
                fewer > 2 * (source.width - geometry_.width);
}

void Scaler::pack_lanes() {
  Weights& across = buffers_.across;
  const RowOps& ops = *recipe_.row.ops;
  const int outputs = right_ - left_;
  if (across.same || channels_ != 3) return;
  if (const std::size_t bytes = ops.lane_bytes(across.taps, outputs); bytes > 0) {
    lanes_ = room(across.lanes, bytes / sizeof(std::int16_t));
    ops.pack_lanes(lanes_, across.value.data(), across.taps, outputs);
  }
}

// Make the blends of an image that is enlarged: an output is then made of two neighbors. False: it is not done by blends.
bool Scaler::make_blends() {
  const Box& window = geometry_.window;
  const Weights &across = buffers_.across, &down = buffers_.down;
  if (!writer_.takes_blends() || down_first_ || down.taps > 2 || right_ - left_ != window.width ||
      bottom_ - top_ != window.height)
    return false;
  Blend* lines = room(buffers_.blends_down, static_cast<std::size_t>(window.height));
  for (int y = 0; y < window.height; ++y) {
    const std::int32_t* value = &down.value[static_cast<std::size_t>(down.taps) * y];
    if (!blend_of(value[0], down.count[y] > 1 ? value[1] : 0, lines[y])) return false;
  }
  if (across.same || across.taps > 2) return true;
  const int width = window.width, lanes = recipe_.row.ops->blends->lanes;
  Blends* blends = room(buffers_.blends_across, static_cast<std::size_t>(width + lanes - 1) / lanes);
  for (int at = 0; at < width; ++blends) {
    const auto output = [&](int x) { return geometry_.flipped ? width - 1 - x : x; };
    *blends = {};
    const int end = std::min(at + lanes, width);
    blends->from = std::min(across.first[output(at)], across.first[output(end - 1)]);
    for (int k = 0; at < end; ++at, ++k) {
      const int from = output(at);
      const std::int32_t* value = &across.value[static_cast<std::size_t>(across.taps) * from];
      Blend blend;
      blends->index[k] = across.first[from] - blends->from;
      if (blends->index[k] >= lanes || !blend_of(value[0], across.taps > 1 ? value[1] : 0, blend)) return true;
      blends->weight[k] = blend.weight, blends->nudge[k] = blend.nudge;
    }
  }
  blends_across_ = true;
  return true;
}

void Scaler::scale_across(std::uint8_t* out, const std::uint8_t* in) const {
  const Weights& across = buffers_.across;
  const int outputs = right_ - left_;
  if (across.same)
    std::memcpy(out, in + static_cast<std::ptrdiff_t>(across.first[0]) * channels_,
                static_cast<std::size_t>(outputs) * channels_);
  else if (channels_ == 3)
    recipe_.row.ops->scale_across3(out, in, across.first.data(), across.value.data(), lanes_, across.taps, outputs);
  else
    scale_across_any(out, in, across, channels_);
}

// The ring holds the lines that the next output line may need.
bool Scaler::scale_down(Lines& lines) {
  const Weights &across = buffers_.across, &down = buffers_.down;
  const int width = geometry_.window.width;
  const std::size_t bytes = static_cast<std::size_t>(down_first_ ? across.high - across.low : right_ - left_) * channels_;
  const std::size_t stride = bytes + slack;
  std::uint8_t* ring = room(buffers_.ring, stride * (down.taps + 1));
  const std::uint8_t** taps = room(buffers_.taps, static_cast<std::size_t>(down.taps));
  std::uint8_t* mixed = ring + stride * down.taps;
  std::uint8_t* inside = line_ + static_cast<std::size_t>(left_) * channels_;
  int next = down.low;
  for (int y = top_; y < bottom_; ++y) {
    const int first = down.first[y - top_], count = down.count[y - top_];
    for (; next < first + count; ++next) {
      const std::uint8_t* in = lines.next();
      if (in == nullptr) return false;
      if (next < first) continue;
      std::uint8_t* kept = ring + stride * (next % down.taps);
      if (down_first_)
        std::memcpy(kept, in, bytes);
      else
        scale_across(kept, in);
    }
    for (int k = 0; k < count; ++k) taps[k] = ring + stride * ((first + k) % down.taps);
    const std::int32_t* value = &down.value[static_cast<std::size_t>(down.taps) * (y - top_)];
    std::uint8_t* to = down_first_ ? mixed : inside;
    if (count == 1 && *value == 1 << weight_bits)
      std::memcpy(to, taps[0], bytes);
    else
      recipe_.row.ops->scale_down(to, taps, value, count, static_cast<int>(bytes));
    if (down_first_) scale_across(inside, mixed);
    // The inner loops have written past the end of the line.
    if (right_ < width) fill(line_ + static_cast<std::size_t>(right_) * channels_, width - right_, recipe_);
    writer_.put(line_, static_cast<std::size_t>(y) * width, geometry_.flipped);
  }
  return true;
}

// Two lines are kept, as three planes of raised floats each, flipped already.
bool Scaler::blend_down(Lines& lines) {
  const Weights &across = buffers_.across, &down = buffers_.down;
  const BlendOps& ops = *recipe_.row.ops->blends;
  const int width = geometry_.window.width, columns = across.high - across.low;
  // Whole groups of outputs are written, and nine inputs are read at the last column.
  const std::size_t stride = static_cast<std::size_t>(std::max(width, columns)) + 16;
  float* floats = room(buffers_.floats, 9 * stride);
  float* planes[3][3];
  for (auto& line : planes)
    for (float*& plane : line) plane = floats, floats += stride;
  float** const read = planes[2];
  int next = down.low;
  for (int y = 0; y < geometry_.window.height; ++y) {
    const int first = down.first[y], last = first + down.count[y] - 1;
    for (; next <= last; ++next) {
      const std::uint8_t* in = lines.next();
      if (in == nullptr) return false;
      if (next < first) continue;
      float** const kept = planes[next % 2];
      if (blends_across_) {
        ops.across3(kept, read, in, columns, buffers_.blends_across.data(), (width + ops.lanes - 1) / ops.lanes);
      } else {
        scale_across(line_, in);
        ops.raise3(kept, line_, width, geometry_.flipped);
      }
    }
    writer_.put_blend(planes[first % 2], planes[last % 2], buffers_.blends_down[y], static_cast<std::size_t>(y) * width);
  }
  return true;
}

}  // namespace headrace
