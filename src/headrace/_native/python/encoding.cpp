// Functions that decode and encode one file, without the GIL.
#include <stdexcept>

#include "../decode/png.hpp"
#include "../encode/jpeg_writer.hpp"
#include "../encode/whole_image.hpp"
#include "bindings.hpp"
#include "gil.hpp"

namespace headrace {
namespace {

const RowOps& fastest_ops() {
  int count = 0;
  const RowOps* const* ops = row_ops_available(&count);
  return *ops[count - 1];
}

nb::bytes bytes_of(const std::uint8_t* data, std::size_t size) {
  return nb::bytes(reinterpret_cast<const char*>(data), size);
}

// Height, width, whether these are the very pixels in the file, and the pixels; None for what Python must read.
nb::object read_image(const nb::bytes& data, int max_side, std::int64_t max_pixels, bool oriented) {
  const Sample sample{reinterpret_cast<const std::uint8_t*>(data.c_str()), data.size()};
  WholeImage image;
  bool read = false;
  {
    const GilRelease released;
    Scratch scratch;
    read = read_whole(sample, max_side, max_pixels, oriented, fastest_ops(), scratch, image);
  }
  if (!read) return nb::none();
  const std::size_t size = static_cast<std::size_t>(image.height) * image.width * 3;
  return nb::make_tuple(image.height, image.width, image.as_stored, bytes_of(image.pixels.data(), size));
}

// Write the pixels of a PNG file that have one number each; false for what Python must read. `oriented`: files that may say
// how they are turned are left to Python too.
bool read_png(const nb::bytes& data, nb::ndarray<nb::ndim<2>, nb::c_contig, nb::device::cpu> out, bool oriented) {
  const GilRelease released;
  Png png;
  if (!png.open(reinterpret_cast<const std::uint8_t*>(data.c_str()), data.size(), !oriented)) return false;
  if (png.channels != 1 || out.shape(0) != static_cast<std::size_t>(png.height) || out.shape(1) != static_cast<std::size_t>(png.width) ||
      out.itemsize() != (png.depth == 16 ? 2U : 1U))
    return false;
  static thread_local Buffer raw;
  if (raw.capacity() > std::size_t{16} << 20) Buffer().swap(raw);
  return png.read(static_cast<std::uint8_t*>(out.data()), raw);
}

nb::object write_jpeg(const Array<std::uint8_t>& pixels, int quality) {
  if (pixels.ndim() != 2 && (pixels.ndim() != 3 || (pixels.shape(2) != 1 && pixels.shape(2) != 3)))
    throw std::invalid_argument("`pixels` must have the shape (H, W), (H, W, 1) or (H, W, 3)");
  constexpr std::size_t most = JPEG_MAX_DIMENSION;
  if (pixels.size() == 0 || pixels.shape(0) > most || pixels.shape(1) > most) return nb::none();
  const int channels = pixels.ndim() == 2 ? 1 : static_cast<int>(pixels.shape(2));
  const Pixels image{pixels.data(), static_cast<int>(pixels.shape(0)), static_cast<int>(pixels.shape(1)), channels};
  JpegWriter writer;
  bool written = false;
  {
    const GilRelease released;
    written = writer.write(image, quality);
  }
  return written ? nb::object(bytes_of(writer.data(), writer.size())) : nb::none();
}

}  // namespace

void bind_encoding(nb::module_& module) {
  module.def("read_image", &read_image, nb::arg("data"), nb::arg("max_side"), nb::arg("max_pixels"), nb::arg("oriented"),
             "Decode a JPEG file to RGB, its longer side at most `max_side` (0: any): height, width, whether these are "
             "the pixels that the file has, and the pixels. None for files that this does not read.");
  module.def("read_png", &read_png, nb::arg("data"), nb::arg("out"), nb::arg("oriented"),
             "Write the pixels of a PNG file: gray, or indices of a palette. False for files that this does not read.");
  module.attr("READS_PNG") = reads_png;
  module.def("write_jpeg", &write_jpeg, nb::arg("pixels"), nb::arg("quality"),
             "Encode pixels of bytes as a JPEG file; None if they cannot be one.");
}

}  // namespace headrace
