"""What became of each batch, and when: from the step that was asked for to the batch that was handed over."""

from __future__ import annotations

import threading
from collections import deque
from time import perf_counter, thread_time
from typing import TYPE_CHECKING

from headrace.plan.work import GIL, QUEUE, SLOWEST, STAGES, WHEN
from headrace.run.life import Life

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.plan.work import Carried, Done, Making, Outcome, Work
    from headrace.run.timeline import Timeline

KEPT = 512
"""Lives that are kept: enough to see how much the times of batches differ."""
QUICK, SPARSE = 2e-3, 16
"""Where a batch comes in less than so many seconds, one of so many is noted: noting takes a few microseconds."""
LOOKED = (8, 32)
"""Batches after which that is decided: a few, or more where the first one was slow."""
QUEUES = 8
"""Of one of so many that are noted, also how long its thread waited for a CPU: asking takes 10 µs."""
GIL_EARLY, GIL_TRIALS = 4, 32
"""Before one of so many that are noted, a thread gives up the GIL for 50 µs, to see how soon it gets it back: of the
first ones oftener, so that a diagnosis has a few trials."""


class Lives:
    """The lives of a loop's batches: the newest are kept, and all go into the timeline, if there is one."""

    __slots__ = ("_count", "_made", "_received", "_samples", "_submitted", "_threads", "_timeline", "every", "recent")

    def __init__(self, timeline: Timeline | None = None, *, threads: bool = False, samples: bool = False) -> None:
        self._timeline = timeline
        self._threads = threads
        """Whether workers are threads of this process, which may have to wait for the GIL."""
        self._samples = SLOWEST if samples else 0
        """Whether the slowest sample of each batch is noted: a look at the clock for each."""
        self._submitted: dict[int, float] = {}
        self._received: dict[int, tuple[float, int]] = {}
        """When, and by which thread; of batches that were not delivered yet."""
        self._made: list[tuple[int, Mapping[str, float], Making | None, Carried | None, str]] = []
        """What the outcomes at hand say; not their batches, which nobody may hold."""
        self._count = 0
        self.every = 1
        """One of so many steps is noted."""
        self.recent: deque[Life] = deque(maxlen=KEPT)

    def submitted(self, work: Work) -> None:
        """Note that the executor is given a work."""
        if work.step % self.every == 0:
            work.noted = self.noting()
            self._submitted[work.step] = perf_counter()

    def begun(self, step: int, began: float) -> None:
        """Note a work that the thread that asked for it has begun by itself."""
        self._submitted[step] = began

    def noting(self) -> int:
        """Return what is to be noted of the next batch that is noted."""
        self._count += 1
        noted = WHEN | self._samples
        if self._count % QUEUES == 0:
            noted |= QUEUE
        if self._threads and self._count % (GIL_EARLY if self._count <= GIL_TRIALS else GIL_TRIALS) == 0:
            noted |= GIL
        return noted if self._timeline is None or not self._timeline.is_open else noted | STAGES

    def received(self, outcome: Outcome) -> None:
        """Note that the executor returned an outcome."""
        if outcome.step in self._submitted:
            self._received[outcome.step] = (perf_counter(), threading.get_native_id())

    def made(self, outcome: Done) -> None:
        """Note what a worker says of the batch at hand."""
        if outcome.step not in self._submitted:
            return
        node = "" if outcome.made_on is None else outcome.made_on.node
        self._made.append((outcome.step, outcome.seconds, outcome.making, outcome.carried, node))

    def lost(self, step: int) -> None:
        """Forget a step that has no batch: it failed, or the stream had nothing left."""
        self._submitted.pop(step, None)
        self._received.pop(step, None)

    def delivered(self, asked: float, delivered: float) -> None:
        """Note that a batch was given to the loop: of the outcome at hand; where it was refilled, of any number."""
        if self._timeline is None and not self._made:
            return
        consumer = threading.get_native_id()
        lives = []
        for step, seconds, making, carried, node in self._made:
            received, receiver = self._received.pop(step, (delivered, consumer))
            submitted = self._submitted.pop(step)
            lives.append(
                Life(
                    step,
                    submitted,
                    received,
                    asked,
                    delivered,
                    receiver,
                    consumer,
                    seconds,
                    making,
                    carried,
                    node,
                    thread_time(),
                )
            )
        self._made.clear()
        self.recent.extend(map(_without_spans, lives))
        if self._timeline is None:
            self._look(delivered)
        else:
            self._timeline.add(lives, asked, delivered, ready=len(self._received))

    def inline(self, step: int, making: Making, delivered: float) -> None:
        """Note a batch that was made by the thread that asked for it, in no time but its making's."""
        began, ended, thread = making.began, making.ended, making.thread
        self.recent.append(
            Life(step, began, ended, began, delivered, thread, thread, {}, making, None, "", thread_time())
        )
        self._look(delivered)

    def _look(self, delivered: float) -> None:
        """Note fewer batches where they come quickly."""
        recent = self.recent
        if self.every == 1 and len(recent) in LOOKED and delivered - recent[0].delivered < len(recent) * QUICK:
            self.every = SPARSE
            recent.clear()


def _without_spans(life: Life) -> Life:
    """Return the life of a traced batch without the thousands of times that are in the file already."""
    making = life.making
    return life if making is None or not making.spans else life._replace(making=making._replace(spans=()))
