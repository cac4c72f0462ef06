"""The executor of threads: batches are made side by side in this process, memory shared, nothing copied.

    submit ──> works ──> thread 0 … n-1 ──> outcomes ──> next
               (queue)    maker.make         (queue)

The threads know the two queues, the maker and the stop flag, never the executor: so an executor that is dropped can
be collected, which stops them. They are daemons that are always joined: by ``close``, by the finalizer when the
executor is dropped, and by the same finalizer before the interpreter exits.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import traceback
import warnings
import weakref
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from headrace.errors import LoaderClosed, WorkerTimeout
from headrace.executors.base import SCRATCH
from headrace.maker import Maker, Stop
from headrace.memory import Recycler, recycling
from headrace.seeds import Here

if TYPE_CHECKING:
    from headrace.work import Outcome, Work

PATIENCE = 10.0
"""Seconds that closing waits for the samples at hand to end before it leaves their threads behind, with a warning."""


@dataclass(slots=True)
class _Desk:
    """What a thread is working on, for whoever has to explain a delay."""

    here: Here
    work: Work | None = None

    def sample(self) -> str:
        work = self.work
        if work is None:
            return "idle"
        row = self.here.position - work.start
        return f"{work.name(row)} of batch {work.step}" if 0 <= row < work.rows else f"batch {work.step}"


class Threads:
    """Makes batches on ``workers`` threads, at most ``workers * prefetch`` ahead of the consumer."""

    def __init__(self, maker: Maker, workers: int, prefetch: int = 2) -> None:
        self.capacity = workers * prefetch
        self._works: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._batches = Recycler(keep=self.capacity)
        self._stop = Stop()
        self._pid = os.getpid()
        self._desks = [_Desk(Here()) for _ in range(workers)]
        self._threads = [
            threading.Thread(
                target=_serve,
                args=(maker, desk, self._works, self._outcomes, self._batches, self._stop),
                name=f"headrace-{number}",
                daemon=True,
            )
            for number, desk in enumerate(self._desks)
        ]
        self._finish = weakref.finalize(
            self,
            _finish,
            self._threads,
            self._desks,
            self._works,
            self._outcomes,
            self._batches,
            self._stop,
        )
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work) -> None:
        """Hand a work to whichever thread is free first."""
        if not self._finish.alive:
            raise LoaderClosed("a work was submitted to a closed executor")
        self._works.put(work)

    def next(self, timeout: float | None = None) -> Outcome:
        """Return the outcome that is ready first."""
        if os.getpid() != self._pid:
            raise LoaderClosed(
                "this loop was begun before the process forked, and threads do not survive a fork: "
                "begin a new loop in the child"
            )
        if not self._finish.alive:
            raise LoaderClosed("the loader was closed while a loop was still reading from it")
        try:
            outcome = self._outcomes.get(timeout=timeout)
        except queue.Empty:
            raise WorkerTimeout(self._explain(timeout)) from None
        if outcome is None:
            self._outcomes.put(None)  # for the next thread that waits here
            raise LoaderClosed("the loader was closed while a loop was still reading from it")
        return outcome

    def close(self) -> None:
        """Stop the threads after the samples at hand, and wait for them."""
        if os.getpid() == self._pid:
            self._finish()
        else:
            self._finish.detach()

    def _explain(self, timeout: float | None) -> str:
        frames = sys._current_frames()  # the only way to another thread's stack
        lines = [f"no batch came within {timeout} s. What the workers are doing:"]
        for thread, desk in zip(self._threads, self._desks, strict=True):
            lines.append(f"{thread.name}: {desk.sample()}")
            frame = frames.get(thread.ident or 0)
            if desk.work is not None and frame is not None:
                lines += [line.rstrip() for line in traceback.format_stack(frame)[-8:]]
        del frames, frame  # frames of ours among them: a cycle
        return "\n".join(lines)


def _serve(
    maker: Maker,
    desk: _Desk,
    works: queue.SimpleQueue[Work | None],
    outcomes: queue.SimpleQueue[Outcome | None],
    batches: Recycler,
    stop: Stop,
) -> None:
    with recycling(Recycler(keep=SCRATCH)):
        while (work := works.get()) is not None:
            desk.work = work
            # Not held in a variable: a batch that this frame still named would keep its memory from being used again.
            outcomes.put(maker.make(work, here=desk.here, empty=batches.empty, stop=stop))
            desk.work = None


def _finish(
    threads: list[threading.Thread],
    desks: list[_Desk],
    works: queue.SimpleQueue[Work | None],
    outcomes: queue.SimpleQueue[Outcome | None],
    batches: Recycler,
    stop: Stop,
) -> None:
    stop.set()
    for _ in threads:
        works.put(None)
    deadline = monotonic() + PATIENCE
    for thread, desk in zip(threads, desks, strict=True):
        # The last reference may be dropped by one of the threads itself; a thread cannot wait for its own end.
        if thread.is_alive() and thread is not threading.current_thread():
            thread.join(max(0.0, deadline - monotonic()))
            if thread.is_alive():
                warnings.warn(
                    f"{thread.name} did not end within {PATIENCE:g} s of closing: still at {desk.sample()}; "
                    "it is left behind and ends with that sample or with the process",
                    RuntimeWarning,
                    stacklevel=2,
                )
    # An error among what nobody took would hold the frame it came through, and that this queue: a cycle, with all the
    # batches in it.
    with contextlib.suppress(queue.Empty):
        while True:
            outcomes.get_nowait()
    outcomes.put(None)  # wakes a consumer that another thread left waiting
    batches.close()
