"""A batch sampler with the same number of samples of each class in a batch."""

from __future__ import annotations

from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import integer, row
from headrace.errors import ArgumentError
from headrace.plan.order import AHEAD
from headrace.plan.permutation import Permutations
from headrace.plan.planned import PlannedBatchSampler, digest
from headrace.plan.range_cache import RangeCache

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from headrace.context.seeds import Key


class BalancedBatchSampler(PlannedBatchSampler[int]):
    """Batches with the same number of samples of each of their classes, also of rare classes.

    >>> from headrace import DataLoader
    >>> from headrace.samplers import BalancedBatchSampler
    >>> labels = ["cat"] * 6 + ["dog"] * 2
    >>> for batch in DataLoader(labels, batch_sampler=BalancedBatchSampler(labels, samples_per_class=2), seed=0):
    ...     print(sorted(batch))
    ['cat', 'cat', 'dog', 'dog']
    ['cat', 'cat', 'dog', 'dog']

    ``labels`` has the class of each sample, as numbers or strings. ``classes_per_batch`` is the number of different
    classes in a batch; None for all of them. All classes come equally often, in random order. Each class is shuffled
    separately, and starts again in another order when all its samples have come. So a class with fewer than
    ``samples_per_class`` samples has some of them twice in a batch. ``num_batches`` is the length of an epoch; None for
    the number that the dataset has samples for. An epoch continues where the last one ended. ``seed`` is as in
    `BucketBatchSampler`.

    These are the "P x K" batches of Hermans et al., "In defense of the triplet loss" (2017). Raises `ArgumentError` if
    ``labels`` is empty or not one-dimensional, for more classes per batch than there are, and for numbers below 1.
    """

    def __init__(
        self,
        labels: ArrayLike,
        *,
        classes_per_batch: int | None = None,
        samples_per_class: int = 1,
        num_batches: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        cure = "give the class of each sample"
        found = row("labels", labels, "one row of numbers or strings", kinds="biufUS", cure=cure)
        if found.dtype.kind == "f" and np.isnan(found).any():
            at = int(np.isnan(found).argmax())
            raise ArgumentError(f"label {at} is NaN", found=float("nan"), expected="a number", cure=cure)
        classes, which = np.unique(found, return_inverse=True)
        count = len(classes)
        per_batch = count if classes_per_batch is None else integer("classes_per_batch", classes_per_batch, least=1)
        if per_batch > count:
            raise ArgumentError(
                f"classes_per_batch={classes_per_batch} is more than the {count} classes in labels",
                found=per_batch,
                expected=f"at most {count}",
                cure="decrease classes_per_batch",
            )
        self.classes_per_batch = per_batch
        self.samples_per_class = integer("samples_per_class", samples_per_class, least=1)
        size = self.classes_per_batch * self.samples_per_class
        self.num_batches = (
            max(len(found) // size, 1) if num_batches is None else integer("num_batches", num_batches, least=1)
        )
        self._members = np.argsort(which, kind="stable")
        self._sizes = np.bincount(which)
        self._digest = digest(which)

    def batch_order(self, key: Key) -> BalancedOrder:
        """Return the batches for a key, or for the sampler's own seed if it has one."""
        how = (self.classes_per_batch, self.samples_per_class, self.num_batches)
        return BalancedOrder(self._members, self._sizes, *how, self.key_for(key))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings of the batches, by name."""
        names = ("classes_per_batch", "samples_per_class", "num_batches", "seed")
        return {"labels": self._digest, **{name: getattr(self, name) for name in names}}


class BalancedOrder:
    """The batches of a `BalancedBatchSampler`.

    Classes come in rounds, each class once per round. The order stays the same for as many rounds as make whole
    batches: so a batch that spans two rounds has no class twice. Then the order changes.
    """

    def __init__(
        self, members: NDArray[np.intp], sizes: NDArray[np.intp], per_batch: int, each: int, count: int, key: Key
    ) -> None:
        self._members = members
        self._sizes = sizes
        self._starts = np.cumsum(sizes) - sizes
        self._per_batch = per_batch
        self._each = each
        self._count = count
        self._same = lcm(len(sizes), per_batch)
        self._classes = Permutations(key, 0)
        self._samples = Permutations(key, 0, stream=1)
        self._cache = RangeCache(max(AHEAD // (per_batch * each), 1))

    def count(self, epoch: int) -> int:  # noqa: ARG002  the same in every epoch
        """Return how many batches an epoch has."""
        return self._count

    def start(self, epoch: int, step: int) -> int:  # noqa: ARG002  the same in every epoch
        """Return the position of a batch's first sample; all batches have one size."""
        return step * self._per_batch * self._each

    def keys(self, epoch: int, step: int) -> list[int]:
        """Return the keys of a batch."""
        batch: list[int] = self._cache.take(epoch, step, step + 1, self._batches, end=self._count)[0]
        return batch

    def _batches(self, epoch: int, start: int, stop: int) -> list[list[int]]:
        count = len(self._sizes)
        first = epoch * self._count + start
        # Draws of a class, counted from the first batch of the run; each class is drawn once per round.
        drawn = np.arange(first * self._per_batch, (first + stop - start) * self._per_batch)
        which = self._classes.at(drawn % self._same % count, count, turn=drawn // self._same)
        number = (drawn // count * self._each)[:, None] + np.arange(self._each)
        which = np.repeat(which, self._each)
        turn, place = np.divmod(number.ravel(), self._sizes[which])
        chosen = self._members[self._starts[which] + self._samples.at(place, self._sizes[which], which, turn)]
        batches: list[list[int]] = chosen.reshape(-1, self._per_batch * self._each).tolist()
        return batches
