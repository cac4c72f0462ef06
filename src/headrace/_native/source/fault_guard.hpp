// Copies out of memory-mapped files. A file that is cut short meanwhile raises SIGBUS; here that ends only the copy.
#pragma once

#include <cstddef>
#include <cstdint>

namespace headrace {

// Rows of an array, as they lie in memory.
struct Layout {
  static constexpr int most = 64;
  const std::uint8_t* data;
  std::size_t rows, itemsize, row_bytes;
  std::ptrdiff_t stride;                        // from row to row
  int dimensions;                               // of a row; 0 if its bytes lie side by side
  std::size_t shape[most];
  std::ptrdiff_t strides[most];
};

// Copy; false if the bytes cannot be read.
bool copy_guarded(std::uint8_t* to, const std::uint8_t* from, std::size_t size);

// Copy rows side by side; return the index into `keys` of the first row that cannot be read, else `count`.
std::size_t gather_guarded(std::uint8_t* to, const Layout& from, const std::int64_t* keys, std::size_t count);

// Let this thread live through reads of mapped files that were cut short, or no longer; return what was set before. It
// reads zeros, and `take_fault` says so.
bool survive_faults(bool on);

// Return an address in a mapped file that could not be read since this thread asked last, by any thread; else null.
const void* take_fault();

// Install the handler of SIGBUS, above any that took its place. Call it before each batch: it takes less than 1 µs.
void guard_faults();

}  // namespace headrace
