// Encoded images in memory: each in bytes of its own, or all of them side by side.
#pragma once

#include <utility>
#include <vector>

#include "source.hpp"

namespace headrace {

class BytesSource final : public Source {
 public:
  explicit BytesSource(std::vector<std::pair<const std::uint8_t*, std::size_t>> images) : images_(std::move(images)) {}

  std::int64_t length() const override { return static_cast<std::int64_t>(images_.size()); }

  bool read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const override {
    const auto [data, size] = images_[static_cast<std::size_t>(key)];
    reading.sample = Sample{data, size};
    return static_cast<std::int64_t>(size) <= max_bytes;
  }

 private:
  std::vector<std::pair<const std::uint8_t*, std::size_t>> images_;
};

class PackedBytesSource final : public Source {
 public:
  // Image `i` lies from begins[i] to begins[i + 1]. A `mapped` buffer is that of a file which may be cut short meanwhile.
  PackedBytesSource(const std::uint8_t* data, std::int64_t size, const std::int64_t* begins, std::int64_t count,
                    bool mapped)
      : data_(data), size_(size), begins_(begins), count_(count), mapped_(mapped) {}

  std::int64_t length() const override { return count_; }
  void prepare() const override;
  bool read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const override;

 private:
  const std::uint8_t* data_;
  std::int64_t size_;
  const std::int64_t* begins_;
  std::int64_t count_;
  bool mapped_;
};

}  // namespace headrace
