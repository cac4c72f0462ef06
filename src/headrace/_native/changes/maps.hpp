// Matrices of drawn maps, to the bit as headrace.image.warp and headrace.transforms.warping compute them.
#pragma once

#include <array>

namespace headrace {

using Matrix = std::array<double, 9>;

struct Affine {
  double x, y;  // the center
  double degrees, right, down, scale, shear_across, shear_down;
};

// The inverse of the map that shears, scales and turns around a center, and then shifts.
Matrix inverse_of(const Affine& affine);

// The inverse of the map that takes the corners of an image to others, given as x and y of each, clockwise from the top
// left; false where these would cross.
bool inverse_of_corners(int height, int width, const double (&corners)[4][2], Matrix& inverse);

}  // namespace headrace
