// One encoded image in each file.
#pragma once

#include <utility>

#include "paths.hpp"
#include "source.hpp"

namespace headrace {

class FileSource final : public Source {
 public:
  explicit FileSource(Paths paths) : paths_(std::move(paths)) {}

  std::int64_t length() const override { return paths_.count(); }
  bool read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const override;

 private:
  Paths paths_;
};

}  // namespace headrace
