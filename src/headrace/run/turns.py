"""Locks for what several threads call at once, which a forked child finds free."""

from __future__ import annotations

import os
import threading
from typing import Any

from headrace.context.dropped import WeakRefs

_all: WeakRefs[Turn] = WeakRefs()


class Turn:
    """A reentrant lock that survives forks, copies and pickles: a child process or a copy finds it free.

    >>> turn = Turn()
    >>> with turn.lock:
    ...     pass
    """

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        _all.add(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return Turn, ()


def _free_all() -> None:
    # The thread that held one in the parent does not exist here.
    for turn in _all:
        turn.lock = threading.RLock()


os.register_at_fork(after_in_child=_free_all)
