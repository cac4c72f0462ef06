"""The executor of the native extension's own threads: Python only begins and completes batches.

    submit ──begin──> thread pool: rows of the oldest job ──> complete ──> next
                                        └── missing rows ──> thread ──┘

The thread that asks for batches does all of Python's part, so nobody waits for the GIL. Handing the GIL from thread to
thread takes longer than making a batch of small images. All threads work at the same batch, so the first batch comes
early, and one slow file holds up no core. Rows that the extension cannot make (an image of another format, or a damaged
file) are made step by step, in a Python thread that is started for them, while the others continue.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from headrace._native import extension
from headrace.context.memory import Recycler, recycling
from headrace.executors import lifecycle
from headrace.executors.base import DELIVERED, SCRATCH
from headrace.executors.lifecycle import (
    PATIENCE,
    ForkGuard,
    closed_while_reading,
    still_running,
    submitted_after_closing,
    timed_out,
)
from headrace.make.maker import Maker, Pending, Stop

if TYPE_CHECKING:
    from headrace.context.memory import Leftover
    from headrace.plan.work import Outcome, Work

EVER = 1e9
"""Seconds."""


class Native:
    """Makes batches on ``workers`` threads without Python, at most ``workers * prefetch`` ahead of the consumer."""

    def __init__(self, maker: Maker, workers: int, prefetch: int = 2, *, leftover: Leftover | None = None) -> None:
        self.capacity = workers * prefetch
        self._maker = maker
        self._batches = Recycler(self.capacity + DELIVERED, leftover)
        self._pool: Any = cast("Any", extension).ThreadPool(workers)
        self._guard = ForkGuard()
        self._events = 0
        self._begun: dict[int, Pending] = {}
        """By identity, so that one of two threads that see a batch finished takes it out."""
        self._done: deque[Outcome] = deque()
        self._step_by_step = _StepByStep(maker, workers, self._done, self._pool)
        self._stop = self._step_by_step.stop
        self._finish = weakref.finalize(
            self, _finish, self._pool, self._begun, self._step_by_step, self._done, self._batches, self._guard
        )

    def submit(self, work: Work) -> None:
        """Begin a work."""
        self._guard.check()
        if self._stop.is_set:
            raise submitted_after_closing()
        pending = self._maker.begin(work, empty=self._batches.empty)
        if isinstance(pending, Pending):
            self._begun[id(pending)] = pending
            for job in pending.begun.jobs:
                self._pool.submit(job)
        else:
            self._done.append(pending)

    def next(self, timeout: float | None = None) -> Outcome:
        """Return the outcome that is ready first."""
        self._guard.check()
        ends = None if timeout is None else monotonic() + timeout
        while True:
            outcome = self._ready()
            if self._stop.is_set:  # if another thread has closed meanwhile, rows may be missing
                raise closed_while_reading()
            if outcome is not None:
                return outcome
            left = EVER if ends is None else ends - monotonic()
            if left <= 0:
                raise timed_out(timeout or 0, self._explain())
            self._events = self._pool.wait(self._events, left)

    def close(self) -> None:
        """Stop the threads after their current rows, and wait for them. Wakes whoever waits for a batch."""
        self._finish()

    def _ready(self) -> Outcome | None:
        # Another thread may close meanwhile, which empties both containers.
        if self._done:
            with contextlib.suppress(IndexError):
                return self._done.popleft()
        for pending in tuple(self._begun.values()):
            begun = pending.begun
            for job in begun.jobs:
                if not job.finished:
                    break
            else:
                if self._begun.pop(id(pending), None) is None:
                    continue
                if not begun.missing:
                    return self._maker.complete(pending)
                self._step_by_step.complete(pending)
        return None

    def _explain(self) -> str:
        lines = []
        for pending in [*self._begun.values(), *self._step_by_step.at]:
            work, left = pending.work, sum(job.left for job in pending.begun.jobs)
            rows = [work.name(row) for row in pending.begun.underway]
            lines.append(f"{work.title}: {', '.join(rows[:8])} of {work.rows}, {left} of them not begun")
        return "\n".join(lines)


class _StepByStep:
    """Completes batches with missing rows, each in a thread of its own, at most ``workers`` at a time."""

    def __init__(self, maker: Maker, workers: int, done: deque[Outcome], pool: Any) -> None:
        self._maker = maker
        self._slots = threading.Semaphore(workers)
        self._done = done
        self._pool = pool
        self.stop = Stop()
        self._threads: dict[threading.Thread, Pending | None] = {}
        """Threads that may still run, with the batch that each completes; None if it has completed it."""

    @property
    def at(self) -> list[Pending]:
        """Batches that are being completed or wait for their turn."""
        return [pending for pending in list(self._threads.values()) if pending is not None]

    def complete(self, pending: Pending) -> None:
        self._forget()
        thread = threading.Thread(target=self._run, args=(pending,), name=f"headrace-{pending.work.step}", daemon=True)
        self._threads[thread] = pending
        try:
            thread.start()
        except RuntimeError:  # the operating system gives no more threads
            del self._threads[thread]
            self._done.append(self._maker.complete(pending, stop=self.stop))
            self._pool.notify()
        else:
            if self.stop.is_set:  # closed meanwhile, by a thread that did not see this one
                thread.join(PATIENCE)

    def _run(self, pending: Pending) -> None:
        with self._slots, recycling(Recycler(keep=SCRATCH)):
            self._done.append(self._maker.complete(pending, stop=self.stop))
        self._threads[threading.current_thread()] = None
        self._pool.notify()

    def _forget(self) -> None:
        """Forget the threads that have ended."""
        for thread, pending in list(self._threads.items()):
            if pending is None and not thread.is_alive():
                self._threads.pop(thread, None)

    def close(self) -> list[str]:
        """End the threads after their current samples, and name those that take too long."""
        return lifecycle.join((thread, partial(self._doing, thread)) for thread in list(self._threads))

    def _doing(self, thread: threading.Thread) -> str:
        pending = self._threads.get(thread)
        return "ending" if pending is None else f"at {pending.work.title}"


def _finish(
    pool: Any,
    begun: dict[int, Pending],
    step_by_step: _StepByStep,
    done: deque[Outcome],
    batches: Recycler,
    guard: ForkGuard,
) -> None:
    if guard.in_child:
        return  # a forked child has the executor, but not its threads
    step_by_step.stop.set()
    late = []
    try:
        # The pool has forgotten jobs that one thread makes by itself: stop them too.
        for pending in list(begun.values()):
            for job in pending.begun.jobs:
                job.stop()
        if not pool.close(PATIENCE):
            late.append(still_running("the native extension", "reading a file", PATIENCE))
            for pending in list(begun.values()):
                for job in pending.begun.jobs:
                    job.abandon()
        late += step_by_step.close()
    finally:  # Ctrl-C may come during the wait
        begun.clear()
        done.clear()
        batches.close()
    lifecycle.warn(late)
