// What is done to every image of a dataset, as Python hands it over.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../batch_rows.hpp"
#include "../render.hpp"
#include "bindings.hpp"
#include "gil.hpp"

namespace headrace {
namespace {

using Out = nb::ndarray<nb::c_contig, nb::device::cpu>;
// How far each row's sample is from the place; none: as far as the row.
using Which = std::optional<std::vector<std::int64_t>>;
// How many numbers were drawn for each row before; none: 0.
using Drawn = std::optional<std::vector<std::int32_t>>;
// Arrays that go with the images, a row for each of the source's.
using Beside = std::vector<nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>>;

// Bytes that are copied in less time than another thread needs to take the GIL and give it back.
constexpr std::size_t quickly_copied = std::size_t{64} << 10;

// Copy the rows of these keys, which are in range.
void gather(const Beside& arrays, const std::vector<Out>& filled, const std::vector<std::int64_t>& keys, std::int64_t length) {
  if (filled.size() != arrays.size()) throw std::invalid_argument("`filled` has not as many arrays as `beside`");
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    if (arrays[i].ndim() < 1 || static_cast<std::int64_t>(arrays[i].shape(0)) != length)
      throw std::invalid_argument("an array beside the images has another number of rows");
    const std::size_t bytes = length > 0 ? arrays[i].nbytes() / arrays[i].shape(0) : 0;
    if (filled[i].nbytes() != keys.size() * bytes) throw std::invalid_argument("`filled` is of another size than its rows");
    std::optional<GilRelease> released;
    if (filled[i].nbytes() > quickly_copied) released.emplace();
    const std::uint8_t* const from = static_cast<const std::uint8_t*>(arrays[i].data());
    std::uint8_t* to = static_cast<std::uint8_t*>(filled[i].data());
    for (const std::int64_t key : keys) std::memcpy(to, from + static_cast<std::size_t>(key) * bytes, bytes), to += bytes;
  }
}

template <class Value, std::size_t count>
Value named(const char* const (&names)[count], const std::string& name, const char* what) {
  for (std::size_t i = 0; i < count; ++i)
    if (name == names[i]) return static_cast<Value>(i);
  throw std::invalid_argument(std::string("no such ") + what + ": " + name);
}

// In the order of the enumerations.
constexpr const char* filters[] = {"nearest", "bilinear", "bicubic", "lanczos", "box"};
constexpr const char* edges[] = {"constant", "edge", "reflect", "symmetric"};

using SampleImage = nb::ndarray<const std::uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Sides = std::vector<int>;

Box box_of(const Sides& sides) {
  if (sides.size() != 4) throw std::invalid_argument("a part of an image has 4 numbers");
  return {sides[0], sides[1], sides[2], sides[3]};
}

std::vector<std::uint8_t> set_fills(std::vector<WarpPart>& maps, const std::vector<std::vector<int>>& fills, std::size_t channels) {
  if (fills.size() != maps.size()) throw std::invalid_argument("a fill for each map is needed");
  std::vector<std::uint8_t> pixels;
  for (const std::vector<int>& fill : fills) {
    if (fill.size() != channels) throw std::invalid_argument("a fill for each channel is needed");
    for (const int one : fill) pixels.push_back(static_cast<std::uint8_t>(one));
  }
  for (std::size_t i = 0; i < maps.size(); ++i) maps[i].fill = pixels.data() + i * channels;
  return pixels;
}

// Whether computing gives what the table holds, for each value of a byte, to the last bit.
bool computes_table(const RowFormat& row) {
  std::uint8_t all[256 + slack] = {};
  float found[256];
  for (int i = 0; i < 256; ++i) all[i] = static_cast<std::uint8_t>(i);
  const float* table = reinterpret_cast<const float*>(row.values.table.data());
  for (int c = 0; c < row.values.channels; ++c) {
    row.ops->normalize(found, all, 256, row.values.mean[c], row.values.std[c]);
    if (std::memcmp(found, table + c * 256, sizeof found) != 0) return false;
  }
  return true;
}

class Pipeline {
 public:
  Pipeline(const std::vector<Step>& steps, int height, int width, int channels, const std::string& filter, bool antialias,
           bool shrink, const std::vector<int>& fill, const std::string& edge, bool channels_first, int itemsize,
           const std::optional<Array<std::uint8_t>>& table, const std::vector<float>& mean, const std::vector<float>& std,
           std::int64_t max_pixels, std::int64_t max_bytes, const std::string& level, bool oriented,
           const std::vector<Change>& changes, const std::vector<Change>& erasings) {
    if (height < 1 || width < 1 || channels < 1 || channels > 4)
      throw std::invalid_argument("a row must have a height and a width of at least 1, and 1 to 4 channels");
    recipe_->steps = steps;
    recipe_->filter = named<Filter>(filters, filter, "filter");
    recipe_->antialias = antialias, recipe_->shrink = shrink, recipe_->oriented = oriented;
    recipe_->edge = named<Edge>(edges, edge, "edge");
    for (std::size_t c = 0; c < 4; ++c)
      recipe_->fill[c] = static_cast<std::uint8_t>(fill.empty() ? 0 : fill[c % fill.size()]);
    recipe_->max_pixels = max_pixels, recipe_->max_bytes = max_bytes;
    RowFormat& row = recipe_->row;
    row.height = height, row.width = width;
    row.channels_first = channels_first;
    row.ops = &row_ops_of(level);
    row.values.channels = channels;
    set_values(itemsize, table, mean, std);
    set_changes(changes, erasings);
  }

