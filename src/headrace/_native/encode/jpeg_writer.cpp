#include "jpeg_writer.hpp"

#include <cstdlib>

namespace headrace {

JpegWriter::JpegWriter() {
  info_.err = jpeg_std_error(&errors_);
  errors_.error_exit = escape;
  errors_.output_message = [](j_common_ptr) {};
}

JpegWriter::~JpegWriter() {
  jpeg_destroy_compress(&info_);
  std::free(data_);
}

// Back to `write`: only frames of C lie between.
void JpegWriter::escape(j_common_ptr info) { std::longjmp(static_cast<JpegWriter*>(info->client_data)->way_out_, 1); }

bool JpegWriter::write(const Pixels& pixels, int quality) {
  info_.client_data = this;
  if (setjmp(way_out_)) return false;
  jpeg_create_compress(&info_);
  info_.client_data = this;
  jpeg_mem_dest(&info_, &data_, &size_);
  info_.image_width = static_cast<JDIMENSION>(pixels.width);
  info_.image_height = static_cast<JDIMENSION>(pixels.height);
  info_.input_components = pixels.channels;
  info_.in_color_space = pixels.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&info_);
  jpeg_set_quality(&info_, quality, TRUE);
  info_.dct_method = JDCT_ISLOW;
  // A tenth fewer bytes to read, for ever; only writing takes longer.
  info_.optimize_coding = TRUE;
  jpeg_start_compress(&info_, TRUE);
  const std::size_t stride = static_cast<std::size_t>(pixels.width) * pixels.channels;
  while (info_.next_scanline < info_.image_height) {
    JSAMPROW row = const_cast<JSAMPROW>(pixels.data + stride * info_.next_scanline);
    jpeg_write_scanlines(&info_, &row, 1);
  }
  jpeg_finish_compress(&info_);
  return true;
}

}  // namespace headrace
