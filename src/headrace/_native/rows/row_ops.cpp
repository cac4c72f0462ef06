#include "row_ops.hpp"

namespace headrace {

extern const RowOps* const row_ops_plain;
#if HEADRACE_X86
extern const RowOps* const row_ops_avx2;
#endif

namespace {

struct Available {
  const RowOps* ops[2];
  int count = 0;

  Available() {
    ops[count++] = row_ops_plain;
#if HEADRACE_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) ops[count++] = row_ops_avx2;
#endif
  }
};

}  // namespace

const RowOps* const* row_ops_available(int* count) {
  static const Available available;
  *count = available.count;
  return available.ops;
}

}  // namespace headrace
