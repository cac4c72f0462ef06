"""Orders: which key comes at which position of an epoch, as a function that can be entered anywhere."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headrace.seeds import Key, Purpose, generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Order(Protocol):
    """A sampler as a function: to a sampler what a list is to an iterator."""

    def __len__(self) -> int: ...

    def keys(self, epoch: int, start: int, stop: int) -> Sequence[Any]:
        """Return the keys at positions ``start`` to ``stop`` (at most ``len``) of an epoch."""
        ...


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
    """The keys 0 to n-1 in a uniformly random order, another in each epoch.

    Holds one permutation, that of the epoch asked for last: 4 bytes a key (8 from 2**31 keys on).
    """

    size: int
    key: Key
    _held: tuple[int, NDArray[np.integer[Any]]] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return self.size

    def keys(self, epoch: int, start: int, stop: int) -> list[int]:
        """Return a stretch of the epoch's permutation.

        >>> from headrace.seeds import key_of
        >>> order = Shuffled(5, key_of(0))
        >>> sorted(order.keys(epoch=0, start=0, stop=5))
        [0, 1, 2, 3, 4]
        """
        if self._held is None or self._held[0] != epoch:
            dtype = np.int32 if self.size < 2**31 else np.int64
            shuffle = generator(self.key, Purpose.ORDER, epoch, 0)
            self._held = epoch, shuffle.permutation(np.arange(self.size, dtype=dtype))
        keys: list[int] = self._held[1][start:stop].tolist()
        return keys
