"""Samples of any nested shape become one batch of the same shape, with arrays for leaves.

The container rules are those of torch's ``default_collate`` (torch.utils.data._utils.collate), with NumPy arrays
where it makes tensors; two things differ, knowingly: a key that only some of the samples have is an error
rather than dropped, and arrays of different dtypes are promoted by NumPy's rules.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from headrace.collate.landing import column_of
from headrace.errors import CollateError, CollateTypeError

if TYPE_CHECKING:
    from headrace.work import Empty


class Collate(Protocol):
    """Samples -> batch. Arrays of any size are best made with ``empty``: memory that is lent and used again."""

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:
        """Return the batch of these samples, of which there is at least one."""
        ...


def default_collate(samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:
    """Put samples together in one batch, stacking arrays and numbers along a new first axis.

    >>> from headrace import default_collate
    >>> images, labels = default_collate([(np.zeros((2, 3)), 7), (np.ones((2, 3)), 8)])
    >>> images.shape, labels
    ((2, 2, 3), array([7, 8]))
    >>> default_collate([{"text": "a", "x": 1.5}, {"text": "b", "x": 2}])
    {'text': ['a', 'b'], 'x': array([1.5, 2. ])}

    Arrays (and what turns into one by ``__array__``: tensors) of one shape give one array of shape (N, …); ints give
    int64, floats float64, bools bool, NumPy scalars keep their dtype; str and bytes stay a list. Mappings and named
    tuples keep their type, other tuples and sequences become lists of columns (as in torch).

    Raises `CollateError` where samples do not fit together (two shapes, two lengths, another set of keys), and
    `CollateTypeError` for what cannot be put in a batch (None, arrays of Python objects, other types).
    """
    if not samples:
        raise CollateError("no samples: a batch needs at least one")
    return _collate(samples, empty, "")


def _collate(samples: Sequence[Any], empty: Empty, place: str) -> Any:
    first = samples[0]
    if isinstance(first, np.ndarray):
        return _stack(samples, empty, place)
    if isinstance(first, str | bytes):
        return list(samples)
    if isinstance(first, int | float | complex | np.generic):
        return _numbers(samples, empty, place)
    if isinstance(first, Mapping):
        return _mapping(samples, empty, place)
    if isinstance(first, Sequence):
        return _columns(samples, empty, place)
    if hasattr(first, "__array__"):
        return _stack([np.asarray(sample) for sample in samples], empty, place)
    raise CollateTypeError(
        f"{_at(place)}samples of type {_name(first)} cannot be put in a batch; "
        "give arrays, numbers, strings, mappings or sequences of them, or pass a collate_fn"
    )


def _stack(arrays: Sequence[Any], empty: Empty, place: str) -> npt.NDArray[Any]:
    column = column_of(arrays)
    if column is not None:
        return column
    first = arrays[0]
    shape, dtype = first.shape, first.dtype
    for row, array in enumerate(arrays):
        if not isinstance(array, np.ndarray) or array.shape != shape:
            found = array.shape if isinstance(array, np.ndarray) else _name(array)
            raise CollateError(
                f"{_at(place)}samples 0 and {row} of the batch differ in shape: {shape} and {found}; "
                "bring them to one shape (Resize, a crop, padding), or pass a collate_fn",
                rows=(0, row),
            )
        if array.dtype != dtype:
            dtype = np.result_type(dtype, array.dtype)
    if dtype.hasobject:
        raise CollateTypeError(
            f"{_at(place)}arrays of Python objects cannot be put in a batch; give numbers, or pass a collate_fn"
        )
    batch = empty((len(arrays), *shape), dtype)
    for row, array in enumerate(arrays):
        batch[row] = array
    return batch


def _numbers(samples: Sequence[Any], empty: Empty, place: str) -> npt.NDArray[Any]:
    try:
        values = np.asarray(samples)
    except (ValueError, TypeError):  # a number beside an array or a list
        values = np.asarray(samples, dtype=object)
    if values.dtype.kind not in "biufcmM" or values.shape != (len(samples),):
        odd = next((row for row, s in enumerate(samples) if not isinstance(s, int | float | complex | np.generic)), 0)
        raise CollateTypeError(
            f"{_at(place)}numbers cannot be put in one array: sample 0 is {samples[0]!r}, "
            f"sample {odd} of the batch is a {_name(samples[odd])}; give numbers that NumPy can hold"
        )
    batch = empty(values.shape, values.dtype)
    batch[...] = values
    return batch


def _mapping(samples: Sequence[Mapping[Any, Any]], empty: Empty, place: str) -> Any:
    first = samples[0]
    for row, sample in enumerate(samples):
        if not isinstance(sample, Mapping) or sample.keys() != first.keys():
            found = list(sample) if isinstance(sample, Mapping) else _name(sample)
            raise CollateError(
                f"{_at(place)}samples 0 and {row} of the batch differ in their keys: {list(first)} and {found}; "
                "give every sample the same keys, or pass a collate_fn",
                rows=(0, row),
            )
    columns = {key: _collate([sample[key] for sample in samples], empty, f"{place}[{key!r}]") for key in first}
    if type(first) is dict:
        return columns
    if isinstance(first, MutableMapping):
        batch = copy.copy(first)  # keeps what a subclass carries beside its items, as torch does
        batch.update(columns)
        return batch
    try:
        return type(first)(columns)  # type: ignore[call-arg]  # most mappings are made from one; if not, a dict
    except TypeError:
        return columns


def _columns(samples: Sequence[Sequence[Any]], empty: Empty, place: str) -> Any:
    first = samples[0]
    for row, sample in enumerate(samples):
        if not isinstance(sample, Sequence) or len(sample) != len(first):
            found = len(sample) if isinstance(sample, Sequence) else _name(sample)
            raise CollateError(
                f"{_at(place)}samples 0 and {row} of the batch differ in length: {len(first)} and {found}; "
                "pad them to one length, or pass a collate_fn",
                rows=(0, row),
            )
    columns = [_collate(column, empty, f"{place}[{index}]") for index, column in enumerate(zip(*samples, strict=True))]
    if isinstance(first, tuple):
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    if isinstance(first, MutableSequence) and type(first) is not list:
        batch = copy.copy(first)
        for index, column in enumerate(columns):
            batch[index] = column
        return batch
    return columns


def _at(place: str) -> str:
    return f"at sample{place}: " if place else ""


def _name(thing: object) -> str:
    kind = type(thing)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
