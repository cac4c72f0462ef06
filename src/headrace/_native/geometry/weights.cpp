// Source: Pillow's Resample.c and OpenCV's resize.cpp for what is to come out, to the last bit for the former.
#include "weights.hpp"

#include <algorithm>
#include <cmath>

namespace headrace {
namespace {

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= 3.14159265358979323846;
  return std::sin(x) / x;
}

double weigh(Filter filter, double x) {
  switch (filter) {
    case Filter::box:
      return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
    case Filter::bilinear:
      x = std::fabs(x);
      return x < 1.0 ? 1.0 - x : 0.0;
    case Filter::bicubic:
      x = std::fabs(x);
      if (x < 1.0) return ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1;
      return x < 2.0 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0.0;
    case Filter::lanczos:
      return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
    case Filter::nearest:
      break;
  }
  return 0.0;
}

double reach(Filter filter) {
  switch (filter) {
    case Filter::box:
      return 0.5;
    case Filter::bilinear:
      return 1.0;
    case Filter::bicubic:
      return 2.0;
    default:
      return 3.0;
  }
}

std::int32_t whole(double value) {
  constexpr double one = 1 << weight_bits;
  return static_cast<std::int32_t>(value < 0 ? -0.5 + value * one : 0.5 + value * one);
}

void antialiased(Weights& w, Filter filter, int size, double begin, double end, int scaled, int from) {
  const double scale = (end - begin) / scaled, filter_scale = std::max(scale, 1.0);
  const double support = reach(filter) * filter_scale, inverse = 1.0 / filter_scale;
  const int most = static_cast<int>(std::ceil(support)) * 2 + 1;
  // Room for the widest. Taps that no output uses are left out below: each costs time in every row.
  w.scratch.resize(static_cast<std::size_t>(most) * w.outputs);
  w.taps = 1;
  for (int i = 0; i < w.outputs; ++i) {
    const double center = begin + (from + i + 0.5) * scale;
    const int least = std::max(0, static_cast<int>(center - support + 0.5));
    const int past = std::min(size, static_cast<int>(center + support + 0.5));
    double* values = &w.scratch[static_cast<std::size_t>(most) * i];
    double sum = 0.0;
    int first = least, count = past - least;
    for (int x = 0; x < count; ++x) sum += values[x] = weigh(filter, (x + least - center + 0.5) * inverse);
    if (sum != 0.0 && sum != 1.0)
      for (int x = 0; x < count; ++x) values[x] /= sum;
    while (count > 1 && whole(values[count - 1]) == 0) --count;
    w.first[i] = first, w.count[i] = count;
    w.taps = std::max(w.taps, count);
  }
  w.value.assign(static_cast<std::size_t>(w.taps) * w.outputs, 0);
  for (int i = 0; i < w.outputs; ++i)
    for (int x = 0; x < w.count[i]; ++x)
      w.value[static_cast<std::size_t>(w.taps) * i + x] = whole(w.scratch[static_cast<std::size_t>(most) * i + x]);
}

void plain(Weights& w, Filter filter, int size, double begin, double end, int scaled, int from) {
  const int taps = w.taps = std::min(size, filter == Filter::bicubic ? 4 : 2);
  const double scale = 1.0 / (scaled / (end - begin));
  w.value.assign(static_cast<std::size_t>(taps) * w.outputs, 0);
  for (int i = 0; i < w.outputs; ++i) {
    const float at = static_cast<float>(begin + (from + i + 0.5) * scale - 0.5);
    const int floor = static_cast<int>(std::floor(at));
    const float x = at - static_cast<float>(floor);
    float part[4];
    int least = floor, many = 2;
    if (filter == Filter::bicubic) {
      constexpr float a = -0.75F;
      least = floor - 1, many = 4;
      part[0] = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
      part[1] = ((a + 2) * x - (a + 3)) * x * x + 1;
      part[2] = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1;
      part[3] = 1.F - part[0] - part[1] - part[2];
    } else {
      part[0] = 1.F - x, part[1] = x;
    }
    // Outside lies the outermost pixel, repeated.
    const int first = std::clamp(least, 0, size - taps);
    for (int k = 0; k < many; ++k) {
      const int place = std::clamp(least + k, 0, size - 1) - first;
      w.value[static_cast<std::size_t>(taps) * i + place] += whole(part[k]);
    }
    w.first[i] = first, w.count[i] = taps;
  }
}

void nearest(Weights& w, bool antialias, int size, double begin, double end, int scaled, int from) {
  w.taps = 1;
  w.value.assign(w.outputs, 1 << weight_bits);
  const double step = antialias ? (end - begin) / scaled : 1.0 / (scaled / (end - begin));
  double center = step * 0.5;
  // Pillow adds steps up; a product would round differently where a center meets an edge.
  if (antialias)
    for (int i = 0; i < from; ++i) center += step;
  for (int i = 0; i < w.outputs; ++i) {
    const double at = begin + (antialias ? center : (from + i) * step);
    w.first[i] = std::clamp(static_cast<int>(std::floor(at)), 0, size - 1);
    w.count[i] = 1;
    center += step;
  }
}

}  // namespace

void Weights::make(Filter filter, bool antialias, int size, double begin, double end, int scaled, int from, int to) {
  outputs = to - from;
  first.resize(outputs);
  count.resize(outputs);
  same = begin == 0 && end == size && size == scaled;
  if (same) {
    taps = 1;
    value.assign(outputs, 1 << weight_bits);
    for (int i = 0; i < outputs; ++i) first[i] = from + i, count[i] = 1;
  } else if (filter == Filter::nearest) {
    nearest(*this, antialias, size, begin, end, scaled, from);
  } else if (antialias) {
    antialiased(*this, filter, size, begin, end, scaled, from);
  } else {
    plain(*this, filter, size, begin, end, scaled, from);
  }
  low = size, high = 0;
  for (int i = 0; i < outputs; ++i) {
    low = std::min(low, first[i]);
    high = std::max(high, first[i] + count[i]);
  }
}

void Weights::keep_inside() {
  for (int i = 0; i < outputs; ++i) {
    const int past = first[i] + taps - high;
    if (past <= 0) continue;
    std::int32_t* values = &value[static_cast<std::size_t>(taps) * i];
    std::copy_backward(values, values + taps - past, values + taps);
    std::fill(values, values + past, 0);
    first[i] -= past, count[i] = taps;
  }
}

}  // namespace headrace
