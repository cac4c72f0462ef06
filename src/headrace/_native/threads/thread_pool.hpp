// Threads that make the rows of tasks, the oldest task first: all threads work at the same task, unless it is quickly made.
#pragma once

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "task.hpp"

namespace headrace {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  void submit(std::shared_ptr<Task> task);
  // Count of events until now: a task has finished, or someone called `notify`. Waits up to `seconds` for a count other
  // than `seen`, and meanwhile makes rows itself, where they are of pixels in memory and quickly made.
  std::uint64_t wait(std::uint64_t seen, double seconds);
  // Count an event.
  void notify();
  // End the threads after the rows they are at; false if that takes longer than `seconds`: then they are left behind.
  bool close(double seconds);
  bool closed() const;

 private:
  struct State;
  static void serve(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
  std::vector<std::thread> threads_;
  int pid_;
};

}  // namespace headrace
