"""Batches: an order, cut into pieces of one size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from headrace.seeds import Key, Purpose, generator
from headrace.work import Work

if TYPE_CHECKING:
    from headrace.plan.order import Order


class Plan(Protocol):
    """What comes next, as a pure function: the same place, the same work."""

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step, or None where the epoch is over."""
        ...


@dataclass(frozen=True, slots=True)
class Batches:
    """An order cut into batches; the last one is short where the sizes do not divide, or dropped.

    >>> from headrace.plan.order import Sequential
    >>> from headrace.seeds import key_of
    >>> plan = Batches(Sequential(10), batch_size=4, drop_last=False, seed=key_of(0))
    >>> [list(plan.work(epoch=0, step=step).keys) for step in range(len(plan))]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    >>> plan.work(epoch=0, step=3) is None
    True

    Each work carries ``spares`` keys drawn at random from the epoch, to stand in for bad samples.
    """

    order: Order
    batch_size: int
    drop_last: bool
    seed: Key
    spares: int = 0

    def __len__(self) -> int:
        whole, rest = divmod(len(self.order), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step: its keys are drawn from the order here and now."""
        if step >= len(self):
            return None
        start = step * self.batch_size
        keys = self.order.keys(epoch, start, start + self.batch_size)
        return Work(self.seed, epoch, step, start, keys, self._spares(epoch, start))

    def _spares(self, epoch: int, start: int) -> list[Any]:
        if not self.spares:
            return []
        draw = generator(self.seed, Purpose.SPARES, epoch, start)
        return [
            self.order.keys(epoch, position, position + 1)[0]
            for position in draw.integers(len(self.order), size=self.spares).tolist()
        ]
