// What Python sees: one call for a chunk of samples, without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "render.hpp"

namespace nb = nanobind;

namespace headrace {
namespace {

template <class T>
using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<nb::c_contig, nb::device::cpu>;
template <class T>
using Note = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// What a thread keeps of its scratch memory between two chunks.
constexpr std::size_t kept = std::size_t{16} << 20;

struct Place {
  std::uint64_t key0, key1, epoch, position, purpose;
};

using Spent = std::tuple<double, double, double>;

// Scratch memory, lent to a thread for as long as it makes rows.
class Pool {
 public:
  std::unique_ptr<Scratch> lend() {
    const std::lock_guard<std::mutex> held(lock_);
    if (idle_.empty()) return std::make_unique<Scratch>();
    std::unique_ptr<Scratch> scratch = std::move(idle_.back());
    idle_.pop_back();
    return scratch;
  }

  void take_back(std::unique_ptr<Scratch> scratch) {
    scratch->shrink_to(kept);
    const std::lock_guard<std::mutex> held(lock_);
    idle_.push_back(std::move(scratch));
  }

 private:
  std::mutex lock_;
  std::vector<std::unique_ptr<Scratch>> idle_;
};

// A chunk of rows to be made, by as many threads as care to: each takes the next row that nobody has.
class Job {
 public:
  using Row = std::function<bool(std::size_t row, Scratch& scratch, Seconds& seconds, std::int32_t& drawn)>;

  Job(Row row, std::size_t count, Note<std::uint8_t> good, Note<std::int32_t> drawn, std::shared_ptr<Pool> pool)
      : row_(std::move(row)), count_(count), good_(std::move(good)), drawn_(std::move(drawn)), pool_(std::move(pool)) {}

  // Make rows until none is left, or until `stop`.
  void run() {
    const nb::gil_scoped_release unlocked;
    {
      const std::lock_guard<std::mutex> held(lock_);
      ++busy_;
    }
    Seconds seconds;
    std::unique_ptr<Scratch> scratch;
    for (std::size_t i = next_++; i < count_; i = next_++) {
      try {
        if (!scratch) scratch = pool_->lend();
        good_.data()[i] = row_(i, *scratch, seconds, drawn_.data()[i]);
      } catch (const std::bad_alloc&) {
        good_.data()[i] = 0;  // the step-by-step route says what there was no memory for
      }
    }
    if (scratch) pool_->take_back(std::move(scratch));
    const std::lock_guard<std::mutex> held(lock_);
    seconds_.read += seconds.read, seconds_.decode += seconds.decode, seconds_.transform += seconds.transform;
    if (--busy_ == 0) idle_.notify_all();
  }

  // Wait for the rows that other threads have begun.
  void wait() {
    const nb::gil_scoped_release unlocked;
    std::unique_lock<std::mutex> held(lock_);
    idle_.wait(held, [this] { return busy_ == 0; });
  }

  // Let no further row be begun.
  void stop() { next_ = count_; }

  // Rows that nobody has begun.
  std::size_t left() const { return count_ - std::min<std::size_t>(count_, next_); }

  Spent seconds() {
    const std::lock_guard<std::mutex> held(lock_);
    return {seconds_.read, seconds_.decode, seconds_.transform};
  }

