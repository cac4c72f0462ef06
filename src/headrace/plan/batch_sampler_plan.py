"""The plan of a planned batch sampler: its batches, divided among ranks."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING

from headrace.plan.work import Work

if TYPE_CHECKING:
    from headrace.context.seeds import Key
    from headrace.plan.batch_plan import RankShare
    from headrace.plan.order import BatchOrder


class BatchSamplerPlan:
    """One epoch of a batch sampler's batches: at each step, one for each rank.

    >>> from headrace.samplers import BucketBatchSampler
    >>> from headrace.plan.batch_plan import RankShare
    >>> from headrace.context.seeds import key_of
    >>> order = BucketBatchSampler([1, 2, 3, 4, 5, 6], 2, shuffle=False).batch_order(key_of(0))
    >>> plans = [BatchSamplerPlan(order, 0, RankShare(1, rank, 2), seed=key_of(0)) for rank in range(2)]
    >>> [[plan.work(0, step).keys for step in range(len(plan))] for plan in plans]
    [[[0, 1], [4, 5]], [[2, 3], [0, 1]]]

    The last step may have too few batches. Then the other ranks get batches from the beginning of the epoch ("pad" and
    "repeat"), or the step is dropped ("drop"). The plan starts at step ``first`` with the sample at position
    ``origin``.
    """

    def __init__(
        self,
        order: BatchOrder,
        epoch: int,
        share: RankShare,
        seed: Key,
        *,
        spare: bool = False,
        first: int = 0,
        origin: int = 0,
    ) -> None:
        self._order = order
        self._epoch = epoch
        self._share = share
        self._seed = seed
        self._spare = spare
        self.first = first
        self.origin = origin
        self._count = order.count(epoch)
        self._begin = bisect_left(range(self._count), origin, key=lambda number: order.start(epoch, number))

    def __len__(self) -> int:
        whole, rest = divmod(self._count - self._begin, self._share.world_size)
        return self.first + whole + (rest > 0 and self._share.uneven != "drop")

    @property
    def samples(self) -> int:
        """The number of samples in the epoch. Positions from there on belong to repeated batches."""
        return self._start(self._count)

    @property
    def ends(self) -> int:
        """The position that all ranks together reach. Samples from there on are dropped."""
        return self.position(len(self))

    def position(self, step: int) -> int:
        """Return the position of the first sample that no rank received before a step."""
        return self._start(min(self._count, self._number(step)))

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step, or None after the last one."""
        if step >= len(self):
            return None
        turn, number = divmod(self._number(step) + self._share.rank, self._count)
        keys = self._order.keys(self._epoch, number)
        # Repeated batches have positions after the epoch's end, so their augmentation differs.
        start = self._start(number) + (turn * self._start(self._count) if turn else 0)
        return Work(self._seed, epoch, step, start, keys, keys if self._spare else ())

    def _number(self, step: int) -> int:
        return self._begin + (step - self.first) * self._share.world_size

    def _start(self, number: int) -> int:
        if number < self._count:
            return self._order.start(self._epoch, number)
        last = self._count - 1
        return self._order.start(self._epoch, last) + len(self._order.keys(self._epoch, last)) if self._count else 0
