// The rows of a batch, made by as many threads as run the task. Nothing of Python's is here.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "../batch_rows.hpp"

namespace headrace {

// Lends scratch memory to a thread for as long as it makes rows.
class ScratchPool {
 public:
  std::unique_ptr<Scratch> lend();
  void take_back(std::unique_ptr<Scratch> scratch);

 private:
  std::mutex lock_;
  std::vector<std::unique_ptr<Scratch>> idle_;
};

class Task {
 public:
  // Rows that their source could not read, with the reason.
  using Failures = std::vector<std::pair<std::size_t, ReadFailure>>;

  Task(BatchRows rows, std::vector<std::int32_t> drawn, std::shared_ptr<ScratchPool> scratch);

  // Make rows, each time the next few that no thread has taken, until none is left, or until `stop`, or for about so many
  // seconds. Returns how many.
  std::size_t run(double seconds = 1e9);
  // Wait for the rows that other threads have begun.
  void wait();
  // Let no further row be begun.
  void stop() { next_ = rows_.count(); }
  // Whether no row is left, and none is being made.
  bool finished();
  // Rows that no thread has taken.
  std::size_t left() const;
  // Whether its rows are made of pixels in memory, without waiting for anything.
  bool at_hand() const { return rows_.source->bytes_at_hand() > 0; }
  // Rows that are not made: not yet, or left to the step-by-step path.
  std::vector<std::size_t> missing() const;
  const std::vector<std::int32_t>& drawn() const { return drawn_; }
  Failures failures();
  Seconds seconds();
  // Whether this process made it. After a fork, a child has neither the threads nor the rows that they have begun.
  bool ours() const;

 private:
  void make(std::size_t row, std::unique_ptr<Scratch>& scratch, Seconds& seconds);

  BatchRows rows_;
  std::vector<std::uint8_t> made_;  // by row
  std::vector<std::int32_t> drawn_;
  std::shared_ptr<ScratchPool> scratch_;
  int pid_;
  std::size_t at_once_ = 1;  // rows that a thread takes
  std::atomic<std::size_t> next_{0};
  std::mutex lock_;
  std::condition_variable idle_;
  int busy_ = 0;
  Seconds seconds_;
  Failures failures_;
};

}  // namespace headrace
