"""What every executor is: it takes works and gives back exactly one outcome for each, in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from headrace.plan.work import Outcome, Work

SCRATCH = 6
"""Pieces of memory that a worker keeps for the steps on the way to a sample: decoded, resized, flipped, as floats, …"""

DELIVERED = 2
"""Batches that a consumer may hold: it drops one after it got the next."""


@runtime_checkable
class Executor(Protocol):
    """Who makes the batches. `headrace.testing.ExecutorTests` says what must hold for each."""

    capacity: int
    """How many works are worth having in flight."""

    def submit(self, work: Work) -> None:
        """Take a work; returns at once."""
        ...

    def next(self, timeout: float | None = None) -> Outcome:
        """Return an outcome, whichever is ready first; raises `WorkerTimeout` after ``timeout`` seconds."""
        ...

    def close(self) -> None:
        """Stop all workers and drop what they made; idempotent, and run when dropped and at exit."""
        ...


@runtime_checkable
class Reusable(Executor, Protocol):
    """An executor whose workers can stay for the next epoch, as ``persistent_workers=True`` asks.

    Any other executor is made again for each epoch.
    """

    @property
    def closed(self) -> bool:
        """Whether its workers are gone."""
        ...

    def reset(self) -> None:
        """Forget what was asked for; the workers stay, each with its copy of the dataset."""
        ...
