// What the items of a list or a tuple have in common: asked of every batch, whose samples are many and small.
#include "bindings.hpp"

namespace headrace {
namespace {

// The items of a sequence. Code that an attribute runs may change a list meanwhile, so each is held while it is looked at.
class Items {
 public:
  explicit Items(nb::handle sequence)
      : held_(nb::steal(PySequence_Fast(sequence.ptr(), "items are a sequence"))), guard_(held_) {
    if (!held_.is_valid()) throw nb::python_error();
  }
  Py_ssize_t size() const { return PySequence_Fast_GET_SIZE(held_.ptr()); }
  nb::object operator[](Py_ssize_t i) const { return nb::borrow(PySequence_Fast_GET_ITEM(held_.ptr(), i)); }
  PyTypeObject* type(Py_ssize_t i) const { return Py_TYPE(PySequence_Fast_GET_ITEM(held_.ptr(), i)); }

 private:
  nb::object held_;
  nb::ft_object_guard guard_;
};

// The type of all items; None where they have several, or there are none.
nb::object one_type(nb::handle sequence) {
  const Items items(sequence);
  if (items.size() == 0) return nb::none();
  PyTypeObject* const type = items.type(0);
  for (Py_ssize_t i = 1; i < items.size(); ++i)
    if (items.type(i) != type) return nb::none();
  return nb::borrow(reinterpret_cast<PyObject*>(type));
}

// The value that an attribute has in all items; None where it differs, or there are none.
nb::object in_common(nb::handle sequence, nb::str name) {
  const Items items(sequence);
  if (items.size() == 0) return nb::none();
  const nb::object value = nb::getattr(items[0], name);
  for (Py_ssize_t i = 1; i < items.size(); ++i) {
    const nb::object other = nb::getattr(items[i], name);
    if (other.is(value)) continue;
    const int same = PyObject_RichCompareBool(other.ptr(), value.ptr(), Py_EQ);
    if (same < 0) throw nb::python_error();
    if (same == 0) return nb::none();
  }
  return value;
}

// The values of an attribute, without None and without those that are the same object as the one before.
nb::list values(nb::handle sequence, nb::str name) {
  const Items items(sequence);
  nb::list found;
  nb::object last = nb::none();
  for (Py_ssize_t i = 0; i < items.size(); ++i) {
    nb::object value = nb::getattr(items[i], name);
    if (value.is_none() || value.is(last)) continue;
    found.append(value);
    last = std::move(value);
  }
  return found;
}

}  // namespace

void bind_items(nb::module_& module) {
  module.def("one_type", &one_type, nb::arg("items"), "The type of all items; None where they have several, or there are none.");
  module.def("in_common", &in_common, nb::arg("items"), nb::arg("name"),
             "The value that an attribute has in all items; None where it differs, or there are none.");
  module.def("values", &values, nb::arg("items"), nb::arg("name"),
             "The values of an attribute, without None and without repetitions of the one before.");
}

}  // namespace headrace
