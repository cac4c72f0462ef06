#include "ranges.hpp"

#include "../clock.hpp"

namespace headrace {

bool RangeSource::read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const {
  const std::int64_t file = file_[key], offset = offset_[key], length = length_[key];
  // Checked when the source was made; the arrays may have been written to since.
  if (file < 0 || file >= files_->count() || offset < 0 || length < 0 || length > max_bytes) return false;
  Clock::time_point then = Clock::now();
  const std::shared_ptr<const OpenFile> open = files_->open(file, reading.failure);
  std::uint8_t* const data = room(reading.buffer, static_cast<std::size_t>(length));
  const bool good = open && open->read(offset, length, data, reading.failure);
  reading.seconds += since(then);
  if (!good) {
    reading.failure.path = files_->path(file);
    reading.failure.offset = offset, reading.failure.length = length;
  }
  reading.sample = Sample{data, static_cast<std::size_t>(length)};
  return good;
}

}  // namespace headrace
