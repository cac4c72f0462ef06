"""The executor of threads: makes batches side by side in this process, where nothing has to be copied.

    submit ──> tasks ──> thread 0 … n-1 ──> outcomes ──> next
                 ↑        maker.make         (queue)
                 └── jobs ──┘

If the native extension makes a part of each batch, before the user's functions run, that part is a job: rows that any
thread can make. With ``together`` threads for a batch, so are the samples of each batch. A free thread helps with the
oldest job before it begins a batch of its own. So the first batch comes early, and one slow file holds up no core.
Batches that the extension makes whole need no Python thread: see executors/native.py.

The threads know the tasks, the outcomes, the maker and the stop flag, and never the executor. So an executor that is
dropped can be collected, which stops them. They are daemon threads, and are always joined: by ``close``, or by the
finalizer when the executor is dropped or the interpreter exits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import sys
import threading
import traceback
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.context import seeds
from headrace.context.memory import Recycler, recycling
from headrace.context.seeds import Here
from headrace.context.sharing import sharing
from headrace.executors import lifecycle
from headrace.executors.base import DELIVERED, SCRATCH
from headrace.executors.lifecycle import ForkGuard, closed_while_reading, submitted_after_closing, timed_out
from headrace.executors.thread_tasks import ThreadTasks
from headrace.executors.worker_options import groups
from headrace.make.maker import Maker, Stop
from headrace.make.split_batch import SplitBatch
from headrace.plan.work import Work
from headrace.storage.request_loop import stoppable

if TYPE_CHECKING:
    from headrace.context.memory import Leftover
    from headrace.plan.work import Outcome


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


class Threads:
    """Makes batches on ``workers`` threads; ``together``: how many of them make the samples of one batch together.

    As many batches as are made at once, times ``prefetch``, are at most ahead of the consumer.
    """

    def __init__(
        self,
        maker: Maker,
        workers: int,
        prefetch: int = 2,
        *,
        together: int = 1,
        leftover: Leftover | None = None,
    ) -> None:
        self.capacity = groups(workers, together) * prefetch
        if together > 1:
            maker = dataclasses.replace(maker, together=together)
        self._outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()
        self._batches = Recycler(self.capacity + DELIVERED, leftover)
        self._stop = Stop()
        self._tasks: ThreadTasks[Work] = ThreadTasks(workers, self._stop)
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
    tasks: ThreadTasks[Work],
    outcomes: queue.SimpleQueue[Outcome | None],
    batches: Recycler,
    stop: Stop,
) -> None:
    maker.ambient.enter_thread()
    with recycling(Recycler(keep=SCRATCH)), sharing(tasks.share), stoppable(stop.requests):
        while (work := tasks.next()) is not None:
            if not isinstance(work, Work):
                state.work = work.work if isinstance(work, SplitBatch) else None
                with seeds.at(state.here):
                    work.run()
                state.work = None
                del work  # which holds the rows of a batch
                continue
            state.work = work
            # Not held in a variable: a batch that this frame still named could not give its memory back.
            outcomes.put(maker.make(work, here=state.here, empty=batches.empty, stop=stop))
            state.work = None


def _finish(
    threads: list[threading.Thread],
    states: list[_ThreadState],
    tasks: ThreadTasks[Work],
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
