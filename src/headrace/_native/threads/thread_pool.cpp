#include "thread_pool.hpp"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <utility>

#include "../clock.hpp"

namespace headrace {
namespace {

// Seconds; a task that takes less is made by one thread before a second thread is awake.
constexpr double quick = 0.002;

// Seconds that one thread spins for the next task before it sleeps: waking it costs as much as a batch of small images.
constexpr double spin = 0.0002;

Clock::duration lasting(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// While it lives, new threads block all signals but those of their own crashes: signals belong to Python's main thread.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    for (const int crash : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&all, crash);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

// The name that debuggers and `top` show.
void name_thread() {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "headrace-pool");
#elif defined(__APPLE__)
  pthread_setname_np("headrace-pool");
#endif
}

}  // namespace

// What the threads share with their pool, which they may outlive.
struct ThreadPool::State {
  std::mutex lock;
  std::condition_variable changed;   // for the threads
  std::condition_variable happened;  // for whoever waits for them
  std::deque<std::shared_ptr<Task>> tasks;
  std::atomic<bool> any{false};      // whether there are tasks, for the thread that spins
  bool spinning = false;
  double pace = quick;               // seconds that a row took lately, in one thread
  std::uint64_t events = 0;
  int serving = 0;
  bool closed = false;

  // Whether one thread makes the oldest task before a second one is awake.
  bool is_quick() const { return !tasks.empty() && static_cast<double>(tasks.front()->left()) * pace < quick; }
  // Make rows of the oldest task.
  void work(std::unique_lock<std::mutex>& held);
};

void ThreadPool::State::work(std::unique_lock<std::mutex>& held) {
  const std::shared_ptr<Task> task = tasks.front();
  if (is_quick()) {
    tasks.pop_front();
    any = !tasks.empty();
  }
  held.unlock();
  const Clock::time_point began = Clock::now();
  const std::size_t rows = task->run();
  const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
  const bool finished = task->finished();
  held.lock();
  if (rows > 0) pace = seconds / static_cast<double>(rows);
  // None of its rows is left. Another thread may still be at the last one.
  if (!tasks.empty() && tasks.front() == task) tasks.pop_front();
  any = !tasks.empty();
  if (finished) {
    ++events;
    happened.notify_all();
  }
}

ThreadPool::ThreadPool(int threads) : state_(std::make_shared<State>()), pid_(::getpid()) {
  const BlockedSignals here;
  try {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([state = state_] { serve(state); });
      const std::lock_guard<std::mutex> held(state_->lock);
      ++state_->serving;
    }
  } catch (...) {
    close(1e9);
    throw;
  }
}

ThreadPool::~ThreadPool() {
  if (::getpid() == pid_) {
    if (!closed()) close(1e9);  // else the threads have ended, or were left behind
    return;
  }
  // In a forked child there are no threads to join, and nobody knows whether a lock is held: leave both.
  new std::shared_ptr<State>(std::move(state_));
  new std::vector<std::thread>(std::move(threads_));
}

void ThreadPool::submit(std::shared_ptr<Task> task) {
  bool alone = false, awaited = false;
  {
    const std::lock_guard<std::mutex> held(state_->lock);
    if (state_->closed) return task->stop();
    alone = static_cast<double>(task->left()) * state_->pace < quick;
    awaited = state_->spinning && state_->tasks.empty();
    state_->tasks.push_back(std::move(task));
    state_->any = true;
  }
  if (!alone)
    state_->changed.notify_all();
  else if (!awaited)
    state_->changed.notify_one();
}

std::uint64_t ThreadPool::wait(std::uint64_t seen, double seconds) {
  std::unique_lock<std::mutex> held(state_->lock);
  // Going to sleep and waking up take longer than a batch of pixels in memory.
  while (state_->events == seen && !state_->closed && state_->is_quick() && state_->tasks.front()->at_hand())
    state_->work(held);
  state_->happened.wait_for(held, lasting(seconds), [&] { return state_->events != seen || state_->closed; });
  return state_->events;
}

void ThreadPool::notify() {
  {
    const std::lock_guard<std::mutex> held(state_->lock);
    ++state_->events;
  }
  state_->happened.notify_all();
}

bool ThreadPool::close(double seconds) {
  std::unique_lock<std::mutex> held(state_->lock);
  state_->closed = true;
  for (const std::shared_ptr<Task>& task : state_->tasks) task->stop();
  state_->changed.notify_all();
  state_->happened.notify_all();
  const bool ended = state_->happened.wait_for(held, lasting(seconds), [&] { return state_->serving == 0; });
  // If two close at once, one of them gets the threads.
  std::vector<std::thread> threads = std::exchange(threads_, {});
  held.unlock();
  for (std::thread& thread : threads) ended ? thread.join() : thread.detach();
  return ended;
}

bool ThreadPool::closed() const {
  const std::lock_guard<std::mutex> held(state_->lock);
  return state_->closed;
}

void ThreadPool::serve(const std::shared_ptr<State>& state) {
  name_thread();
  std::unique_lock<std::mutex> held(state->lock);
  while (true) {
    if (state->tasks.empty() && !state->spinning) {
      state->spinning = true;
      held.unlock();
      const Clock::time_point until = Clock::now() + lasting(spin);
      while (!state->any && Clock::now() < until) std::this_thread::yield();
      held.lock();
      state->spinning = false;
    }
    state->changed.wait(held, [&] { return state->closed || !state->tasks.empty(); });
    if (state->closed) break;
    state->work(held);
  }
  --state->serving;
  state->happened.notify_all();
}

}  // namespace headrace
