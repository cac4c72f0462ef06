// Encoded images that lie in shards: each a range of a file, read by one positioned read.
#pragma once

#include <utility>

#include "open_files.hpp"
#include "source.hpp"

namespace headrace {

// Integers of 8 or 4 bytes, which stay where they are: those of a saved index take half of the memory with 4.
class Integers {
 public:
  enum Kind { i64, i32, u32 };
  Integers(const void* data, Kind kind) : data_(data), kind_(kind) {}
  Integers(const std::int64_t* data) : data_(data), kind_(i64) {}

  std::int64_t operator[](std::int64_t i) const {
    if (kind_ == i64) return static_cast<const std::int64_t*>(data_)[i];
    return kind_ == i32 ? static_cast<const std::int32_t*>(data_)[i] : static_cast<const std::uint32_t*>(data_)[i];
  }

 private:
  const void* data_;
  Kind kind_;
};

class RangeSource final : public Source {
 public:
  // `file`, `offset` and `length` hold a number for each sample.
  RangeSource(std::unique_ptr<OpenFiles> files, Integers file, Integers offset, Integers length, std::int64_t count)
      : files_(std::move(files)), file_(file), offset_(offset), length_(length), count_(count) {}

  std::int64_t length() const override { return count_; }
  bool read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const override;

  const OpenFiles& files() const { return *files_; }

 private:
  std::unique_ptr<OpenFiles> files_;
  Integers file_, offset_, length_;
  std::int64_t count_;
};

}  // namespace headrace
