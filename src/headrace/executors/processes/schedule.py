"""Which worker makes a work: the only place that decides it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.plan.work import Work


class Schedule(Protocol):
    """Chooses a worker for each work, in the order of the works."""

    def choose(self, work: Work, load: Callable[[int], int]) -> int:
        """Return the worker's number; ``load`` says how many works a worker has to answer."""
        ...

    def reset(self) -> None:
        """Begin another epoch."""
        ...


class RoundRobin:
    """Worker ``i`` makes the works ``i``, ``i + workers``, …, however busy it is; a replica has one worker for good.

    >>> from headrace.plan.work import Work
    >>> works = [Work((0, 0), 0, step, step, [step]) for step in range(3)]
    >>> schedule = RoundRobin(workers=2)
    >>> [schedule.choose(work, load=[9, 0].__getitem__) for work in works]
    [0, 1, 0]
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._turn = 0

    def choose(self, work: Work, load: Callable[[int], int]) -> int:
        """Return the worker whose turn it is; for a stream or a dataset with a state, the one that has the copy."""
        if work.replica is not None and not work.keys:
            number = work.replica.number % self._workers
        elif work.dataset_copy is not None:
            number = work.dataset_copy.number % self._workers
        else:
            number = self._free(self._turn % self._workers, load)
        self._turn = number + 1
        return number

    def reset(self) -> None:
        """Begin with the first worker again."""
        self._turn = 0

    def _free(self, first: int, load: Callable[[int], int]) -> int:  # noqa: ARG002  for those that look at it
        return first


class FirstFree(RoundRobin):
    """As `RoundRobin`, but passes over workers that have ``limit`` works to answer, where another has fewer.

    >>> from headrace.plan.work import Work
    >>> works = [Work((0, 0), 0, step, step, [step]) for step in range(3)]
    >>> schedule = FirstFree(workers=2, limit=2)
    >>> [schedule.choose(work, load=[2, 0].__getitem__) for work in works]
    [1, 1, 1]
    """

    def __init__(self, workers: int, limit: int) -> None:
        super().__init__(workers)
        self._limit = limit

    def _free(self, first: int, load: Callable[[int], int]) -> int:
        after = (number % self._workers for number in range(first, first + self._workers))
        return next((number for number in after if load(number) < self._limit), first)
