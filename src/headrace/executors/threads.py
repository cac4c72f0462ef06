"""The executor of threads: makes batches side by side in this process, where nothing has to be copied.

    submit ──> tasks ──> thread 0 … n-1 ──> outcomes ──> next
                 ↑        maker.make         (queue)
                 └── jobs ──┘

If the native extension makes a part of each batch, before the user's functions run, that part is a job: rows that any
thread can make. A free thread helps with the oldest job before it begins a batch of its own. So the first batch comes
early, and one slow file holds up no core. Batches that the extension makes whole need no Python thread: see
executors/native.py.

The threads know the tasks, the outcomes, the maker and the stop flag, and never the executor. So an executor that is
dropped can be collected, which stops them. They are daemon threads, and are always joined: by ``close``, or by the
finalizer when the executor is dropped or the interpreter exits.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
import traceback
import weakref
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from headrace.context.memory import Recycler, recycling
from headrace.context.seeds import Here
from headrace.context.sharing import Job, sharing
from headrace.executors import lifecycle
from headrace.executors.base import DELIVERED, SCRATCH
from headrace.executors.lifecycle import ForkGuard, closed_while_reading, submitted_after_closing, timed_out
from headrace.make.maker import Maker, Stop
from headrace.plan.work import Work

if TYPE_CHECKING:
    from headrace.context.memory import Leftover
    from headrace.plan.work import Outcome

QUICK = 0.002
"""Seconds; a job that takes less is not shared."""


@dataclass(slots=True)
class _ThreadState:
    """What a thread is working on, for messages about delays."""

    here: Here
    work: Work | None = None

    def doing(self) -> str:
        """Say what the thread is doing, for the warning if it does not end."""
        return "idle" if self.work is None else f"at {self.sample()}"

    def sample(self) -> str:
        """Name the sample."""
        work = self.work
        if work is None:
            return "idle"
        return work.place(self.here.position - work.start)


class _Tasks:
    """Gives the threads what there is to do: jobs to help with, then works to begin, both the oldest first.

    It uses no Python lock: Ctrl-C may come when one is held already but nobody knows it yet.
    """

    def __init__(self, workers: int, stop: Stop) -> None:
        self._workers = workers
        self._stop = stop
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        """None wakes a thread, to look for jobs or for the end."""
        self._jobs: list[Job] = []
        self._pace = QUICK
        """Seconds that a row took lately, in one thread."""

    def put(self, work: Work) -> None:
        self._queue.put(work)

    def next(self) -> Work | Job | None:
        """Return what to do next, as soon as there is something; None at the end."""
        while not self._stop.is_set:
            for job in list(self._jobs):
                if job.left:
                    return job
            work = self._queue.get()
            if work is not None and not self._stop.is_set:
                return work
        return None

    def share(self, job: Job) -> None:
        """Make the rows of a job, here and wherever a thread is free."""
        rows = job.left
        if rows * self._pace < QUICK:  # it is made before a second thread is awake
            began = perf_counter()
            job.run()
            self._pace = (perf_counter() - began) / max(rows, 1)
            return
        self._jobs.append(job)
        self._wake(self._workers - 1)
        began = perf_counter()
        try:
            if self._stop.is_set:
                job.stop()
            job.run()
            job.wait()
        finally:
            self._jobs.remove(job)
        # Shorter by what other threads did, which is what decides whether they are asked next time.
        self._pace = (perf_counter() - began) / max(rows, 1)
        self._stop.check()

    def close(self) -> None:
        """Wake every thread after the stop flag is set; nobody begins another row of a job."""
        for job in list(self._jobs):
            job.stop()
        self._wake(self._workers)

    def _wake(self, threads: int) -> None:
        for _ in range(threads):
            self._queue.put(None)


class Threads:
    """Makes batches on ``workers`` threads, at most ``workers * prefetch`` ahead of the consumer."""

    def __init__(self, maker: Maker, workers: int, prefetch: int = 2, *, leftover: Leftover | None = None) -> None:
        self.capacity = workers * prefetch
        self._outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._batches = Recycler(self.capacity + DELIVERED, leftover)
        self._stop = Stop()
        self._tasks = _Tasks(workers, self._stop)
        self._guard = ForkGuard()
        self._states = [_ThreadState(Here()) for _ in range(workers)]
        self._threads = [
            threading.Thread(
                target=_serve,
                args=(maker, state, self._tasks, self._outcomes, self._batches, self._stop),
                name=f"headrace-{number}",
                daemon=True,
            )
            for number, state in enumerate(self._states)
        ]
        self._finish = weakref.finalize(
            self,
            _finish,
            self._threads,
            self._states,
            self._tasks,
            self._outcomes,
            self._batches,
            self._stop,
            self._guard,
        )
        for thread in self._threads:
            thread.start()

    def submit(self, work: Work) -> None:
        """Hand a work to whichever thread is free first."""
        self._guard.check()
        if not self._finish.alive:
            raise submitted_after_closing()
        self._tasks.put(work)

    def next(self, timeout: float | None = None) -> Outcome:
        """Return the outcome that is ready first."""
        self._guard.check()
        if not self._finish.alive:
            raise closed_while_reading()
        try:
            outcome = self._outcomes.get(timeout=timeout)
        except queue.Empty:
            raise timed_out(timeout or 0, self._explain()) from None
        if outcome is None:
            self._outcomes.put(None)  # for the next thread that waits here
            raise closed_while_reading()
        return outcome

    def close(self) -> None:
        """Stop the threads after the samples at hand, and wait for them."""
        self._finish()

    def _explain(self) -> str:
        frames = sys._current_frames()  # the only way to see another thread's stack
        lines = []
        for thread, state in zip(self._threads, self._states, strict=True):
            lines.append(f"{thread.name}: {state.sample()}")
            frame = frames.get(thread.ident or 0)
            if state.work is not None and frame is not None:
                lines += [line.rstrip() for line in traceback.format_stack(frame)[-8:]]
        del frames, frame  # frames of ours among them: a cycle
        return "\n".join(lines)


def _serve(
    maker: Maker,
    state: _ThreadState,
    tasks: _Tasks,
    outcomes: queue.SimpleQueue[Outcome | None],
    batches: Recycler,
    stop: Stop,
) -> None:
    maker.ambient.enter_thread()
    with recycling(Recycler(keep=SCRATCH)), sharing(tasks.share):
        while (work := tasks.next()) is not None:
            if not isinstance(work, Work):
                work.run()
                continue
            state.work = work
            # Not held in a variable: a batch that this frame still named could not give its memory back.
            outcomes.put(maker.make(work, here=state.here, empty=batches.empty, stop=stop))
            state.work = None


def _finish(
    threads: list[threading.Thread],
    states: list[_ThreadState],
    tasks: _Tasks,
    outcomes: queue.SimpleQueue[Outcome | None],
    batches: Recycler,
    stop: Stop,
    guard: ForkGuard,
) -> None:
    if guard.in_child:
        return  # a forked child has the executor, but not its threads
    stop.set()
    tasks.close()
    late = lifecycle.join((thread, state.doing) for thread, state in zip(threads, states, strict=True))
    # An error among what nobody took would hold the frame it came through, and that this queue: a cycle, with all the
    # batches in it.
    with contextlib.suppress(queue.Empty):
        while True:
            outcomes.get_nowait()
    outcomes.put(None)  # wakes a consumer that another thread left waiting
    batches.close()
    lifecycle.warn(late)
