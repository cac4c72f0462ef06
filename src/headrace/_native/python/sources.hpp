// Sources from Python's objects, as the pipeline's older entry points make them for one batch.
#pragma once

#include "bindings.hpp"

namespace headrace {

using Bytes = Array<std::uint8_t>;
using Begins = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

HeldSource files_source(Bytes text, Begins begins, const nb::bytes& folder);
HeldSource bytes_source(const nb::list& images);
HeldSource arrays_source(Bytes images, bool mapped);

}  // namespace headrace