 private:
  Row row_;
  std::size_t count_;
  Note<std::uint8_t> good_;
  Note<std::int32_t> drawn_;
  std::shared_ptr<Pool> pool_;
  std::atomic<std::size_t> next_{0};
  std::mutex lock_;
  std::condition_variable idle_;
  int busy_ = 0;
  Seconds seconds_;
};

class Kernel {
 public:
  Kernel(const std::vector<Step>& steps, int height, int width, int channels, const std::string& filter, bool antialias,
         bool shrink, const std::vector<int>& fill, const std::string& edge, bool channels_first, int itemsize,
         const std::optional<Array<std::uint8_t>>& table, const std::vector<float>& mean, const std::vector<float>& std,
         std::int64_t max_pixels, std::int64_t max_bytes, const std::string& level) {
    if (height < 1 || width < 1 || channels < 1 || channels > 4) throw std::invalid_argument("no such row of a batch");
    recipe_->steps = steps;
    recipe_->height = height, recipe_->width = width;
    recipe_->filter = filter_of(filter);
    recipe_->antialias = antialias;
    recipe_->shrink = shrink;
    recipe_->edge = edge_of(edge);
    for (std::size_t c = 0; c < 4; ++c)
      recipe_->fill[c] = static_cast<std::uint8_t>(fill.empty() ? 0 : fill[c % fill.size()]);
    recipe_->channels_first = channels_first;
    recipe_->max_pixels = max_pixels, recipe_->max_bytes = max_bytes;
    recipe_->rows = level_of(level);
    Values& values = recipe_->values;
    values.channels = channels;
    values.itemsize = itemsize;
    if (itemsize != 1 && itemsize != 2 && itemsize != 4) throw std::invalid_argument("values of 1, 2 or 4 bytes");
    if (table) {
      const std::size_t size = static_cast<std::size_t>(channels) * 256 * itemsize;
      if (table->size() != size) throw std::invalid_argument("the table is of another size than channels x 256 values");
      values.table.assign(table->data(), table->data() + size);
    } else if (itemsize != 1) {
      throw std::invalid_argument("values of more than a byte need a table");
    }
    if (!mean.empty()) {
      for (int c = 0; c < channels; ++c) values.mean[c] = mean[c % mean.size()], values.std[c] = std[c % std.size()];
      values.computed = itemsize == 4 && table && recipe_->rows->exact && confirmed();
    }
  }

  std::unique_ptr<Job> files(Array<std::uint8_t> text, nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu> begins,
                             const nb::bytes& folder, Array<std::int64_t> keys, const Place& place,
                             Array<std::int64_t> which, Out out, Note<std::uint8_t> good, Note<std::int32_t> drawn) const {
    const std::size_t count = keys.size();
    check(out, which, good, drawn, count);
    const bool wide = begins.itemsize() == 8;
    if (!wide && begins.itemsize() != 4) throw std::invalid_argument("begins are 4 or 8 bytes each");
    const std::int64_t names = static_cast<std::int64_t>(begins.size()) - 1;
    for (std::size_t i = 0; i < count; ++i)
      if (keys.data()[i] < 0 || keys.data()[i] >= names) throw std::out_of_range("a key without a path");
    const std::string root(folder.c_str(), folder.size());
    return job(count, good, drawn,
               [recipe = recipe_, text, begins, wide, root, keys, place, which, out](
                   std::size_t i, Scratch& scratch, Seconds& seconds, std::int32_t& drew) {
                 const auto at = [&](std::int64_t key) {
                   return wide ? static_cast<const std::uint64_t*>(begins.data())[key]
                               : static_cast<const std::uint32_t*>(begins.data())[key];
                 };
                 const std::int64_t key = keys.data()[i];
                 const char* name = reinterpret_cast<const char*>(text.data()) + at(key);
                 const std::size_t length = at(key + 1) - at(key);
                 // As os.path.join does it.
                 std::string path;
                 if (!root.empty() && (length == 0 || name[0] != '/')) {
                   path = root;
                   if (path.back() != '/') path += '/';
                 }
                 path.append(name, length);
                 if (path.find('\0') != std::string::npos) return false;
                 const auto began = std::chrono::steady_clock::now();
                 std::size_t size = 0;
                 const bool there = read_file(path.c_str(), recipe->max_bytes, scratch.file, size);
                 seconds.read += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
                 Philox random = generator(place, which, i, drew);
                 const bool made = there && render(*recipe, scratch.file.data(), size, random, scratch,
                                                   row(*recipe, out, i), seconds);
                 drew = random.drawn();
                 return made;
               });
  }

  std::unique_ptr<Job> bytes(const std::vector<nb::bytes>& files, const Place& place, Array<std::int64_t> which, Out out,
                             Note<std::uint8_t> good, Note<std::int32_t> drawn) const {
    check(out, which, good, drawn, files.size());
    return job(files.size(), good, drawn,
               [recipe = recipe_, files, place, which, out](std::size_t i, Scratch& scratch, Seconds& seconds,
                                                            std::int32_t& drew) {
                 const std::size_t size = files[i].size();
                 Philox random = generator(place, which, i, drew);
                 const bool made = static_cast<std::int64_t>(size) <= recipe->max_bytes &&
                                   render(*recipe, reinterpret_cast<const std::uint8_t*>(files[i].c_str()), size, random,
                                          scratch, row(*recipe, out, i), seconds);
                 drew = random.drawn();
                 return made;
               });
  }

