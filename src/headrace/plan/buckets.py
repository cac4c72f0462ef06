"""Batches of one size, whose samples have similar lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag, integer
from headrace.context.seeds import Purpose, generator
from headrace.plan.order import AHEAD
from headrace.plan.permutation import Permutations
from headrace.plan.planned import PlannedBatchSampler, counts, digest
from headrace.plan.range_cache import RangeCache

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from headrace.context.seeds import Key

BATCHES = 100
"""Batches per bucket by default: about 1 % of padding for evenly distributed lengths."""


class BucketBatchSampler(PlannedBatchSampler[int]):
    """Batches of one size, whose samples have similar lengths, in random order.

    >>> from headrace import DataLoader
    >>> from headrace.samplers import BucketBatchSampler
    >>> lengths = [3, 50, 4, 52, 3, 51, 4, 53]
    >>> for batch in DataLoader(lengths, batch_sampler=BucketBatchSampler(lengths, 2, shuffle=False)):
    ...     print(batch)
    [3 3]
    [4 4]
    [50 51]
    [52 53]
    >>> shuffled = BucketBatchSampler(lengths, 2, bucket_size=4, seed=0)
    >>> sorted(index for batch in shuffled for index in batch)
    [0, 1, 2, 3, 4, 5, 6, 7]

    ``lengths`` has the length of each sample of the dataset. The samples are sorted by length and cut into buckets of
    about ``bucket_size`` samples (None: 100 batches). In each epoch the buckets are shuffled and cut into batches,
    which come in random order. A larger bucket is more random and needs more padding. With ``shuffle=False`` the
    batches are in order of length. For samples that another sampler chooses, use `TokenBatchSampler` with
    ``max_samples``. The last batch of an epoch may be short; ``drop_last`` drops it. Its samples are
    random. ``seed`` fixes the batches. Without one, the sampler uses the loader's seed, or 0 when it is iterated alone.

    Raises `ArgumentError` for lengths that are not integers from 0 up, and for sizes below 1.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        batch_size: int,
        *,
        bucket_size: int | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        found = counts("lengths", lengths)
        self.batch_size = integer("batch_size", batch_size, least=1)
        self.bucket_size = (
            BATCHES * self.batch_size if bucket_size is None else integer("bucket_size", bucket_size, least=1)
        )
        self.shuffle = flag("shuffle", shuffle)
        self.drop_last = flag("drop_last", drop_last)
        self._buckets = LengthBuckets(found, self.bucket_size, shuffle=self.shuffle)
        self._digest = digest(found)

    def batch_order(self, key: Key) -> BucketOrder:
        """Return the batches for a key, or for the sampler's own seed if it has one."""
        return BucketOrder(self._buckets, self.batch_size, self.key_for(key), drop_last=self.drop_last)

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings of the batches, by name."""
        names = ("batch_size", "bucket_size", "shuffle", "drop_last", "seed")
        return {"lengths": self._digest, **{name: getattr(self, name) for name in names}}


class LengthBuckets:
    """The samples in order of length, shuffled within buckets."""

    def __init__(self, lengths: NDArray[np.int64], bucket_size: int, *, shuffle: bool) -> None:
        dtype = np.int32 if len(lengths) < 2**31 else np.int64
        self._by_length: NDArray[Any] = np.argsort(lengths, kind="stable").astype(dtype)
        self._count = max(round(len(lengths) / bucket_size), 1)  # equal sizes, within one sample
        self.shuffle = shuffle

    def __len__(self) -> int:
        return len(self._by_length)

    def at(self, places: NDArray[np.int64], family: Permutations) -> NDArray[np.integer[Any]]:
        """Return the samples at positions of the order."""
        if self.shuffle:
            places = self._shuffled(places, family)
        samples: NDArray[np.integer[Any]] = self._by_length[places]
        return samples

    def _shuffled(self, places: NDArray[np.int64], family: Permutations) -> NDArray[np.int64]:
        size = len(self)
        bucket = ((places + 1) * self._count - 1) // size
        low = bucket * size // self._count
        high = (bucket + 1) * size // self._count
        return low + family.at(places - low, high - low, bucket)


class BucketOrder:
    """The batches of a `BucketBatchSampler`."""

    def __init__(self, buckets: LengthBuckets, batch_size: int, key: Key, *, drop_last: bool) -> None:
        self._buckets = buckets
        self._batch_size = batch_size
        self._key = key
        self._whole, self._rest = divmod(len(buckets), batch_size)
        self._count = self._whole + (self._rest > 0 and not drop_last)
        self._cache = RangeCache(max(AHEAD // batch_size, 1))

    def count(self, epoch: int) -> int:  # noqa: ARG002  the same in every epoch
        """Return how many batches an epoch has."""
        return self._count

    def start(self, epoch: int, step: int) -> int:  # noqa: ARG002  the same in every epoch
        """Return the position of a batch's first sample; all batches but the last have one size."""
        return step * self._batch_size

    def keys(self, epoch: int, step: int) -> list[int]:
        """Return the keys of a batch."""
        batch: list[int] = self._cache.take(epoch, step, step + 1, self._batches, end=self._count)[0]
        return batch

    def _batches(self, epoch: int, start: int, stop: int) -> list[list[int]]:
        size, family = self._batch_size, Permutations(self._key, epoch)
        # The short batch is cut at a random place; at the end it would always hold the longest samples.
        hole, steps = self._whole, np.arange(start, min(stop, self._whole))
        if self._buckets.shuffle:
            hole = int(generator(self._key, Purpose.ORDER, epoch, 1).integers(self._whole + 1))
            if self._whole:
                steps = Permutations(self._key, epoch, stream=2).at(steps, self._whole)
        starts = steps * size + np.where(steps < hole, 0, self._rest)
        places = (starts[:, None] + np.arange(size)).ravel()
        batches: list[list[int]] = self._buckets.at(places, family).reshape(-1, size).tolist()
        if stop > self._whole:
            batches.append(self._buckets.at(hole * size + np.arange(self._rest), family).tolist())
        return batches
