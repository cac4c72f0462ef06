#include "rows.hpp"

#include <immintrin.h>
namespace headrace {
namespace avx512 {

#define NAME "avx512"
#include "rows_body.hpp"

}  // namespace avx512

extern const Rows* const rows_avx512 = &avx512::rows;

}  // namespace headrace
