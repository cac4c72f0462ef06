"""Batches that are planned a window of samples at a time, when they are asked for.

A window is a part of the order of samples. What is in one depends on no other, so that a plan needs the first window
for its first batch, and a saved state the number of its window for the batch after it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import kind_of, shown
from headrace.errors import ArgumentTypeError
from headrace.plan.order import Ordered, Sequential, Shuffled
from headrace.plan.permutation import Permutations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.context.seeds import Key
    from headrace.plan.batch_walk import Entry
    from headrace.plan.order import Order
    from headrace.plan.piece import Piece
    from headrace.plan.sample_lengths import Parts, SampleLengths

HELD = 4
"""Windows that are kept: batches ahead of the consumer, those of a resumed run, and those of the epoch's beginning."""


class Groups:
    """What a window is divided into: consecutive groups of samples, or of parts of them.

    >>> from headrace.plan.sample_lengths import Parts
    >>> parts = Parts(np.array([7, 8, 9]), np.zeros(3, int), np.array([4, 2, 3]))
    >>> groups = Groups(parts, np.array([1, 3]))
    >>> len(groups), groups.between(0, 2), groups.start(1)
    (2, [[7], [8, 9]], 1)
    """

    __slots__ = ("_ends", "_keys", "_parts")

    def __init__(self, parts: Parts, ends: NDArray[np.integer[Any]]) -> None:
        self._parts = parts
        self._ends = np.concatenate([[0], ends]).astype(np.int64)
        self._keys: tuple[list[int | Piece], list[int]] | None = None

    def __len__(self) -> int:
        return len(self._ends) - 1

    def between(self, start: int, stop: int) -> list[list[int | Piece]]:
        """Return the keys of the groups from ``start`` to ``stop - 1``, or to the last one."""
        if self._keys is None:  # whoever only counts needs none
            self._keys = self._parts.keys(), self._ends.tolist()
        keys, ends = self._keys
        return [keys[begin:end] for begin, end in pairwise(ends[start : stop + 1])]

    def start(self, number: int) -> int:
        """Return the number of keys before a group."""
        return int(self._ends[number])

    def number_at(self, start: int) -> int:
        """Return the first group with at least so many keys before it."""
        return int(np.searchsorted(self._ends, start))

    def shuffled(self, order: NDArray[np.int64]) -> Groups:
        """Return these groups in another order."""
        starts, sizes = self._ends[:-1][order], np.diff(self._ends)[order]
        ends = np.cumsum(sizes)
        # For each key of the new order: the start of its group in the old order, plus its offset in the group.
        places = np.arange(len(self._parts)) + np.repeat(starts - (ends - sizes), sizes)
        return Groups(self._parts.take(places), ends)


