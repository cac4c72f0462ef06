// A JPEG file in memory. Only the wanted part is decoded, and any complaint of libjpeg ends it.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

#include <jpeglib.h>

namespace headrace {

class Jpeg {
 public:
  Jpeg();
  ~Jpeg();
  Jpeg(const Jpeg&) = delete;
  Jpeg& operator=(const Jpeg&) = delete;

  // Each returns false at the first warning or error, and for files that it does not read. Call nothing after that.

  // Read the header; the bytes must stay where they are.
  bool open(const std::uint8_t* data, std::size_t size);
  // Begin to decode at 1/`shrink` of the size, from a row on, at least the columns [left, right).
  bool begin(int shrink, int top, int left, int right);
  // Decode the next rows, 8 at the most, each `stride` bytes after the other.
  bool read(std::uint8_t* rows, std::ptrdiff_t stride, int count);
  // Check that a file which does not end as a JPEG file does is complete; `row` is memory for a row.
  bool finish(std::vector<std::uint8_t>& row);

  // As they are in the file, not yet upright.
  int width() const { return static_cast<int>(info_.image_width); }
  int height() const { return static_cast<int>(info_.image_height); }
  // EXIF's number, 1 to 8.
  int orientation() const { return orientation_; }
  // The first column that is decoded, and how many are.
  int left() const { return left_; }
  int columns() const { return columns_; }

 private:
  static void escape(j_common_ptr info);
  static void complain(j_common_ptr info, int level);
  static void advance(j_common_ptr info);
  bool fits(std::size_t size);
  int read_some(std::uint8_t** rows, int count);
  bool find_orientation(const std::uint8_t* data, std::size_t size);

  jpeg_decompress_struct info_{};
  jpeg_error_mgr errors_{};
  jpeg_source_mgr source_{};
  jpeg_progress_mgr progress_{};
  std::jmp_buf way_out_;
  int orientation_ = 1;
  int left_ = 0, columns_ = 0;
  bool ended_ = false;
};

}  // namespace headrace
