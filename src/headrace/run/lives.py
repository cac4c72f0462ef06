"""What became of each batch, and when: from the step that was asked for to the batch that was handed over."""

from __future__ import annotations

import threading
from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

from headrace.run.life import Life

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.plan.work import Carried, Done, Making, Outcome, Work
    from headrace.run.timeline import Timeline

KEPT = 512
"""Lives that are kept: enough to see how much the times of batches differ."""
QUICK, SPARSE = 1e-3, 16
"""Where a batch comes in less than so many seconds, one of so many is noted: noting takes a few microseconds."""
LOOKED = 32
"""Batches after which that is decided."""


class Lives:
    """The lives of a loop's batches: the newest are kept, and all go into the timeline, if there is one."""

    __slots__ = ("_made", "_received", "_submitted", "_timeline", "every", "recent")

    def __init__(self, timeline: Timeline | None = None) -> None:
        self._timeline = timeline
        self._submitted: dict[int, float] = {}
        self._received: dict[int, tuple[float, int]] = {}
        """When, and by which thread; of batches that were not delivered yet."""
        self._made: list[tuple[int, Mapping[str, float], Making | None, Carried | None, str]] = []
        """What the outcomes at hand say; not their batches, which nobody may hold."""
        self.every = 1
        """One of so many steps is noted."""
        self.recent: deque[Life] = deque(maxlen=KEPT)

    def submitted(self, work: Work) -> None:
        """Note that the executor is given a work."""
        if work.step % self.every == 0:
            work.noted = 1 if self._timeline is None or not self._timeline.is_open else 2
            self._submitted[work.step] = perf_counter()

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
                Life(step, submitted, received, asked, delivered, receiver, consumer, seconds, making, carried, node)
            )
        self._made.clear()
        recent = self.recent
        recent.extend(lives)
        if self._timeline is None:
            if self.every == 1 and len(recent) == LOOKED and delivered - recent[0].delivered < LOOKED * QUICK:
                self.every = SPARSE
        else:
            self._timeline.add(lives, asked, delivered, ready=len(self._received))
