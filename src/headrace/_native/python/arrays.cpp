// Functions over arrays that are no images.
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "../checksum/crc32c.hpp"
#include "../packing/best_fit.hpp"
#include "../source/fault_guard.hpp"
#include "bindings.hpp"
#include "gil.hpp"

namespace headrace {
namespace {

// Write the indices in a list; false unless all of them are numbers from 0 up to `length`.
bool indices(const nb::list& keys, std::int64_t length, nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> out) {
  const std::size_t count = nb::len(keys);
  if (out.size() != count) throw std::invalid_argument("out is of another length than keys");
  for (std::size_t i = 0; i < count; ++i) {
    PyObject* const key = PyList_GetItem(keys.ptr(), static_cast<Py_ssize_t>(i));
    if (key == nullptr) throw nb::python_error();
    if (!PyLong_CheckExact(key)) return false;
    int overflow = 0;
    const long long number = PyLong_AsLongLongAndOverflow(key, &overflow);
    if (overflow != 0 || number < 0 || number >= length) return false;
    out.data()[i] = number;
  }
  return true;
}

// The memory of a Python object, held while this lives.
class Buffer {
 public:
  Buffer(nb::handle object, int flags) {
    if (PyObject_GetBuffer(object.ptr(), &view_, flags) != 0) throw nb::python_error();
  }
  ~Buffer() { PyBuffer_Release(&view_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  const Py_buffer* operator->() const { return &view_; }

 private:
  Py_buffer view_;
};

Layout layout_of(const Buffer& array) {
  if (array->ndim < 1 || array->ndim > Layout::most) throw std::invalid_argument("no array with rows");
  Layout layout{};
  layout.data = static_cast<const std::uint8_t*>(array->buf);
  layout.rows = static_cast<std::size_t>(array->shape[0]);
  layout.stride = array->strides[0];
  layout.itemsize = layout.row_bytes = static_cast<std::size_t>(array->itemsize);
  layout.dimensions = array->ndim - 1;
  bool together = true;
  for (int i = layout.dimensions - 1; i >= 0; --i) {
    layout.shape[i] = static_cast<std::size_t>(array->shape[i + 1]), layout.strides[i] = array->strides[i + 1];
    together = together && layout.strides[i] == static_cast<std::ptrdiff_t>(layout.row_bytes);
    layout.row_bytes *= layout.shape[i];
  }
  if (together) layout.dimensions = 0;
  return layout;
}

// Copy rows of a memory-mapped array; -1, or the index of the first key whose row cannot be read.
std::int64_t gather(nb::handle array, Array<std::int64_t> keys, nb::handle out) {
  const Buffer from(array, PyBUF_STRIDED_RO), to(out, PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE);
  const Layout layout = layout_of(from);
  const std::size_t count = keys.size();
  if (static_cast<std::size_t>(to->len) != count * layout.row_bytes)
    throw std::invalid_argument("out is of another size than its rows");
  guard_faults();
  const GilRelease released;
  const std::size_t made = gather_guarded(static_cast<std::uint8_t*>(to->buf), layout, keys.data(), count);
  return made == count ? -1 : static_cast<std::int64_t>(made);
}

using Words = nb::ndarray<std::uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Apply the network to places that share a base and a tweak, side by side: each round waits for the one before.
template <std::size_t abreast>
void permute_some(std::uint64_t* places, const Array<std::uint64_t>& rounds, std::uint64_t base, std::uint64_t tweak) {
  std::uint64_t left[abreast], right[abreast];
  for (std::size_t i = 0; i < abreast; ++i) left[i] = places[i] / base, right[i] = places[i] % base;
  const std::uint64_t* const end = rounds.data() + rounds.size();
  for (const std::uint64_t* words = rounds.data(); words < end; words += 3)
    for (std::size_t i = 0; i < abreast; ++i) {
      std::uint64_t hashed = right[i] * words[0] + (words[2] ^ tweak);
      hashed = (hashed ^ hashed >> 32) * words[1];
      std::uint64_t moved = left[i] + ((hashed >> 32) * base >> 32);
      moved = std::min(moved, moved - base);  // back below the base: a negative number wraps to a large one
      left[i] = right[i], right[i] = moved;
    }
  for (std::size_t i = 0; i < abreast; ++i) places[i] = left[i] * base + right[i];
}

// The permutation of headrace.plan.permutation, in place: one base and one tweak for all places, or one for each.
void permute(Words places, Array<std::uint64_t> rounds, Array<std::uint64_t> bases, Array<std::uint64_t> tweaks) {
  const std::size_t count = places.size();
  const std::size_t one_base = bases.size() == 1 ? 0 : 1, one_tweak = tweaks.size() == 1 ? 0 : 1;
  if (rounds.ndim() != 2 || rounds.shape(1) != 3) throw std::invalid_argument("rounds are rows of three words");
  if ((one_base && bases.size() != count) || (one_tweak && tweaks.size() != count))
    throw std::invalid_argument("bases and tweaks are one, or one for each place");
  const GilRelease released;
  std::uint64_t* const data = places.data();
  std::size_t i = 0;
  if (!one_base && !one_tweak)
    for (; i + 4 <= count; i += 4) permute_some<4>(data + i, rounds, bases.data()[0], tweaks.data()[0]);
  for (; i < count; ++i) permute_some<1>(data + i, rounds, bases.data()[i * one_base], tweaks.data()[i * one_tweak]);
}

// The row of each length, as headrace.plan.packing has it.
void pack(Array<std::int64_t> lengths, std::int64_t room, nb::ndarray<std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> rows) {
  const std::size_t count = lengths.size();
  if (rows.size() != count) throw std::invalid_argument("rows is of another length than lengths");
  if (room < 0 || room >= std::int64_t{1} << 30 || count >= std::size_t{1} << 31)
    throw std::invalid_argument("too much room, or too many lengths");
  for (std::size_t i = 0; i < count; ++i)
    if (lengths.data()[i] < 0 || lengths.data()[i] > room) throw std::invalid_argument("a length does not fit a row");
  const GilRelease released;
  best_fit(lengths.data(), count, static_cast<std::size_t>(room), rows.data());
}

// The CRC-32C of bytes; `tables`: without the processor's instruction.
std::uint32_t checksum(const nb::bytes& data, bool tables) {
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(data.c_str());
  const std::size_t size = data.size();
  if (size < 4096) return tables ? crc32c_by_tables(bytes, size) : crc32c(bytes, size);
  const GilRelease released;
  return tables ? crc32c_by_tables(bytes, size) : crc32c(bytes, size);
}

}  // namespace

void bind_arrays(nb::module_& module) {
  module.def("indices", &indices, nb::arg("keys"), nb::arg("length"), nb::arg("out"),
             "Write the indices in a list; False unless all of them are numbers from 0 up to `length`.");
  module.def("gather", &gather, nb::arg("array"), nb::arg("keys"), nb::arg("out"),
             "Copy rows of a memory-mapped array; -1, or the index of the first key whose row cannot be read.");
  module.def("survive_faults", &survive_faults, nb::arg("on"),
             "Let this thread live through reads of mapped files that were cut short; return what was set before.");
  module.def("take_fault", [] { return reinterpret_cast<std::uintptr_t>(take_fault()); },
             "The address of a read since the last call, by any thread, that gave zeros for what was cut off; or 0.");
  module.def("permute", &permute, nb::arg("places"), nb::arg("rounds"), nb::arg("bases"), nb::arg("tweaks"),
             "Permute places, in place.");
  module.def("best_fit", &pack, nb::arg("lengths"), nb::arg("room"), nb::arg("rows"),
             "Write the row of each length: the fullest that has room for it, or a new one.");
  module.def("crc32c", &checksum, nb::arg("data"), nb::arg("tables") = false,
             "The CRC-32C of bytes, as TFRecord files have it.");
}

}  // namespace headrace
