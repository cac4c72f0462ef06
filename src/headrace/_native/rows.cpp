#include "rows.hpp"

namespace headrace {

extern const Rows* const rows_plain;
#if HEADRACE_X86
extern const Rows* const rows_avx2;
#endif

namespace {

struct Available {
  const Rows* rows[2];
  int count = 0;

  Available() {
    rows[count++] = rows_plain;
#if HEADRACE_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) rows[count++] = rows_avx2;
#endif
  }
};

}  // namespace

const Rows* const* rows_available(int* levels) {
  static const Available available;
  *levels = available.count;
  return available.rows;
}

}  // namespace headrace
