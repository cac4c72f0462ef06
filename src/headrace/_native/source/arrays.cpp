#include "arrays.hpp"

#include "fault_guard.hpp"

namespace headrace {

void ArraySource::prepare() const {
  if (mapped_) guard_faults();
}

bool ArraySource::read(std::int64_t key, std::int64_t, Reading& reading) const {
  const std::uint8_t* data = at(key);
  if (mapped_) {
    std::uint8_t* const copy = room(reading.buffer, size_);
    if (!copy_guarded(copy, data, size_)) return false;
    data = copy;
  }
  reading.sample = Sample{data, size_, height_, width_, channels_};
  return true;
}

}  // namespace headrace
