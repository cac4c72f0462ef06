#include "bytes.hpp"

#include "fault_guard.hpp"

namespace headrace {

void PackedBytesSource::prepare() const {
  if (mapped_) guard_faults();
}

bool PackedBytesSource::read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const {
  const std::int64_t begin = begins_[key], end = begins_[key + 1];
  // Checked when the source was made; the array may have been written to since.
  if (begin < 0 || end < begin || end > size_ || end - begin > max_bytes) return false;
  const std::size_t size = static_cast<std::size_t>(end - begin);
  const std::uint8_t* data = data_ + begin;
  if (mapped_) {
    std::uint8_t* const copy = room(reading.buffer, size);
    if (!copy_guarded(copy, data, size)) return false;
    data = copy;
  }
  reading.sample = Sample{data, size};
  return true;
}

}  // namespace headrace
