"""A sampler that shuffles shards, and then samples within a window of shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import integer
from headrace.errors import ArgumentError
from headrace.plan.order import AHEAD
from headrace.plan.permutation import Permutations
from headrace.plan.planned import PlannedSampler, counts, digest
from headrace.plan.range_cache import RangeCache

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from headrace.context.seeds import Key


class ShardSampler(PlannedSampler[int]):
    """All indices of a sharded dataset, in an order that reads only a few shards at a time.

    >>> from headrace.samplers import ShardSampler
    >>> sampler = ShardSampler([3, 3, 3, 3], window=2, seed=0)
    >>> order = list(sampler)
    >>> sorted(order) == list(range(12))
    True
    >>> [index // 3 for index in order]
    [3, 2, 2, 3, 2, 3, 0, 1, 0, 1, 0, 1]
    >>> from headrace import DataLoader
    >>> loader = DataLoader(range(12), 6, sampler=ShardSampler([3, 3, 3, 3], window=2), seed=0)
    >>> [(batch // 3).tolist() for batch in loader]
    [[3, 2, 2, 3, 2, 3], [0, 1, 0, 1, 0, 1]]

    ``shard_sizes`` has the number of samples of each shard; index 0 is the first sample of the first shard. In each
    epoch the shards come in random order, and the samples of ``window`` shards at a time are shuffled together. With
    ``window=1``, a shard is read to its end before the next one starts. With all shards in one window, the shuffle is a
    full one. Memory grows with the number of shards, not samples. docs/guide/batches.md measures how well it mixes.

    ``seed`` fixes the order. Without one, the sampler uses the loader's seed, or 0 when it is iterated alone. Raises
    `ArgumentError` for sizes that are not integers from 0 up, and for a window below 1.
    """

    def __init__(self, shard_sizes: ArrayLike, *, window: int = 16, seed: int | None = None) -> None:
        super().__init__(seed)
        self.shard_sizes = counts("shard_sizes", shard_sizes)
        self.window = integer("window", window, least=1)
        self._size = int(self.shard_sizes.sum())

    @classmethod
    def of(cls, dataset: Any, *, window: int = 16, seed: int | None = None) -> ShardSampler:
        """Return a sampler for a dataset that knows its ``shard_lengths``.

        >>> class Rows:
        ...     shard_lengths = [2, 3]
        >>> len(ShardSampler.of(Rows(), window=1))
        5

        Raises `ArgumentError` for a dataset without them.
        """
        sizes = getattr(dataset, "shard_lengths", None)
        if sizes is None:
            raise ArgumentError(
                f"{type(dataset).__name__} has no shard_lengths",
                found=type(dataset).__name__,
                expected="a dataset of shards, such as ParquetDataset or WebDataset",
                cure="Pass the number of samples of each shard: ShardSampler([1000, 1000]).",
            )
        return cls(sizes, window=window, seed=seed)

    def order(self, key: Key) -> ShardOrder:
        """Return the order for a key, or for the sampler's own seed if it has one."""
        return ShardOrder(self.shard_sizes, self.window, self.key_for(key))

    def __len__(self) -> int:
        return self._size

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What the order is made of."""
        return {"samples": self._size, "shards": digest(self.shard_sizes), "window": self.window, "seed": self.seed}


class ShardOrder:
    """The order of a `ShardSampler`; it stores one epoch's order of shards."""

    def __init__(self, sizes: NDArray[np.int64], window: int, key: Key) -> None:
        self._sizes = sizes
        self._starts = np.cumsum(sizes) - sizes
        self._window = window
        self._seed = key
        self._size = int(sizes.sum())
        self._cache = RangeCache(AHEAD)
        self._dealt: tuple[int, Permutations, NDArray[np.int64], NDArray[np.int64]] | None = None

    def __len__(self) -> int:
        return self._size

    def keys(self, epoch: int, start: int, stop: int) -> list[int]:
        """Return a range of the epoch's order."""
        return self._cache.take(epoch, start, stop, self._compute, end=self._size)

    def _compute(self, epoch: int, start: int, stop: int) -> list[int]:
        if self._dealt is None or self._dealt[0] != epoch:
            family = Permutations(self._seed, epoch)
            shards = Permutations(self._seed, epoch, stream=1).at(np.arange(len(self._sizes)), len(self._sizes))
            self._dealt = epoch, family, shards, np.cumsum(self._sizes[shards])
        _, family, shards, ends = self._dealt
        places = np.arange(start, stop)
        # The window of each position and its bounds; then the shard of the sample dealt to the position.
        window = np.searchsorted(ends, places, side="right") // self._window
        first = window * self._window
        low = np.where(first > 0, ends[first - 1], 0)
        high = ends[np.minimum(first + self._window, len(ends)) - 1]
        dealt = low + family.at(places - low, high - low, part=window)
        slot = np.searchsorted(ends, dealt, side="right")
        shard = shards[slot]
        keys: list[int] = (self._starts[shard] + dealt - ends[slot] + self._sizes[shard]).tolist()
        return keys
