// Encoded images that lie in shards: each a range of a file, read by one positioned read.
#pragma once

#include <utility>

#include "open_files.hpp"
#include "source.hpp"

namespace headrace {

class RangeSource final : public Source {
 public:
  // `file`, `offset` and `length` hold a number for each sample, and stay where they are.
  RangeSource(std::unique_ptr<OpenFiles> files, const std::int64_t* file, const std::int64_t* offset,
              const std::int64_t* length, std::int64_t count)
      : files_(std::move(files)), file_(file), offset_(offset), length_(length), count_(count) {}

  std::int64_t length() const override { return count_; }
  bool read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const override;

  const OpenFiles& files() const { return *files_; }

 private:
  std::unique_ptr<OpenFiles> files_;
  const std::int64_t *file_, *offset_, *length_;
  std::int64_t count_;
};

}  // namespace headrace
