// Pixels to a JPEG file in memory.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>

#include <jpeglib.h>

#include "../geometry/lines.hpp"

namespace headrace {

class JpegWriter {
 public:
  JpegWriter();
  ~JpegWriter();
  JpegWriter(const JpegWriter&) = delete;
  JpegWriter& operator=(const JpegWriter&) = delete;

  // Encode pixels of 1 or 3 channels; false if libjpeg cannot. The same pixels give the same bytes.
  bool write(const Pixels& pixels, int quality);

  const std::uint8_t* data() const { return data_; }
  std::size_t size() const { return size_; }

 private:
  static void escape(j_common_ptr info);

  jpeg_compress_struct info_{};
  jpeg_error_mgr errors_{};
  std::jmp_buf way_out_;
  unsigned char* data_ = nullptr;
  unsigned long size_ = 0;
};

}  // namespace headrace
