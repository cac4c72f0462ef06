"""Orders: the key at each position of an epoch, as a function that starts at any position."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from headrace.plan.permutation import Permutations
from headrace.plan.range_cache import RangeCache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.context.seeds import Key

AHEAD = 2**12
"""Keys computed per call when batches are asked for in order, so that the cost of the call is small."""


class Order(Protocol):
    """A sampler with random access, as a list is an iterator with random access."""

    def __len__(self) -> int: ...

    def keys(self, epoch: int, start: int, stop: int) -> Sequence[Any]:
        """Return the keys at positions ``start`` to ``stop - 1`` of an epoch; ``stop`` is at most ``len``."""
        ...


class BatchOrder(Protocol):
    """A batch sampler with random access: the keys of each batch of an epoch."""

    def count(self, epoch: int) -> int:
        """Return how many batches an epoch has."""
        ...

    def keys(self, epoch: int, step: int) -> list[Any]:
        """Return the keys of the batch at ``step``, from 0 to ``count(epoch) - 1``."""
        ...

    def start(self, epoch: int, step: int) -> int:
        """Return the position of a batch's first key. The others follow it, and no two batches overlap."""
        ...


@runtime_checkable
class Ordered(Protocol):
    """A sampler whose order is a function of a key, so that the loader can start at any position of any epoch."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings of the order, by name, for a saved state; JSON can hold them."""
        ...

    def order(self, key: Key, /) -> Order:
        """Return the order for a key."""
        ...


@runtime_checkable
class BatchOrdered(Protocol):
    """A batch sampler whose batches are a function of a key."""

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings of the batches, by name, for a saved state; JSON can hold them."""
        ...

    def batch_order(self, key: Key, /) -> BatchOrder:
        """Return the batches for a key."""
        ...


class FixedEpoch:
    """A planned sampler's order of one fixed epoch; the ``epoch`` argument of `keys` is ignored.

    >>> from headrace.samplers import RepeatedSampler
    >>> from headrace.context.seeds import key_of
    >>> sampler = RepeatedSampler(4, 1)
    >>> FixedEpoch(sampler, key_of(0), 3).keys(0, 0, 4) == sampler.order(key_of(0)).keys(3, 0, 4)
    True

    A loop without a seed draws one, and uses the random numbers of epoch 0. A sampler with its own seed still has a
    different order in each epoch.
    """

    __slots__ = ("_aside", "_epoch", "_order")

    def __init__(self, sampler: Ordered, key: Key, epoch: int) -> None:
        self._order, self._aside = sampler.order(key), sampler.order(key)
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._order)

    def keys(self, epoch: int, start: int, stop: int) -> Sequence[Any]:  # noqa: ARG002  the epoch is fixed
        """Return the keys at positions ``start`` to ``stop - 1``."""
        return self._order.keys(self._epoch, start, stop)

    def aside(self, start: int, count: int) -> list[Any]:
        """Return ``count`` keys from a position on, wrapping at the end; keep the keys that `keys` computed ahead."""
        keys: list[Any] = []
        while len(keys) < count:
            keys += self._aside.keys(self._epoch, start, min(start + count - len(keys), len(self)))
            start = 0
        return keys


@dataclass(frozen=True, slots=True)
class Sequential:
    """The keys 0, 1, 2, … in every epoch."""

    size: int

    def __len__(self) -> int:
        return self.size

    def keys(self, epoch: int, start: int, stop: int) -> range:  # noqa: ARG002  the same in every epoch
        """Return the positions themselves.

        >>> Sequential(10).keys(epoch=0, start=4, stop=7)
        range(4, 7)
        """
        return range(start, min(stop, self.size))


@dataclass(slots=True)
class Shuffled:
    """The keys 0 to n-1 in a random order, a new one in each epoch, in constant memory."""

    size: int
    key: Key
    _cache: RangeCache = field(default_factory=lambda: RangeCache(AHEAD), repr=False)
    _family: tuple[int, Permutations] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.size

    def keys(self, epoch: int, start: int, stop: int) -> list[int]:
        """Return a range of the epoch's permutation.

        >>> from headrace.context.seeds import key_of
        >>> order = Shuffled(5, key_of(0))
        >>> sorted(order.keys(epoch=0, start=0, stop=5))
        [0, 1, 2, 3, 4]
        """
        return self._cache.take(epoch, start, stop, self._compute, end=self.size)

    def at(self, epoch: int, positions: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the keys at any positions of an epoch in one call.

        >>> from headrace.context.seeds import key_of
        >>> order = Shuffled(10**9, key_of(0))
        >>> places = np.array([999_999_999, 4])
        >>> order.at(0, places).tolist() == [order.keys(0, place, place + 1)[0] for place in places.tolist()]
        True
        """
        family = self._family
        if family is None or family[0] != epoch:
            family = self._family = epoch, Permutations(self.key, epoch)
        return family[1].at(positions, self.size)

    def _compute(self, epoch: int, start: int, stop: int) -> list[int]:
        keys: list[int] = self.at(epoch, np.arange(start, stop)).tolist()
        return keys