  std::unique_ptr<Job> arrays(Array<std::uint8_t> pictures, Array<std::int64_t> keys, const Place& place,
                              Array<std::int64_t> which, Out out, Note<std::uint8_t> good, Note<std::int32_t> drawn) const {
    const std::size_t count = keys.size();
    check(out, which, good, drawn, count);
    const int channels = recipe_->values.channels;
    const bool flat = pictures.ndim() == 3 && channels == 1;
    if (!flat && (pictures.ndim() != 4 || static_cast<int>(pictures.shape(3)) != channels))
      throw std::invalid_argument("pictures are (N, H, W, C) or (N, H, W)");
    const int height = static_cast<int>(pictures.shape(1)), width = static_cast<int>(pictures.shape(2));
    const std::size_t size = static_cast<std::size_t>(height) * width * channels;
    const std::int64_t many = static_cast<std::int64_t>(pictures.shape(0));
    for (std::size_t i = 0; i < count; ++i)
      if (keys.data()[i] < 0 || keys.data()[i] >= many) throw std::out_of_range("a key without a picture");
    return job(count, good, drawn,
               [recipe = recipe_, pictures, keys, place, which, out, height, width, channels, size](
                   std::size_t i, Scratch& scratch, Seconds&, std::int32_t& drew) {
                 const Pixels pixels{pictures.data() + size * static_cast<std::size_t>(keys.data()[i]), height, width,
                                     channels};
                 Philox random = generator(place, which, i, drew);
                 const bool made = render(*recipe, pixels, random, scratch, row(*recipe, out, i));
                 drew = random.drawn();
                 return made;
               });
  }

  std::string level() const { return recipe_->rows->name; }
  bool computed() const { return recipe_->values.computed; }

 private:
  template <class Row>
  std::unique_ptr<Job> job(std::size_t count, const Note<std::uint8_t>& good, const Note<std::int32_t>& drawn,
                           Row&& make) const {
    return std::make_unique<Job>(std::forward<Row>(make), count, good, drawn, pool_);
  }

  static Filter filter_of(const std::string& name) {
    if (name == "nearest") return Filter::nearest;
    if (name == "bilinear") return Filter::bilinear;
    if (name == "bicubic") return Filter::bicubic;
    if (name == "lanczos") return Filter::lanczos;
    if (name == "box") return Filter::box;
    throw std::invalid_argument("no such filter: " + name);
  }

  static Edge edge_of(const std::string& name) {
    if (name == "constant") return Edge::constant;
    if (name == "edge") return Edge::edge;
    if (name == "reflect") return Edge::reflect;
    if (name == "symmetric") return Edge::symmetric;
    throw std::invalid_argument("no such edge: " + name);
  }

  static const Rows* level_of(const std::string& name) {
    int count = 0;
    const Rows* const* rows = rows_available(&count);
    if (name.empty()) return rows[count - 1];
    for (int i = 0; i < count; ++i)
      if (name == rows[i]->name) return rows[i];
    throw std::invalid_argument("this processor has no level " + name);
  }

  // Whether what is computed is what the table says, for each value of a byte, to the last bit.
  bool confirmed() const {
    std::uint8_t all[256 + slack] = {};
    float found[256];
    for (int i = 0; i < 256; ++i) all[i] = static_cast<std::uint8_t>(i);
    const float* table = reinterpret_cast<const float*>(recipe_->values.table.data());
    for (int c = 0; c < recipe_->values.channels; ++c) {
      recipe_->rows->floats(found, all, 256, recipe_->values.mean[c], recipe_->values.std[c]);
      if (std::memcmp(found, table + c * 256, sizeof found) != 0) return false;
    }
    return true;
  }

  void check(const Out& out, const Array<std::int64_t>& which, const Note<std::uint8_t>& good,
             const Note<std::int32_t>& drawn, std::size_t count) const {
    if (out.nbytes() != count * recipe_->row_bytes())
      throw std::invalid_argument("out is of another size than its rows");
    if (which.size() != count || good.size() != count || drawn.size() != count) throw std::invalid_argument("notes of another length than keys");
  }

  static void* row(const Recipe& recipe, const Out& out, std::size_t i) {
    return static_cast<std::uint8_t*>(out.data()) + i * recipe.row_bytes();
  }

  // Of the sample `which[i]` places behind the first, from whose generator `drawn` numbers were drawn before.
  static Philox generator(const Place& place, const Array<std::int64_t>& which, std::size_t i, std::int32_t drawn) {
    const std::uint64_t position = place.position + static_cast<std::uint64_t>(which.data()[i]);
    return Philox(place.key0, place.key1, position, place.epoch, place.purpose, drawn < 0 ? 0 : drawn);
  }

