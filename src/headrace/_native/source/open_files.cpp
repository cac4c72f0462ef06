#include "open_files.hpp"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <utility>

namespace headrace {
namespace {

std::int64_t time_of(const struct stat& found) {
#if defined(__APPLE__)
  const struct timespec& time = found.st_mtimespec;
#else
  const struct timespec& time = found.st_mtim;
#endif
  return static_cast<std::int64_t>(time.tv_sec) * 1000000000 + time.tv_nsec;
}

// File systems date changes in ticks of up to 10 ms: a file that was written to just now may change again without a new
// date. Wait until its date is older than that.
void let_settle(int descriptor) {
  constexpr std::int64_t tick = 20000000;
  struct stat found;
  struct timespec now;
  if (::fstat(descriptor, &found) != 0 || ::clock_gettime(CLOCK_REALTIME, &now) != 0) return;
  const std::int64_t age = static_cast<std::int64_t>(now.tv_sec) * 1000000000 + now.tv_nsec - time_of(found);
  if (age < 0 || age >= tick) return;
  const struct timespec rest{0, static_cast<long>(tick - age)};
  ::nanosleep(&rest, nullptr);
}

bool fail(ReadFailure& failure, ReadFailure::Kind kind, int error, std::int64_t found) {
  failure.kind = kind, failure.error = error, failure.found = found;
  return false;
}

}  // namespace

int open_to_read(const char* path) {
  while (true) {
    const int descriptor = ::open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (descriptor >= 0 || errno != EINTR) return descriptor;
  }
}

FileFacts FileFacts::of(const struct stat& found) {
  return {static_cast<std::int64_t>(found.st_size), time_of(found), static_cast<std::int64_t>(found.st_dev),
          static_cast<std::int64_t>(found.st_ino)};
}

ReadFailure::Kind FileFacts::compare(const FileFacts& now) const {
  if (device >= 0 && inode >= 0 && (now.device != device || now.inode != inode)) return ReadFailure::replaced;
  if (size >= 0 && now.size < size) return ReadFailure::cut_short;
  if ((size >= 0 && now.size != size) || (modified_ns >= 0 && now.modified_ns != modified_ns)) return ReadFailure::changed;
  return ReadFailure::none;
}

OpenFile::~OpenFile() { ::close(descriptor_); }

bool OpenFile::check(FileFacts& known, ReadFailure& failure) {
  struct stat found;
  if (::fstat(descriptor_, &found) != 0) return fail(failure, ReadFailure::unreadable, errno, -1);
  facts_ = FileFacts::of(found);
  linked_ = found.st_nlink > 0;
  if (S_ISDIR(found.st_mode)) return fail(failure, ReadFailure::unreadable, EISDIR, -1);
  if (!S_ISREG(found.st_mode)) return fail(failure, ReadFailure::unreadable, EINVAL, -1);
  const ReadFailure::Kind change = known.compare(facts_);
  if (change != ReadFailure::none) return fail(failure, change, 0, facts_.size);
  known = facts_;
  return true;
}

bool OpenFile::read(std::int64_t offset, std::int64_t length, std::uint8_t* to, ReadFailure& failure) const {
  std::int64_t got = 0;
  while (got < length) {
    const ssize_t more = ::pread(descriptor_, to + got, static_cast<std::size_t>(length - got), offset + got);
    if (more < 0 && errno == EINTR) continue;
    if (more < 0) return fail(failure, ReadFailure::unreadable, errno, -1);
    if (more == 0) break;
    got += more;
  }
  // After the read: whoever wrote to the file before it has changed its time by now.
  struct stat found;
  if (::fstat(descriptor_, &found) != 0) return fail(failure, ReadFailure::unreadable, errno, -1);
  const FileFacts now = FileFacts::of(found);
  if (linked_ && found.st_nlink == 0) return fail(failure, ReadFailure::removed, 0, now.size);
  const ReadFailure::Kind change = facts_.compare(now);
  if (change != ReadFailure::none) return fail(failure, change, 0, now.size);
  return got == length || fail(failure, ReadFailure::cut_short, 0, now.size);
}

// A forked child makes a state of its own: a thread that held the lock in the parent does not exist in the child.
struct OpenFiles::State {
  struct Held {
    std::int64_t file;
    std::uint64_t used;
    std::shared_ptr<const OpenFile> open;
  };

