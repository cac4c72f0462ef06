"""Keys that datasets are asked with: integers, checked and never cast.

A boolean mask cast to integers reads rows 0 and 1 over and over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import as_integer, is_bool, shown
from headrace.errors import ArgumentTypeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MASK = "Select by a boolean mask with numpy.flatnonzero(mask)."
GROUP = "Wrap the dataset in GroupedDataset, which reads the groups of a PackingBatchSampler."


def place(key: Any, length: int, what: str) -> int:
    """Return the place, from 0 up, of a key; a negative key counts from the end.

    >>> place(-1, 5, "a dataset of {} rows"), place(np.int8(3), 5, "rows")
    (4, 3)

    Raises `ArgumentTypeError`, a TypeError, for what is no integer, a bool among them, and IndexError for an index out
    of range: Python ends a loop over a sequence by it.
    """
    number = key if type(key) is int else whole(key)
    if not -length <= number < length:
        raise IndexError(f"index {number} is out of range for {what.format(length)}")
    return number + length if number < 0 else number


def places(keys: Sequence[Any] | NDArray[Any], length: int, what: str) -> NDArray[np.intp]:
    """Return the places of many keys, as `place` does of one.

    >>> places([0, -1], 5, "a dataset of {} rows")
    array([0, 4])
    """
    if isinstance(keys, np.ndarray):
        given = keys
        if given.ndim != 1 or (given.dtype.kind not in "iu" and given.size):
            raise ArgumentTypeError(
                f"indices must be integers; got an array of {given.dtype} of shape {given.shape}",
                found=f"{given.dtype} of shape {given.shape}",
                expected="one axis of integers",
                cure=MASK if is_bool(given) else "Convert the array with astype(int), and ravel it.",
            )
    elif type(keys) is range:
        given = np.arange(keys.start, keys.stop, keys.step)
    else:
        if not set(map(type, keys)) <= _PLAIN:
            keys = [whole(key) for key in keys]
        try:
            given = np.array(keys, np.intp)
        except OverflowError:
            given = np.array(keys, object)
    if not given.size:
        return np.empty(0, np.intp)
    if given.min() >= 0 and given.max() < length:
        return given.astype(np.intp, copy=False)
    wrong = given[(given < -length) | (given >= length)]
    if len(wrong):
        raise IndexError(f"index {wrong[0]} is out of range for {what.format(length)}")
    return np.where(given < 0, given + length, given).astype(np.intp)


def whole(key: Any) -> int:
    """Return the integer that a key is."""
    number = as_integer(key)
    if number is None:
        raise ArgumentTypeError(
            f"indices must be integers; got {shown(key)}, of type {type(key).__name__}",
            found=key,
            expected="an integer",
            cure=MASK if is_bool(key) else GROUP if isinstance(key, tuple) else "Convert it with int().",
        )
    return number


def check_whole(keys: Sequence[Any]) -> None:
    """Raise for a bool among keys of any kind: lists and tuples take it for 0 or 1."""
    if not _BOOLS.isdisjoint(map(type, keys)):
        whole(next(key for key in keys if type(key) in _BOOLS))


def is_mask(indices: Any) -> bool:
    """Say whether indices are a boolean mask: an array or a tensor of booleans, or a list with some in it."""
    return is_bool(indices) or (isinstance(indices, list | tuple) and not _BOOLS.isdisjoint(map(type, indices)))


def check_no_mask(name: str, indices: Any) -> None:
    """Raise for a boolean mask where indices are expected."""
    if is_mask(indices):
        raise ArgumentTypeError(
            f"{name} must be integers; got a boolean mask", found=indices, expected="integers", cure=MASK
        )


def selected(name: str, mask: Any, length: int) -> NDArray[np.intp]:
    """Return the indices that a mask selects of so many samples."""
    given = np.asarray(mask)
    if given.dtype.kind != "b" or given.shape != (length,):
        raise ArgumentTypeError(
            f"{name} is a boolean mask of shape {given.shape}, or has booleans among its integers",
            found=given.shape,
            expected=f"one boolean for each of {length} samples, or integers",
            cure=MASK,
        )
    return np.flatnonzero(given)


_PLAIN = {int}
_BOOLS = frozenset({bool, np.bool_})
