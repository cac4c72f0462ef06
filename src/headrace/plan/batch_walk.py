"""The batches of an epoch from a position on, found one after the other."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from headrace.plan.order import BatchOrder

Entry = tuple[int, int]
"""A window of the order of samples, and the position of its first batch."""


class Walk(Protocol):
    """The batches of an epoch from a position on, numbered from 0."""

    def batch(self, number: int) -> tuple[int, list[Any]] | None:
        """Return a batch's position and keys; None after the last one."""
        ...

    def has(self, number: int) -> bool:
        """Say whether there is such a batch."""
        ...

    def position(self, number: int) -> int:
        """Return the position of a batch, or of the epoch's end."""
        ...

    def entry(self, number: int) -> Entry | None:
        """Return what lets a plan find the batch at once, if more than its position is needed."""
        ...

    def count(self) -> int:
        """Return how many batches there are, which may need all of them."""
        ...


@runtime_checkable
class Walked(Protocol):
    """A `BatchOrder` that finds its batches from any position on, without counting them."""

    def walk(self, epoch: int, position: int = 0, entry: Entry | None = None) -> Walk:
        """Return the batches of an epoch from a position on."""
        ...


def walk(order: BatchOrder, epoch: int, position: int = 0, entry: Entry | None = None) -> Walk:
    """Return the batches of an epoch from a position on, of any batch order."""
    return order.walk(epoch, position, entry) if isinstance(order, Walked) else CountedWalk(order, epoch, position)


class CountedWalk:
    """The batches of an order that knows how many there are."""

    def __init__(self, order: BatchOrder, epoch: int, position: int) -> None:
        self._order = order
        self._epoch = epoch
        self._all = order.count(epoch)
        self._begin = bisect_left(range(self._all), position, key=lambda number: order.start(epoch, number))

    def batch(self, number: int) -> tuple[int, list[Any]] | None:
        """Return a batch's position and keys; None after the last one."""
        if not self.has(number):
            return None
        step = self._begin + number
        return self._order.start(self._epoch, step), self._order.keys(self._epoch, step)

    def has(self, number: int) -> bool:
        """Say whether there is such a batch."""
        return self._begin + number < self._all

    def position(self, number: int) -> int:
        """Return the position of a batch, or of the epoch's end."""
        if self.has(number):
            return self._order.start(self._epoch, self._begin + number)
        last = self._all - 1
        return self._order.start(self._epoch, last) + len(self._order.keys(self._epoch, last)) if self._all else 0

    def entry(self, number: int) -> Entry | None:  # noqa: ARG002
        """Return None: the position is enough."""
        return None

    def count(self) -> int:
        """Return how many batches there are."""
        return self._all - self._begin
