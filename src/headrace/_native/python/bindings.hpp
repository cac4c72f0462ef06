// What the parts of the Python module share.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../changes/planes.hpp"
#include "../source/source.hpp"
#include "../threads/task.hpp"

namespace headrace {

namespace nb = nanobind;

template <class T>
using Array = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using Vector = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Seconds without the GIL, at most, in a thread that Ctrl-C should reach.
constexpr double slice = 0.1;

// What of Python's a source or a task needs. Never called: it holds references, and lets go of them with the GIL.
using Kept = std::shared_ptr<std::function<void()>>;

template <class Holder>
Kept keep(Holder&& holder) {
  return std::make_shared<std::function<void()>>(std::forward<Holder>(holder));
}

// A source, and the Python objects whose memory it reads.
struct HeldSource {
  std::shared_ptr<const Source> source;
  Kept kept;
};

// A task, and the Python objects that its rows are made from and written to.
class Job {
 public:
  Job(std::shared_ptr<Task> task, Kept kept) : task_(std::move(task)), kept_(std::move(kept)) {}
  // Waits for the rows that other threads have begun.
  ~Job();

  // Make rows until none is left, answering Ctrl-C now and then: a batch may take hours.
  void run();
  void wait();
  // Wait for no one, and leave what the rows need to threads that may never end.
  void abandon();

  const std::shared_ptr<Task>& task() const { return task_; }

 private:
  std::shared_ptr<Task> task_;
  Kept kept_;
};

// A change by the name of its kind.
Change change_of(const std::string& kind, std::vector<double> numbers, std::vector<Change> parts);
// The maps of a warp of 13 numbers each, without their fills.
std::vector<WarpPart> parts_of(const std::vector<std::vector<double>>& maps, std::size_t bytes);

void bind_sources(nb::module_& module);
void bind_threads(nb::module_& module);
void bind_pipeline(nb::module_& module);
void bind_arrays(nb::module_& module);
void bind_changes(nb::module_& module);
void bind_scans(nb::module_& module);
void bind_encoding(nb::module_& module);
void bind_items(nb::module_& module);

}  // namespace headrace
