#include "files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "../clock.hpp"
#include "../decode/formats.hpp"

namespace headrace {
namespace {

// Read a whole file; false for what is no regular file, and for one larger than `max_bytes`.
bool read_file(const char* path, std::int64_t max_bytes, Buffer& data, std::size_t& size) {
  // O_NONBLOCK: a named pipe opens at once, to be refused, instead of waiting for a writer.
  const int file = ::open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (file < 0) return false;
  struct stat facts;
  bool good = ::fstat(file, &facts) == 0 && S_ISREG(facts.st_mode) && facts.st_size > 0 && facts.st_size <= max_bytes;
  if (good) {
    size = static_cast<std::size_t>(facts.st_size);
    room(data, size);
    std::size_t got = 0;
    while (got < size) {
      // What is not decoded here is read again by the step-by-step path: read only enough of it to tell.
      const std::size_t wanted = got < 16 ? std::min<std::size_t>(size, std::size_t{1} << 16) : size;
      const ssize_t more = ::read(file, data.data() + got, wanted - got);
      if (more < 0 && errno == EINTR) continue;
      if (more <= 0) break;
      got += static_cast<std::size_t>(more);
      if (got >= 2 && !is_read_here(data.data())) break;
    }
    good = got == size;
  }
  ::close(file);
  return good;
}

}  // namespace

bool FileSource::read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const {
  const std::string path = paths_.path(key);
  if (path.empty()) return false;
  Clock::time_point then = Clock::now();
  std::size_t size = 0;
  const bool good = read_file(path.c_str(), max_bytes, reading.buffer, size);
  reading.seconds += since(then);
  reading.sample = Sample{reading.buffer.data(), size};
  return good;
}

}  // namespace headrace
