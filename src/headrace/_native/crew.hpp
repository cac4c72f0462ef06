// Rows of a batch, made by as many threads as care to; and threads that do nothing else. Nothing of Python's is here.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "render.hpp"

namespace headrace {

// Scratch memory, lent to a thread for as long as it makes rows.
class Pool {
 public:
  std::unique_ptr<Scratch> lend();
  void take_back(std::unique_ptr<Scratch> scratch);

 private:
  std::mutex lock_;
  std::vector<std::unique_ptr<Scratch>> idle_;
};

// A chunk of rows to be made: each thread takes the next row that nobody has.
class Task {
 public:
  using Row = std::function<bool(std::size_t row, Scratch& scratch, Seconds& seconds, std::int32_t& drawn)>;

  Task(Row row, std::size_t count, std::vector<std::int32_t> drawn, std::shared_ptr<Pool> pool);

  // Make rows until none is left, or until `stop`, or for about so many seconds; return how many.
  std::size_t run(double seconds = 1e9);
  // Wait for the rows that other threads have begun.
  void wait();
  // Let no further row be begun.
  void stop() { next_ = count_; }
  // Whether none is left, and none is being made.
  bool finished();
  // Rows that nobody has begun.
  std::size_t left() const;
  // Rows that are not made: not yet, or not here.
  std::vector<std::size_t> missing() const;
  const std::vector<std::int32_t>& drawn() const { return drawn_; }
  Seconds seconds();
  // Whether it is here that it was made: threads, and so the rows they have begun, do not come along in a fork.
  bool ours() const;

 private:
  Row row_;
  std::size_t count_;
  // By row, whether it is made.
  std::vector<std::uint8_t> good_;
  std::vector<std::int32_t> drawn_;
  std::shared_ptr<Pool> pool_;
  int pid_;
  std::atomic<std::size_t> next_{0};
  std::mutex lock_;
  std::condition_variable idle_;
  int busy_ = 0;
  Seconds seconds_;
};

// Threads that make the rows of tasks, the oldest task first: all of them at the same one, unless it is quickly made.
class Crew {
 public:
  explicit Crew(int threads);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  void submit(std::shared_ptr<Task> task);
  // Events (a task has finished, or somebody rang) until now; waits up to `seconds` for another count than `seen`.
  std::uint64_t wait(std::uint64_t seen, double seconds);
  void ring();
  // End the threads after the rows at hand; false where that takes longer than `seconds`, and they are left behind.
  bool close(double seconds);
  bool closed() const;

 private:
  struct Desk;
  static void serve(const std::shared_ptr<Desk>& desk);

  std::shared_ptr<Desk> desk_;
  std::vector<std::thread> threads_;
  int pid_;
};

}  // namespace headrace
