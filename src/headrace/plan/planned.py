"""Base classes of planned samplers, and checks of their arguments."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from headrace.checks import integer, kind_of, row
from headrace.context.seeds import Key, key_of
from headrace.errors import ArgumentError
from headrace.formatting import call_of
from headrace.plan.batch_walk import walk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from numpy.typing import NDArray

    from headrace.plan.batch_walk import Walk
    from headrace.plan.order import BatchOrder, Order

K_co = TypeVar("K_co", covariant=True)

CHUNK = 2**12
"""Keys computed at a time when a sampler is iterated."""


class Planned(ABC):
    """The common part of planned samplers: an optional seed, an epoch, and a fingerprint."""

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self.epoch = 0
        self._own = None if seed is None else key_of(seed)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch for the next iteration. A headrace loader needs no such call."""
        self.epoch = integer("epoch", epoch, least=0)

    @property
    @abstractmethod
    def fingerprint(self) -> dict[str, Any]:
        """The settings of the plan in less than 1 KB of JSON. Plans with different batches differ here."""

    def key_for(self, given: Key | None = None) -> Key:
        """Return the key of the order: of the sampler's own seed, else the given one, else that of seed 0."""
        return self._own or given or key_of(0)

    def __repr__(self) -> str:
        try:
            return call_of(self, whole=Planned)
        except AttributeError:  # it does not keep what it was made with
            facts = ", ".join(f"{name}={value!r}" for name, value in self.fingerprint.items())
            return f"<{type(self).__name__}: {facts}>"


class PlannedSampler(Planned, Generic[K_co]):
    """A sampler whose order is a function of (seed, epoch, position): the base class for your own.

    >>> from headrace import DataLoader
    >>> from headrace.samplers import PlannedSampler
    >>> class Backwards(PlannedSampler[int]):
    ...     def __init__(self, size, seed=None):
    ...         super().__init__(seed)
    ...         self.size = size
    ...     def order(self, key):
    ...         return BackwardsOrder(self.size)
    ...     def __len__(self):
    ...         return self.size
    ...     @property
    ...     def fingerprint(self):
    ...         return {"size": self.size, "seed": self.seed}
    >>> class BackwardsOrder:
    ...     def __init__(self, size):
    ...         self.size = size
    ...     def __len__(self):
    ...         return self.size
    ...     def keys(self, epoch, start, stop):
    ...         return [self.size - 1 - place for place in range(start, stop)]
    >>> [batch.tolist() for batch in DataLoader(range(5), 2, sampler=Backwards(5))]
    [[4, 3], [2, 1], [0]]

    A loader resumes it at any step at once, and ranks share it. ``order(key)`` returns what answers ``keys(epoch,
    start, stop)``, with ``stop`` at most its length; draw from ``key_for(key)``, which is the sampler's own seed if it
    has one. `headrace.testing.SamplerTests` is the suite for it.
    """

    @abstractmethod
    def order(self, key: Key) -> Order:
        """Return the order for a key, or for the sampler's own seed if it has one."""

    @abstractmethod
    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[K_co]:
        order, size = self.order(self.key_for()), len(self)
        starts = range(0, size, CHUNK)
        chunks = (order.keys(self.epoch, start, min(start + CHUNK, size)) for start in starts)
        return chain.from_iterable(chunks)


class PlannedBatchSampler(Planned, Generic[K_co]):
    """A batch sampler whose batches are a function of (seed, epoch, step): the base class for your own.

    >>> from headrace.samplers import PlannedBatchSampler
    >>> class Twins(PlannedBatchSampler[int]):
    ...     def batch_order(self, key):
    ...         return TwinsOrder()
    ...     @property
    ...     def fingerprint(self):
    ...         return {"seed": self.seed}
    >>> class TwinsOrder:
    ...     def count(self, epoch):
    ...         return 3
    ...     def keys(self, epoch, step):
    ...         return [2 * step, 2 * step + 1]
    ...     def start(self, epoch, step):
    ...         return 2 * step
    >>> list(Twins(None))
    [[0, 1], [2, 3], [4, 5]]

    ``batch_order(key)`` returns what answers ``count(epoch)``, how many batches there are; ``keys(epoch, step)``; and
    ``start(epoch, step)``, how many keys come before. `headrace.testing.BatchSamplerTests` is the suite for it.
    """

    _orders: tuple[Key, BatchOrder] | None = None

    @property
    def cuts(self) -> bool:
        """Whether some keys are a `Piece`: a part of a sample."""
        return False

    def __new__(cls, *given: Any, **named: Any) -> Self:  # noqa: ARG004  only checked
        """Refuse a sampler as the first argument: Lightning passes one when it recreates batch samplers."""
        if given and any(kind.__name__ == "Sampler" for kind in type(given[0]).__mro__):
            raise ArgumentError(
                f"{cls.__name__} plans its batches itself, but was given {kind_of(given[0])}, as Lightning does for "
                "several processes",
                found=kind_of(given[0]),
                expected="the lengths or the labels of the samples",
                cure='Use DataLoader(..., rank="auto") with Trainer(use_distributed_sampler=False). '
                "For `predict`, use a loader with a batch_size.",
            )
        return super().__new__(cls)

    @abstractmethod
    def batch_order(self, key: Key) -> BatchOrder:
        """Return the batches for a key, or for the sampler's own seed if it has one."""

    def __len__(self) -> int:
        return self._mine().count(self.epoch)

    def __iter__(self) -> Iterator[list[K_co]]:
        return _batches(walk(self._mine(), self.epoch))

    def _mine(self) -> BatchOrder:
        """Return the batches of an iteration. They are cached: planning an epoch may take a second."""
        if self._orders is None:
            self._orders = self.key_for(), self.batch_order(self.key_for())
        return self._orders[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_orders": None}


def _batches(walk: Walk) -> Iterator[Any]:
    number = 0
    while (found := walk.batch(number)) is not None:
        yield found[1]
        number += 1


def size_of(name: str, value: Any) -> int:
    """Return a size, or the length of what has one."""
    if hasattr(value, "__len__"):
        return len(value)
    return integer(name, value, least=0, cure="give a length, or a dataset that has one")


def counts(name: str, values: Any, *, least: int = 0) -> NDArray[np.int64]:
    """Return a row of integers from ``least`` up, at least one: whole floats are integers, too."""
    return whole_numbers(name, row(name, values, "one row of integers", kinds="iuf"), least=least)


def whole_numbers(
    name: str, found: NDArray[Any], numbers: NDArray[np.int64] | None = None, *, least: int = 0
) -> NDArray[np.int64]:
    """Return an array's numbers as integers from ``least`` up; an error names the first other one, by ``numbers``."""
    with np.errstate(invalid="ignore"):
        good = (found >= least) & (found < 2**63)
        if found.dtype.kind == "f":
            good &= found == np.floor(found)
    if not good.all():
        at = int(np.argmin(good))
        number = at if numbers is None else int(numbers[at])
        expected = f"integers from {least} up"
        raise ArgumentError(
            f"{name} must be {expected}; number {number} is {found[at]}", found=found[at].item(), expected=expected
        )
    return found.astype(np.int64)


def digest(array: NDArray[Any]) -> str:
    """Return a hash of an array, as 16 letters."""
    row = np.ascontiguousarray(array)
    return hashlib.blake2b(row.view(np.uint8).data, digest_size=8, person=row.dtype.str.encode()).hexdigest()


def compact(values: list[Any]) -> Any:
    """Return a short list unchanged, and a long one as its length and a hash."""
    text = repr(values)
    return values if len(text) <= 200 else f"{len(values)}, {hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"
