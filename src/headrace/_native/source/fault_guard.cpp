#include "fault_guard.hpp"

#include <setjmp.h>
#include <signal.h>

#include <atomic>
#include <cstring>
#include <mutex>

#include "../buffer.hpp"

namespace headrace {
namespace {

// Where this thread continues after a fault; null: the fault is not ours.
thread_local sigjmp_buf* volatile escape = nullptr;

struct sigaction before;
std::atomic<bool> dying{false};

void restore_default() {
  struct sigaction none{};
  none.sa_handler = SIG_DFL;
  sigaction(SIGBUS, &none, nullptr);
}

void on_fault(int number, siginfo_t* info, void* context) {
  if (escape != nullptr) siglongjmp(*escape, 1);
  // Not ours: the handler before us gets it, and after that the default. If that handler calls us back, end here.
  if (dying.exchange(true)) {
    restore_default();
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
    restore_default();
    raise(number);
  } else if (before.sa_handler != SIG_IGN) {
    before.sa_handler(number);
  }
  dying = false;
}

bool is_ours(const struct sigaction& action) {
  return (action.sa_flags & SA_SIGINFO) != 0 && action.sa_sigaction == on_fault;
}

// While it lives, a fault in this thread jumps to `out`. Nothing on the stack between may need a destructor.
class FaultScope {
 public:
  explicit FaultScope(sigjmp_buf& out) {
    escape = &out;
    std::atomic_signal_fence(std::memory_order_seq_cst);
  }
  static void end() {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    escape = nullptr;
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

}  // namespace

bool copy_guarded(std::uint8_t* to, const std::uint8_t* from, std::size_t size) {
  sigjmp_buf out;
  if (sigsetjmp(out, 0) != 0) {
    FaultScope::end();
    return false;
  }
  const FaultScope here(out);
  std::memcpy(to, from, size);
  FaultScope::end();
  return true;
}

std::size_t gather_guarded(std::uint8_t* to, const Layout& from, const std::int64_t* keys, std::size_t count) {
  sigjmp_buf out;
  volatile std::size_t at = 0;
  if (sigsetjmp(out, 0) != 0) {
    FaultScope::end();
    return at;
  }
  const FaultScope here(out);
  for (std::size_t i = 0; i < count; ++i) {
    at = i;
    if (keys[i] < 0 || static_cast<std::size_t>(keys[i]) >= from.rows) break;
    const std::uint8_t* const row = from.data + keys[i] * from.stride;
    if (from.dimensions == 0) {
      if (i + 1 < count && keys[i + 1] >= 0 && static_cast<std::size_t>(keys[i + 1]) < from.rows)
        prefetch(from.data + keys[i + 1] * from.stride, from.row_bytes);
      std::memcpy(to + i * from.row_bytes, row, from.row_bytes);
    } else {
      copy_strided(to + i * from.row_bytes, row, from, 0);
    }
    at = i + 1;
  }
  FaultScope::end();
  return at;
}

void guard_faults() {
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
