#include "crew.hpp"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <new>
#include <utility>

namespace headrace {
namespace {

// What a thread keeps of its scratch memory between two chunks.
constexpr std::size_t kept = std::size_t{16} << 20;

// Seconds; what is made in less is made by one thread before a second is awake.
constexpr double quick = 0.002;

// Seconds that one of the threads looks out for the next task before it goes to sleep as well: to wake it would cost who
// submits it as much as the rows of small pictures.
constexpr double patience = 0.0002;

using Clock = std::chrono::steady_clock;

Clock::duration lasting(double seconds) {
  return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
}

// Signals are for the threads that were there before: threads begun in its time take none, but for their own crashes.
class Unsignalled {
 public:
  Unsignalled() {
    sigset_t all;
    sigfillset(&all);
    for (const int crash : {SIGSEGV, SIGBUS, SIGFPE, SIGILL}) sigdelset(&all, crash);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~Unsignalled() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

// What debuggers and `top` show.
void name_thread() {
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "headrace-crew");
#elif defined(__APPLE__)
  pthread_setname_np("headrace-crew");
#endif
}

}  // namespace

std::unique_ptr<Scratch> Pool::lend() {
  const std::lock_guard<std::mutex> held(lock_);
  if (idle_.empty()) return std::make_unique<Scratch>();
  std::unique_ptr<Scratch> scratch = std::move(idle_.back());
  idle_.pop_back();
  return scratch;
}

void Pool::take_back(std::unique_ptr<Scratch> scratch) {
  scratch->shrink_to(kept);
  const std::lock_guard<std::mutex> held(lock_);
  try {
    idle_.push_back(std::move(scratch));
  } catch (const std::bad_alloc&) {
    // One less to be used again.
  }
}

Task::Task(Row row, std::size_t count, std::vector<std::int32_t> drawn, std::shared_ptr<Pool> pool)
    : row_(std::move(row)), count_(count), good_(count), drawn_(std::move(drawn)), pool_(std::move(pool)), pid_(::getpid()) {
  drawn_.resize(count);
}

std::size_t Task::run(double most) {
  {
    const std::lock_guard<std::mutex> held(lock_);
    ++busy_;
  }
  const Clock::time_point began = Clock::now();
  Seconds seconds;
  std::unique_ptr<Scratch> scratch;
  const Clock::time_point until = began + lasting(most);
  std::size_t rows = 0;
  while (rows == 0 || Clock::now() < until) {
    const std::size_t i = next_++;
    if (i >= count_) break;
    ++rows;
    try {
      if (!scratch) scratch = pool_->lend();
      good_[i] = row_(i, *scratch, seconds, drawn_[i]);
    } catch (const std::exception&) {
      // The step-by-step route says what there was no memory for.
    }
  }
  if (scratch) pool_->take_back(std::move(scratch));
  // Pictures in memory are neither read nor decoded, and too quick for a clock at each.
  if (rows > 0 && seconds.read + seconds.decode + seconds.transform == 0)
    seconds.transform = std::chrono::duration<double>(Clock::now() - began).count();
  const std::lock_guard<std::mutex> held(lock_);
  seconds_.read += seconds.read, seconds_.decode += seconds.decode, seconds_.transform += seconds.transform;
  if (--busy_ == 0) idle_.notify_all();
  return rows;
}

void Task::wait() {
  std::unique_lock<std::mutex> held(lock_);
  idle_.wait(held, [this] { return busy_ == 0; });
}

bool Task::finished() {
  const std::lock_guard<std::mutex> held(lock_);
  return next_ >= count_ && busy_ == 0;
}

std::size_t Task::left() const { return count_ - std::min<std::size_t>(count_, next_); }

std::vector<std::size_t> Task::missing() const {
  std::vector<std::size_t> rows;
  for (std::size_t i = 0; i < count_; ++i)
    if (!good_[i]) rows.push_back(i);
  return rows;
}

Seconds Task::seconds() {
  const std::lock_guard<std::mutex> held(lock_);
  return seconds_;
}

bool Task::ours() const { return ::getpid() == pid_; }

// What the threads know of their crew, which they may outlive.
struct Crew::Desk {
  std::mutex lock;
  std::condition_variable changed;   // for the threads
  std::condition_variable happened;  // for who waits for them
  std::deque<std::shared_ptr<Task>> tasks;
  std::atomic<bool> any{false};  // whether there are tasks, for the lookout
  bool lookout = false;
  double pace = quick;  // seconds that a row took of late, in one thread
  std::uint64_t events = 0;
  int serving = 0;
  bool closed = false;
};

Crew::Crew(int threads) : desk_(std::make_shared<Desk>()), pid_(::getpid()) {
  const Unsignalled here;
  try {
    for (int i = 0; i < threads; ++i) {
      threads_.emplace_back([desk = desk_] { serve(desk); });
      const std::lock_guard<std::mutex> held(desk_->lock);
      ++desk_->serving;
    }
  } catch (...) {
    close(1e9);
    throw;
  }
}

Crew::~Crew() {
  if (::getpid() == pid_) {
    if (!closed()) close(1e9);  // else they have ended, or were left behind, and nobody waits for them
    return;
  }
  // After a fork there are no threads to join, and whether a lock is held cannot be known.
  new std::shared_ptr<Desk>(std::move(desk_));
  new std::vector<std::thread>(std::move(threads_));
}

void Crew::submit(std::shared_ptr<Task> task) {
  bool alone = false, awaited = false;
  {
    const std::lock_guard<std::mutex> held(desk_->lock);
    if (desk_->closed) return task->stop();
    alone = static_cast<double>(task->left()) * desk_->pace < quick;
    awaited = desk_->lookout && desk_->tasks.empty();
    desk_->tasks.push_back(std::move(task));
    desk_->any = true;
  }
  if (!alone)
    desk_->changed.notify_all();
  else if (!awaited)
    desk_->changed.notify_one();
}

std::uint64_t Crew::wait(std::uint64_t seen, double seconds) {
  std::unique_lock<std::mutex> held(desk_->lock);
  desk_->happened.wait_for(held, lasting(seconds), [&] { return desk_->events != seen || desk_->closed; });
  return desk_->events;
}

void Crew::ring() {
  {
    const std::lock_guard<std::mutex> held(desk_->lock);
    ++desk_->events;
  }
  desk_->happened.notify_all();
}

bool Crew::close(double seconds) {
  std::unique_lock<std::mutex> held(desk_->lock);
  desk_->closed = true;
  for (const std::shared_ptr<Task>& task : desk_->tasks) task->stop();
  desk_->changed.notify_all();
  desk_->happened.notify_all();
  const bool ended = desk_->happened.wait_for(held, lasting(seconds), [&] { return desk_->serving == 0; });
  // Of two that close at once, one gets them.
  std::vector<std::thread> threads = std::exchange(threads_, {});
  held.unlock();
  for (std::thread& thread : threads) ended ? thread.join() : thread.detach();
  return ended;
}

bool Crew::closed() const {
  const std::lock_guard<std::mutex> held(desk_->lock);
  return desk_->closed;
}

void Crew::serve(const std::shared_ptr<Desk>& desk) {
  name_thread();
  std::unique_lock<std::mutex> held(desk->lock);
  while (true) {
    if (desk->tasks.empty() && !desk->lookout) {
      desk->lookout = true;
      held.unlock();
      const Clock::time_point until = Clock::now() + lasting(patience);
      while (!desk->any && Clock::now() < until) std::this_thread::yield();
      held.lock();
      desk->lookout = false;
    }
    desk->changed.wait(held, [&] { return desk->closed || !desk->tasks.empty(); });
    if (desk->closed) break;
    const std::shared_ptr<Task> task = desk->tasks.front();
    if (static_cast<double>(task->left()) * desk->pace < quick) {
      desk->tasks.pop_front();
      desk->any = !desk->tasks.empty();
    }
    held.unlock();
    const Clock::time_point began = Clock::now();
    const std::size_t rows = task->run();
    const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
    const bool finished = task->finished();
    held.lock();
    if (rows > 0) desk->pace = seconds / static_cast<double>(rows);
    // None of its rows is left: to the next, while another thread may still be at its last row.
    if (!desk->tasks.empty() && desk->tasks.front() == task) desk->tasks.pop_front();
    desk->any = !desk->tasks.empty();
    if (finished) {
      ++desk->events;
      desk->happened.notify_all();
    }
  }
  --desk->serving;
  desk->happened.notify_all();
}

}  // namespace headrace
