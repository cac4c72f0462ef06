// Copies from memory-mapped files: one that is cut short meanwhile raises SIGBUS, which then ends the copy alone.
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
  int dimensions;                               // of a row; 0 where its bytes lie side by side
  std::size_t shape[most];
  std::ptrdiff_t strides[most];
};

// Copy; false where the bytes are not there to be read.
bool copy_guarded(std::uint8_t* to, const std::uint8_t* from, std::size_t size);

// Copy rows side by side; return the first place in `keys` whose row is not there to be read, else `count`.
std::size_t gather_guarded(std::uint8_t* to, const Layout& from, const std::int64_t* keys, std::size_t count);

// Put the handler in its place, above whatever took it meanwhile. Before each batch: it costs less than a microsecond.
void watch();

}  // namespace headrace
