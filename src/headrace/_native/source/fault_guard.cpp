#include "fault_guard.hpp"

#include <setjmp.h>
#include <signal.h>
#ifdef __linux__
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "../buffer.hpp"

namespace headrace {
namespace {

// Where this thread continues after a fault; null: the fault is not ours.
thread_local sigjmp_buf* volatile escape = nullptr;

struct sigaction before;
std::atomic<bool> dying{false};

// A page that could not be read is exchanged for one of zeros, so that the instruction can end; the mapping of the file
// is kept elsewhere, and put back when the sample is given up.
#ifdef __linux__
struct Exchange {
  enum State { free, busy, held };
  std::atomic<int> state{free};
  void* page;
  void* kept;
};

constexpr std::size_t most_pages = 4096;
constexpr int most_tries = 10000;
const std::size_t page_size = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
Exchange exchanges[most_pages];
// Counts pages exchanged, and pages put back: whoever made a sample while it moved may have read zeros.
std::atomic<std::uint64_t> moved{0};
std::atomic<int> held{0};
std::atomic<const void*> last_fault{nullptr};
thread_local bool surviving = false;
thread_local std::uint64_t seen = 0;
thread_local const void* stuck_page = nullptr;
thread_local int stuck = 0;

// Called in the handler: system calls only.
bool exchange_page(void* address) {
  const std::size_t size = page_size;
  void* const page = reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(address) / size * size);
  for (Exchange& one : exchanges) {
    int expected = Exchange::free;
    if (!one.state.compare_exchange_strong(expected, Exchange::busy)) continue;
    one.page = page;
    one.kept = mremap(page, 0, size, MREMAP_MAYMOVE);  // size 0: a second mapping of the same page of the file
    if (one.kept == MAP_FAILED) {
      // Another thread has exchanged the page, or puts it back, just now: try again. Or it can have no second mapping.
      one.state = Exchange::free;
      if (stuck_page != page) stuck_page = page, stuck = 0;
      sched_yield();
      return ++stuck < most_tries;
    }
    stuck_page = nullptr;
    last_fault = address;
    ++held, ++moved;  // before anybody can read zeros
    const bool mapped =
        mmap(page, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
    if (mapped) {
      madvise(page, size, MADV_WIPEONFORK);  // both together mark the page as ours
      madvise(page, size, MADV_DONTDUMP);
      one.state = Exchange::held;
    } else {
      --held;
      munmap(one.kept, size);
      one.state = Exchange::free;
    }
    return mapped;
  }
  return false;
}

using Range = std::pair<std::uintptr_t, std::uintptr_t>;

// Where pages lie that were put in place of others: Linux lists the flags that mark them.
std::vector<Range> exchanged_ranges() {
  std::vector<Range> found;
  std::ifstream smaps("/proc/self/smaps");
  Range range;
  for (std::string line; std::getline(smaps, line);) {
    unsigned long begin = 0, end = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2)
      range = {begin, end};
    else if (line.rfind("VmFlags:", 0) == 0 && line.find(" dd") != std::string::npos &&
             line.find(" wf") != std::string::npos)
      found.push_back(range);
  }
  return found;
}

void put_back_pages() {
  static std::mutex lock;
  const std::lock_guard<std::mutex> alone(lock);
  const std::vector<Range> ours = exchanged_ranges();
  for (Exchange& one : exchanges) {
    int expected = Exchange::held;
    if (!one.state.compare_exchange_strong(expected, Exchange::busy)) continue;
    const auto page = reinterpret_cast<std::uintptr_t>(one.page);
    if (std::any_of(ours.begin(), ours.end(), [&](const Range& r) { return r.first <= page && page < r.second; })) {
      mremap(one.kept, page_size, page_size, MREMAP_MAYMOVE | MREMAP_FIXED, one.page);
    } else {
      munmap(one.kept, page_size);  // the map was closed meanwhile, and its memory may be somebody's
    }
    ++moved, --held;
    one.state = Exchange::free;
  }
}
#endif

void restore_default() {
  struct sigaction none{};
  none.sa_handler = SIG_DFL;
  sigaction(SIGBUS, &none, nullptr);
}

void on_fault(int number, siginfo_t* info, void* context) {
  if (escape != nullptr) siglongjmp(*escape, 1);
#ifdef __linux__
  if (surviving && info->si_code == BUS_ADRERR) {
    const int before_call = errno;
    const bool exchanged = exchange_page(info->si_addr);
    errno = before_call;
    if (exchanged) return;
  }
#endif
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

bool survive_faults(bool on) {
#ifdef __linux__
  const bool was = surviving;
  if (on) guard_faults();
  if (on && !was) seen = moved;
  surviving = on;
  return was;
#else
  return on && false;
#endif
}

const void* take_fault() {
#ifdef __linux__
  if (held == 0 && moved == seen) return nullptr;
  put_back_pages();
  seen = moved;
  return last_fault;
#else
  return nullptr;
#endif
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
