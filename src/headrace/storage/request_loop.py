"""A thread in which requests run: each may be sent twice where it is slow, sent again where it fails, and stopped."""

from __future__ import annotations

import asyncio
import atexit
import os
import random
import sys
import threading
from collections import deque
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.context.dropped import WeakRefs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator

S = TypeVar("S")
T = TypeVar("T")

RETRIES, SECONDS = 8, 60.0
"""How often a request is sent again, and for how long in all."""

SETTLE_SECONDS, LOOK_SECONDS = 1.0, 0.005
"""How long obstore's threads may take to leave Python at exit, and how long each look for them gives up the GIL."""

QUIET_SECONDS = 10.0
"""How long an answer may bring no byte before its request is sent again."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a request is sent again: twice as long each time, less a random part of up to a half."""

ENOUGH, REMEMBERED, SLOW, LEAST_WAIT, HEDGED = 20, 100, 2.0, 0.05, 0.05
"""A request is sent a second time when it takes `SLOW` times as long as 95 % of the last ones of its size, and no less
than `LEAST_WAIT` seconds. There must be `ENOUGH` of them, of at most `REMEMBERED`; and at most `HEDGED` of all requests
are sent twice."""


class Stop:
    """Stops the requests of those who asked for them together.

    >>> stop = Stop()
    >>> stop.set()
    >>> stop.is_set
    True
    """

    def __init__(self) -> None:
        self.is_set = False
        self._running: set[Future[Any]] = set()
        self._lock = threading.RLock()  # the collector may end a loop in a thread that has it
        _stops.add(self)

    def set(self) -> None:
        """Stop the requests that run, and those to come."""
        with self._lock:
            self.is_set, running = True, list(self._running)
        for future in running:
            future.cancel()

    @contextmanager
    def running(self, future: Future[Any]) -> Iterator[None]:
        """Let a request be stopped while it runs."""
        with self._lock:
            self._running.add(future)
            stopped = self.is_set
        if stopped:
            future.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(future)


_stops: WeakRefs[Stop] = WeakRefs()


def _stop_all() -> None:
    for stop in _stops:
        stop.set()


# At exit, the interpreter joins the threads of pools, before it calls what atexit knows: only this comes before that.
getattr(threading, "_register_atexit", atexit.register)(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stops.clear)  # other threads of the parent may hold their locks for ever

_of_thread = threading.local()


def stop_of_thread() -> Stop | None:
    """Return what stops the requests of this thread, for threads that send some for it."""
    found: Stop | None = getattr(_of_thread, "stop", None)
    return found


@contextmanager
def stoppable(stop: Stop | None) -> Iterator[None]:
    """Let the requests of this thread be stopped by ``stop``; they then raise `CancelledError`."""
    before, _of_thread.stop = stop_of_thread(), stop
    try:
        yield
    finally:
        _of_thread.stop = before


def result_of(future: Future[T], seconds: float | None = None) -> T:
    """Return what a request brings; raise `CancelledError` if the requests of this thread are stopped meanwhile."""
    stop = stop_of_thread()
    if stop is None:
        return future.result(seconds)
    with stop.running(future):
        return future.result(seconds)


def left_behind(call: Callable[[], T]) -> T:
    """Make a call that nothing can end; where the requests of this thread can be stopped, a thread of its own makes it.

    >>> left_behind(lambda: 3)
    3

    Raises what it raises, and `CancelledError` when they are stopped: the thread is left to itself.
    """
    if stop_of_thread() is None:
        return call()
    answer: Future[T] = Future()

    def make() -> None:
        try:
            found = call()
        except BaseException as error:  # noqa: BLE001  it is raised by who waits for it
            settle(answer, error=error)
        else:
            settle(answer, found)

    threading.Thread(target=make, name="headrace-objects", daemon=True).start()
    return result_of(answer)


def settle(future: Future[T], found: T | None = None, *, error: BaseException | None = None) -> None:
    """Give what came to whoever waits for it, unless that was stopped."""
    with suppress(InvalidStateError):
        if error is None:
            future.set_result(found)  # type: ignore[arg-type]  # None only where that is the result
        else:
            future.set_exception(error)


STOP_SECONDS = 0.1
"""How often a thread whose requests can be stopped looks whether they were, while it waits for others."""


def check_stopped() -> None:
    """Raise `CancelledError` where the requests of this thread were stopped."""
    stop = stop_of_thread()
    if stop is not None and stop.is_set:
        raise CancelledError


