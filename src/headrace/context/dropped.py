"""What happens when an object is dropped, without a line of Python: Ctrl-C in such a line would be lost.

Python reports an error in a destructor, or in the callback of a weak reference, and goes on. So KeyboardInterrupt there
ends nothing, and the user's loop continues as if nobody had pressed a key. So what ends with each loop should run no
Python code when it is dropped: no `weakref.WeakSet` remembers it, whose callbacks are Python code, and no ``__del__``
follows a slow call of the system. A ``__del__`` of one line elsewhere is too short to matter.
"""

from __future__ import annotations

import weakref
from itertools import count
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


class WeakRefs(Generic[T]):
    """Objects that are forgotten when nobody else holds them, as of `weakref.WeakSet`.

    >>> one, other = {1}, {2}
    >>> known = WeakRefs()
    >>> known.add(one)
    >>> known.add(other)
    >>> del other
    >>> list(known)
    [{1}]

    Any number of threads may use one.
    """

    __slots__ = ("_names", "_refs", "_room")

    def __init__(self) -> None:
        self._refs: dict[int, weakref.ref[Any]] = {}
        self._names = count()
        self._room = 16

    def add(self, thing: T) -> None:
        """Remember an object, as often as it is added."""
        self.keep(weakref.ref(thing))

    def keep(self, ref: weakref.ref[Any]) -> None:
        """Keep a weak reference at least as long as its object lives."""
        if len(self._refs) >= self._room:
            for name, each in list(self._refs.items()):
                if each() is None:
                    self._refs.pop(name, None)
            self._room = 16 + 2 * len(self._refs)
        self._refs[next(self._names)] = ref

    def discard(self, thing: T) -> None:
        """Forget an object."""
        for name, ref in list(self._refs.items()):
            if ref() is thing:
                self._refs.pop(name, None)

    def clear(self) -> None:
        """Forget all objects."""
        self._refs.clear()

    def __iter__(self) -> Iterator[T]:
        for ref in list(self._refs.values()):
            thing = ref()
            if thing is not None:
                yield thing


class _Calling(weakref.ref[Any]):
    __slots__ = ("call",)
    call: Callable[..., Any]


_calling: WeakRefs[Any] = WeakRefs()


def when_dropped(thing: Any, call: Callable[..., Any], *arguments: Any) -> None:
    """Call a function of C, not one of Python, when a thing is dropped.

    >>> from collections import deque
    >>> dropped = deque()
    >>> thing = {1, 2, 3}
    >>> when_dropped(thing, dropped.append, "the set")
    >>> del thing
    >>> list(dropped)
    ['the set']

    The function is kept for a while longer.
    """
    ref = _Calling(thing, methodcaller("call", *arguments))
    ref.call = call
    _calling.keep(ref)
