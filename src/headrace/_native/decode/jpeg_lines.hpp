// The lines of a JPEG file, decoded a few at a time, upright.
#pragma once

#include "../buffer.hpp"
#include "../clock.hpp"
#include "../geometry/lines.hpp"
#include "../recipe.hpp"
#include "jpeg.hpp"

namespace headrace {

class JpegLines final : public Lines {
 public:
  // Decodes at 1/`shrink` of the size. `seconds` counts decoding apart from what is done to the lines between.
  JpegLines(Jpeg& jpeg, int shrink, Buffer& strip, Seconds& seconds, Clock::time_point& then)
      : jpeg_(jpeg), shrink_(shrink), strip_(strip), seconds_(seconds), then_(then) {}

  bool begin(int top, int bottom, int left, int right) override;
  const std::uint8_t* next() override;

 private:
  static constexpr int lines = 8;

  Jpeg& jpeg_;
  int shrink_;
  Buffer& strip_;
  Seconds& seconds_;
  Clock::time_point& then_;
  int left_ = 0, rest_ = 0, at_ = 0, held_ = 0;
  std::uint8_t* begin_ = nullptr;
  std::ptrdiff_t stride_ = 0;
};

// How EXIF says that an image in the file becomes upright: swap its axes, then mirror them.
struct Orientation {
  bool swapped, down, across;

  // `exif` is EXIF's number, 1 to 8.
  explicit Orientation(int exif)
      : swapped(exif >= 5),
        down(exif == 3 || exif == 4 || exif == 7 || exif == 8),
        across(exif == 2 || exif == 3 || exif == 6 || exif == 7) {}
};

// The lines of the upright image: the wanted part is decoded whole, and turned.
class UprightLines final : public Lines {
 public:
  // `height` and `width` are those of the whole upright image, as it is decoded.
  UprightLines(Lines& stored, const Orientation& how, int height, int width, Buffer& upright)
      : stored_(stored), how_(how), height_(height), width_(width), upright_(upright) {}

  bool begin(int top, int bottom, int left, int right) override;

  const std::uint8_t* next() override {
    const std::uint8_t* line = at_;
    at_ += 3 * static_cast<std::ptrdiff_t>(columns_);
    return line;
  }

 private:
  void place(const std::uint8_t* in, int row, int count, int rows) const;

  Lines& stored_;
  Orientation how_;
  int height_, width_;
  Buffer& upright_;
  int columns_ = 0;
  const std::uint8_t* at_ = nullptr;
};

}  // namespace headrace
