#include "rows.hpp"

namespace headrace {
namespace plain {

#define NAME "plain"
#include "rows_body.hpp"

}  // namespace plain

extern const Rows* const rows_plain = &plain::rows;

}  // namespace headrace
