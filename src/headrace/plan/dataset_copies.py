"""Batches of a dataset that keeps a state of its own: each worker process has a copy of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.plan.work import DatasetCopy

if TYPE_CHECKING:
    from headrace.plan.batch_plan import Plan
    from headrace.plan.work import Work


class DatasetCopyPlan:
    """Another plan, whose step ``s`` is made by the dataset's copy number ``s mod copies``.

    >>> from headrace.context.seeds import key_of
    >>> from headrace.plan.iterator_plan import IteratorPlan
    >>> batches = IteratorPlan([[5], [3], [4]], seed=key_of(0), first=1, entered=(1, 1))
    >>> plan = DatasetCopyPlan(batches, copies=2, states={0: ("dataset", "a"), 1: ("dataset", "b")})
    >>> copies = [plan.work(epoch=0, step=step).dataset_copy for step in (1, 2, 3)]
    >>> [(copy.number, copy.state) for copy in copies]
    [(1, ('dataset', 'b')), (0, ('dataset', 'a')), (1, None)]

    The first work of each copy has the state that the copy is to take, which is then taken out of ``states``: an epoch
    may end before each copy has had its turn.
    """

    def __init__(self, plan: Plan, copies: int, states: dict[int, tuple[Any, ...]]) -> None:
        self._plan = plan
        self._copies = copies
        self._states = states

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step."""
        work = self._plan.work(epoch, step)
        if work is None:
            return None
        number = step % self._copies
        return replace(work, dataset_copy=DatasetCopy(number, self._states.pop(number, None)))
