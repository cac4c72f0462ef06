// Letting go of the GIL and taking it back, in threads that Python may end meanwhile.
#pragma once

#include <Python.h>
#include <unistd.h>

namespace headrace {

// Up to 3.13, Python ends a daemon thread that asks for the GIL at exit by unwinding its stack. In C++ that would end the
// process ("terminate called without an active exception"). From 3.14 on such a thread hangs, and here it does always.
template <class Call>
auto or_hang(Call&& call) {
  try {
    return call();
  } catch (...) {  // calls into C: nothing else comes out of them
    while (true) ::pause();
  }
}

class GilRelease {
 public:
  GilRelease() : state_(PyEval_SaveThread()) {}
  ~GilRelease() {
    or_hang([this] { PyEval_RestoreThread(state_); });
  }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_;
};

// Whether a signal's handler has raised.
inline bool interrupted() {
  return or_hang([] { return PyErr_CheckSignals(); }) != 0;
}

}  // namespace headrace
