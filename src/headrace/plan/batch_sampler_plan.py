"""The plan of a planned batch sampler: its batches, divided among ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.plan.batch_walk import Walked, walk
from headrace.plan.work import Work

if TYPE_CHECKING:
    from headrace.context.seeds import Key
    from headrace.plan.batch_plan import RankShare
    from headrace.plan.batch_walk import Entry
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
    ``origin``; ``entry`` is what `entry` returned for that step. The end of the epoch is found when it is reached.
    """

    def __init__(
        self,
        order: BatchOrder,
        epoch: int,
        share: RankShare,
        seed: Key,
        spare: bool = False,
        first: int = 0,
        origin: int = 0,
        entry: Entry | None = None,
    ) -> None:
        self._order = order
        self._epoch = epoch
        self._share = share
        self._seed = seed
        self._spare = spare
        self.first = first
        self.origin = origin
        self._walk = walk(order, epoch, origin, entry)

    def __len__(self) -> int:
        whole, rest = divmod(self._walk.count(), self._share.world_size)
        return self.first + whole + (rest > 0 and self._share.uneven != "drop")

    @property
    def counted(self) -> bool:
        """Whether the number of samples is known before the end of the epoch."""
        return not isinstance(self._order, Walked)

    def end(self, step: int) -> tuple[int, int] | None:
        """Return `samples` and `ends` if this step comes after the last one, and None before."""
        return None if self._has(self._number(step)) else (self.samples, self.ends)

    @property
    def samples(self) -> int:
        """The number of samples in the epoch. Positions from there on belong to repeated batches."""
        return self._walk.position(self._walk.count())

    @property
    def ends(self) -> int:
        """The position that all ranks together reach. Samples from there on are dropped."""
        return self.position(len(self))

    def position(self, step: int) -> int:
        """Return the position of the first sample that no rank received before a step."""
        return self._walk.position(self._number(step))

    def entry(self, step: int) -> Entry | None:
        """Return what a plan from this step on needs to find it at once, if more than its position."""
        return self._walk.entry(self._number(step))

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step, or None after the last one."""
        number = self._number(step)
        if not self._has(number):
            return None
        mine = number + self._share.rank
        start, keys = self._walk.batch(mine) or self._repeated(mine)
        return Work(self._seed, epoch, step, start, keys, keys if self._spare else ())

    def _has(self, number: int) -> bool:
        """Say whether there is a step that begins with this batch."""
        return self._walk.has(number + self._share.world_size - 1 if self._share.uneven == "drop" else number)

    def _repeated(self, number: int) -> tuple[int, list[Any]]:
        """Return a batch from the beginning of the epoch.

        Its position is after the epoch's end, so its augmentation differs.
        """
        whole, beyond = walk(self._order, self._epoch), number - self._walk.count()
        turn = 1
        if not whole.has(beyond):
            turns, beyond = divmod(beyond, whole.count())
            turn += turns
        position, keys = whole.batch(beyond) or (0, [])
        return position + turn * self.samples, keys

    def _number(self, step: int) -> int:
        return (step - self.first) * self._share.world_size
