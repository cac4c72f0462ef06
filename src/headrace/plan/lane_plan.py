"""Batches of a dataset that keeps a state of its own: each worker process has a copy of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.plan.work import Lane

if TYPE_CHECKING:
    from headrace.plan.batch_plan import Plan
    from headrace.plan.work import Work


class LanePlan:
    """Another plan, whose step ``s`` is made by the dataset's copy number ``s mod lanes``.

    >>> from headrace.context.seeds import key_of
    >>> from headrace.plan.iterator_plan import IteratorPlan
    >>> batches = IteratorPlan([[5], [3], [4]], seed=key_of(0), first=1, entered=(1, 1))
    >>> plan = LanePlan(batches, lanes=2, states={0: ("dataset", "a"), 1: ("dataset", "b")})
    >>> [plan.work(epoch=0, step=step).lane for step in (1, 2, 3)]
    [Lane(number=1, state=('dataset', 'b')), Lane(number=0, state=('dataset', 'a')), Lane(number=1, state=None)]

    The first work of each copy has the state that the copy is to take, which is then taken out of ``states``: an epoch
    may end before each copy has had its turn.
    """

    def __init__(self, plan: Plan, lanes: int, states: dict[int, tuple[Any, ...]]) -> None:
        self._plan = plan
        self._lanes = lanes
        self._states = states

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step."""
        work = self._plan.work(epoch, step)
        if work is None:
            return None
        number = step % self._lanes
        return replace(work, lane=Lane(number, self._states.pop(number, None)))