def wait_for(event: threading.Event) -> None:
    """Wait for an event; raise `CancelledError` where the requests of this thread are stopped meanwhile."""
    if stop_of_thread() is None:
        event.wait()
        return
    while not event.wait(STOP_SECONDS):
        check_stopped()


def at_once(work: Callable[[S], T], items: Iterable[S], threads: int, name: str) -> list[T]:
    """Return what ``work`` returns for each item, in their order, by requests of several threads.

    >>> at_once(len, ["a", "bc"], threads=2, name="lengths")
    [1, 2]

    The first error, or Ctrl-C, stops the requests that run: nobody waits for a server that does not answer.
    """
    stop = stop_of_thread() or Stop()

    def stopped(item: S) -> T:
        with stoppable(stop):
            return work(item)

    with ThreadPoolExecutor(threads, thread_name_prefix=name) as pool:
        try:
            return list(pool.map(stopped, items))
        except BaseException:
            stop.set()
            raise


class RequestLoop:
    """Runs coroutines for any number of threads, in one thread of its own, until the interpreter exits."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="headrace-objects", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, and return what it returns."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return result_of(future)
        except BaseException:
            future.cancel()  # Ctrl-C, for one: nobody waits for it any more
            raise

    def close(self) -> None:
        """Stop all requests, and end the thread: obstore's threads must not call into an interpreter that ends."""

        def stop() -> None:
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.call_soon(self._loop.stop)

        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(stop)
            self._thread.join(5)
        _settle()


def _settle() -> None:
    """Wait until obstore's threads have left Python: one that waits for the GIL when the interpreter ends aborts it.

    They give no notice. A request has its result a moment before its thread is done with it.
    """
    never, until = threading.Event(), monotonic() + SETTLE_SECONDS
    while True:
        never.wait(LOOK_SECONDS)
        ours = {thread.ident for thread in threading.enumerate()}
        if not sys._current_frames().keys() - ours or monotonic() > until:
            return


class Tail:
    """How long requests of a size take, and from when on one is slow."""

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}
        self.requests = self.hedged = 0

    def slow_after(self, nbytes: int) -> float | None:
        """Return after how many seconds a request is to be sent a second time; None where it is not to be."""
        known = self._seconds.get(nbytes.bit_length(), ())
        if len(known) < ENOUGH or self.hedged + 1 > HEDGED * self.requests:
            return None
        return max(LEAST_WAIT, SLOW * sorted(known)[int(0.95 * (len(known) - 1))])

    def took(self, nbytes: int, seconds: float) -> None:
        """Note how long a request took."""
        self.requests += 1
        self._seconds.setdefault(nbytes.bit_length(), deque(maxlen=REMEMBERED)).append(seconds)


async def hedged(send: Callable[[], Awaitable[T]], nbytes: int, tail: Tail) -> T:
    """Send a request; if it is slow, send it a second time, and return what comes first."""
    clock = asyncio.get_running_loop().time
    begun = clock()
    tasks = {asyncio.ensure_future(send())}
    try:
        wait = tail.slow_after(nbytes)
        done, _ = await asyncio.wait(tasks, timeout=wait)
        if not done:
            tail.hedged += 1
            tasks.add(asyncio.ensure_future(send()))
        left = set(tasks)
        while True:
            done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            whole = [task for task in done if task.exception() is None]
            if whole or not left:
                found = (whole or list(done))[0].result()
                tail.took(nbytes, clock() - begun)
                return found
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()


async def persistent(
    send: Callable[[], Awaitable[T]],
    passes: Callable[[Exception], bool],
    *,
    retries: int | None = None,
    seconds: float | None = None,
) -> T:
    """Send a request again as long as its errors may pass, for `RETRIES` times and `SECONDS` seconds.

    ``retries`` and ``seconds`` are other limits. Raises its last error, and TimeoutError if the time is over while a
    request runs.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + (SECONDS if seconds is None else seconds)
    most = RETRIES if retries is None else retries
    for attempt in range(most + 1):
        try:
            async with asyncio.timeout_at(until):
                return await send()
        except Exception as error:
            pause = random.uniform(0.5, 1) * min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)  # noqa: S311  no secret
            late = clock() + pause > until
            if attempt == most or late or not passes(error):
                raise
        await asyncio.sleep(pause)
    raise AssertionError
