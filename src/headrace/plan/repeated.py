"""A sampler for repeated augmentation: each sample several times per epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag, integer
from headrace.errors import ArgumentError
from headrace.plan.order import AHEAD
from headrace.plan.permutation import Permutations
from headrace.plan.planned import PlannedSampler, size_of
from headrace.plan.range_cache import RangeCache

if TYPE_CHECKING:
    from collections.abc import Sized

    from headrace.context.seeds import Key


class RepeatedSampler(PlannedSampler[int]):
    """Each index of a dataset ``repeats`` times per epoch, with different augmentation each time.

    >>> from headrace.samplers import RepeatedSampler
    >>> list(RepeatedSampler("abc", 2, seed=0))
    [1, 1, 2, 2, 0, 0]
    >>> from headrace import DataLoader
    >>> list(DataLoader("abc", 2, sampler=RepeatedSampler("abc", 2), seed=0))
    [['b', 'b'], ['c', 'c'], ['a', 'a']]
    >>> apart = list(RepeatedSampler("abcdef", 2, together=False, seed=0))
    >>> sorted(apart[:6]), sorted(apart[6:])
    ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])

    ``dataset`` is anything with a length, or the length itself. With ``together``, the repeats are consecutive. They
    are in one batch if ``repeats`` divides the batch size (Hoffer et al., "Augment your batch", CVPR 2020; Berman et
    al., "MultiGrain", 2019). Otherwise they are a whole pass apart, and each pass has another order. Two repeats are
    never closer than half the dataset, so they are in different batches of up to that size. An epoch ends after
    ``num_samples`` samples (None: after all of them). For as many steps as without repeats, pass ``len(dataset)``.
    ``seed`` is as in `ShardSampler`.

    Raises `ArgumentError` for an empty dataset and for numbers below 1.
    """

    def __init__(
        self,
        dataset: Sized | int,
        repeats: int = 3,
        *,
        together: bool = True,
        num_samples: int | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.size = size_of("dataset", dataset)
        self.repeats = integer("repeats", repeats, least=1)
        self.together = flag("together", together)
        if not self.size:
            raise ArgumentError(
                "dataset is empty", found=0, expected="samples to repeat", cure="check the dataset's path"
            )
        most = self.size * self.repeats
        self.num_samples = most if num_samples is None else integer("num_samples", num_samples, least=1)
        if self.num_samples > most:
            raise ArgumentError(
                f"num_samples={num_samples} is more than the {most} samples of an epoch ({self.size} x {repeats})",
                found=self.num_samples,
                expected=f"at most {most}",
                cure="decrease num_samples, or increase repeats",
            )

    def order(self, key: Key) -> RepeatedOrder:
        """Return the order for a key, or for the sampler's own seed if it has one."""
        return RepeatedOrder(self.size, self.repeats, self.num_samples, self.key_for(key), together=self.together)

    def __len__(self) -> int:
        return self.num_samples

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings of the order, by name."""
        names = ("size", "repeats", "together", "num_samples", "seed")
        return {name: getattr(self, name) for name in names}


class RepeatedOrder:
    """The order of a `RepeatedSampler`."""

    def __init__(self, size: int, repeats: int, count: int, key: Key, *, together: bool) -> None:
        self._size = size
        self._repeats = repeats
        self._count = count
        self._seed = key
        self._together = together
        self._cache = RangeCache(AHEAD)

    def __len__(self) -> int:
        return self._count

    def keys(self, epoch: int, start: int, stop: int) -> list[int]:
        """Return a range of the epoch's order."""
        return self._cache.take(epoch, start, stop, self._compute, end=self._count)

    def _compute(self, epoch: int, start: int, stop: int) -> list[int]:
        family, size = Permutations(self._seed, epoch), self._size
        places = np.arange(start, stop)
        if self._together:
            slots = places // self._repeats
        else:
            # A sample moves only within its half of the order, so that two repeats stay far apart.
            turn, place = np.divmod(places, size)
            half = (size + 1) // 2
            second = (place >= half).astype(np.int64)
            low = second * half
            sizes = half - second * (2 * half - size)
            slots = low + Permutations(self._seed, epoch, stream=1).at(place - low, sizes, part=second, turn=turn)
        keys: list[int] = family.at(slots, size).tolist()
        return keys
