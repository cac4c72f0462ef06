"""A thread in front of the consumer: it makes the next result while the consumer uses the last one.

    supply ──next──> thread ──results──> consumer
                       ^                    │
                       └─────── room ───────┘      1 for each result that was taken, ``depth`` of them to begin with;
                                                   0 is the end

The thread knows the two queues and never the iterator in front of it, which can so be dropped at any time. The queues
are of the kind that a finalizer may use in the middle of another call to them, which no lock would allow.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from headrace.checks import integer
from headrace.errors import IterationError
from headrace.executors import lifecycle
from headrace.executors.lifecycle import ForkGuard, closed_while_reading
from headrace.run.turns import Turn

if TYPE_CHECKING:
    from contextvars import Context
    from types import TracebackType

Item = TypeVar("Item")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Supply(Protocol[Result_co]):
    """What the thread reads; only the thread calls it."""

    ends_on_error: bool
    """Whether the first error is the end."""

    def next(self) -> Result_co:
        """Return the next result; raises StopIteration at the end."""
        ...

    def close(self) -> None:
        """Release what is read, after the last result."""
        ...


@dataclass(slots=True)
class Raised:
    """Takes the place of a result that could not be made."""

    error: BaseException


class End:
    """Follows the last result: the end, or the error that ended it."""

    __slots__ = ("error", "trace")

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.trace: TracebackType | None = None
        if error is not None and error.__traceback__ is not None:
            # Without our own frames, which hold the queue that holds the error.
            trace = error.__traceback__.tb_next
            self.trace = trace and trace.tb_next


@dataclass(slots=True)
class _Shared(Generic[Result]):
    """What goes between the thread and its consumers."""

    results: queue.SimpleQueue[Result | Raised | End]
    room: queue.SimpleQueue[int]
    stop: threading.Event
    on_closing: list[BaseException]
    """What the supply raised when it was closed."""


class ReadAhead(Iterator[Result]):
    """Results that one thread makes ahead of whoever takes them, at most ``depth`` of them.

    The thread ends with its supply, with `close`, when the iterator is dropped, and before the interpreter exits.
    ``doing`` says what it does, for the warning if it does not end. It runs in ``context``, or an empty one. ``close``
    and ``then`` are those of `Ahead`.
    """

    def __init__(
        self,
        supply: Supply[Result],
        depth: int,
        *,
        name: str,
        doing: str,
        context: Context | None = None,
        close: Callable[[], Any] | None = None,
        then: Callable[[], Any] | None = None,
    ) -> None:
        self._guard = ForkGuard()
        self._shared: _Shared[Result] = _Shared(queue.SimpleQueue(), queue.SimpleQueue(), threading.Event(), [])
        for _ in range(depth):
            self._shared.room.put(1)
        if context is None:
            self._thread = threading.Thread(target=_run, args=(supply, self._shared), name=name, daemon=True)
        else:
            self._thread = threading.Thread(
                target=context.run, args=(_run, supply, self._shared), name=name, daemon=True
            )
        self._finish = weakref.finalize(self, _finish, self._thread, self._shared, doing, close, then, self._guard)
        self._thread.start()

    def _take(self) -> Result | Raised | End:
        """Wait for the next result, and make room for another; an end stays for the next call, in any thread."""
        outcome = self._shared.results.get()
        if isinstance(outcome, End):
            self._shared.results.put(outcome)
        else:
            self._shared.room.put(1)
        return outcome

    def close(self) -> None:
        """End the thread, and drop the results that nobody took; any thread may call it, more than once."""
        self._finish()


class Ahead(ReadAhead[Result]):
    """Results of a function over items, made in one thread that runs ahead of whoever takes them.

    >>> squares = Ahead(iter(range(4)), lambda number: number * number, depth=1)
    >>> list(squares)
    [0, 1, 4, 9]

    The thread reads ``items`` and calls ``function`` on each, in order, while at most ``depth`` (from 1 up) results
    wait. It keeps no reference to an item or a result that it has handed on. An error, of ``items`` or of ``function``,
    is raised in the place of its result. The results after it follow, if ``items`` continues.

    ``close`` (a function) is called to end the items, from another thread than the one that may be waiting for them at
    that moment, which it must wake. ``then`` is for items that cannot be ended while somebody waits for them: it is
    called when the thread has ended, after the item at hand. ``waited`` is called with the seconds that each ``next``
    waited, and ``handed_on`` when one has its answer: a result, an error or the end. ``length`` says how many results
    there are in all, for ``len``. Raises `ArgumentError` for a depth that cannot be used, and `LoaderClosed` after
    closing, or in a forked process.
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
        length: Callable[[], int] | None = None,
    ) -> None:
        integer("depth", depth, least=1)
        self._over = False
        self._waited = waited
        self._handed_on = handed_on
        self._length = length
        self._turn = Turn()
        supply = _MappedSupply(items, function)
        super().__init__(supply, depth, name="headrace-ahead", doing="making a batch", close=close, then=then)

    def __len__(self) -> int:
        if self._length is None:
            raise no_length()
        return self._length()

    def __next__(self) -> Result:
        self._guard.check()
        began = perf_counter()
        outcome = self._take()
        with self._turn.lock:
            if self._waited is not None:
                self._waited(perf_counter() - began)
            if self._handed_on is not None:
                self._handed_on()
        if isinstance(outcome, End):
            if self._finish.alive:  # nobody closed it: the items have ended
                self._over = True
                self._finish()
            if not self._over:
                raise closed_while_reading()
            raise StopIteration
        if not isinstance(outcome, Raised):
            return outcome
        error = outcome.error
        try:
            raise error
        finally:
            del error, outcome  # what an error's own frames still name is a cycle


