"""Containers of a batch: of the samples' type, made without calling methods that a subclass may override.

A subclass may count, convert or log in ``__init__``, ``update`` or ``__setitem__``. That would change the batch: a
Counter adds up its values. So subclasses of built-in containers are filled with the built-in methods.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, UserDict, UserList, defaultdict
from collections.abc import Mapping, MutableMapping, MutableSequence, Sequence
from types import BuiltinMethodType
from typing import Any


def like_mapping(first: Mapping[Any, Any], columns: dict[Any, Any]) -> Any:
    """Return a mapping of the type of ``first`` with these items; a dict if that type does not keep them.

    >>> from collections import Counter
    >>> like_mapping(Counter("aab"), {"a": 5, "b": 6})
    Counter({'b': 6, 'a': 5})
    """
    if type(first) is dict:
        return columns
    batch: Any = None
    try:
        if isinstance(first, dict):
            batch = _bare(first)
            store = OrderedDict.__setitem__ if isinstance(first, OrderedDict) else dict.__setitem__
            for key, column in columns.items():
                store(batch, key, column)
            return batch
        if isinstance(first, UserDict):
            batch = _bare(first)
            vars(batch)["data"] = columns
            return batch
        if isinstance(first, MutableMapping):
            batch = _apart(first)
            batch.update(columns)
        else:
            batch = type(first)(columns)  # type: ignore[call-arg]  # most mapping types accept a mapping; otherwise a dict is returned
        kept = len(batch) == len(columns) and all(batch[key] is column for key, column in columns.items())
    except Exception:  # noqa: BLE001  user methods, written for samples and not for batches
        return columns
    return batch if kept else columns


def like_sequence(first: Sequence[Any], columns: list[Any]) -> Any:
    """Return a sequence of the type of ``first`` with these items; a list for a plain tuple.

    >>> from collections import namedtuple
    >>> like_sequence(namedtuple("Point", "x y")(1, 2), [3, 4]), like_sequence((1, 2), [3, 4])
    (Point(x=3, y=4), [3, 4])
    """
    if isinstance(first, tuple):
        return _bare(first, columns) if hasattr(first, "_fields") else columns
    if type(first) is list:
        return columns
    batch: Any = None
    try:
        if isinstance(first, list):
            batch = _bare(first)
            list.extend(batch, columns)
            return batch
        if isinstance(first, UserList):
            batch = _bare(first)
            vars(batch)["data"] = columns
            return batch
        if isinstance(first, MutableSequence):
            batch = _apart(first)
            for index, column in enumerate(columns):
                batch[index] = column
        else:
            batch = type(first)(columns)  # type: ignore[call-arg]  # most sequence types accept a sequence; otherwise a list is returned
        kept = len(batch) == len(columns) and all(item is column for item, column in zip(batch, columns, strict=True))
    except Exception:  # noqa: BLE001  as above
        return columns
    return batch if kept else columns


def _bare(first: Any, *items: Any) -> Any:
    """Return a new container of the same class, without calling its ``__new__`` and ``__init__``.

    It copies everything except the items: attributes, slots and a defaultdict's factory.
    """
    kind = type(first)
    base = next(base for base in kind.__mro__ if isinstance(vars(base).get("__new__"), BuiltinMethodType))
    batch = base.__new__(kind, *items)
    state: Any = object.__getstate__(first)
    attributes, slots = state if isinstance(state, tuple) else (state, None)
    if attributes:
        vars(batch).update(attributes)
    for name, value in (slots or {}).items():
        object.__setattr__(batch, name, value)
    if isinstance(first, defaultdict):
        batch.default_factory = first.default_factory
    return batch


def _apart(first: Any) -> Any:
    """Return a copy that shares no dict or list with the sample, so that filling it does not change the sample."""
    batch = copy.copy(first)
    for name, value in getattr(batch, "__dict__", {}).items():
        if isinstance(value, dict | list) and value is getattr(first, "__dict__", {}).get(name):
            vars(batch)[name] = copy.copy(value)
    return batch
