// A bounded number of open files, shared by the threads that read from them. Each must stay what it was when it was indexed.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "paths.hpp"
#include "source.hpp"

namespace headrace {

// What tells a file from another, and from itself after a change.
struct FileFacts {
  std::int64_t size = -1, modified_ns = -1;
  // -1: not known.
  std::int64_t device = -1, inode = -1;

  static FileFacts of(const struct stat& found);
  // What a file that has `now` lacks to be this one; `none` if it is the same.
  ReadFailure::Kind compare(const FileFacts& now) const;
};

// A descriptor, or a negative number. A named pipe opens at once, to be refused, instead of waiting for a writer.
int open_to_read(const char* path);

class OpenFile {
 public:
  explicit OpenFile(int descriptor) : descriptor_(descriptor) {}
  ~OpenFile();
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;

  // See that it is the file that was indexed, before anything is read; `known` learns what was not known of it.
  bool check(FileFacts& known, ReadFailure& failure);
  // Read `length` bytes at `offset`, and see that the file is still what it was.
  bool read(std::int64_t offset, std::int64_t length, std::uint8_t* to, ReadFailure& failure) const;

 private:
  int descriptor_;
  bool linked_ = true;
  FileFacts facts_;
};

class OpenFiles {
 public:
  // `facts` holds size and time of modification for each file, as they were when it was indexed; empty: what a file is
  // when it is first opened counts. At most `capacity` files stay open, and one more for each thread that reads.
  OpenFiles(Paths paths, std::vector<FileFacts> facts, std::size_t capacity);
  ~OpenFiles();
  OpenFiles(const OpenFiles&) = delete;
  OpenFiles& operator=(const OpenFiles&) = delete;

  std::int64_t count() const { return paths_.count(); }
  std::string path(std::int64_t file) const { return paths_.path(file); }
  // Open a file, or take it from those that are open; null: the failure says why.
  std::shared_ptr<const OpenFile> open(std::int64_t file, ReadFailure& failure) const;
  // Files that are open now.
  std::size_t held() const;

 private:
  struct State;
  State& state() const;
  std::shared_ptr<OpenFile> open_new(State& state, std::int64_t file, ReadFailure& failure) const;

  Paths paths_;
  std::size_t capacity_;
  mutable std::atomic<State*> state_;
};

}  // namespace headrace
