#include "row_ops.hpp"

#include <stdexcept>

namespace headrace {

extern const RowOps* const row_ops_plain;
#if HEADRACE_X86
extern const RowOps* const row_ops_avx2;
extern const BlendOps* const blend_ops_avx512;
#endif

namespace {

struct Available {
  const RowOps* ops[3];
  int count = 0;
  // AVX2, with wider blends.
  RowOps wide{};

  Available() {
    ops[count++] = row_ops_plain;
#if HEADRACE_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return;
    ops[count++] = row_ops_avx2;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512vbmi")) return;
    wide = *row_ops_avx2, wide.name = "avx512", wide.blends = blend_ops_avx512;
    ops[count++] = &wide;
#endif
  }
};

}  // namespace

const RowOps* const* row_ops_available(int* count) {
  static const Available available;
  *count = available.count;
  return available.ops;
}

const RowOps& row_ops_of(const std::string& name) {
  int count = 0;
  const RowOps* const* ops = row_ops_available(&count);
  if (name.empty()) return *ops[count - 1];
  for (int i = 0; i < count; ++i)
    if (name == ops[i]->name) return *ops[i];
  throw std::invalid_argument("this processor does not have the instructions " + name);
}

}  // namespace headrace
