// Pixels in an array, (N, H, W, C) of bytes without gaps.
#pragma once

#include "source.hpp"

namespace headrace {

class ArraySource final : public Source {
 public:
  // A `mapped` array is that of a file which may be cut short meanwhile.
  ArraySource(const std::uint8_t* data, std::int64_t count, int height, int width, int channels, bool mapped)
      : data_(data), count_(count), height_(height), width_(width), channels_(channels), mapped_(mapped),
        size_(static_cast<std::size_t>(height) * width * channels) {}

  std::int64_t length() const override { return count_; }
  int channels() const override { return channels_; }
  std::size_t bytes_at_hand() const override { return mapped_ ? 0 : size_; }
  void prepare() const override;
  bool read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const override;
  Ahead ahead(std::int64_t key) const override { return {at(key), size_}; }

 private:
  const std::uint8_t* at(std::int64_t key) const { return data_ + size_ * static_cast<std::size_t>(key); }

  const std::uint8_t* data_;
  std::int64_t count_;
  int height_, width_, channels_;
  bool mapped_;
  std::size_t size_;
};

}  // namespace headrace
