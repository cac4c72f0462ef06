"""The plan of a sampler with random access: global batches of one size, divided among ranks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from headrace.context.seeds import Key, Purpose, generator
from headrace.plan.order import FixedEpoch, Shuffled
from headrace.plan.work import Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.plan.order import Order

Uneven = Literal["pad", "drop", "repeat"]
"""How to handle the last samples of an epoch if they do not divide evenly; see `RankShare`."""


class Plan(Protocol):
    """What comes next, as a pure function: the same step always gives the same work."""

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step, or None after the last one."""
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

    All ranks get the same number of samples, also of the last, smaller global batch. If that one does not divide
    evenly, it is filled with as few other samples as needed ("pad"), or its rest is dropped ("drop"). With "repeat" it
    is filled to the full size.
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
        """Return the offset and the size of this rank's part of a global batch of ``samples`` samples."""
        size = self.batch_size
        if samples < self.global_batch_size and self.uneven != "repeat":
            size = samples // self.world_size if self.uneven == "drop" else -(-samples // self.world_size)
        return self.rank * size, size


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """An order cut into batches; the last one is short if the sizes do not divide, or is dropped.

    >>> from headrace.plan.order import Sequential
    >>> from headrace.context.seeds import key_of
    >>> plan = BatchPlan(Sequential(10), RankShare(4), drop_last=False, seed=key_of(0))
    >>> [list(plan.work(epoch=0, step=step).keys) for step in range(len(plan))]
    [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    >>> plan.work(epoch=0, step=3) is None
    True

    Each work has ``spares`` keys, drawn at random from the epoch, to replace bad samples. They are the same for all
    ranks' parts of a global batch, so that they do not depend on the number of ranks. The plan starts at step ``first``
    and position ``origin`` of the order: before it, the batch size or the world size may have been different. The
    samples that fill the last global batch come from the beginning of the epoch, at positions after its end.
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
    def counted(self) -> bool:
        """True: the number of samples is known before the end of the epoch."""
        return True

    def end(self, step: int) -> tuple[int, int] | None:
        """Return `samples` and `ends` if this step comes after the last one, and None before."""
        return None if step < len(self) else (self.samples, self.ends)

    @property
    def samples(self) -> int:
        """The number of samples in the order. Positions from there on fill the last global batch."""
        return len(self.order)

    @property
    def ends(self) -> int:
        """The position that all ranks together reach. Samples from there on are dropped."""
        whole, last = (
            self.share.global_batch_size,
            self.position(len(self) - 1) if len(self) > self.first else self.origin,
        )
        each = self.share.of(min(whole, self.samples - last))[1] if len(self) > self.first else 0
        return min(self.samples, last + each * self.share.world_size)

    def position(self, step: int) -> int:
        """Return the position in the order where the global batch of a step starts."""
        return min(len(self.order), self.origin + (step - self.first) * self.share.global_batch_size)

    def entry(self, step: int) -> None:  # noqa: ARG002
        """Return None: the position is enough to find a step."""
        return

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step, or None after the last one."""
        share, size = self.share, len(self.order)
        whole = share.batch_size * share.world_size
        position = self.origin + (step - self.first) * whole
        if position + whole <= size:  # nearly always, and quickly
            start = position + share.rank * share.batch_size
            keys = self.order.keys(epoch, start, start + share.batch_size)
        elif step < len(self):
            start, keys = self._last(epoch, position)
        else:
            return None
        return Work(self.seed, epoch, step, start, keys, self._spares(epoch, position) if self.spares else ())

    def _last(self, epoch: int, position: int) -> tuple[int, Sequence[Any]]:
        """Return the start and the keys of this rank's part of the last, smaller global batch."""
        size = len(self.order)
        offset, count = self.share.of(size - position)
        start = position + offset
        keys = self.order.keys(epoch, start, min(start + count, size)) if start < size else []
        if len(keys) < count:
            keys = [*keys, *self._from_the_beginning(epoch, max(start, size) - size, count - len(keys))]
        return start, keys

    def _from_the_beginning(self, epoch: int, start: int, count: int) -> list[Any]:
        return [self.order.keys(epoch, p, p + 1)[0] for p in (n % len(self.order) for n in range(start, start + count))]

    def _spares(self, epoch: int, position: int) -> list[Any]:
        positions = generator(self.seed, Purpose.SPARES, epoch, position).integers(len(self.order), size=self.spares)
        if isinstance(self.order, Shuffled):
            keys: list[Any] = self.order.at(epoch, positions).tolist()
            return keys
        if isinstance(self.order, FixedEpoch):  # one position costs as much as a whole range
            return self.order.aside(int(positions[0]), self.spares)
        return [self.order.keys(epoch, position, position + 1)[0] for position in positions.tolist()]
