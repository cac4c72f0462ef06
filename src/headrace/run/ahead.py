"""A thread in front of the consumer: the next result is made while the last one is used.

    items ──next──> thread: function(item) ──results──> consumer
                       ^                        │
                       └──────── turns ─────────┘      1 for each result that was taken, ``depth`` of them to
                                                       begin with; 0 is the end

The thread knows the two queues, never the iterator in front of it, which can so be dropped at any time. The queues are
of the kind that a finalizer may use in the middle of another call to them, which no lock would allow.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, TypeVar

from headrace.errors import ArgumentError, LoaderClosed
from headrace.run.turns import Turn

Item = TypeVar("Item")
Result = TypeVar("Result")

PATIENCE = 10.0
"""Seconds that closing waits for the item at hand before it leaves the thread behind, with a warning."""


@dataclass(slots=True)
class _Made(Generic[Result]):
    result: Result


@dataclass(slots=True)
class _Raised:
    error: BaseException


class Ahead(Iterator[Result]):
    """Results of a function over items, made in one thread that runs ahead of whoever takes them.

    >>> squares = Ahead(iter(range(4)), lambda number: number * number, depth=1)
    >>> list(squares)
    [0, 1, 4, 9]

    The thread reads ``items`` and calls ``function`` on each, in order, while at most ``depth`` (from 1 up) results
    wait; no reference to an item or a result is kept once it is handed on. An error, of ``items`` or of ``function``,
    is raised in the place of its result, and what follows comes after it, if ``items`` goes on.

    The thread ends with the items, with `close`, when the iterator is dropped, and before the interpreter exits.
    ``close`` (a function) is then called to end the items, from another thread than the one that may be waiting for
    them at that moment, which it must wake. ``then`` is for items that cannot be ended while somebody waits for them:
    it is called when the thread has ended, after the item at hand. ``waited`` is called with the seconds that each
    ``next`` stood waiting, and ``handed_on`` when one has its answer: a result, an error or the end. Raises
    `ArgumentError` for a depth that cannot be used, and `LoaderClosed` from an iterator that was closed, or taken into
    another process by a fork.
    """

    def __init__(
        self,
        items: Iterator[Item],
        function: Callable[[Item], Result],
        depth: int,
        *,
        close: Callable[[], Any] | None = None,
        then: Callable[[], Any] | None = None,
        waited: Callable[[float], Any] | None = None,
        handed_on: Callable[[], Any] | None = None,
    ) -> None:
        if depth < 1:
            raise ArgumentError(f"depth must be an integer from 1 up; got {depth!r}")
        self._turns: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[_Made[Result] | _Raised | None] = queue.SimpleQueue()
        self._pid = os.getpid()
        self._over = False
        self._waited = waited
        self._handed_on = handed_on
        self._turn = Turn()
        thread = threading.Thread(
            target=_serve, args=(items, function, self._turns, self._results), name="headrace-ahead", daemon=True
        )
        self._finish = weakref.finalize(self, _finish, thread, self._turns, self._results, close, then, self._pid)
        for _ in range(depth):
            self._turns.put(1)
        thread.start()

    def __next__(self) -> Result:
        if os.getpid() != self._pid:
            raise LoaderClosed(
                "this loop was begun before the process forked, and its thread does not survive a fork: "
                "begin a new loop in the child"
            )
        began = perf_counter()
        outcome = self._results.get()
        with self._turn.lock:
            if self._waited is not None:
                self._waited(perf_counter() - began)
            if self._handed_on is not None:
                self._handed_on()
        if outcome is None:
            self._results.put(None)  # for the next call, and for another thread that waits here
            if self._finish.alive:  # nobody closed it: the items have ended
                self._over = True
                self._finish()
            if not self._over:
                raise LoaderClosed("the loader was closed while a loop was still reading from it")
            raise StopIteration
        self._turns.put(1)
        if isinstance(outcome, _Made):
            return outcome.result
        error = outcome.error
        try:
            raise error
        finally:
            del error, outcome  # what an error's own frames still name is a cycle

    def close(self) -> None:
        """End the thread and the items, from any thread; results that wait are let go."""
        self._finish()


def _serve(
    items: Iterator[Item],
    function: Callable[[Item], Result],
    turns: queue.SimpleQueue[int],
    results: queue.SimpleQueue[_Made[Result] | _Raised | None],
) -> None:
    # In a call of its own: what this frame named while it waits would not be let go.
    while turns.get() and _put(items, function, results):
        pass


def _put(
    items: Iterator[Item],
    function: Callable[[Item], Result],
    results: queue.SimpleQueue[_Made[Result] | _Raised | None],
) -> bool:
    """Put the next outcome, and return whether more may follow."""
    try:
        item = next(items)
    except StopIteration:
        results.put(None)
        return False
    except BaseException as error:  # noqa: BLE001  it belongs to the consumer, whatever it is
        results.put(_Raised(error))
        return True
    try:
        results.put(_Made(function(item)))
    except StopIteration as error:  # as it is, it would end the consumer's loop in silence
        stopped = RuntimeError(f"{function!r} raised StopIteration")
        stopped.__cause__ = error
        results.put(_Raised(stopped))
    except BaseException as error:  # noqa: BLE001
        results.put(_Raised(error))
    return True


def _finish(
    thread: threading.Thread,
    turns: queue.SimpleQueue[int],
    results: queue.SimpleQueue[_Made[Any] | _Raised | None],
    close: Callable[[], Any] | None,
    then: Callable[[], Any] | None,
    pid: int,
) -> None:
    if os.getpid() != pid:
        return  # a fork took the iterator along, but neither its thread nor the right to end what it reads
    _empty(turns)
    turns.put(0)
    try:
        if close is not None:
            close()
    finally:
        # The last reference may be dropped by the thread itself, which cannot wait for its own end.
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join(PATIENCE)
            if thread.is_alive():
                warnings.warn(
                    f"{thread.name} did not end within {PATIENCE:g} s of closing: the item at hand takes longer; "
                    "it is left behind and ends with that item or with the process",
                    RuntimeWarning,
                    stacklevel=2,
                )
        if then is not None and not thread.is_alive():
            then()
        _empty(results)
        results.put(None)  # wakes a consumer that another thread left waiting


def _empty(waiting: queue.SimpleQueue[Any]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get_nowait()