  // Begin the batch of these keys: `out` is its memory, `place` that of its first sample. Rows of `beside` are copied at once.
  std::unique_ptr<Job> rows(const HeldSource& held, Vector keys, const Place& place, Out out, Which which,
                            const Drawn& drawn, const Beside& beside, const std::vector<Out>& filled) const {
    const std::size_t count = keys.size();
    if (out.nbytes() != count * recipe_->row.bytes())
      throw std::invalid_argument("`out` is of another size than its rows");
    if (which && which->size() != count) throw std::invalid_argument("`which` is of another length than `keys`");
    if (drawn && drawn->size() != count) throw std::invalid_argument("`drawn` is of another length than `keys`");
    if (held.source->channels() != recipe_->row.values.channels)
      throw std::invalid_argument("the source's images have other channels than the rows");
    const std::int64_t length = held.source->length();
    std::vector<std::int64_t> wanted(keys.data(), keys.data() + count);
    for (const std::int64_t key : wanted)
      if (key < 0 || key >= length) throw std::out_of_range("a key is not in the source");
    gather(beside, filled, wanted, length);
    held.source->prepare();
    BatchRows rows{recipe_, held.source, std::move(wanted), place, {}, static_cast<std::uint8_t*>(out.data())};
    if (which) rows.which = std::move(*which);
    auto task = std::make_shared<Task>(std::move(rows), drawn.value_or(std::vector<std::int32_t>()), scratch_);
    return std::make_unique<Job>(std::move(task), keep([source = held.kept, out] {}));
  }

