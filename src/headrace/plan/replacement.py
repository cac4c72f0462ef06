"""A sampler that draws indices with replacement, each as a function of its position."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import integer
from headrace.context.seeds import Key, Purpose
from headrace.errors import ArgumentError
from headrace.plan.order import AHEAD
from headrace.plan.planned import PlannedSampler, size_of
from headrace.plan.range_cache import RangeCache

if TYPE_CHECKING:
    from collections.abc import Sized

    from numpy.typing import NDArray

STREAM = 2**63
"""The position word of these draws: `Permutations` uses small numbers there."""

LANES = 4
"""Words that Philox gives for each value of its counter."""

_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)


class ReplacementSampler(PlannedSampler[int]):
    """Indices drawn uniformly, each independent of all others: an index may come twice, or not at all.

    >>> from headrace import DataLoader
    >>> from headrace.samplers import ReplacementSampler
    >>> list(ReplacementSampler("abcdef", 8, seed=0))
    [1, 0, 0, 0, 5, 4, 1, 5]
    >>> list(DataLoader("abcdef", 4, sampler=ReplacementSampler(6, 8), seed=0))
    [['b', 'a', 'a', 'a'], ['f', 'e', 'b', 'f']]

    ``dataset`` is anything with a length, or the length itself. An epoch has ``num_samples`` draws; None for the length
    of the dataset. The draw at a position is a function of (seed, epoch, position), so a loader resumes at any step at
    once, in constant memory, and ranks share each epoch. With windows at every token (``stride=1``) these are the
    random windows that nanoGPT trains on. ``seed`` is as in `ShardSampler`.

    Raises `ArgumentError` for an empty dataset and for ``num_samples`` below 1.
    """

    def __init__(self, dataset: Sized | int, num_samples: int | None = None, *, seed: int | None = None) -> None:
        super().__init__(seed)
        self.size = size_of("dataset", dataset)
        if not self.size:
            raise ArgumentError(
                "dataset is empty", found=0, expected="samples to draw from", cure="check the dataset's path"
            )
        self.num_samples = self.size if num_samples is None else integer("num_samples", num_samples, least=1)

    def order(self, key: Key) -> Drawn:
        """Return the order for a key, or for the sampler's own seed if it has one."""
        return Drawn(self.size, self.num_samples, self.key_for(key))

    def __len__(self) -> int:
        return self.num_samples

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings of the order, by name."""
        return {"size": self.size, "num_samples": self.num_samples, "seed": self.seed}


@dataclass(slots=True)
class Drawn:
    """The draws of each epoch, at any position."""

    size: int
    count: int
    key: Key
    _cache: RangeCache = field(default_factory=lambda: RangeCache(AHEAD), repr=False)

    def __len__(self) -> int:
        return self.count

    def keys(self, epoch: int, start: int, stop: int) -> list[int]:
        """Return the draws at positions ``start`` to ``stop - 1`` of an epoch.

        >>> from headrace.context.seeds import key_of
        >>> Drawn(6, 10**12, key_of(0)).keys(epoch=0, start=10**9, stop=10**9 + 5)
        [1, 2, 5, 1, 5]
        """
        return self._cache.take(epoch, start, stop, self._compute, end=self.count)

    def _compute(self, epoch: int, start: int, stop: int) -> list[int]:
        first = start // LANES
        counter = np.array((first, STREAM, epoch, Purpose.ORDER), np.uint64)
        bits = np.random.Philox(key=np.array(self.key, np.uint64), counter=counter)
        words: NDArray[np.uint64] = bits.random_raw(stop - first * LANES)
        drawn: list[int] = _scaled(words[start - first * LANES :], self.size).tolist()
        return drawn


def _scaled(words: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """Return each word as a fraction of 2**64, times the size: the upper half of their product, in 128 bits."""
    high, low = words >> _HALF, words & _LOW
    size_high, size_low = np.uint64(size >> 32), np.uint64(size & 0xFFFFFFFF)
    middle = high * size_low + (low * size_low >> _HALF)
    rest: NDArray[np.uint64] = (low * size_high + (middle & _LOW)) >> _HALF
    return high * size_high + (middle >> _HALF) + rest
