"""A cache of what was read and decoded, bounded in bytes, which threads share and processes do not."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")


class RowCache(Generic[T]):
    """The values that were used last, as many as fit into ``most`` bytes; the last one always.

    >>> held = RowCache(10)
    >>> held.get("a", lambda: ("first", 6)), held.get("b", lambda: ("second", 6)), held.get("b", lambda: ("third", 6))
    ('first', 'second', 'second')

    ``make`` returns a value and its bytes. Two threads that ask for the same value wait for one call of it. A copy, a
    pickled one, and that of a forked process are empty.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._held: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}
        self._bytes = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return RowCache, (self.most,)

    def get(self, key: Hashable, make: Callable[[], tuple[T, int]]) -> T:
        """Return the value of a key, made where it is not held."""
        if self._process != os.getpid():
            self._begin()  # a lock that another thread held at the fork stays locked
        found = self._found(key)
        if found is not None:
            return found[0]
        with self._lock:
            making = self._making.setdefault(key, threading.Lock())
        with making:
            found = self._found(key)
            if found is None:
                found = make()
                self._put(key, found)
        return found[0]

    def _found(self, key: Hashable) -> tuple[T, int] | None:
        with self._lock:
            found = self._held.get(key)
            if found is not None:
                self._held.move_to_end(key)
            return found

    def _put(self, key: Hashable, found: tuple[T, int]) -> None:
        with self._lock:
            self._making.pop(key, None)
            self._held[key] = found
            self._bytes += found[1]
            while self._bytes > self.most and len(self._held) > 1:
                self._bytes -= self._held.popitem(last=False)[1][1]
