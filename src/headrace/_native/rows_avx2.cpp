#include "rows.hpp"

#include <immintrin.h>
namespace headrace {
namespace avx2 {

#define NAME "avx2"
#include "rows_body.hpp"

}  // namespace avx2

extern const Rows* const rows_avx2 = &avx2::rows;

}  // namespace headrace