  std::shared_ptr<Recipe> recipe_ = std::make_shared<Recipe>();
  std::shared_ptr<Pool> pool_ = std::make_shared<Pool>();
};

std::vector<std::string> levels() {
  int count = 0;
  const Rows* const* rows = rows_available(&count);
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.emplace_back(rows[i]->name);
  return names;
}

std::vector<double> draws(const Place& place, int count) {
  Philox random(place.key0, place.key1, place.position, place.epoch, place.purpose);
  std::vector<double> drawn(static_cast<std::size_t>(count));
  for (double& one : drawn) one = random.random();
  return drawn;
}

#define HEADRACE_TEXT_(x) #x
#define HEADRACE_TEXT(x) HEADRACE_TEXT_(x)

NB_MODULE(kernel, m) {
  // Kernels are kept in a cache until the process ends, which nanobind would call a leak.
  nb::set_leak_warnings(false);
  m.doc() = "From files to rows of a batch, in one call for a chunk of samples.";

  nb::enum_<Step::Kind>(m, "Kind")
      .value("resize_shorter", Step::resize_shorter)
      .value("resize_exact", Step::resize_exact)
      .value("center_crop", Step::center_crop)
      .value("random_crop", Step::random_crop)
      .value("random_resized_crop", Step::random_resized_crop)
      .value("flip", Step::flip)
      .value("pad", Step::pad);

  nb::class_<Step>(m, "Step", "A transform of the chain, by its numbers.")
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

  nb::class_<Place>(m, "Place", "Where in the data the first sample of a chunk is.")
      .def(nb::init<std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t, std::uint64_t>(), nb::arg("key0"),
           nb::arg("key1"), nb::arg("epoch"), nb::arg("position"), nb::arg("purpose"));

  nb::class_<Job>(m, "Job", "A chunk of rows to be made, by as many threads as run it.")
      .def("run", &Job::run, "Make rows until none is left, without the GIL.")
      .def("wait", &Job::wait, "Wait for the rows that other threads have begun.")
      .def("stop", &Job::stop, "Let no further row be begun.")
      .def_prop_ro("left", &Job::left)
      .def_prop_ro("seconds", &Job::seconds);

  nb::class_<Kernel>(m, "Kernel", "What is done to every picture of a dataset; safe on any number of threads.")
      .def(nb::init<const std::vector<Step>&, int, int, int, const std::string&, bool, bool, const std::vector<int>&,
                    const std::string&, bool, int, const std::optional<Array<std::uint8_t>>&, const std::vector<float>&,
                    const std::vector<float>&, std::int64_t, std::int64_t, const std::string&>(),
           nb::kw_only(), nb::arg("steps"), nb::arg("height"), nb::arg("width"), nb::arg("channels"), nb::arg("filter"),
           nb::arg("antialias"), nb::arg("shrink"), nb::arg("fill"), nb::arg("edge"), nb::arg("channels_first"),
           nb::arg("itemsize"), nb::arg("table") = nb::none(), nb::arg("mean"), nb::arg("std"), nb::arg("max_pixels"),
           nb::arg("max_bytes"), nb::arg("level") = "")
      .def("files", &Kernel::files, nb::arg("text"), nb::arg("begins"), nb::arg("folder"), nb::arg("keys"),
           nb::arg("place"), nb::arg("which"), nb::arg("out"), nb::arg("good"), nb::arg("drawn"))
      .def("bytes", &Kernel::bytes, nb::arg("files"), nb::arg("place"), nb::arg("which"), nb::arg("out"),
           nb::arg("good"), nb::arg("drawn"))
      .def("arrays", &Kernel::arrays, nb::arg("pictures"), nb::arg("keys"), nb::arg("place"), nb::arg("which"),
           nb::arg("out"), nb::arg("good"), nb::arg("drawn"))
      .def_prop_ro("level", &Kernel::level)
      .def_prop_ro("computed", &Kernel::computed);

  m.def("levels", &levels, "The levels of vector instructions that this processor has, the best last.");
  m.def("draws", &draws, nb::arg("place"), nb::arg("count"), "Random numbers of a place, as NumPy draws them.");
  m.attr("LIBJPEG_TURBO") = HEADRACE_TEXT(LIBJPEG_TURBO_VERSION);
}

}  // namespace
}  // namespace headrace
