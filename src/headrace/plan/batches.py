"""Batches: an order, cut into pieces of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headrace.work import Work

if TYPE_CHECKING:
    from headrace.plan.order import Order


class Plan(Protocol):
    """What comes next, as a pure function: the same place, the same work."""

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step, or None where the epoch is over."""
        ...

    def __len__(self) -> int:
        """Return how many steps an epoch has."""
        ...


@dataclass(frozen=True, slots=True)
class Batches:
    """An order cut into batches; the last one is short where the sizes do not divide, or dropped.

    >>> from headrace.plan.order import Sequential
    >>> plan = Batches(Sequential(10), batch_size=4, drop_last=False)
    >>> [list(plan.work(epoch=0, step=step).keys) for step in range(len(plan))]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    >>> plan.work(epoch=0, step=3) is None
    True
    """

    order: Order
    batch_size: int
    drop_last: bool

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step: its keys are drawn from the order here and now."""
        if step >= len(self):
            return None
        start = step * self.batch_size
        return Work(epoch, step, start, self.order.keys(epoch, start, start + self.batch_size))
