// Reads of a file that is walked from one header to the next: small ones share a block.
#pragma once

#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace headrace {

class BlockReader {
 public:
  BlockReader(int file, std::int64_t size) : file_(file), size_(size) {}

  std::int64_t size() const { return size_; }

  // The bytes from an offset on, until the next call; null if they cannot be read, or end after the file.
  const std::uint8_t* at(std::int64_t offset, std::int64_t length) {
    if (offset < 0 || length < 0 || offset > size_ - length) return nullptr;
    if (offset < start_ || offset + length > start_ + filled_) {
      // Ahead only where entries are near each other: of large images, the headers alone are read.
      const bool near = offset >= last_ && offset - last_ <= close;
      const std::int64_t wanted = std::max(length, near ? std::min(block, size_ - offset) : length);
      if (!fill(offset, wanted) || filled_ < length) return nullptr;
    }
    last_ = offset;
    return bytes_.data() + (offset - start_);
  }

 private:
  static constexpr std::int64_t block = 1 << 16, close = 1 << 13;

  bool fill(std::int64_t offset, std::int64_t length) {
    if (static_cast<std::int64_t>(bytes_.size()) < length) bytes_.resize(static_cast<std::size_t>(length));
    start_ = offset, filled_ = 0;
    while (filled_ < length) {
      const ssize_t found = ::pread(file_, bytes_.data() + filled_, static_cast<std::size_t>(length - filled_),
                                    static_cast<off_t>(offset + filled_));
      if (found < 0 && errno == EINTR) continue;
      if (found < 0) return false;
      if (found == 0) break;
      filled_ += found;
    }
    return true;
  }

  int file_;
  std::int64_t size_;
  std::int64_t start_ = 0, filled_ = 0, last_ = -close - 1;
  std::vector<std::uint8_t> bytes_;
};

}  // namespace headrace