  // Make one image of what was drawn for it. `maps` are as for `warped`, `map_fills` a pixel for each, and `fill` what
  // lies outside of the image. False: it is left to the step-by-step path.
  bool drawn(SampleImage image, Out out, const Sides& source, const std::pair<int, int>& size, const Sides& window,
             bool flipped, const std::vector<int>& fill, const std::string& filter, bool antialias,
             const std::vector<std::vector<double>>& maps, const std::vector<std::vector<int>>& map_fills, bool nearest,
             const std::vector<std::pair<std::string, std::vector<double>>>& ops) const {
    const Pixels pixels{image.data(), static_cast<int>(image.shape(0)), static_cast<int>(image.shape(1)),
                        static_cast<int>(image.shape(2))};
    Recipe recipe = *recipe_;
    const std::size_t channels = static_cast<std::size_t>(recipe.row.values.channels);
    if (image.shape(2) != channels || image.size() == 0 || image.size() > std::size_t{1} << 30 || fill.size() != channels)
      throw std::invalid_argument("an image with other channels, or of no pixels, or too many");
    DrawnImage what{{box_of(source), size.first, size.second, box_of(window), flipped}, parts_of(maps, image.shape(2)), nearest, {}};
    const Box &from = what.geometry.source, &to = what.geometry.window;
    const bool within = from.top >= 0 && from.left >= 0 && from.height >= 1 && from.width >= 1 &&
                        from.height <= pixels.height - from.top && from.width <= pixels.width - from.left;
    constexpr int most = 1 << 28;
    if (!within || size.first < 1 || size.second < 1 || size.first > most || size.second > most || to.height < 1 || to.width < 1 ||
        std::int64_t{1} * to.height * to.width > most || std::abs(to.top) > most || std::abs(to.left) > most)
      throw std::invalid_argument("a part or a size of an image that cannot be used");
    recipe.filter = named<Filter>(filters, filter, "filter"), recipe.antialias = antialias;
    recipe.row.height = recipe.bytes.height = to.height, recipe.row.width = recipe.bytes.width = to.width;
    for (std::size_t c = 0; c < channels; ++c) recipe.fill[c] = static_cast<std::uint8_t>(fill[c]);
    if (out.nbytes() != recipe.row.bytes()) throw std::invalid_argument("`out` is of another size than the image");
    std::vector<std::uint8_t> pixel_fills = set_fills(what.maps, map_fills, channels);
    if (!what.maps.empty() && (what.maps[0].before_height != pixels.height || what.maps[0].before_width != pixels.width))
      throw std::invalid_argument("the image is of another size than the first map's");
    for (const auto& [kind, numbers] : ops) {
      const Change change = change_of(kind, numbers, {});
      if (change.kind >= Change::all) throw std::invalid_argument("a change that is drawn");
      if (const char* wrong = complaint(change, {to.height, to.width, pixels.channels}, channels))
        throw std::invalid_argument(wrong);
      what.ops.push_back({change.kind, change.numbers});
    }
    const GilRelease released;
    static thread_local Scratch scratch;
    scratch.shrink_to(std::size_t{16} << 20);
    return render_drawn(recipe, what, pixels, scratch, out.data());
  }

  std::string level() const { return recipe_->row.ops->name; }
  bool computed() const { return recipe_->row.values.computed; }

 private:
  void set_values(int itemsize, const std::optional<Array<std::uint8_t>>& table, const std::vector<float>& mean,
                  const std::vector<float>& std) {
    Values& values = recipe_->row.values;
    const int channels = values.channels;
    values.itemsize = itemsize;
    if (itemsize != 1 && itemsize != 2 && itemsize != 4) throw std::invalid_argument("values must have 1, 2 or 4 bytes");
    if (table) {
      const std::size_t size = static_cast<std::size_t>(channels) * 256 * itemsize;
      if (table->size() != size) throw std::invalid_argument("`table` must hold 256 values for each channel");
      values.table.assign(table->data(), table->data() + size);
    } else if (itemsize != 1) {
      throw std::invalid_argument("values of more than one byte need a `table`");
    }
    if (mean.empty()) return;
    for (int c = 0; c < channels; ++c) values.mean[c] = mean[c % mean.size()], values.std[c] = std[c % std.size()];
    values.computed = itemsize == 4 && table && recipe_->row.ops->exact && computes_table(recipe_->row);
  }

  void set_changes(const std::vector<Change>& changes, const std::vector<Change>& erasings) {
    const RowFormat& row = recipe_->row;
    const ImageSize size{row.height, row.width, row.values.channels};
    const std::size_t bytes = static_cast<std::size_t>(size.channels);
    const char* wrong = nullptr;
    for (const Change& change : changes) wrong = wrong ? wrong : complaint(change, size, bytes);
    for (const Change& change : erasings) {
      wrong = wrong ? wrong : complaint(change, size, bytes * static_cast<std::size_t>(row.values.itemsize));
      if (change.kind != Change::any_erase) wrong = "values can be erased, and nothing else";
    }
    if (wrong) throw std::invalid_argument(wrong);
    recipe_->changes = changes, recipe_->erasings = erasings;
    RowFormat& image = recipe_->bytes;
    image.height = row.height, image.width = row.width, image.channels_first = true, image.ops = row.ops;
    image.values.channels = size.channels;
  }

