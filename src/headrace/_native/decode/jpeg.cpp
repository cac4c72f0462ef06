#include "jpeg.hpp"

#include <algorithm>
#include <cstring>

namespace headrace {
namespace {

// Smooth upsampling reads the neighbors: a closer cut would differ at its edges.
constexpr int margin = 8;

// A small file may ask for much time and memory: each scan covers the whole image, and several scans keep all its
// coefficients in memory. Cameras and encoders write up to about 15 scans and 300 segments. Files with more than the
// limits here are left to the step-by-step path, which decides.
constexpr int scans_at_most = 32;
constexpr int segments_at_most = 1000;
constexpr std::size_t held_at_least = std::size_t{64} << 20, held_per_byte = 256;

std::uint32_t number(const std::uint8_t* at, int bytes, bool little) {
  std::uint32_t value = 0;
  for (int i = 0; i < bytes; ++i) value = value << 8 | at[little ? bytes - 1 - i : i];
  return value;
}

// The orientation in TIFF data (Exif 2.32, 4.6): 0 if there is none, -1 if it takes more to find it.
int orientation_in(const std::uint8_t* tiff, std::size_t size) {
  if (size < 8) return -1;
  const bool little = tiff[0] == 'I';
  if (tiff[0] != tiff[1] || (!little && tiff[0] != 'M') || number(tiff + 2, 2, little) != 42) return -1;
  const std::size_t at = number(tiff + 4, 4, little);
  if (at < 8 || at + 2 > size) return -1;
  const std::size_t entries = number(tiff + at, 2, little);
  if (at + 2 + 12 * entries > size) return -1;
  int found = 0;
  for (std::size_t i = 0; i < entries; ++i) {
    const std::uint8_t* entry = tiff + at + 2 + 12 * i;
    if (number(entry, 2, little) != 0x0112) continue;
    if (found != 0 || number(entry + 2, 2, little) != 3 || number(entry + 4, 4, little) != 1) return -1;
    found = static_cast<int>(number(entry + 8, 2, little));
    if (found < 1 || found > 8) return -1;
  }
  return found;
}

}  // namespace

Jpeg::Jpeg() {
  info_.err = jpeg_std_error(&errors_);
  errors_.error_exit = escape;
  errors_.emit_message = complain;
  errors_.output_message = [](j_common_ptr) {};
  progress_.progress_monitor = advance;
  source_.init_source = [](j_decompress_ptr) {};
  source_.fill_input_buffer = [](j_decompress_ptr info) -> boolean {
    escape(reinterpret_cast<j_common_ptr>(info));
    return FALSE;
  };
  source_.skip_input_data = [](j_decompress_ptr info, long count) {
    if (count <= 0) return;
    if (static_cast<std::size_t>(count) > info->src->bytes_in_buffer) escape(reinterpret_cast<j_common_ptr>(info));
    info->src->next_input_byte += count;
    info->src->bytes_in_buffer -= static_cast<std::size_t>(count);
  };
  source_.resync_to_restart = jpeg_resync_to_restart;
  source_.term_source = [](j_decompress_ptr) {};
}

Jpeg::~Jpeg() { jpeg_destroy_decompress(&info_); }

// Back to our function that called libjpeg: only frames of C lie between.
void Jpeg::escape(j_common_ptr info) { std::longjmp(static_cast<Jpeg*>(info->client_data)->way_out_, 1); }

// A warning (level -1) means that the pixels are not what was written. Whether that is acceptable is decided elsewhere.
void Jpeg::complain(j_common_ptr info, int level) {
  if (level < 0) escape(info);
}

// Between any two rows of blocks of each scan.
void Jpeg::advance(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > scans_at_most) escape(info);
}

// Whether the memory for a file of several scans is in proportion to its size.
bool Jpeg::fits(std::size_t size) {
  if (!jpeg_has_multiple_scans(&info_)) return true;
  std::size_t held = 0;
  for (int i = 0; i < info_.num_components; ++i) {
    const jpeg_component_info& part = info_.comp_info[i];
    held += static_cast<std::size_t>(part.width_in_blocks) * part.height_in_blocks * sizeof(JBLOCK);
  }
  return held <= held_at_least + held_per_byte * size;
}

