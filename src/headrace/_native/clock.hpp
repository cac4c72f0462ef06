// Time by stage.
#pragma once

#include <chrono>

namespace headrace {

using Clock = std::chrono::steady_clock;

// Seconds since `then`, which becomes now.
inline double since(Clock::time_point& then) {
  const Clock::time_point now = Clock::now();
  const double seconds = std::chrono::duration<double>(now - then).count();
  then = now;
  return seconds;
}

}  // namespace headrace
