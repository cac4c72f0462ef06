// What Python sees: one call for the rows of a batch, without the GIL.
#include <cstdio>

#include <jpeglib.h>

#include "bindings.hpp"

#define HEADRACE_TEXT_(x) #x
#define HEADRACE_TEXT(x) HEADRACE_TEXT_(x)

NB_MODULE(extension, module) {
  // Pipelines are cached until the process ends, which nanobind would call a leak.
  nanobind::set_leak_warnings(false);
  module.doc() = "From encoded images or arrays to the rows of a batch, without the GIL.";
  headrace::bind_sources(module);
  headrace::bind_threads(module);
  headrace::bind_changes(module);
  headrace::bind_pipeline(module);
  headrace::bind_arrays(module);
  headrace::bind_scans(module);
  headrace::bind_encoding(module);
  headrace::bind_items(module);
  module.attr("LIBJPEG_TURBO") = HEADRACE_TEXT(LIBJPEG_TURBO_VERSION);
}
