// The inner loops that change the values of an image, over planes of one channel; one set for each instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headrace {

// Where the pixels of a line come from: by bilinear sampling, the first of four, and the weights of the others.
struct LinePlaces {
  std::int32_t* at;
  std::int32_t *right, *below;  // in 1/2048; null where the nearest pixel is taken
};

// A line of points (x, y) mapped by a matrix that divides nothing: what x adds to each, along both axes, and what all have
// in common. The first is in `grains` of a pixel for bilinear sampling.
struct AffineLine {
  static constexpr double grains = 2048;

  const double *across, *down;
  double by, c, ey, f;
};

// A point, or a distance, in 1/65536 of a pixel: unsigned, as sums may pass the largest number.
struct WholePoint {
  std::uint32_t x, y;
};

struct PlaneOps {
  // Interleave three planes.
  void (*merge3)(std::uint8_t* out, const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b, std::size_t count);
  void (*look_up)(std::uint8_t* plane, std::size_t count, const std::uint8_t* table);
  // `blend` with one value; null where `look_up` is as fast.
  void (*blend_value)(std::uint8_t* plane, float value, std::size_t count, float factor);
  // The gray values of three planes, by Pillow's weights.
  void (*gray)(std::uint8_t* out, const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b, std::size_t count);
  std::uint64_t (*sum)(const std::uint8_t* plane, std::size_t count);
  void (*limits)(const std::uint8_t* plane, std::size_t count, std::uint8_t* low, std::uint8_t* high);
  // The other plane, and `factor` times the distance from it to the plane: in floats, kept within a byte, fractions cut off.
  void (*blend)(std::uint8_t* plane, const std::uint8_t* other, std::size_t count, float factor);
  // Turn hues by so many sixths of the circle.
  void (*hue)(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::size_t count, float turn);
  // The same in 1/256, by Pillow's hues and saturations of 8 bits.
  void (*pillow_hue)(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::size_t count, int turn);
  // The same by shares of the circle, gray values, and the sum of two shares, as torchvision computes them for tensors.
  void (*torch_hue)(std::uint8_t* r, std::uint8_t* g, std::uint8_t* b, std::size_t count, float turn);
  void (*torch_gray)(std::uint8_t* out, const std::uint8_t* r, const std::uint8_t* g, const std::uint8_t* b, std::size_t count);
  void (*torch_blend)(std::uint8_t* plane, const std::uint8_t* other, std::size_t count, float share, float rest);
  // The inner pixels of a line, from the lines above and below it.
  void (*sharpen)(std::uint8_t* out, const std::uint8_t* above, const std::uint8_t* line, const std::uint8_t* below,
                  int width, float factor);
  // A line of weighed sums of `taps` neighbors, in 1/256, lowered by 32768; `line` has taps - 1 pixels more. The weights
  // are the same on both sides of their middle, and 0 lies before and behind them. Writes up to 16 numbers more.
  void (*blur_across)(std::int16_t* out, const std::int16_t* line, int width, const std::int16_t* weights, int taps);
  // One or two lines that follow each other, of weighed sums of such lines; the second of the lines from the second one on.
  void (*blur_down)(std::uint8_t* out, int rows, const std::int16_t* const* lines, int width, const std::int16_t* weights, int taps);
  // Map points by a matrix, in place.
  void (*map_points)(double* x, double* y, int count, const double* matrix);
  // Where the points lie in an image of this size with a margin of one pixel.
  void (*nearest_places)(const LinePlaces& places, const double* x, const double* y, int count, int height, int width);
  void (*bilinear_places)(const LinePlaces& places, const double* x, const double* y, int count, int height, int width);
  // The same for points of a line in 1/65536, from x and y on; what lies outside is at place 0.
  void (*whole_places)(std::int32_t* at, WholePoint first, WholePoint step, int count, int height, int width);
  // The two above that take doubles, of a line of a map that divides nothing, of at least 4 points. Null where this is no faster.
  void (*affine_places)(const LinePlaces& places, const AffineLine& line, int count, int height, int width);
  // How much of each point lies in an image of this size, in 1/2048.
  void (*shares)(std::int32_t* share, const double* x, const double* y, int count, int height, int width, bool nearest);
  // The pixels at places of a plane with a margin, readable 4 bytes past its end.
  void (*gather)(std::uint8_t* out, const std::uint8_t* framed, const LinePlaces& places, int count, int stride);
  // Put pixels of up to 4 bytes into four each.
  void (*widen)(std::uint32_t* out, const std::uint8_t* in, std::size_t pixels, int channels);
  // As `gather`, for all channels at once: the pixels have four bytes, and are readable a line and 8 bytes past their end.
  // Writes `count` bytes for each channel.
  void (*gather_pixels)(std::uint8_t* const* out, int channels, const std::uint32_t* framed, const LinePlaces& places,
                        int count, int stride);
  // Let a value show through where a point does not lie in the image.
  void (*cover)(std::uint8_t* out, const std::int32_t* share, int count, std::uint8_t value);
};

}  // namespace headrace
