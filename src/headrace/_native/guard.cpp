#include "guard.hpp"

#include <setjmp.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>

namespace headrace {
namespace {

// Where to go on after a fault in this thread; null: the fault is not ours.
thread_local sigjmp_buf* volatile way_out = nullptr;

struct sigaction before;
std::atomic<bool> dying{false};

void as_by_default() {
  struct sigaction none{};
  none.sa_handler = SIG_DFL;
  sigaction(SIGBUS, &none, nullptr);
}

void on_fault(int number, siginfo_t* info, void* context) {
  if (way_out != nullptr) siglongjmp(*way_out, 1);
  // A crash of somebody else's: whoever had the signal before gets it, and the default comes after him. He may name us
  // as the one before him, and would be asked without end.
  if (dying.exchange(true)) {
    as_by_default();
    raise(number);
    return;
  }
  if (info->si_code > 0) {
    sigaction(SIGBUS, &before, nullptr);  // the instruction faults again
    return;
  }
  if ((before.sa_flags & SA_SIGINFO) != 0) {
    before.sa_sigaction(number, info, context);
  } else if (before.sa_handler == SIG_DFL) {
    as_by_default();
    raise(number);
  } else if (before.sa_handler != SIG_IGN) {
    before.sa_handler(number);
  }
  dying = false;
}

bool is_ours(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == on_fault;
}

// Between sigsetjmp and the fault nothing may be on the stack that has to be destroyed.
class Guarded {
 public:
  explicit Guarded(sigjmp_buf& out) {
    way_out = &out;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  static void end() {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    way_out = nullptr;
  }
};

std::uint8_t* copy_strided(std::uint8_t* to, const std::uint8_t* from, const Layout& layout, int dimension) {
  if (dimension == layout.dimensions) {
    std::memcpy(to, from, layout.itemsize);
    return to + layout.itemsize;
  }
  for (std::size_t i = 0; i < layout.shape[dimension]; ++i)
    to = copy_strided(to, from + static_cast<std::ptrdiff_t>(i) * layout.strides[dimension], layout, dimension + 1);
  return to;
}

// Ask for a row before it is needed: the processor foresees no jump through the array.
void fetch(const std::uint8_t* row, std::size_t size) {
  constexpr std::size_t line = 64, most = std::size_t{16} << 10;
  for (std::size_t at = 0; at < std::min(size, most); at += line) __builtin_prefetch(row + at, 0, 2);
}

}  // namespace

bool copy_guarded(std::uint8_t* to, const std::uint8_t* from, std::size_t size) {
  sigjmp_buf out;
  if (sigsetjmp(out, 0) != 0) {
    Guarded::end();
    return false;
  }
  const Guarded here(out);
  std::memcpy(to, from, size);
  Guarded::end();
  return true;
}

std::size_t gather_guarded(std::uint8_t* to, const Layout& from, const std::int64_t* keys, std::size_t count) {
  sigjmp_buf out;
  volatile std::size_t at = 0;
  if (sigsetjmp(out, 0) != 0) {
    Guarded::end();
    return at;
  }
  const Guarded here(out);
  for (std::size_t i = 0; i < count; ++i) {
    at = i;
    if (keys[i] < 0 || static_cast<std::size_t>(keys[i]) >= from.rows) break;
    const std::uint8_t* const row = from.data + keys[i] * from.stride;
    if (from.dimensions == 0) {
      if (i + 1 < count && keys[i + 1] >= 0 && static_cast<std::size_t>(keys[i + 1]) < from.rows)
        fetch(from.data + keys[i + 1] * from.stride, from.row_bytes);
      std::memcpy(to + i * from.row_bytes, row, from.row_bytes);
    } else {
      copy_strided(to + i * from.row_bytes, row, from, 0);
    }
    at = i + 1;
  }
  Guarded::end();
  return at;
}

void watch() {
  static std::mutex lock;
  struct sigaction now;
  if (sigaction(SIGBUS, nullptr, &now) != 0 || is_ours(now)) return;
  const std::lock_guard<std::mutex> held(lock);
  if (sigaction(SIGBUS, nullptr, &now) != 0 || is_ours(now)) return;
  before = now;
  struct sigaction ours{};
  ours.sa_sigaction = on_fault;
  ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  sigemptyset(&ours.sa_mask);
  sigaction(SIGBUS, &ours, nullptr);
}

}  // namespace headrace