  explicit State(std::vector<FileFacts> known) : facts(std::move(known)), pid(::getpid()) {}

  std::mutex lock;
  std::vector<Held> held;
  std::uint64_t uses = 0;
  std::vector<FileFacts> facts;  // by file
  int pid;
  std::unique_ptr<State> previous;
};

OpenFiles::OpenFiles(Paths paths, std::vector<FileFacts> facts, std::size_t capacity)
    : paths_(std::move(paths)), capacity_(std::max<std::size_t>(1, capacity)), state_(nullptr) {
  facts.resize(static_cast<std::size_t>(paths_.count()));
  state_ = new State(std::move(facts));
}

OpenFiles::~OpenFiles() { delete state_.load(); }

OpenFiles::State& OpenFiles::state() const {
  State* state = state_.load();
  while (state->pid != ::getpid()) {
    auto fresh = std::make_unique<State>(state->facts);
    if (!state_.compare_exchange_strong(state, fresh.get())) continue;
    fresh->previous.reset(state);
    state = fresh.release();
  }
  return *state;
}

std::shared_ptr<const OpenFile> OpenFiles::open(std::int64_t file, ReadFailure& failure) const {
  State& state = this->state();
  {
    const std::lock_guard<std::mutex> held(state.lock);
    for (State::Held& one : state.held)
      if (one.file == file) {
        one.used = ++state.uses;
        return one.open;
      }
  }
  const std::shared_ptr<OpenFile> fresh = open_new(state, file, failure);
  if (!fresh) return nullptr;
  std::shared_ptr<const OpenFile> dropped;  // closed after the lock is let go of
  const std::lock_guard<std::mutex> held(state.lock);
  if (!fresh->check(state.facts[static_cast<std::size_t>(file)], failure)) return nullptr;
  for (State::Held& one : state.held)
    if (one.file == file) return one.open;  // another thread was quicker
  if (state.held.size() >= capacity_) {
    const auto oldest = std::min_element(state.held.begin(), state.held.end(),
                                         [](const State::Held& a, const State::Held& b) { return a.used < b.used; });
    dropped = std::move(oldest->open);
    *oldest = {file, ++state.uses, fresh};
  } else {
    state.held.push_back({file, ++state.uses, fresh});
  }
  return fresh;
}

std::shared_ptr<OpenFile> OpenFiles::open_new(State& state, std::int64_t file, ReadFailure& failure) const {
  const std::string path = paths_.path(file);
  int descriptor = path.empty() ? (errno = ENOENT, -1) : open_to_read(path.c_str());
  if (descriptor < 0 && (errno == EMFILE || errno == ENFILE)) {
    // The process has run out of descriptors: close those that no thread reads from.
    std::vector<State::Held> idle;
    {
      const std::lock_guard<std::mutex> held(state.lock);
      idle.swap(state.held);
    }
    idle.clear();
    descriptor = open_to_read(path.c_str());
  }
  if (descriptor >= 0) {
    auto open = std::make_shared<OpenFile>(descriptor);
    let_settle(descriptor);
    return open;
  }
  const int error = errno;
  fail(failure, error == ENOENT || error == ENOTDIR ? ReadFailure::missing : ReadFailure::unreadable, error, -1);
  return nullptr;
}

std::size_t OpenFiles::held() const {
  State& state = this->state();
  const std::lock_guard<std::mutex> held(state.lock);
  return state.held.size();
}

}  // namespace headrace
