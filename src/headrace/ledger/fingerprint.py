"""A 64-bit hash of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.interop import torch_state

if TYPE_CHECKING:
    from numpy.typing import NDArray

HASHED_BYTES = 2**16
"""Bytes of an array that are hashed: all of a small array, blocks spread over a large one."""

_MULTIPLIERS = np.random.Generator(np.random.Philox(key=0)).integers(0, 2**64, HASHED_BYTES // 8 + 1, np.uint64)
_WORDS = _MULTIPLIERS | np.uint64(1)
_LAST: list[int] = _WORDS.tolist()
_MOST_BLOCKS = 1024
_DEPTH = 32


def of_batch(batch: Any) -> int:
    """Return 64 bits that depend on a batch's structure, dtypes, shapes and bytes.

    >>> images = np.zeros((2, 8, 8), np.uint8)
    >>> before = of_batch([images, ["cat", "dog"]])
    >>> images[1, 3, 3] = 1
    >>> before == of_batch([images, ["cat", "dog"]])
    False

    In an array over 64 KiB, only blocks spread over it are hashed. A different crop, flip or sample changes the hash; a
    change of a few pixels may not.
    """
    total = 0
    for part in _parts(batch, 0):
        total = _mixed(total * 0x9E3779B97F4A7C15 + part)
    return total


def of_keys(keys: Sequence[Any] | NDArray[np.int64]) -> int:
    """Return 64 bits that depend on keys and their order.

    >>> of_keys([3, 1]) == of_keys(np.array([3, 1])), of_keys([3, 1]) == of_keys([1, 3])
    (True, False)
    """
    numbers = integers(keys)
    return _of_text(repr(list(keys))) if numbers is None else _of_array(numbers)


def integers(keys: Any) -> NDArray[np.int64] | None:
    """Return keys as an array of integers, or None if they are not integers."""
    try:
        row = np.asarray(keys)
    except (TypeError, ValueError, OverflowError):
        return None
    if row.ndim != 1 or (row.dtype.kind not in "iu" and len(row)):
        return None
    return row.astype(np.int64, copy=False)


def _parts(batch: Any, depth: int) -> Any:
    if isinstance(batch, np.ndarray) and batch.dtype.kind != "O":
        yield _of_array(batch)
    elif isinstance(batch, Mapping) and depth < _DEPTH:
        yield _of_text(f"mapping {len(batch)}")
        for key, value in batch.items():
            yield _of_text(repr(key))
            yield from _parts(value, depth + 1)
    elif isinstance(batch, list | tuple) and depth < _DEPTH:
        if all(isinstance(item, str | bytes | int | float) for item in batch):
            yield _of_text(repr(batch))
            return
        yield _of_text(f"sequence {len(batch)}")
        for item in batch:
            yield from _parts(item, depth + 1)
    elif isinstance(batch, str | bytes | int | float | complex | np.generic):
        yield _of_text(repr(batch))
    else:
        yield _of_other(batch)


def _of_other(thing: Any) -> int:
    """Hash another library's array; for any other object hash only its type, which is stable between runs."""
    name = _of_text(type(thing).__qualname__)
    try:
        if torch_state.is_bfloat16(thing):  # torch cannot convert it to NumPy
            thing = thing.view(torch_state.loaded().int16)
        array = np.asarray(thing)
    except Exception:  # noqa: BLE001  a tensor on a device, or one that needs a gradient
        array = np.empty(0, object)
    return name if array.dtype.kind == "O" else _mixed(name ^ _of_array(array))


def _of_text(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _of_array(array: NDArray[Any]) -> int:
    row = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if row.nbytes > HASHED_BYTES:
        # Not a multiple of the row count, or each row would be hashed at the same place.
        count = min(max(64, 2 * len(array)), _MOST_BLOCKS) - 1
        size = HASHED_BYTES // (count + 1) // 8 * 8
        apart = (row.nbytes - size) // (count - 1)
        row = np.ndarray((count, size), np.uint8, row, 0, (apart, 1)).reshape(-1)
    whole = row.nbytes // 8
    words = row[: whole * 8].view(np.uint64)
    # A multilinear hash: each multiplier is odd, so a change of one word always changes the sum.
    total = int((words * _WORDS[:whole]).sum(dtype=np.uint64))
    rest = int.from_bytes(row[whole * 8 :].tobytes(), "little")
    return _mixed(total + rest * _LAST[whole] + _of_form(array.dtype.str, array.shape))


@lru_cache(maxsize=256)
def _of_form(dtype: str, shape: tuple[int, ...]) -> int:
    return _of_text(f"{dtype} {shape}")


def _mixed(word: int) -> int:
    """Mix all bits (the finalizer of SplitMix64, Steele, Lea and Flood 2014)."""
    word &= 2**64 - 1
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    return word ^ (word >> 31)
