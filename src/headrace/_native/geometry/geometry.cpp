#include "geometry.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace headrace {
namespace {

// As Python's round(): halves go to the even number.
int rounded(double value) { return static_cast<int>(std::nearbyint(value)); }

int middle(int length, int wanted) {
  return length >= wanted ? rounded((length - wanted) / 2.0) : -((wanted - length) / 2);
}

Box random_resized(const Step& step, int height, int width, Philox& random) {
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double how_large = random.random(), how_wide = random.random();
    const double down = random.random(), across = random.random();
    const double whole = static_cast<double>(height) * width;
    const double area = whole * (step.area_least + (step.area_most - step.area_least) * how_large);
    const double shape = std::exp(step.log_ratio_least + (step.log_ratio_most - step.log_ratio_least) * how_wide);
    const double rows = std::nearbyint(std::sqrt(area / shape)), columns = std::nearbyint(std::sqrt(area * shape));
    if (0 < rows && rows <= height && 0 < columns && columns <= width) {
      const int h = static_cast<int>(rows), w = static_cast<int>(columns);
      return {static_cast<int>(down * (height - h + 1)), static_cast<int>(across * (width - w + 1)), h, w};
    }
  }
  const double tallest = std::nearbyint(width / step.ratio_least), widest = std::nearbyint(height * step.ratio_most);
  const int rows = static_cast<int>(std::max(1.0, std::min<double>(height, tallest)));
  const int columns = static_cast<int>(std::max(1.0, std::min<double>(width, widest)));
  return {(height - rows) / 2, (width - columns) / 2, rows, columns};
}

bool random_crop(const Step& step, int height, int width, Philox& random, Box& box) {
  std::int64_t top = step.top, bottom = step.bottom, left = step.left, right = step.right;
  if (step.pad_if_needed) {
    const std::int64_t rows = std::max<std::int64_t>(0, step.height - height - top - bottom);
    const std::int64_t columns = std::max<std::int64_t>(0, step.width - width - left - right);
    top += rows, bottom += rows, left += columns, right += columns;
  }
  const std::int64_t free_rows = height + top + bottom - step.height;
  const std::int64_t free_columns = width + left + right - step.width;
  if (free_rows < 0 || free_columns < 0) return false;
  const double down = random.random(), across = random.random();
  box = {static_cast<int>(static_cast<std::int64_t>(down * static_cast<double>(free_rows + 1)) - top),
         static_cast<int>(static_cast<std::int64_t>(across * static_cast<double>(free_columns + 1)) - left),
         step.height, step.width};
  return true;
}

void cut(Geometry& geometry, const Box& box) {
  geometry.window = {geometry.window.top + box.top, geometry.window.left + box.left, box.height, box.width};
}

// Scale the window. Python plans chains such that nothing was scaled or padded before.
void scale(Geometry& geometry, int height, int width) {
  const Box& window = geometry.window;
  geometry.source = {geometry.source.top + window.top, geometry.source.left + window.left, window.height, window.width};
  geometry.height = height, geometry.width = width;
  geometry.window = {0, 0, height, width};
}

}  // namespace

bool place(const std::vector<Step>& steps, int height, int width, Philox& random, Geometry& geometry) {
  geometry = {{0, 0, height, width}, height, width, {0, 0, height, width}, false};
  for (const Step& step : steps) {
    const int rows = geometry.window.height, columns = geometry.window.width;
    const bool within = geometry.window.top >= 0 && geometry.window.left >= 0 &&
                        geometry.window.top + rows <= height && geometry.window.left + columns <= width;
    const bool scales = step.kind == Step::resize_exact || step.kind == Step::resize_shorter ||
                        step.kind == Step::random_resized_crop;
    if (scales && !within) return false;
    Box box{};
    switch (step.kind) {
      case Step::resize_exact:
        scale(geometry, step.height, step.width);
        break;
      case Step::resize_shorter: {
        const double longer = rows <= columns ? static_cast<double>(step.height) * columns / rows
                                              : static_cast<double>(step.height) * rows / columns;
        if (longer > 1e6) return false;
        const int other = static_cast<int>(longer);
        rows <= columns ? scale(geometry, step.height, other) : scale(geometry, other, step.height);
        break;
      }
      case Step::center_crop:
        cut(geometry, {middle(rows, step.height), middle(columns, step.width), step.height, step.width});
        break;
      case Step::random_crop:
        if (!random_crop(step, rows, columns, random, box)) return false;
        cut(geometry, box);
        break;
      case Step::random_resized_crop:
        cut(geometry, random_resized(step, rows, columns, random));
        scale(geometry, step.height, step.width);
        break;
      case Step::flip:
        if (random.random() < step.chance) geometry.flipped = !geometry.flipped;
        break;
      case Step::pad:
        cut(geometry, {-step.top, -step.left, rows + step.top + step.bottom, columns + step.left + step.right});
        break;
    }
  }
  return true;
}

}  // namespace headrace
