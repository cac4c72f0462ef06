// The last step of an image: a line of bytes becomes a line of the batch, flipped, converted and laid out.
#pragma once

#include "../buffer.hpp"
#include "../geometry/geometry.hpp"
#include "row_format.hpp"

namespace headrace {

class LineWriter {
 public:
  // `planes` is memory for the steps between; lines are as wide as a row of the batch.
  LineWriter(const RowFormat& format, Buffer& planes, void* out);
  LineWriter(const LineWriter&) = default;
  ~LineWriter();

  // Let lines have this many pixels.
  void set_width(std::size_t pixels);
  // Write a line that begins at pixel `at` of the row of the batch. As many bytes from `ahead` on are read soon.
  void put(const std::uint8_t* line, std::size_t at, bool flipped, const std::uint8_t* ahead = nullptr);
  // Whether `put_blend` is for this row of the batch: planes of three channels, whose floats are computed.
  bool takes_blends() const;
  // Write the line that is blended from two lines of three planes of raised floats, not flipped.
  void put_blend(const float* const* a, const float* const* b, const Blend& blend, std::size_t at);
  // Write all of the row of the batch, from planes of bytes that lie one after the other.
  void put_all(const std::uint8_t* planes);
  // The same, where the planes are a part of it, and their last line has the color of all else.
  void put_part(const std::uint8_t* planes, const Box& part);

 private:
  void put_interleaved(const std::uint8_t* line, std::size_t at, bool flipped);
  void put_planes(const std::uint8_t* line, std::size_t at, bool flipped, const std::uint8_t* ahead);
  void convert(std::uint8_t* row, const std::uint8_t* plane, int channel) const;
  void look_up(std::uint8_t* out, std::ptrdiff_t step, const std::uint8_t* in, std::ptrdiff_t apart, int channel) const;
  const std::uint8_t* mirrored(const std::uint8_t* line);

  const RowFormat& format_;
  const bool plain_, computed_, streamed_, normalizes3_;
  Buffer& buffer_;
  std::uint8_t* out_;
  std::uint8_t* planes_;
  std::size_t pixels_;
};

}  // namespace headrace
