// Encoded images that lie in files which nobody changes, such as cached blocks: each in one piece of a file, or in several.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "source.hpp"

namespace headrace {

struct PieceFile {
  std::string path;
  std::int64_t size, modified_ns;
};

// Sample `i` is what pieces first[i] to first[i + 1] hold, one after the other.
struct PieceSpans {
  const std::int64_t *first, *file, *offset, *length;
};

class PieceSource final : public Source {
 public:
  PieceSource(std::vector<PieceFile> files, PieceSpans spans, std::int64_t count)
      : files_(std::move(files)), spans_(spans), count_(count) {}

  std::int64_t length() const override { return count_; }
  // A file that is not what it was, or is gone, is left to the step-by-step path, which fetches it again. Each is opened
  // for one piece: a file that stayed open would take its room after it was deleted.
  bool read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const override;

 private:
  std::vector<PieceFile> files_;
  PieceSpans spans_;
  std::int64_t count_;
};

}  // namespace headrace
