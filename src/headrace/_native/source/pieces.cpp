#include "pieces.hpp"

#include "../clock.hpp"
#include "open_files.hpp"

namespace headrace {
namespace {

bool read_piece(const PieceFile& file, std::int64_t offset, std::int64_t length, std::uint8_t* to) {
  const int descriptor = open_to_read(file.path.c_str());
  if (descriptor < 0) return false;
  ReadFailure failure;
  FileFacts known{file.size, file.modified_ns};
  OpenFile open(descriptor);
  return open.check(known, failure) && open.read(offset, length, to, failure);
}

}  // namespace

bool PieceSource::read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const {
  const std::int64_t begin = spans_.first[key], end = spans_.first[key + 1];
  std::int64_t size = 0;
  for (std::int64_t i = begin; i < end; ++i) size += spans_.length[i];
  if (size == 0 || size > max_bytes) return false;
  Clock::time_point then = Clock::now();
  std::uint8_t* to = room(reading.buffer, static_cast<std::size_t>(size));
  reading.sample = Sample{to, static_cast<std::size_t>(size)};
  bool good = true;
  for (std::int64_t i = begin; i < end && good; ++i) {
    good = read_piece(files_[static_cast<std::size_t>(spans_.file[i])], spans_.offset[i], spans_.length[i], to);
    to += spans_.length[i];
  }
  reading.seconds += since(then);
  return good;
}

}  // namespace headrace
