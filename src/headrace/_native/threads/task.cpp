#include "task.hpp"

#include <unistd.h>

#include <algorithm>
#include <exception>
#include <new>

#include "../clock.hpp"

namespace headrace {
namespace {

// Scratch memory that a thread keeps from one batch to the next, in bytes of each buffer.
constexpr std::size_t kept = std::size_t{16} << 20;

// Bytes that a thread copies, and rows that it makes of them, before it asks what is next. Asking for a row and for the
// time both wait until all that was written is in the cache.
constexpr std::size_t little = std::size_t{64} << 10, most = 16;

}  // namespace

std::unique_ptr<Scratch> ScratchPool::lend() {
  const std::lock_guard<std::mutex> held(lock_);
  if (idle_.empty()) return std::make_unique<Scratch>();
  std::unique_ptr<Scratch> scratch = std::move(idle_.back());
  idle_.pop_back();
  return scratch;
}

void ScratchPool::take_back(std::unique_ptr<Scratch> scratch) {
  scratch->shrink_to(kept);
  const std::lock_guard<std::mutex> held(lock_);
  try {
    idle_.push_back(std::move(scratch));
  } catch (const std::bad_alloc&) {
    // One less to reuse.
  }
}

Task::Task(BatchRows rows, std::vector<std::int32_t> drawn, std::shared_ptr<ScratchPool> scratch)
    : rows_(std::move(rows)),
      made_(rows_.count()),
      drawn_(std::move(drawn)),
      scratch_(std::move(scratch)),
      pid_(::getpid()) {
  drawn_.resize(rows_.count());
  if (const std::size_t bytes = rows_.source->bytes_at_hand())
    at_once_ = std::clamp<std::size_t>(little / (bytes + rows_.recipe->row.bytes()), 1, most);
}

std::size_t Task::run(double limit) {
  {
    const std::lock_guard<std::mutex> held(lock_);
    ++busy_;
  }
  const Clock::time_point began = Clock::now();
  const Clock::time_point until = began + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(limit));
  Seconds seconds;
  std::unique_ptr<Scratch> scratch;
  std::size_t rows = 0;
  while (rows == 0 || Clock::now() < until) {
    const std::size_t first = next_.fetch_add(at_once_);
    if (first >= rows_.count()) break;
    const std::size_t end = std::min(first + at_once_, rows_.count());
    for (std::size_t row = first; row < end; ++row) make(row, scratch, seconds);
    rows += end - first;
  }
  if (scratch) scratch_->take_back(std::move(scratch));
  // Pixels in memory are neither read nor decoded, and too quickly made for a clock at each row.
  if (rows > 0 && seconds.read + seconds.decode + seconds.transform == 0)
    seconds.transform = std::chrono::duration<double>(Clock::now() - began).count();
  const std::lock_guard<std::mutex> held(lock_);
  seconds_.read += seconds.read, seconds_.decode += seconds.decode, seconds_.transform += seconds.transform;
  if (--busy_ == 0) idle_.notify_all();
  return rows;
}

void Task::make(std::size_t row, std::unique_ptr<Scratch>& scratch, Seconds& seconds) {
  try {
    if (!scratch) scratch = scratch_->lend();
    made_[row] = rows_.make(row, *scratch, seconds, drawn_[row]);
    if (made_[row] || scratch->reading.failure.kind == ReadFailure::none) return;
    const std::lock_guard<std::mutex> held(lock_);
    failures_.emplace_back(row, scratch->reading.failure);
  } catch (const std::exception&) {
    // Too little memory: the step-by-step path says so.
  }
}

void Task::wait() {
  std::unique_lock<std::mutex> held(lock_);
  idle_.wait(held, [this] { return busy_ == 0; });
}

bool Task::finished() {
  const std::lock_guard<std::mutex> held(lock_);
  return next_ >= rows_.count() && busy_ == 0;
}

std::size_t Task::left() const { return rows_.count() - std::min<std::size_t>(rows_.count(), next_); }

std::vector<std::size_t> Task::missing() const {
  std::vector<std::size_t> rows;
  for (std::size_t i = 0; i < rows_.count(); ++i)
    if (!made_[i]) rows.push_back(i);
  return rows;
}

Task::Failures Task::failures() {
  const std::lock_guard<std::mutex> held(lock_);
  return failures_;
}

Seconds Task::seconds() {
  const std::lock_guard<std::mutex> held(lock_);
  return seconds_;
}

bool Task::ours() const { return ::getpid() == pid_; }

}  // namespace headrace
