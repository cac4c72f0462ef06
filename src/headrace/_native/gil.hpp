// Without the GIL, and back, in threads that Python may end meanwhile.
#pragma once

#include <Python.h>
#include <unistd.h>

namespace headrace {

// Up to 3.13, Python ends a daemon thread that asks for the GIL at exit by unwinding its stack: in C++, that would end the
// process ("terminate called without an active exception"). From 3.14 on it lets such a thread hang, as is done here.
template <class Call>
auto or_hang(Call&& call) {
  try {
    return call();
  } catch (...) {  // calls into C: nothing else comes out of them
    while (true) ::pause();
  }
}

class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked() {
    or_hang([this] { PyEval_RestoreThread(state_); });
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

// Whether a signal's handler has raised.
inline bool interrupted() {
  return or_hang([] { return PyErr_CheckSignals(); }) != 0;
}

}  // namespace headrace
