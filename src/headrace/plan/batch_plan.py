"""Batches: an order, cut into pieces of one size, each piece shared out between ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from headrace.context.seeds import Key, Purpose, generator
from headrace.plan.order import FixedEpoch, Shuffled
from headrace.plan.work import Work

if TYPE_CHECKING:
    from headrace.plan.order import Order

Uneven = Literal["pad", "drop", "repeat"]
"""What becomes of the samples at the end of an epoch that cannot be shared out evenly; see `RankShare`."""


class Plan(Protocol):
    """What comes next, as a pure function: the same place, the same work."""

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step, or None where the epoch is over."""
        ...


@dataclass(frozen=True, slots=True)
class RankShare:
    """A rank's part of every global batch, which has ``batch_size`` samples for each of ``world_size`` ranks.

    >>> [RankShare(4, rank, 3).of(12) for rank in range(3)]
    [(0, 4), (4, 4), (8, 4)]
    >>> [RankShare(4, rank, 3).of(7) for rank in range(3)]
    [(0, 3), (3, 3), (6, 3)]
    >>> [RankShare(4, rank, 3, "drop").of(7) for rank in range(3)]
    [(0, 2), (2, 2), (4, 2)]

    All ranks get the same number of samples, of the last, smaller global batch too. What cannot be shared out evenly of
    that one is filled up with as few other samples as it takes ("pad"), left out ("drop"), or the whole global batch is
    filled up to its full size ("repeat").
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    uneven: Uneven = "pad"

    @property
    def global_batch_size(self) -> int:
        """The size of a global batch."""
        return self.batch_size * self.world_size

    def of(self, samples: int) -> tuple[int, int]:
        """Return where in a global batch of so many samples this rank's part begins, and how many it has."""
        size = self.batch_size
        if samples < self.global_batch_size and self.uneven != "repeat":
            size = samples // self.world_size if self.uneven == "drop" else -(-samples // self.world_size)
        return self.rank * size, size


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """An order cut into batches; the last one is short where the sizes do not divide, or dropped.

    >>> from headrace.plan.order import Sequential
    >>> from headrace.context.seeds import key_of
    >>> plan = BatchPlan(Sequential(10), RankShare(4), drop_last=False, seed=key_of(0))
    >>> [list(plan.work(epoch=0, step=step).keys) for step in range(len(plan))]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    >>> plan.work(epoch=0, step=3) is None
    True

    Each work carries ``spares`` keys drawn at random from the epoch, to stand in for bad samples: the same for all
    ranks' parts of a global batch, so that the stand-ins do not depend on the number of ranks. ``first`` is
    the step, and ``origin`` the position in the order, from which the cutting goes on as here: before it, another size
    of batch or of world may have been at work. Samples that fill up the last global batch are those from the epoch's
    beginning, at positions after its end.
    """

    order: Order
    share: RankShare
    drop_last: bool
    seed: Key
    spares: int = 0
    first: int = 0
    origin: int = 0

    def __len__(self) -> int:
        whole, rest = divmod(max(0, len(self.order) - self.origin), self.share.global_batch_size)
        return self.first + whole + (not self.drop_last and self.share.of(rest)[1] > 0 and rest > 0)

    @property
    def samples(self) -> int:
        """How many samples the order has: places from there on fill up the last global batch."""
        return len(self.order)

    @property
    def ends(self) -> int:
        """The place up to which all ranks together come: what lies behind it is left out."""
        whole, last = (
            self.share.global_batch_size,
            self.position(len(self) - 1) if len(self) > self.first else self.origin,
        )
        each = self.share.of(min(whole, self.samples - last))[1] if len(self) > self.first else 0
        return min(self.samples, last + each * self.share.world_size)

    def position(self, step: int) -> int:
        """Return where in the order the global batch of a step begins."""
        return min(len(self.order), self.origin + (step - self.first) * self.share.global_batch_size)

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step: its keys are drawn from the order here and now."""
        if step >= len(self):
            return None
        position, size = self.position(step), len(self.order)
        offset, count = self.share.of(min(self.share.global_batch_size, size - position))
        start = position + offset
        keys = self.order.keys(epoch, start, min(start + count, size)) if start < size else []
        if len(keys) < count:
            keys = [*keys, *self._from_the_beginning(epoch, max(start, size) - size, count - len(keys))]
        return Work(self.seed, epoch, step, start, keys, self._spares(epoch, position))

    def _from_the_beginning(self, epoch: int, start: int, count: int) -> list[Any]:
        return [self.order.keys(epoch, p, p + 1)[0] for p in (n % len(self.order) for n in range(start, start + count))]

    def _spares(self, epoch: int, position: int) -> list[Any]:
        if not self.spares:
            return []
        positions = generator(self.seed, Purpose.SPARES, epoch, position).integers(len(self.order), size=self.spares)
        if isinstance(self.order, Shuffled):
            keys: list[Any] = self.order.at(epoch, positions).tolist()
            return keys
        if isinstance(self.order, FixedEpoch):  # a place by itself costs as much as a whole range
            return self.order.aside(int(positions[0]), self.spares)
        return [self.order.keys(epoch, position, position + 1)[0] for position in positions.tolist()]