  std::shared_ptr<Recipe> recipe_ = std::make_shared<Recipe>();
  std::shared_ptr<ScratchPool> scratch_ = std::make_shared<ScratchPool>();
};

std::vector<std::string> levels() {
  int count = 0;
  const RowOps* const* ops = row_ops_available(&count);
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.emplace_back(ops[i]->name);
  return names;
}

std::vector<double> draws(const Place& place, int count) {
  Philox random(place.key0, place.key1, place.position, place.epoch, place.purpose);
  std::vector<double> drawn(static_cast<std::size_t>(count));
  for (double& one : drawn) one = random.random();
  return drawn;
}

void bind_steps(nb::module_& module) {
  nb::enum_<Step::Kind>(module, "Kind")
      .value("resize_shorter", Step::resize_shorter)
      .value("resize_exact", Step::resize_exact)
      .value("center_crop", Step::center_crop)
      .value("random_crop", Step::random_crop)
      .value("random_resized_crop", Step::random_resized_crop)
      .value("flip", Step::flip)
      .value("pad", Step::pad);

  nb::class_<Step>(module, "Step", "A transform of the chain, by its numbers.")
      .def("__init__", [](Step* self, Step::Kind kind) { new (self) Step{kind}; }, nb::arg("kind"))
      .def_rw("height", &Step::height)
      .def_rw("width", &Step::width)
      .def_rw("left", &Step::left)
      .def_rw("top", &Step::top)
      .def_rw("right", &Step::right)
      .def_rw("bottom", &Step::bottom)
      .def_rw("pad_if_needed", &Step::pad_if_needed)
      .def_rw("chance", &Step::chance)
      .def_rw("area_least", &Step::area_least)
      .def_rw("area_most", &Step::area_most)
      .def_rw("ratio_least", &Step::ratio_least)
      .def_rw("ratio_most", &Step::ratio_most)
      .def_rw("log_ratio_least", &Step::log_ratio_least)
      .def_rw("log_ratio_most", &Step::log_ratio_most);
}

}  // namespace

void bind_pipeline(nb::module_& module) {
  bind_steps(module);
  nb::class_<Place>(module, "Place", "Where in the data the first sample of a batch is.")
      .def(nb::init<std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t>(), nb::arg("key0"),
           nb::arg("key1"), nb::arg("epoch"), nb::arg("position"), nb::arg("purpose"));

  nb::class_<Pipeline>(module, "Pipeline", "What is done to every image of a dataset; safe on any number of threads.")
      .def(nb::init<const std::vector<Step>&, int, int, int, const std::string&, bool, bool, const std::vector<int>&,
                    const std::string&, bool, int, const std::optional<Array<std::uint8_t>>&, const std::vector<float>&,
                    const std::vector<float>&, std::int64_t, std::int64_t, const std::string&, bool, const std::vector<Change>&,
                    const std::vector<Change>&>(),
           nb::kw_only(), nb::arg("steps"), nb::arg("height"), nb::arg("width"), nb::arg("channels"), nb::arg("filter"),
           nb::arg("antialias"), nb::arg("shrink"), nb::arg("fill"), nb::arg("edge"), nb::arg("channels_first"),
           nb::arg("itemsize"), nb::arg("table") = nb::none(), nb::arg("mean"), nb::arg("std"), nb::arg("max_pixels"),
           nb::arg("max_bytes"), nb::arg("level") = "", nb::arg("oriented") = true,
           nb::arg("changes") = std::vector<Change>(), nb::arg("erasings") = std::vector<Change>())
      .def("rows", &Pipeline::rows, nb::arg("source"), nb::arg("keys"), nb::arg("place"), nb::arg("out"),
           nb::arg("which") = nb::none(), nb::arg("drawn") = nb::none(), nb::arg("beside") = Beside(),
           nb::arg("filled") = std::vector<Out>(), "Begin a batch: return the job of its rows.")
      .def("drawn", &Pipeline::drawn, nb::arg("image"), nb::arg("out"), nb::arg("source"), nb::arg("size"), nb::arg("window"),
           nb::arg("flipped"), nb::arg("fill"), nb::arg("filter"), nb::arg("antialias"), nb::arg("maps"), nb::arg("map_fills"),
           nb::arg("nearest"), nb::arg("ops"), "Make one image of what was drawn for it.")
      .def_prop_ro("level", &Pipeline::level, "The instructions that it uses.")
      .def_prop_ro("computed", &Pipeline::computed, "Whether values are computed, and not looked up in a table.");

  module.attr("GATHERS") = true;  // `rows` copies rows of the arrays beside the images
  module.def("levels", &levels, "The instruction sets that this processor has, the best last.");
  module.def("draws", &draws, nb::arg("place"), nb::arg("count"), "Random numbers of a place, as NumPy draws them.");
}

}  // namespace headrace