class Mapped(Iterator[Result]):
    """Results of a function over the items of a loop, made when they are asked for."""

    def __init__(
        self, items: Iterator[Item], function: Callable[[Item], Result], length: Callable[[], int] | None
    ) -> None:
        self._results = map(function, items)
        self._length = length

    def __len__(self) -> int:
        if self._length is None:
            raise no_length()
        return self._length()

    def __next__(self) -> Result:
        return next(self._results)


def no_length() -> TypeError:
    """Build the error for a loop whose number of batches nobody knows."""
    return TypeError("a loop over an iterable dataset has no len(): its end is known when it comes")


class _MappedSupply(Generic[Item, Result]):
    ends_on_error = False

    def __init__(self, items: Iterator[Item], function: Callable[[Item], Result]) -> None:
        self._items = items
        self._function = function

    def next(self) -> Result:
        item = next(self._items)
        try:
            return self._function(item)
        except StopIteration as error:  # it would end the consumer's loop without an error
            raise IterationError(
                f"{self._function!r} raised StopIteration",
                expected="a value",
                cure="return from the function, or catch StopIteration where it calls next()",
            ) from error

    def close(self) -> None:
        pass


def _run(supply: Supply[Result], shared: _Shared[Result]) -> None:
    end = None
    # Room first, the result after it: a result in hand without room would be one more than was asked for.
    while end is None and shared.room.get():
        end = _make(supply, shared)
    try:
        supply.close()
    except BaseException as error:  # noqa: BLE001  raised by whoever closes
        shared.on_closing.append(error)
    shared.results.put(end or End())


def _make(supply: Supply[Result], shared: _Shared[Result]) -> End | None:
    """Make one result, in a frame of its own, which keeps no reference to it; return the end, if this is it."""
    try:
        result = supply.next()
    except StopIteration:
        return End()
    except BaseException as error:  # noqa: BLE001  SystemExit too: the consumer would wait for ever
        if supply.ends_on_error:
            return End(error)
        shared.results.put(Raised(error))
        return None
    if shared.stop.is_set():
        return End()
    shared.results.put(result)
    return None


def _finish(
    thread: threading.Thread,
    shared: _Shared[Any],
    doing: str,
    close: Callable[[], Any] | None,
    then: Callable[[], Any] | None,
    guard: ForkGuard,
) -> None:
    if guard.in_child:
        return  # a fork took the iterator along, but neither its thread nor the right to end what it reads
    shared.stop.set()
    _empty(shared.room)
    shared.room.put(0)
    late: list[str] = []
    try:
        if close is not None:
            close()
    finally:
        late += lifecycle.join([(thread, lambda: doing)])
        if then is not None and not thread.is_alive():
            then()
        _empty(shared.results)
        shared.results.put(End())  # wakes a consumer that another thread left waiting
    lifecycle.warn(late)
    if shared.on_closing:
        raise shared.on_closing.pop()


def _empty(waiting: queue.SimpleQueue[Any]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            waiting.get_nowait()
