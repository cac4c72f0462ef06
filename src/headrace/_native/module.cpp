// What Python sees: one call for a chunk of samples, without the GIL.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "crew.hpp"
#include "gil.hpp"
#include "guard.hpp"
#include "render.hpp"

namespace nb = nanobind;

namespace headrace {
namespace {

template <class T>
using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<nb::c_contig, nb::device::cpu>;
// Which samples the rows are, counted from the place's own; none: one after the other.
using Which = std::optional<std::vector<std::int64_t>>;
// How many numbers were drawn from each one's generator before; none: none.
using Before = std::optional<std::vector<std::int32_t>>;

struct Place {
  std::uint64_t key0, key1, epoch, position, purpose;
};

using Spent = std::tuple<double, double, double>;

// Seconds without Python, at the most, in a thread that Ctrl-C is told to.
constexpr double slice = 0.1;

// A task, and what of Python's its rows are made from and written to.
class Job {
 public:
  // `kept` is never called: it holds what the rows need.
  Job(std::shared_ptr<Task> task, std::function<void()> kept) : task_(std::move(task)), kept_(std::move(kept)) {}

  ~Job() {
    if (!kept_ || !task_->ours()) return;
    task_->stop();
    if (task_->finished()) return;
    const Unlocked unlocked;
    task_->wait();
  }

  // Looking up for Ctrl-C now and then: a batch may take hours.
  void run() {
    while (true) {
      {
        const Unlocked unlocked;
        task_->run(slice);
      }
      if (task_->left() == 0) return;
      if (interrupted()) throw nb::python_error();
    }
  }

  void wait() {
    const Unlocked unlocked;
    task_->wait();
  }

  // Wait for nobody, and leave what the rows need to threads that may never end.
  void abandon() {
    task_->stop();
    if (!task_->finished()) new std::function<void()>(std::exchange(kept_, nullptr));
  }

  Spent seconds() const {
    const Seconds spent = task_->seconds();
    return {spent.read, spent.decode, spent.transform};
  }

  const std::shared_ptr<Task>& task() const { return task_; }

