// Memory that a thread reuses from sample to sample.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace headrace {

using Buffer = std::vector<std::uint8_t>;

// Make room for at least `count` elements; what is there already stays.
template <class T>
T* room(std::vector<T>& buffer, std::size_t count) {
  if (buffer.size() < count) buffer.resize(count);
  return buffer.data();
}

// Ask for memory before it is needed: the processor does not foresee jumps through an array.
inline void prefetch(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t line = 64, limit = std::size_t{16} << 10;
  if (size > limit) size = limit;
  for (std::size_t at = 0; at < size; at += line) __builtin_prefetch(data + at, 0, 2);
}

}  // namespace headrace
