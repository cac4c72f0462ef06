// Jobs and the thread pool.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "../threads/thread_pool.hpp"
#include "bindings.hpp"
#include "gil.hpp"

namespace headrace {

Job::~Job() {
  if (!kept_ || !task_->ours()) return;
  task_->stop();
  if (task_->finished()) return;
  const GilRelease released;
  task_->wait();
}

void Job::run() {
  while (true) {
    {
      const GilRelease released;
      task_->run(slice);
    }
    if (task_->left() == 0) return;
    if (interrupted()) throw nb::python_error();
  }
}

void Job::wait() {
  const GilRelease released;
  task_->wait();
}

void Job::abandon() {
  task_->stop();
  if (!task_->finished()) new Kept(std::exchange(kept_, nullptr));
}

namespace {

std::tuple<double, double, double> seconds_of(const Job& job) {
  const Seconds spent = job.task()->seconds();
  return {spent.read, spent.decode, spent.transform};
}

// Wait for a count of events other than `seen`, answering Ctrl-C now and then.
std::uint64_t wait(ThreadPool& pool, std::uint64_t seen, double seconds) {
  while (true) {
    std::uint64_t events;
    {
      const GilRelease released;
      events = pool.wait(seen, std::min(seconds, slice));
    }
    if (interrupted()) throw nb::python_error();
    seconds -= slice;
    if (events != seen || seconds <= 0 || pool.closed()) return events;
  }
}

}  // namespace

void bind_threads(nb::module_& module) {
  nb::class_<Job>(module, "Job", "The rows of a batch, made by as many threads as run it.")
      .def("run", &Job::run, "Make rows until none is left, without the GIL.")
      .def("wait", &Job::wait, "Wait for the rows that other threads have begun.")
      .def("stop", [](const Job& job) { job.task()->stop(); }, "Let no further row be begun.")
      .def("abandon", &Job::abandon, "Leave what the rows need to threads that may never end, and wait for none.")
      .def_prop_ro("left", [](const Job& job) { return job.task()->left(); }, "Rows that no thread has taken.")
      .def_prop_ro("finished", [](const Job& job) { return job.task()->finished(); })
      .def_prop_ro("missing", [](const Job& job) { return job.task()->missing(); },
                   "Rows that are not made: not yet, or left to the step-by-step path.")
      .def_prop_ro("failures", [](const Job& job) { return job.task()->failures(); },
                   "Of the missing rows, those that their source could not read: pairs of row and `ReadFailure`.")
      .def_prop_ro("drawn", [](const Job& job) { return job.task()->drawn(); },
                   "How many random numbers were drawn for each row.")
      .def_prop_ro("seconds", &seconds_of, "Seconds of reading, decoding and transforming, summed over threads.");

  nb::class_<ThreadPool>(module, "ThreadPool", "Threads that make the rows of jobs without the GIL, the oldest job first.")
      .def(nb::init<int>(), nb::arg("threads"))
      .def("submit", [](ThreadPool& pool, const Job& job) { pool.submit(job.task()); }, nb::arg("job"))
      .def("wait", &wait, nb::arg("seen"), nb::arg("seconds"),
           "Wait until the count of events (a job has finished, or `notify` was called) is not `seen`; return it.")
      .def("notify", &ThreadPool::notify, nb::call_guard<GilRelease>(), "Count an event.")
      .def("close", &ThreadPool::close, nb::arg("seconds"), nb::call_guard<GilRelease>(),
           "End the threads after the rows they are at; False if that takes longer: they are left behind.");
}

}  // namespace headrace