 private:
  std::shared_ptr<Task> task_;
  std::function<void()> kept_;
};

// Wait for another count of events than `seen`, looking up for Ctrl-C now and then.
std::uint64_t wait(Crew& crew, std::uint64_t seen, double seconds) {
  while (true) {
    std::uint64_t events;
    {
      const Unlocked unlocked;
      events = crew.wait(seen, std::min(seconds, slice));
    }
    if (interrupted()) throw nb::python_error();
    seconds -= slice;
    if (events != seen || seconds <= 0 || crew.closed()) return events;
  }
}

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
                             const nb::bytes& folder, Array<std::int64_t> keys, const Place& place, Out out,
                             Which which, const Before& drawn) const {
    const std::size_t count = keys.size();
    check(out, which, count);
    const bool wide = begins.itemsize() == 8;
    if (!wide && begins.itemsize() != 4) throw std::invalid_argument("begins are 4 or 8 bytes each");
    const std::int64_t names = static_cast<std::int64_t>(begins.size()) - 1;
    for (std::size_t i = 0; i < count; ++i)
      if (keys.data()[i] < 0 || keys.data()[i] >= names) throw std::out_of_range("a key without a path");
    const std::string root(folder.c_str(), folder.size());
    return job(count, drawn, [text, begins, keys, out] {},
               [recipe = recipe_, all = text.data(), starts = begins.data(), wide, root, wanted = keys.data(), place,
                which = std::move(which), to = static_cast<std::uint8_t*>(out.data())](
                   std::size_t i, Scratch& scratch, Seconds& seconds, std::int32_t& drew) {
                 const auto at = [&](std::int64_t key) {
                   return wide ? static_cast<const std::uint64_t*>(starts)[key]
                               : static_cast<const std::uint32_t*>(starts)[key];
                 };
                 const std::int64_t key = wanted[i];
                 const char* name = reinterpret_cast<const char*>(all) + at(key);
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
                                                   row(*recipe, to, i), seconds);
                 drew = random.drawn();
                 return made;
               });
  }

  std::unique_ptr<Job> bytes(const std::vector<nb::bytes>& files, const Place& place, Out out, Which which,
                             const Before& drawn) const {
    check(out, which, files.size());
    std::vector<std::pair<const std::uint8_t*, std::size_t>> contents;
    for (const nb::bytes& file : files)
      contents.emplace_back(reinterpret_cast<const std::uint8_t*>(file.c_str()), file.size());
    return job(files.size(), drawn, [files, out] {},
               [recipe = recipe_, contents = std::move(contents), place, which = std::move(which),
                to = static_cast<std::uint8_t*>(out.data())](std::size_t i, Scratch& scratch, Seconds& seconds,
                                                             std::int32_t& drew) {
                 const auto [data, size] = contents[i];
                 Philox random = generator(place, which, i, drew);
                 const bool made = static_cast<std::int64_t>(size) <= recipe->max_bytes &&
                                   render(*recipe, data, size, random, scratch, row(*recipe, to, i), seconds);
                 drew = random.drawn();
                 return made;
               });
  }

  // `mapped`: the file that they are mapped from may be cut short, so each is copied under guard.
  std::unique_ptr<Job> arrays(Array<std::uint8_t> pictures, Array<std::int64_t> keys, const Place& place, Out out,
                              Which which, const Before& drawn, bool mapped) const {
    if (mapped) watch();
    const std::size_t count = keys.size();
    check(out, which, count);
    const int channels = recipe_->values.channels;
    const bool flat = pictures.ndim() == 3 && channels == 1;
    if (!flat && (pictures.ndim() != 4 || static_cast<int>(pictures.shape(3)) != channels))
      throw std::invalid_argument("pictures are (N, H, W, C) or (N, H, W)");
    const int height = static_cast<int>(pictures.shape(1)), width = static_cast<int>(pictures.shape(2));
    const std::size_t size = static_cast<std::size_t>(height) * width * channels;
    const std::int64_t many = static_cast<std::int64_t>(pictures.shape(0));
    for (std::size_t i = 0; i < count; ++i)
      if (keys.data()[i] < 0 || keys.data()[i] >= many) throw std::out_of_range("a key without a picture");
    return job(count, drawn, [pictures, keys, out] {},
               [recipe = recipe_, all = pictures.data(), wanted = keys.data(), place, which = std::move(which),
                to = static_cast<std::uint8_t*>(out.data()), height, width, channels, size, count, mapped](
                   std::size_t i, Scratch& scratch, Seconds&, std::int32_t& drew) {
                 if (i + 1 < count) fetch(all + size * static_cast<std::size_t>(wanted[i + 1]), size);
                 const std::uint8_t* data = all + size * static_cast<std::size_t>(wanted[i]);
                 if (mapped) {
                   scratch.file.resize(std::max(scratch.file.size(), size));
                   if (!copy_guarded(scratch.file.data(), data, size)) return false;
                   data = scratch.file.data();
                 }
                 const Pixels pixels{data, height, width, channels};
                 Philox random = generator(place, which, i, drew);
                 const bool made = render(*recipe, pixels, random, scratch, row(*recipe, to, i));
                 drew = random.drawn();
                 return made;
               });
  }

  std::string level() const { return recipe_->rows->name; }
  bool computed() const { return recipe_->values.computed; }

 private:
  template <class Row>
  std::unique_ptr<Job> job(std::size_t count, const Before& drawn, std::function<void()> kept, Row&& make) const {
    if (drawn && drawn->size() != count) throw std::invalid_argument("drawn is of another length than keys");
    auto task = std::make_shared<Task>(std::forward<Row>(make), count, drawn.value_or(std::vector<std::int32_t>()), pool_);
    return std::make_unique<Job>(std::move(task), std::move(kept));
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

  void check(const Out& out, const Which& which, std::size_t count) const {
    if (out.nbytes() != count * recipe_->row_bytes())
      throw std::invalid_argument("out is of another size than its rows");
    if (which && which->size() != count) throw std::invalid_argument("which is of another length than keys");
  }

  static void* row(const Recipe& recipe, std::uint8_t* out, std::size_t i) {
    return out + i * recipe.row_bytes();
  }

  // Ask for a picture before it is needed: the processor foresees no jump through the array.
  static void fetch(const std::uint8_t* picture, std::size_t size) {
    constexpr std::size_t line = 64, most = std::size_t{16} << 10;
    for (std::size_t at = 0; at < std::min(size, most); at += line) __builtin_prefetch(picture + at, 0, 2);
  }

  // Of the sample of row `i`, from whose generator `drawn` numbers were drawn before.
  static Philox generator(const Place& place, const Which& which, std::size_t i, std::int32_t drawn) {
    const std::uint64_t position = place.position + (which ? static_cast<std::uint64_t>((*which)[i]) : i);
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

// Indices in a list as numbers from 0 up, below `length`; false for a list that has others, or anything else in it.
bool indices(const nb::list& keys, std::int64_t length, nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> out) {
  const std::size_t count = nb::len(keys);
  if (out.size() != count) throw std::invalid_argument("out is of another length than keys");
  for (std::size_t i = 0; i < count; ++i) {
    PyObject* const key = PyList_GetItem(keys.ptr(), static_cast<Py_ssize_t>(i));
    if (key == nullptr) throw nb::python_error();
    if (!PyLong_CheckExact(key)) return false;
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(key, &overflow);
    if (overflow != 0 || number < 0 || number >= length) return false;
    out.data()[i] = number;
  }
  return true;
}

// What lies in an object's memory, for as long as this does.
class Buffer {
 public:
  Buffer(nb::handle object, int flags) {
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw nb::python_error();
  }
  ~Buffer() { PyBuffer_Release(&view_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  const Py_buffer* operator->() const { return &view_; }

 private:
  Py_buffer view_;
};

Layout layout_of(const Buffer& array) {
  if (array->ndim < 1 || array->ndim > Layout::most) throw std::invalid_argument("no array with rows");
  Layout layout{};
  layout.data = static_cast<const std::uint8_t*>(array->buf);
  layout.rows = static_cast<std::size_t>(array->shape[0]);
  layout.stride = array->strides[0];
  layout.itemsize = layout.row_bytes = static_cast<std::size_t>(array->itemsize);
  layout.dimensions = array->ndim - 1;
  bool together = true;
  for (int i = layout.dimensions - 1; i >= 0; --i) {
    layout.shape[i] = static_cast<std::size_t>(array->shape[i + 1]), layout.strides[i] = array->strides[i + 1];
    together = together && layout.strides[i] == static_cast<std::ptrdiff_t>(layout.row_bytes);
    layout.row_bytes *= layout.shape[i];
  }
  if (together) layout.dimensions = 0;
  return layout;
}

// Rows of a memory-mapped array: -1, or the first of the keys whose row cannot be read.
std::int64_t gather(nb::handle array, Array<std::int64_t> keys, nb::handle out) {
  const Buffer from(array, PyBUF_STRIDED_RO), to(out, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE);
  const Layout layout = layout_of(from);
  const std::size_t count = keys.size();
  if (static_cast<std::size_t>(to->len) != count * layout.row_bytes)
    throw std::invalid_argument("out is of another size than its rows");
  watch();
  const Unlocked unlocked;
  const std::size_t made = gather_guarded(static_cast<std::uint8_t*>(to->buf), layout, keys.data(), count);
  return made == count ? -1 : static_cast<std::int64_t>(made);
}

using Words = nb::ndarray<std::uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// The network of headrace.plan.permutation, in place: one base and one tweak for all places, or one for each.
void permute(Words places, Array<std::uint64_t> rounds, Array<std::uint64_t> bases, Array<std::uint64_t> tweaks) {
  const std::size_t count = places.size();
  const std::size_t one_base = bases.size() == 1 ? 0 : 1, one_tweak = tweaks.size() == 1 ? 0 : 1;
  if (rounds.ndim() != 2 || rounds.shape(1) != 3) throw std::invalid_argument("rounds are rows of three words");
  if ((one_base && bases.size() != count) || (one_tweak && tweaks.size() != count))
    throw std::invalid_argument("bases and tweaks are one, or one for each place");
  const Unlocked unlocked;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t base = bases.data()[i * one_base], tweak = tweaks.data()[i * one_tweak];
    std::uint64_t left = places.data()[i] / base, right = places.data()[i] % base;
    for (std::size_t round = 0; round < rounds.shape(0); ++round) {
      const std::uint64_t* const words = rounds.data() + 3 * round;
      std::uint64_t hashed = right * words[0] + (words[2] ^ tweak);
      hashed = (hashed ^ hashed >> 32) * words[1];
      left += (hashed >> 32) * base >> 32;
      if (left >= base) left -= base;
      std::swap(left, right);
    }
    places.data()[i] = left * base + right;
  }
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
      .def("stop", [](const Job& job) { job.task()->stop(); }, "Let no further row be begun.")
      .def("abandon", &Job::abandon, "Leave what the rows need to threads that may never end, and wait for none.")
      .def_prop_ro("left", [](const Job& job) { return job.task()->left(); }, "Rows that nobody has begun.")
      .def_prop_ro("finished", [](const Job& job) { return job.task()->finished(); })
      .def_prop_ro("missing", [](const Job& job) { return job.task()->missing(); },
                   "Rows that are not made: not yet, or the step-by-step route can, or says why not.")
      .def_prop_ro("drawn", [](const Job& job) { return job.task()->drawn(); },
                   "How many random numbers were drawn for each row.")
      .def_prop_ro("seconds", &Job::seconds);

  nb::class_<Crew>(m, "Crew", "Threads without Python that make the rows of jobs, all of them at the oldest.")
      .def(nb::init<int>(), nb::arg("threads"))
      .def("submit", [](Crew& crew, const Job& job) { crew.submit(job.task()); }, nb::arg("job"))
      .def("wait", &wait, nb::arg("seen"), nb::arg("seconds"),
           "Wait for another count of events than this: a job has finished, or somebody rang; return the count.")
      .def("ring", &Crew::ring, nb::call_guard<Unlocked>(), "Count an event.")
      .def("close", &Crew::close, nb::arg("seconds"), nb::call_guard<Unlocked>(),
           "End the threads after the rows at hand; False where that takes longer, and they are left behind.");

  nb::class_<Kernel>(m, "Kernel", "What is done to every picture of a dataset; safe on any number of threads.")
      .def(nb::init<const std::vector<Step>&, int, int, int, const std::string&, bool, bool, const std::vector<int>&,
                    const std::string&, bool, int, const std::optional<Array<std::uint8_t>>&, const std::vector<float>&,
                    const std::vector<float>&, std::int64_t, std::int64_t, const std::string&>(),
           nb::kw_only(), nb::arg("steps"), nb::arg("height"), nb::arg("width"), nb::arg("channels"), nb::arg("filter"),
           nb::arg("antialias"), nb::arg("shrink"), nb::arg("fill"), nb::arg("edge"), nb::arg("channels_first"),
           nb::arg("itemsize"), nb::arg("table") = nb::none(), nb::arg("mean"), nb::arg("std"), nb::arg("max_pixels"),
           nb::arg("max_bytes"), nb::arg("level") = "")
      .def("files", &Kernel::files, nb::arg("text"), nb::arg("begins"), nb::arg("folder"), nb::arg("keys"),
           nb::arg("place"), nb::arg("out"), nb::arg("which") = nb::none(), nb::arg("drawn") = nb::none())
      .def("bytes", &Kernel::bytes, nb::arg("files"), nb::arg("place"), nb::arg("out"), nb::arg("which") = nb::none(),
           nb::arg("drawn") = nb::none())
      .def("arrays", &Kernel::arrays, nb::arg("pictures"), nb::arg("keys"), nb::arg("place"), nb::arg("out"),
           nb::arg("which") = nb::none(), nb::arg("drawn") = nb::none(), nb::arg("mapped") = false)
      .def_prop_ro("level", &Kernel::level)
      .def_prop_ro("computed", &Kernel::computed);

  m.def("indices", &indices, nb::arg("keys"), nb::arg("length"), nb::arg("out"),
        "Write the indices of a list; False where it has other things in it than numbers from 0 up, below the length.");
  m.def("gather", &gather, nb::arg("array"), nb::arg("keys"), nb::arg("out"),
        "Copy rows of an array that is mapped from a file; -1, or the place of the first key whose row is not there.");
  m.def("permute", &permute, nb::arg("places"), nb::arg("rounds"), nb::arg("bases"), nb::arg("tweaks"),
        "Send places through the network of a permutation, in place.");
  m.def("levels", &levels, "The levels of vector instructions that this processor has, the best last.");
  m.def("draws", &draws, nb::arg("place"), nb::arg("count"), "Random numbers of a place, as NumPy draws them.");
  m.attr("LIBJPEG_TURBO") = HEADRACE_TEXT(LIBJPEG_TURBO_VERSION);
}

}  // namespace
}  // namespace headrace
