// Where samples come from: files, ranges of files, arrays, bytes. The row loop knows this interface and nothing behind it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "../buffer.hpp"
#include "../geometry/lines.hpp"

namespace headrace {

// An encoded image, or pixels.
struct Sample {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;                    // bytes of an encoded image
  int height = 0, width = 0, channels = 0;  // 0 for an encoded image

  bool encoded() const { return channels == 0; }
};

// Why a sample cannot be read, where its source knows better than the step-by-step path would.
struct ReadFailure {
  enum Kind { none, missing, removed, replaced, changed, cut_short, unreadable };
  Kind kind = none;
  int error = 0;               // errno, for `missing` and `unreadable`
  std::string path;
  std::int64_t offset = 0, length = 0;
  std::int64_t found = 0;      // the file's size now, in bytes; -1 if it is not known
};

// Bytes that are read soon, and that the processor does not foresee.
struct Ahead {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;

  void ask() const { prefetch(data, size); }
};

// What one thread reads into, reused from sample to sample.
struct Reading {
  Buffer buffer;
  Sample sample;
  Ahead ahead;                 // the sample after it
  double seconds = 0;          // spent on reading; sources in memory count none
  ReadFailure failure;
};

// Safe on any number of threads. Holds nothing of Python's: whoever makes a source keeps what it points to.
class Source {
 public:
  virtual ~Source() = default;
  Source() = default;
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  virtual std::int64_t length() const = 0;
  // Channels of the samples' pixels, once decoded.
  virtual int channels() const { return 3; }
  // Bytes of a sample's pixels, where they are in memory; 0 where samples are decoded, or may have to be waited for.
  virtual std::size_t bytes_at_hand() const { return 0; }
  // Called before each batch.
  virtual void prepare() const {}
  // Read a sample of at most `max_bytes`; `key` is in range. False: the failure says why, or the step-by-step path will.
  virtual bool read(std::int64_t key, std::int64_t max_bytes, Reading& reading) const = 0;
  // Called after what was read has been used: false if it was not what is stored.
  virtual bool intact() const { return true; }
  // The bytes of a sample that is read soon, for `Reading::ahead`; none where there are none to ask memory for.
  virtual Ahead ahead(std::int64_t) const { return {}; }
};

}  // namespace headrace
