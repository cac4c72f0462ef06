"""The bytes of a sample and its structure: what two readings of one index have to agree in."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import numpy as np

from headrace.interop import torch_state

MOST_PARTS = 64
_DEEP = 20
_PLAIN = (int, float, complex, bool, str, bytes, type(None))


def digest(sample: Any) -> str:
    """Return a digest of all that a sample holds.

    >>> digest({"a": np.zeros(2), "b": 1}) == digest({"b": 1, "a": np.zeros(2)})
    True
    >>> digest(np.zeros(2)) == digest(np.zeros(2, np.float32))
    False
    """
    return _node(sample, 0).hex()


def _node(thing: Any, depth: int) -> bytes:
    found = blake2b(type(thing).__qualname__.encode(), digest_size=16)
    if isinstance(thing, _PLAIN):
        found.update(repr(thing).encode("utf-8", "surrogatepass"))
    elif (array := _array(thing)) is not None and not array.dtype.hasobject:
        found = blake2b(b"array", digest_size=16)  # a memory map that was pickled is an array
        found.update(f"{array.dtype.str}{array.shape}".encode())
        found.update(np.ascontiguousarray(array).view(np.uint8).data if array.size and array.ndim else array.tobytes())
    elif depth < _DEEP and isinstance(thing, Mapping | list | tuple | set | frozenset):
        found.update(_container(thing, depth + 1))
    elif callable(getattr(thing, "tobytes", None)):  # of Pillow
        found.update(f"{getattr(thing, 'mode', '')}{getattr(thing, 'size', '')}".encode() + thing.tobytes())
    elif array is not None:
        found.update(b"".join(_node(each, depth + 1) for each in array.ravel().tolist()))
    elif depth < _DEEP and getattr(thing, "__dict__", None):
        found.update(_node(vars(thing), depth + 1))
    else:
        with suppress(Exception):  # of what cannot be looked into, the class is all that is compared
            found.update(pickle.dumps(thing))
    return found.digest()


def _container(thing: Any, depth: int) -> bytes:
    if isinstance(thing, Mapping):
        return b"".join(sorted(_node(key, depth) + _node(value, depth) for key, value in thing.items()))
    parts = [_node(each, depth) for each in thing]
    return b"".join(sorted(parts) if isinstance(thing, set | frozenset) else parts)


def _array(thing: Any) -> np.ndarray[Any, Any] | None:
    """Return an array or a tensor as an array; None for anything else."""
    if isinstance(thing, np.ndarray | np.generic):
        return np.asarray(thing)
    if torch_state.is_tensor(thing):
        with suppress(Exception):  # sparse, nested or of another device: pickled instead
            thing = thing.detach().cpu().contiguous()
            return np.asarray(thing.view(torch_state.loaded().uint8) if torch_state.is_bfloat16(thing) else thing)
    return None


def structure(sample: Any) -> tuple[tuple[str, str], ...]:
    """Return the parts of a sample that a batch is made of, by their place, each with its type, dtype and shape.

    >>> structure({"image": np.zeros((4, 4, 3), np.uint8), "label": 3})
    (("['image']", 'uint8 array of shape (4, 4, 3)'), ("['label']", 'int'))
    """
    found: list[tuple[str, str]] = []
    _parts(sample, "", found)
    return tuple(found)


def _parts(thing: Any, place: str, found: list[tuple[str, str]]) -> None:
    if len(found) > MOST_PARTS:
        return
    array = _array(thing)
    if array is not None:
        kind = f"{array.dtype} array of shape {array.shape}" if array.ndim else str(array.dtype)
        found.append((place, kind.replace("<U", "str ").replace("<S", "bytes ")))
    elif isinstance(thing, Mapping):
        for key in sorted(thing, key=repr):
            _parts(thing[key], f"{place}[{key!r}]", found)
        if not thing:
            found.append((place, "an empty dict"))
    elif isinstance(thing, list | tuple):
        for number, each in enumerate(thing):
            _parts(each, f"{place}[{number}]", found)
        if not thing:
            found.append((place, f"an empty {type(thing).__name__}"))
    else:
        size = getattr(thing, "size", None) if callable(getattr(thing, "tobytes", None)) else None
        found.append((place, type(thing).__name__ + (f" of size {size}" if size is not None else "")))


def nbytes(thing: Any) -> int:
    """Return about how many bytes a sample has.

    >>> nbytes((np.zeros(4), "ab", 1))
    42
    """
    array = _array(thing)
    if array is not None:
        return int(array.nbytes)
    if isinstance(thing, str | bytes):
        return len(thing)
    if isinstance(thing, Mapping):
        return sum(map(nbytes, thing.values()))
    if isinstance(thing, list | tuple):
        return sum(map(nbytes, thing))
    size = getattr(thing, "size", None)
    if callable(getattr(thing, "tobytes", None)) and isinstance(size, tuple):
        return int(np.prod(size)) * len(getattr(thing, "getbands", lambda: "x")())
    return 8
