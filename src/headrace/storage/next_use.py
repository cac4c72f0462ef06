"""Which blocks of a cache go first where the plan is known: those whose next use is furthest away (Belady)."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from headrace.storage.block_cache import least_recent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.storage.block_cache import Entry

NEVER = np.iinfo(np.int64).max
"""The next use of a block that no planned step uses again."""


class NextUses:
    """When blocks are used, for the question which use comes next.

    >>> uses = NextUses([np.array([0, 1]), np.array([2]), np.array([0])])
    >>> uses.after(0, np.array([0, 1, 2, 9]))[:3], uses.after(1, np.array([0]))
    (array([0, 0, 1]), array([2]))

    ``steps``: the numbers of the blocks that each step uses, from step ``first`` on.
    """

    def __init__(self, steps: Iterable[NDArray[np.int64]], first: int = 0) -> None:
        found = list(steps)
        self.first, self.end = first, first + len(found)
        blocks = np.concatenate(found) if found else np.empty(0, np.int64)
        at = np.repeat(np.arange(len(found)), [len(each) for each in found])
        # One number for block and step, in the order of both: the next use is found by one search.
        self._width = len(found) + 1
        self._uses = np.sort(blocks * self._width + at)

    def after(self, step: int, blocks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the first step from ``step`` on that uses each block; `NEVER` for none."""
        begin = min(max(0, step - self.first), self._width - 1)
        place = np.searchsorted(self._uses, blocks * self._width + begin)
        found = np.append(self._uses, -1)[place]
        return np.where(found // self._width == blocks, found % self._width + self.first, NEVER)


class PlannedEviction:
    """Orders the blocks of a cache for eviction by the plans of the loops that run in this process.

    First the blocks that no plan uses, the least recently used ones at the front; then the others, those whose next use
    is the furthest at the front. Without plans, the least recently used block goes first. For threads.
    """

    def __init__(self) -> None:
        self._plans: list[PlannedUses] = []
        self._lock = threading.Lock()

    def add(self, plan: PlannedUses) -> None:
        """Take the plan of a loop into account."""
        with self._lock:
            self._plans = [*self._plans, plan]

    def remove(self, plan: PlannedUses) -> None:
        """Forget the plan of a loop that has ended."""
        with self._lock:
            self._plans = [each for each in self._plans if each is not plan]

    def __call__(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return the blocks, those to remove first at the front."""
        found = least_recent(entries)
        if not self._plans:
            return found
        distance = np.min([plan.distances([entry.name for entry in found]) for plan in self._plans], axis=0)
        return [found[place] for place in np.argsort(-distance, kind="stable").tolist()]


class PlannedUses:
    """The uses of a loop's blocks, and where the loop is.

    ``prefixes`` returns, by what the names of an object's blocks begin with, the number of its first block.
    """

    def __init__(self, prefixes: Callable[[], Mapping[str, int]]) -> None:
        self._prefixes = prefixes
        self.uses = NextUses([])
        self.step = 0

    def distances(self, names: Sequence[str]) -> NDArray[np.int64]:
        """Return, for blocks of the cache by name, in how many steps each is used; `NEVER` where that is not known."""
        known = self._prefixes()
        first = np.array([known.get(name[:32], -1) for name in names], np.int64)
        mine = first >= 0
        within = np.array([int(name[33:41], 16) for name in names], np.int64)
        found = np.full(len(names), NEVER)
        at = self.uses.after(self.step, (first + within)[mine])
        found[mine] = np.where(at == NEVER, NEVER, at - self.step)
        return found
