// The paths of a data set, side by side in one buffer.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

namespace headrace {

class Paths {
 public:
  // `begins` holds one number more than there are paths, of 8 bytes each if `wide`, else of 4. Relative paths are below
  // `folder`.
  Paths(const char* text, const void* begins, bool wide, std::int64_t count, std::string folder)
      : text_(text), begins_(begins), wide_(wide), count_(count), folder_(std::move(folder)) {}

  std::int64_t count() const { return count_; }

  // As os.path.join makes it; empty for a path with a zero byte, which no file has.
  std::string path(std::int64_t key) const {
    const char* name = text_ + begin(key);
    const std::size_t length = begin(key + 1) - begin(key);
    std::string path;
    if (!folder_.empty() && (length == 0 || name[0] != '/')) {
      path = folder_;
      if (path.back() != '/') path += '/';
    }
    path.append(name, length);
    if (path.find('\0') != std::string::npos) path.clear();
    return path;
  }

 private:
  std::size_t begin(std::int64_t key) const {
    return wide_ ? static_cast<std::size_t>(static_cast<const std::uint64_t*>(begins_)[key])
                 : static_cast<const std::uint32_t*>(begins_)[key];
  }

  const char* text_;
  const void* begins_;
  bool wide_;
  std::int64_t count_;
  std::string folder_;
};

}  // namespace headrace
