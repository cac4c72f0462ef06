"""How long a batch takes in a pipeline of workers and a loop: a model, without threads and clocks."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

STEPS = 300
"""Batches to simulate. The first quarter does not count: the pipeline fills."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a batch costs, and who makes it; times in seconds.

    >>> fast = Pipeline(service=[0.1], training=[0.01], workers=4, ahead=8)
    >>> round(fast.period(), 3)
    0.025
    >>> round(Pipeline(service=[0.1], training=[0.05], workers=4, ahead=8).period(), 3)
    0.05
    """

    service: Sequence[float]
    """How long a worker takes for a batch when nothing slows it down: examples, used in turn."""
    training: Sequence[float]
    """How long the loop takes from one batch to asking for the next."""
    workers: int
    """0: the loop makes its batches."""
    ahead: int = 0
    """Batches that may be asked for and not taken yet."""
    in_turns: bool = False
    """Whether worker ``i`` makes the steps ``i``, ``i + workers``, …."""
    handing: float = 0.0
    """What the loop's own thread does for each batch: opening what a process sent."""
    floor: float = 0.0
    """No batch comes in less: what all workers share is busy so long with each (processors, the GIL)."""

    def period(self) -> float:
        """Return the seconds from batch to batch, once the pipeline is full."""
        service, training = self.service, self.training
        workers = max(1, self.workers)
        free = [0.0] * workers
        taken: list[float] = []
        now = 0.0
        for step in range(STEPS):
            asked = now + training[step % len(training)]
            spent = service[step % len(service)]
            if not self.workers:
                made = asked + spent
            else:
                room = taken[step - self.ahead] if step >= self.ahead else 0.0
                if self.in_turns:
                    made = free[step % workers] = max(free[step % workers], room) + spent
                else:
                    made = max(heapq.heappop(free), room) + spent
                    heapq.heappush(free, made)
            now = max(asked, made) + self.handing
            taken.append(now)
        first = STEPS // 4
        return max(self.floor, (taken[-1] - taken[first]) / (STEPS - 1 - first))
