// Changes of images in memory, one image at a time: what the transforms do step by step.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../changes/planes.hpp"
#include "../changes/resample.hpp"
#include "../rows/row_ops.hpp"
#include "bindings.hpp"
#include "gil.hpp"

namespace headrace {
namespace {

// In the order of the enumeration.
constexpr const char* kinds[] = {
    "brightness", "contrast", "saturation", "hue", "pillow_hue",
    "torch_contrast", "torch_saturation", "torch_hue", "torch_grayscale", "grayscale", "invert",   "solarize", "posterize",    "autocontrast",
    "equalize",   "channels", "sharpness",  "blur", "warp", "pillow_warp", "erase",    "upside_down", "all",       "joined",
    "apply",      "choice",   "weighted",   "jitter", "distort",   "any_channels", "any_blur", "any_erase", "any_affine",
    "any_perspective"};

using Image = nb::ndarray<const std::uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Fills = nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<std::uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

// The most pixels of an image: places in it fit 32 bits.
constexpr std::int64_t most_pixels = std::int64_t{1} << 29;

ImageSize size_of(const Image& image) {
  if (image.size() == 0 || image.size() > static_cast<std::size_t>(most_pixels))
    throw std::invalid_argument("an image of no pixels, or too many");
  return {static_cast<int>(image.shape(0)), static_cast<int>(image.shape(1)), static_cast<int>(image.shape(2))};
}

ChangeBuffers& buffers() {
  static thread_local ChangeBuffers kept;
  kept.shrink_to(std::size_t{16} << 20);
  return kept;
}

// Write an image changed by one thing that is done as it is.
void changed(Image image, Out out, const Change& change, const std::string& level) {
  const ImageSize size = size_of(image);
  if (size.channels > 4) throw std::invalid_argument("an image of more than 4 channels");
  if (out.size() != image.size()) throw std::invalid_argument("`out` is of another size than the image");
  if (change.kind >= Change::all) throw std::invalid_argument("a change that is drawn");
  if (const char* wrong = complaint(change, size, static_cast<std::size_t>(size.channels)))
    throw std::invalid_argument(wrong);
  const RowOps& ops = row_ops_of(level);
  const GilRelease released;
  Planes planes(ops, size, buffers());
  planes.split(image.data());
  planes.run({Op{change.kind, change.numbers}});
  planes.merge(out.data());
}

// Write what a window shows of an image resampled for maps: of each the inverse matrix and the sizes before and after,
// and a pixel of its fill. `outside` is what lies outside of the last map's image.
void warped(Image image, Out out, const std::vector<std::vector<double>>& maps, Fills fills, bool nearest,
            const std::optional<std::vector<int>>& window, bool flipped, const std::optional<Fills>& outside,
            const std::string& level) {
  const ImageSize size = size_of(image);
  const std::size_t bytes = image.shape(2);
  if (maps.empty() || fills.shape(0) != maps.size() || fills.shape(1) != bytes || (outside && outside->size() != bytes))
    throw std::invalid_argument("a fill for each map and channel is needed");
  std::vector<WarpPart> parts = parts_of(maps, bytes);
  for (std::size_t i = 0; i < parts.size(); ++i) parts[i].fill = fills.data() + i * bytes;
  Box part{0, 0, parts.back().height, parts.back().width};
  if (window) {
    if (window->size() != 4) throw std::invalid_argument("a window has 4 numbers");
    part = {(*window)[0], (*window)[1], (*window)[2], (*window)[3]};
    constexpr int most = 1 << 29;
    if (part.height < 1 || part.width < 1 || std::abs(part.top) > most || std::abs(part.left) > most)
      throw std::invalid_argument("a window that cannot be used");
  }
  if (parts[0].before_height != size.height || parts[0].before_width != size.width ||
      out.shape(0) != static_cast<std::size_t>(part.height) || out.shape(1) != static_cast<std::size_t>(part.width) ||
      out.shape(2) != bytes || out.size() == 0 || out.size() > static_cast<std::size_t>(most_pixels))
    throw std::invalid_argument("the images are of other sizes than the maps");
  const RowOps& ops = row_ops_of(level);
  const GilRelease released;
  const Pixels pixels{image.data(), size.height, size.width, size.channels};
  ChangeBuffers& kept = buffers();
  static thread_local ResampleBuffers places;
  places.shrink_to(std::size_t{16} << 20);
  Resampler resampler(ops, parts, nearest, part, flipped, outside ? outside->data() : fills.data(), places);
  if (nearest) return resampler.nearest_pixels(pixels, out.data());
  if (size.channels <= 4) {
    Planes planes(ops, {part.height, part.width, size.channels}, kept);
    resampler.planes(pixels, planes.plane(0), planes.area());
    return planes.merge(out.data());
  }
  if (window || flipped) throw std::invalid_argument("a window of more than 4 channels");
  Planes planes(ops, size, kept);
  planes.split(image.data());
  planes.warp(parts, nearest);
  planes.merge(out.data());
}

}  // namespace

Change change_of(const std::string& kind, std::vector<double> numbers, std::vector<Change> parts) {
  for (std::size_t i = 0; i < std::size(kinds); ++i)
    if (kind == kinds[i]) return {static_cast<Change::Kind>(i), std::move(numbers), std::move(parts)};
  throw std::invalid_argument("no such change: " + kind);
}

std::vector<WarpPart> parts_of(const std::vector<std::vector<double>>& maps, std::size_t bytes) {
  std::vector<WarpPart> parts;
  for (const std::vector<double>& map : maps) {
    if (map.size() != 13) throw std::invalid_argument("a map has 13 numbers");
    for (std::size_t i = 9; i < 13; ++i)
      if (!(map[i] >= 1 && map[i] <= static_cast<double>(most_pixels))) throw std::invalid_argument("a side without pixels, or too many");
    if (map[9] * map[10] * static_cast<double>(bytes) > static_cast<double>(most_pixels))
      throw std::invalid_argument("an image of too many pixels");
    parts.push_back({map.data(), static_cast<int>(map[9]), static_cast<int>(map[10]), static_cast<int>(map[11]),
                     static_cast<int>(map[12]), nullptr});
  }
  return parts;
}

void bind_changes(nb::module_& module) {
  nb::class_<Change>(module, "Change", "What is done to images after their geometry, or drawn for that.")
      .def("__init__",
           [](Change* self, const std::string& kind, std::vector<double> numbers, std::vector<Change> parts) {
             new (self) Change(change_of(kind, std::move(numbers), std::move(parts)));
           },
           nb::arg("kind"), nb::arg("numbers"), nb::arg("parts"));
  module.def("change_kinds", [] { return std::vector<std::string>(std::begin(kinds), std::end(kinds)); }, "The kinds of changes.");
  module.def("changed", &changed, nb::arg("image"), nb::arg("out"), nb::arg("change"), nb::arg("level") = "",
             "Write an image with one change done to it.");
  module.def("warped", &warped, nb::arg("image"), nb::arg("out"), nb::arg("maps"), nb::arg("fills"), nb::arg("nearest"),
             nb::arg("window") = nb::none(), nb::arg("flipped") = false, nb::arg("outside") = nb::none(),
             nb::arg("level") = "", "Write an image resampled once for maps that follow each other.");
}

}  // namespace headrace
