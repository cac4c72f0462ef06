#include "maps.hpp"

#include <cmath>

namespace headrace {
namespace {

Matrix adjugate(const Matrix& m) {
  const auto [a, b, c, d, e, f, g, h, i] = m;
  return {e * i - f * h, c * h - b * i, b * f - c * e, f * g - d * i, a * i - c * g,
          c * d - a * f, d * h - e * g, b * g - a * h, a * e - b * d};
}

Matrix inverted(const Matrix& m) {
  Matrix inverse = adjugate(m);
  const double below = m[0] * inverse[0] + m[1] * inverse[3] + m[2] * inverse[6];
  for (double& one : inverse) one /= below;
  return inverse;
}

Matrix product(const Matrix& one, const Matrix& other) {
  Matrix found;
  for (std::size_t row = 0; row < 9; row += 3)
    for (std::size_t column = 0; column < 3; ++column)
      found[row + column] = one[row] * other[column] + one[row + 1] * other[column + 3] + one[row + 2] * other[column + 6];
  return found;
}

// From the unit square to four corners, without the divisions.
Matrix of_unit_square(const double (&corners)[4][2]) {
  const double x0 = corners[0][0], x1 = corners[1][0], x2 = corners[2][0], x3 = corners[3][0];
  const double y0 = corners[0][1], y1 = corners[1][1], y2 = corners[2][1], y3 = corners[3][1];
  const double across = x0 - x1 + x2 - x3, down = y0 - y1 + y2 - y3;
  const double i = (x1 - x2) * (y3 - y2) - (x3 - x2) * (y1 - y2);
  const double g = across * (y3 - y2) - (x3 - x2) * down;
  const double h = (x1 - x2) * down - across * (y1 - y2);
  return {i * (x1 - x0) + g * x1, i * (x3 - x0) + h * x3, i * x0, i * (y1 - y0) + g * y1, i * (y3 - y0) + h * y3, i * y0, g, h, i};
}

bool convex(const double (&corners)[4][2]) {
  double across[4], down[4];
  for (int k = 0; k < 4; ++k) {
    across[k] = corners[(k + 1) % 4][0] - corners[k][0];
    down[k] = corners[(k + 1) % 4][1] - corners[k][1];
  }
  for (int k = 0; k < 4; ++k)
    if (!(across[k] * down[(k + 1) % 4] - down[k] * across[(k + 1) % 4] > 0)) return false;
  return true;
}

}  // namespace

// Python calls the same functions for sines: this file is compiled so that the compiler puts no others in their place.
Matrix inverse_of(const Affine& affine) {
  constexpr double radian = 3.141592653589793238462643 / 180;
  const double turn = affine.degrees * radian, across = affine.shear_across * radian, down = affine.shear_down * radian;
  const double sheared = std::cos(turn - down), below = std::cos(down), sideways = std::sin(turn - down);
  const double a = affine.scale * (sheared / below);
  const double b = affine.scale * (-sheared * std::tan(across) / below - std::sin(turn));
  const double c = affine.scale * (sideways / below);
  const double d = affine.scale * (-sideways * std::tan(across) / below + std::cos(turn));
  const double x = affine.x, y = affine.y;
  return inverted({a, b, x + affine.right - (a * x + b * y), c, d, y + affine.down - (c * x + d * y), 0, 0, 1});
}

bool inverse_of_corners(int height, int width, const double (&corners)[4][2], Matrix& inverse) {
  if (height < 2 || width < 2 || !convex(corners)) return false;
  const double right = width - 1, bottom = height - 1;
  Matrix matrix = product(of_unit_square(corners), adjugate(of_unit_square({{0, 0}, {right, 0}, {right, bottom}, {0, bottom}})));
  const double last = matrix[8];
  for (double& one : matrix) one /= last;
  inverse = inverted(matrix);
  return true;
}

}  // namespace headrace
