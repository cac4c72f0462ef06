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
  return lines.begin(source.top + down.low, source.top + down.high, source.left + across.low,
                     source.left + across.high) &&
         scale_down(lines);
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
  const RowOps& ops = *recipe_.row.ops;
  const int outputs = right_ - left_;
  if (!across.same && channels_ == 3)
    if (const std::size_t bytes = ops.lane_bytes(across.taps, outputs); bytes > 0) {
      lanes_ = room(across.lanes, bytes / sizeof(std::int16_t));
      ops.pack_lanes(lanes_, across.value.data(), across.taps, outputs);
    }
  // Lines begin at the first column that is read: the weights count from there.
  for (int& first : across.first) first -= across.low;
  // Pillow (since 13) scales down first where that leaves less to do; the rounding depends on the order.
  const int fewer = source.height - geometry_.height;
  down_first_ = recipe_.antialias && recipe_.filter != Filter::nearest && !across.same && fewer > 0 &&
                fewer > 2 * (source.width - geometry_.width);
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

}  // namespace headrace
