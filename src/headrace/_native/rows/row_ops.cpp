#include "row_ops.hpp"

#include <stdexcept>

namespace headrace {

extern const RowOps* const row_ops_plain;
#if HEADRACE_X86
extern const RowOps* const row_ops_avx2;
extern const BlendOps* const blend_ops_avx512;
const PlaneOps& plane_ops_avx512();
#endif

namespace {

struct Available {
  const RowOps* ops[3];
  int count = 0;
  // AVX2, with wider blends, and wider loops over the planes of any image, or in `best` of large ones alone.
  RowOps wide{}, best = *row_ops_plain;

  Available() {
    ops[count++] = row_ops_plain;
#if HEADRACE_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return;
    ops[count++] = row_ops_avx2, best = *row_ops_avx2;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512vbmi"))
      return;
    best.name = "avx512", best.blends = blend_ops_avx512, best.large_planes = &plane_ops_avx512();
    wide = best, wide.planes = best.large_planes;
    ops[count++] = &wide;
#endif
  }
};

const Available& available() {
  static const Available found;
  return found;
}

}  // namespace

const RowOps* const* row_ops_available(int* count) {
  *count = available().count;
  return available().ops;
}

const RowOps& row_ops_of(const std::string& name) {
  if (name.empty()) return available().best;
  for (int i = 0; i < available().count; ++i)
    if (name == available().ops[i]->name) return *available().ops[i];
  throw std::invalid_argument("this processor does not have the instructions " + name);
}

}  // namespace headrace