@dataclass(frozen=True, slots=True)
class WindowSettings:
    """The samples that are planned, and how many at a time."""

    lengths: SampleLengths
    sampler: Ordered | None
    window: int
    shuffle: bool

    def samples(self, key: Key) -> Order:
        """Return the order of the samples: the sampler's, or one of all samples."""
        if self.sampler is not None:
            return self.sampler.order(key)
        return Shuffled(len(self.lengths), key) if self.shuffle else Sequential(len(self.lengths))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings by name, those of the sampler too."""
        facts = {"lengths": self.lengths.digest, "window": self.window, "shuffle": self.shuffle}
        if self.sampler is not None:
            facts["sampler"] = type(self.sampler).__name__
            facts |= {f"sampler.{name}": value for name, value in self.sampler.fingerprint.items()}
        return {**facts, "longer": self.lengths.longer}


def checked_sampler(sampler: Any) -> Any:
    """Return a planned sampler, or None; raise for any other."""
    if sampler is None or (isinstance(sampler, Ordered) and hasattr(sampler, "__len__")):
        return sampler
    raise ArgumentTypeError(
        f"sampler must be a planned sampler, or None; got {kind_of(sampler)}",
        found=sampler,
        expected="a planned sampler, such as MixtureSampler or ShardSampler",
        cure="derive yours from headrace.samplers.PlannedSampler",
    )


def _integers(keys: Sequence[Any]) -> NDArray[np.int64]:
    found = np.asarray(keys)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ArgumentTypeError(
            f"the sampler gives {shown(keys[0])}, which is not an index into lengths",
            found=keys[0],
            expected="integers from 0 up",
            cure="use a sampler of indices into lengths",
        )
    return found.astype(np.int64, copy=False)


class WindowOrder(ABC):
    """A `BatchOrder` whose batches are groups of the samples of one window after the other.

    ``group_counts`` says what positions count: groups, or the keys in them. ``size`` consecutive groups are a batch,
    also across the end of a window.
    """

    group_counts = False
    size = 1
    drop_last = False

    def __init__(self, settings: WindowSettings, key: Key) -> None:
        self._settings = settings
        self._key = key
        self._order = settings.samples(key)
        self._held: dict[tuple[int, int], Groups] = {}
        self._walked: tuple[int, WindowWalk] | None = None

    @abstractmethod
    def divide(self, parts: Parts) -> Groups:
        """Divide the samples of a window, which are in the order of the sampler, into groups."""

    @abstractmethod
    def collect(self, groups: Sequence[list[Any]]) -> list[Any]:
        """Return the keys of a batch of these groups."""

    @property
    def windows(self) -> int:
        """How many windows an epoch has."""
        return -(-len(self._order) // self._settings.window)

    def groups(self, epoch: int, window: int) -> Groups:
        """Return the groups of a window; those of the last few windows are kept."""
        held = self._held.get((epoch, window))
        if held is None:
            held = self._held[epoch, window] = self._plan(epoch, window)
            for old in list(self._held)[:-HELD]:
                self._held.pop(old, None)
        return held

    def _plan(self, epoch: int, window: int) -> Groups:
        size = self._settings.window
        start = window * size
        stop = min(start + size, len(self._order))
        if isinstance(self._order, Shuffled):
            indices = self._order.at(epoch, np.arange(start, stop))
        else:
            indices = _integers(self._order.keys(epoch, start, stop))
        groups = self.divide(self._settings.lengths.parts(indices))
        if not self._settings.shuffle or not len(groups):
            return groups
        places = np.arange(len(groups))
        return groups.shuffled(Permutations(self._key, epoch, stream=1).at(places, len(groups), window))

    def walk(self, epoch: int, position: int = 0, entry: Entry | None = None) -> WindowWalk:
        """Return the batches from a position on; ``entry`` is what a walk said of it."""
        if position:
            return WindowWalk(self, epoch, position, entry or (0, 0))
        if self._walked is None or self._walked[0] != epoch:
            self._walked = epoch, WindowWalk(self, epoch, 0, (0, 0))
        return self._walked[1]

    def count(self, epoch: int) -> int:
        """Return how many batches an epoch has: every window is planned for it, once."""
        return self.walk(epoch).count()

    def start(self, epoch: int, step: int) -> int:
        """Return the position of a batch, to which all windows before it are planned."""
        return self.walk(epoch).position(step)

    def keys(self, epoch: int, step: int) -> list[Any]:
        """Return the keys of a batch, to which all windows before it are planned."""
        found = self.walk(epoch).batch(step)
        if found is None:
            raise IndexError(f"epoch {epoch} has no batch {step}")
        return found[1]


class WindowWalk:
    """The batches of an epoch from a position on; any thread may ask for any of them."""

    def __init__(self, order: WindowOrder, epoch: int, position: int, entry: Entry) -> None:
        self._order = order
        self._epoch = epoch
        self._first = entry[0]
        # Before each window from the first on: the number of groups since, and the position. The same value may be
        # written by two threads.
        self._known: dict[int, Entry] = {0: (0, entry[1])}
        self._skip = 0
        if position:
            self._skip = self._group_at(position)

    def batch(self, number: int) -> tuple[int, list[Any]] | None:
        """Return a batch's position and keys; None after the last one."""
        size = self._order.size
        start = self._skip + number * size
        groups: list[list[Any]] = []
        while len(groups) < size and (found := self._group(start + len(groups))) is not None:
            window, at = found
            groups += window.between(at, at + size - len(groups))
        if not groups or (len(groups) < size and self._order.drop_last):
            return None
        return self._position(start), self._order.collect(groups)

    def has(self, number: int) -> bool:
        """Say whether there is such a batch."""
        last = self._order.size - 1 if self._order.drop_last else 0
        return self._group(self._skip + number * self._order.size + last) is not None

    def position(self, number: int) -> int:
        """Return the position of a batch, or of the epoch's end."""
        return self._position(self._ended(number))

    def entry(self, number: int) -> Entry | None:
        """Return the window that ends at a batch or has it inside, and its position; None in the first window."""
        group = self._ended(number)
        at = max(bisect_left(range(len(self._known)), group, key=lambda window: self._known[window][0]) - 1, 0)
        window = self._first + at
        return (window, self._known[at][1]) if window else None

    def count(self) -> int:
        """Return how many batches there are: every window is planned for it."""
        while self._extend():
            pass
        size, groups = self._order.size, self._known[len(self._known) - 1][0] - self._skip
        return groups // size if self._order.drop_last else -(-groups // size)

    def _extend(self) -> bool:
        """Plan one more window; return False after the last one."""
        at = len(self._known) - 1
        window = self._first + at
        if window >= self._order.windows:
            return False
        groups, (number, position) = self._order.groups(self._epoch, window), self._known[at]
        length = len(groups) if self._order.group_counts else groups.start(len(groups))
        self._known[at + 1] = number + len(groups), position + length
        return True

    def _reach(self, group: int) -> bool:
        """Plan windows until so many groups are known; return False if there are fewer."""
        while self._known[len(self._known) - 1][0] < group:
            if not self._extend():
                return False
        return True

    def _ended(self, number: int) -> int:
        """Return the first group of a batch, or the one after the last batch."""
        group = self._skip + number * self._order.size
        if self._reach(group):
            return group
        return min(group, self._last())

    def _last(self) -> int:
        """Return the group after the last batch; all windows are known."""
        total = self._known[len(self._known) - 1][0]
        return total - (total - self._skip) % self._order.size if self._order.drop_last else total

    def _group(self, group: int) -> tuple[Groups, int] | None:
        if not self._reach(group + 1):
            return None
        at = bisect_right(range(len(self._known)), group, key=lambda window: self._known[window][0]) - 1
        return self._order.groups(self._epoch, self._first + at), group - self._known[at][0]

    def _position(self, group: int) -> int:
        """Return the position of a group up to which windows are known."""
        at = bisect_right(range(len(self._known)), group, key=lambda window: self._known[window][0]) - 1
        number, position = self._known[at]
        if group == number:
            return position
        if self._order.group_counts:
            return position + group - number
        return position + self._order.groups(self._epoch, self._first + at).start(group - number)

    def _group_at(self, position: int) -> int:
        """Return the first group at a position or after it."""
        while self._known[len(self._known) - 1][1] < position and self._extend():
            pass
        at = bisect_left(range(len(self._known)), position, key=lambda window: self._known[window][1])
        if at == len(self._known):
            return self._known[at - 1][0]
        number, found = self._known[at]
        if found == position or not at:
            return number
        number, found = self._known[at - 1]
        if self._order.group_counts:
            return number + position - found
        return number + self._order.groups(self._epoch, self._first + at - 1).number_at(position - found)
