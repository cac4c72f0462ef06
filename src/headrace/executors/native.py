"""The executor of the kernel's own threads: Python begins and completes batches, and is not needed in between.

    submit ──begin──> crew: rows of the oldest job ──> complete ──> next
                                 └── rows given up ──> thread ──┘

All of Python's part is done by the thread that asks for batches, so nobody waits for Python's lock: batches of small
pictures, which are made in less time than it takes to hand the lock from thread to thread, come as fast as the rows are
made. All threads work at the same batch, so the first comes early, and one slow file holds up no core. Rows that the
kernel gives up (a picture of another format, or a file that is no picture) are made step by step, in a thread of
Python's that is started for them, while the others go on.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from headrace._native import kernel
from headrace.context.memory import Recycler, recycling
from headrace.errors import WorkerTimeout
from headrace.executors import lifecycle
from headrace.executors.base import SCRATCH
from headrace.executors.lifecycle import (
    PATIENCE,
    ForkGuard,
    closed_while_reading,
    still_running,
    submitted_after_closing,
)
from headrace.make.maker import Maker, Pending, Stop

if TYPE_CHECKING:
    from headrace.plan.work import Outcome, Work

EVER = 1e9
"""Seconds."""


class Native:
    """Makes batches on ``workers`` threads without Python, at most ``workers * prefetch`` ahead of the consumer."""

    def __init__(self, maker: Maker, workers: int, prefetch: int = 2) -> None:
        self.capacity = workers * prefetch
        self._maker = maker
        self._batches = Recycler(keep=self.capacity)
        self._crew: Any = cast("Any", kernel).Crew(workers)
        self._guard = ForkGuard()
        self._events = 0
        self._begun: dict[int, Pending] = {}
        """By identity: of two threads that see one finished, a single one takes it out."""
        self._done: deque[Outcome] = deque()
        self._rest = _Rest(maker, workers, self._done, self._crew)
        self._finish = weakref.finalize(
            self, _finish, self._crew, self._begun, self._rest, self._done, self._batches, self._guard
        )

    def submit(self, work: Work) -> None:
        """Begin a work."""
        self._guard.check()
        if not self._finish.alive:
            raise submitted_after_closing()
        pending = self._maker.begin(work, empty=self._batches.empty)
        if isinstance(pending, Pending):
            self._begun[id(pending)] = pending
            self._crew.submit(pending.begun.job)
        else:
            self._done.append(pending)

    def next(self, timeout: float | None = None) -> Outcome:
        """Return the outcome that is ready first."""
        self._guard.check()
        ends = None if timeout is None else monotonic() + timeout
        while True:
            self._check_open()
            outcome = self._ready()
            self._check_open()  # what another thread has closed meanwhile may lack rows
            if outcome is not None:
                return outcome
            left = EVER if ends is None else ends - monotonic()
            if left <= 0:
                raise WorkerTimeout(self._explain(timeout))
            self._events = self._crew.wait(self._events, left)

    def close(self) -> None:
        """Stop the threads after the rows at hand, and wait for them; whoever waits for a batch is woken."""
        self._finish()

    def _check_open(self) -> None:
        if not self._finish.alive:
            raise closed_while_reading()

    def _ready(self) -> Outcome | None:
        # Another thread may close meanwhile, which empties both.
        if self._done:
            with contextlib.suppress(IndexError):
                return self._done.popleft()
        for pending in tuple(self._begun.values()):
            if pending.begun.job.finished and self._begun.pop(id(pending), None) is not None:
                if not pending.begun.job.missing:
                    return self._maker.complete(pending)
                self._rest.complete(pending)
        return None

    def _explain(self, timeout: float | None) -> str:
        lines = [f"no batch came within {timeout} s. What the workers are doing:"]
        for pending in [*self._begun.values(), *self._rest.at]:
            work, job = pending.work, pending.begun.job
            begun = work.rows - job.left
            rows = [work.name(row) for row in job.missing if row < begun]
            lines.append(f"batch {work.step}: {', '.join(rows[:8])} of {work.rows}, {job.left} of them not begun")
        return "\n".join(lines)


class _Rest:
    """Completes batches with rows that the kernel has given up, each in a thread, so many at a time."""

    def __init__(self, maker: Maker, workers: int, done: deque[Outcome], crew: Any) -> None:
        self._maker = maker
        self._turns = threading.Semaphore(workers)
        self._done = done
        self._crew = crew
        self._stop = Stop()
        self._threads: dict[threading.Thread, Pending | None] = {}
        """Those that may still run, with what they complete; one that is through stays until it has ended."""

    @property
    def at(self) -> list[Pending]:
        """What is being completed, or waits for its turn."""
        return [pending for pending in list(self._threads.values()) if pending is not None]

    def complete(self, pending: Pending) -> None:
        self._forget()
        thread = threading.Thread(target=self._run, args=(pending,), name=f"headrace-{pending.work.step}", daemon=True)
        self._threads[thread] = pending
        try:
            thread.start()
        except RuntimeError:  # none is to be had
            del self._threads[thread]
            self._done.append(self._maker.complete(pending, stop=self._stop))
            self._crew.ring()
        else:
            if self._stop.is_set:  # closed meanwhile, by a thread that could not wait for one that had not begun
                thread.join(PATIENCE)

    def _run(self, pending: Pending) -> None:
        with self._turns, recycling(Recycler(keep=SCRATCH)):
            self._done.append(self._maker.complete(pending, stop=self._stop))
        self._threads[threading.current_thread()] = None
        self._crew.ring()

    def _forget(self) -> None:
        """Forget the threads that have ended."""
        for thread, pending in list(self._threads.items()):
            if pending is None and not thread.is_alive():
                self._threads.pop(thread, None)

    def close(self) -> list[str]:
        """End the threads after the samples at hand, and name those that take too long."""
        self._stop.set()
        return lifecycle.join((thread, partial(self._doing, thread)) for thread in list(self._threads))

    def _doing(self, thread: threading.Thread) -> str:
        pending = self._threads.get(thread)
        return "ending" if pending is None else f"at batch {pending.work.step}"


def _finish(
    crew: Any, begun: dict[int, Pending], rest: _Rest, done: deque[Outcome], batches: Recycler, guard: ForkGuard
) -> None:
    if guard.in_child:
        return  # a fork took the executor along, but not its threads
    late = []
    try:
        for pending in list(
            begun.values()
        ):  # those too that a thread has taken to itself, because such are quickly made
            pending.begun.job.stop()
        if not crew.close(PATIENCE):
            late.append(still_running("the native extension", "reading a file", PATIENCE))
            for pending in list(begun.values()):
                pending.begun.job.abandon()
        late += rest.close()
    finally:  # Ctrl-C may come while threads are waited for
        begun.clear()
        done.clear()
        batches.close()
    lifecycle.warn(late)
