// Samples that lie in memory-mapped files, encoded or as pixels of any size, each with a checksum. They are read in place.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "source.hpp"

namespace headrace {

struct MappedBytes {
  const std::uint8_t* data;
  std::int64_t size;
};

// For each sample: its file, its bytes in there, their CRC-32C, and the sides of its pixels (0 if it is encoded).
struct MappedSpans {
  const std::int32_t *file;
  const std::int64_t *offset, *length;
  const std::uint32_t* checksum;
  const std::int32_t *height, *width;
};

class MappedSource final : public Source {
 public:
  MappedSource(std::vector<MappedBytes> files, MappedSpans spans, std::int64_t count, int channels);

  std::int64_t length() const override { return count_; }
  int channels() const override { return channels_; }
  void prepare() const override;
  // The checksum is compared when a sample is read for the first time. A sample whose checksum differs is left to the
  // step-by-step path, which says so.
  bool read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const override;
  bool intact() const override;
  Ahead ahead(std::int64_t key) const override;

 private:
  const std::uint8_t* find(std::int64_t key) const;
  bool checked(std::int64_t key, const std::uint8_t* data, std::size_t size) const;

  std::vector<MappedBytes> files_;
  MappedSpans spans_;
  std::int64_t count_;
  int channels_;
  std::unique_ptr<std::atomic<bool>[]> seen_;
};

}  // namespace headrace
