// An image of bytes in planes of one channel each, and what is done to it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "../buffer.hpp"
#include "change.hpp"
#include "../rows/row_ops.hpp"

namespace headrace {

// What one thread needs for changes, reused from image to image.
struct ChangeBuffers {
  Buffer image, spare, gray;
  std::vector<std::uint32_t> framed;
  std::vector<std::int16_t> line, blurred;
  std::vector<const std::int16_t*> lines;
  std::vector<double> points;
  std::vector<std::int32_t> places;
  std::vector<Op> ops;

  void shrink_to(std::size_t bytes);
};

// One map of a warp: from an image of the size `before` to one of `size`.
struct WarpPart {
  const double* inverse;
  int before_height, before_width, height, width;
  const std::uint8_t* fill;  // of each channel
};

// Whether what an operation makes of a pixel depends on that pixel, and perhaps the mean, alone.
bool is_of_pixels(const Op& op);

// The planes lie one after the other in `buffers.image`.
class Planes {
 public:
  Planes(const RowOps& ops, const ImageSize& size, ChangeBuffers& buffers);

  std::uint8_t* plane(int channel) { return buffers_.image.data() + area() * static_cast<std::size_t>(channel); }
  const ImageSize& size() const { return size_; }
  std::size_t area() const { return static_cast<std::size_t>(size_.height) * static_cast<std::size_t>(size_.width); }

  void split(const std::uint8_t* interleaved);
  void merge(std::uint8_t* interleaved);

  // Let the last line be of one color, and each pixel of the image that is left out be like it: so many. Nothing that
  // looks at neighbors may be done then.
  void set_left_out(std::int64_t pixels) { left_out_ = pixels; }

  // Do what was drawn, in order.
  void run(const std::vector<Op>& ops);
  // Resample the image once for maps one after the other.
  void warp(const std::vector<WarpPart>& parts, bool nearest);

 private:
  int colors() const { return size_.channels == 4 ? 3 : size_.channels; }
  std::uint8_t* spare(std::size_t area);
  const std::uint8_t* gray(bool of_torch);
  void run_one(const Op& op);
  void look_up(int first, int last, const std::uint8_t* table);
  void by_value(double (*function)(double, double, double), double a, double b);
  void blend_value(double value, float factor);
  std::pair<std::uint64_t, std::size_t> sum_gray(bool of_torch);
  void contrast(double factor);
  void torch_contrast(double factor);
  void saturate(float factor);
  void autocontrast();
  void equalize(int channel);
  void permute(const std::vector<double>& order);
  void sharpen(float factor);
  void blur(const std::vector<double>& numbers);
  void blur_plane(std::uint8_t* out, const std::uint8_t* in, const std::vector<std::int16_t>& across,
                  const std::vector<std::int16_t>& down);
  void erase(const std::vector<double>& numbers);
  void turn_upside_down();
  void warp_as_pillow(const std::vector<double>& numbers);
  void take(const LinePlaces& places, int height, int width, const std::uint8_t* fill);
  std::size_t run_warps(const std::vector<Op>& ops, std::size_t first);
  std::uint32_t* framed(int first, int channels, const std::uint8_t* fill);

  const RowOps& rows_;
  const PlaneOps& ops_;
  ImageSize size_;
  ChangeBuffers& buffers_;
  std::int64_t left_out_ = 0;
};

}  // namespace headrace
