#include "mapped.hpp"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "../checksum/crc32c.hpp"
#include "fault_guard.hpp"

namespace headrace {
namespace {

// Begin to read from disk: a fault in memory alone would ask for a few pages at a time, and wait for each.
void ask_for(const std::uint8_t* data, std::size_t size) {
#ifdef __linux__
  static const std::uintptr_t page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(data) / page * page;
  madvise(reinterpret_cast<void*>(begin), reinterpret_cast<std::uintptr_t>(data) + size - begin, MADV_WILLNEED);
#else
  headrace::prefetch(data, size);
#endif
}

}  // namespace

MappedSource::MappedSource(std::vector<MappedBytes> files, MappedSpans spans, std::int64_t count, int channels)
    : files_(std::move(files)), spans_(spans), count_(count), channels_(channels),
      seen_(new std::atomic<bool>[static_cast<std::size_t>(count)]()) {}

void MappedSource::prepare() const { guard_faults(); }

// Null for a range that its file does not have: the arrays may have been written to since they were checked.
const std::uint8_t* MappedSource::find(std::int64_t key) const {
  const std::int64_t file = spans_.file[key], offset = spans_.offset[key], length = spans_.length[key];
  if (file < 0 || file >= static_cast<std::int64_t>(files_.size()) || offset < 0 || length < 0) return nullptr;
  const MappedBytes& found = files_[static_cast<std::size_t>(file)];
  return length <= found.size && offset <= found.size - length ? found.data + offset : nullptr;
}

bool MappedSource::checked(std::int64_t key, const std::uint8_t* data, std::size_t size) const {
  std::atomic<bool>& seen = seen_[static_cast<std::size_t>(key)];
  if (seen.load(std::memory_order_relaxed)) return true;
  if (crc32c(data, size) != spans_.checksum[key]) return false;
  seen.store(true, std::memory_order_relaxed);
  return true;
}

bool MappedSource::read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const {
  const std::uint8_t* data = find(key);
  const std::int64_t height = spans_.height[key], width = spans_.width[key], length = spans_.length[key];
  if (data == nullptr || length > max_bytes || height < 0 || width < 0) return false;
  const bool encoded = height == 0 || width == 0;
  if (!encoded && (height > length / width / channels_ || height * width * channels_ != length)) return false;
  const auto size = static_cast<std::size_t>(length);
#ifdef __linux__
  survive_faults(true);
#else
  std::uint8_t* const copy = room(reading.buffer, size);
  if (!copy_guarded(copy, data, size)) return false;
  data = copy;
#endif
  if (!checked(key, data, size)) {
    intact();
    return false;
  }
  reading.sample = encoded ? Sample{data, size}
                           : Sample{data, size, static_cast<int>(height), static_cast<int>(width), channels_};
  return true;
}

bool MappedSource::intact() const {
  const bool whole = take_fault() == nullptr;
  survive_faults(false);
  return whole;
}

Ahead MappedSource::ahead(std::int64_t key) const {
  const std::uint8_t* data = find(key);
  if (data == nullptr) return {};
  const auto size = static_cast<std::size_t>(spans_.length[key]);
  if (seen_[static_cast<std::size_t>(key)].load(std::memory_order_relaxed)) return {data, size};
  ask_for(data, size);
  return {};
}

}  // namespace headrace