bool Jpeg::open(const std::uint8_t* data, std::size_t size) {
  // New for each image: the tables of one would otherwise serve another that lacks them.
  jpeg_destroy_decompress(&info_);
  if (size < 4) return false;
  info_.client_data = this;
  if (setjmp(way_out_)) return false;
  jpeg_create_decompress(&info_);
  info_.client_data = this;
  source_.next_input_byte = data;
  source_.bytes_in_buffer = size;
  info_.src = &source_;
  info_.progress = &progress_;
  // Some cameras append a film: then the last bytes do not say whether the file is complete.
  ended_ = data[size - 2] == 0xFF && data[size - 1] == JPEG_EOI;
  if (jpeg_read_header(&info_, TRUE) != JPEG_HEADER_OK) return false;
  if (info_.data_precision != 8) return false;
  switch (info_.jpeg_color_space) {
    case JCS_GRAYSCALE:
    case JCS_YCbCr:
    case JCS_RGB:
      break;
    default:
      return false;
  }
  return fits(size) && find_orientation(data, size);
}

bool Jpeg::find_orientation(const std::uint8_t* data, std::size_t size) {
  static constexpr char exif[] = "Exif\0";  // and one more zero, which the literal ends with
  static constexpr char elsewhere[] = "tiff:Orientation";
  orientation_ = 1;
  bool found = false, maybe = false;
  int segments = 0;
  std::size_t at = 2;
  while (at + 4 <= size && data[at] == 0xFF) {
    const int marker = data[at + 1];
    if (marker == 0xDA) break;
    if (++segments > segments_at_most) return false;
    const std::size_t length = data[at + 2] << 8 | data[at + 3];
    if (length < 2 || at + 2 + length > size) return false;
    if (marker == 0xE1) {
      const std::uint8_t *text = data + at + 4, *end = data + at + 2 + length;
      if (length >= 8 && std::memcmp(text, exif, 6) == 0) {
        const int value = orientation_in(text + 6, static_cast<std::size_t>(end - text) - 6);
        if (value < 0 || found) return false;
        if (value > 0) orientation_ = value, found = true;
      } else if (std::search(text, end, elsewhere, elsewhere + sizeof elsewhere - 1) != end) {
        maybe = true;
      }
    }
    at += 2 + length;
  }
  // Fill bytes and other oddities between the segments: libjpeg reads them, this function does not.
  if (at + 4 > size || data[at] != 0xFF) return false;
  return found || !maybe;
}

bool Jpeg::begin(int shrink, int top, int left, int right) {
  if (setjmp(way_out_)) return false;
  info_.out_color_space = JCS_RGB;
  info_.dct_method = JDCT_ISLOW;
  info_.do_fancy_upsampling = TRUE;
  info_.scale_num = 1;
  info_.scale_denom = static_cast<unsigned>(shrink);
  if (!jpeg_start_decompress(&info_)) return false;
  const int whole = static_cast<int>(info_.output_width);
  JDIMENSION first = static_cast<JDIMENSION>(std::max(0, left - margin));
  JDIMENSION count = static_cast<JDIMENSION>(std::min(whole, right + margin)) - first;
  left_ = 0, columns_ = whole;
  // An image or a part as narrow as this gains nothing.
  if (static_cast<int>(count) + 4 * margin < whole && count > 4 * margin) {
    jpeg_crop_scanline(&info_, &first, &count);
    left_ = static_cast<int>(first), columns_ = static_cast<int>(count);
  }
  if (top > 0 && jpeg_skip_scanlines(&info_, static_cast<JDIMENSION>(top)) != static_cast<JDIMENSION>(top)) return false;
  return true;
}

bool Jpeg::read(std::uint8_t* rows, std::ptrdiff_t stride, int count) {
  constexpr int most = 8;
  JSAMPROW pointers[most];
  for (int i = 0; i < count; ++i) pointers[i] = rows + i * stride;
  for (int done = 0; done < count;) {
    const int got = read_some(pointers + done, count - done);
    if (got <= 0) return false;
    done += got;
  }
  return true;
}

int Jpeg::read_some(std::uint8_t** rows, int count) {
  if (setjmp(way_out_)) return 0;
  return static_cast<int>(jpeg_read_scanlines(&info_, rows, static_cast<JDIMENSION>(count)));
}

bool Jpeg::finish(std::vector<std::uint8_t>& row) {
  if (ended_) return true;
  row.resize(std::max(row.size(), static_cast<std::size_t>(info_.output_width) * 3));
  if (setjmp(way_out_)) return false;
  // Skipping to the very end would skip the check, too.
  const JDIMENSION left = info_.output_height - info_.output_scanline;
  if (left > 1 && jpeg_skip_scanlines(&info_, left - 1) != left - 1) return false;
  JSAMPROW pointer = row.data();
  if (left > 0 && jpeg_read_scanlines(&info_, &pointer, 1) != 1) return false;
  return jpeg_finish_decompress(&info_);
}

}  // namespace headrace
