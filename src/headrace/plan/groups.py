"""The batches of one epoch, of any sizes, computed once and stored in arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.plan.permutation import Permutations


class Groups:
    """Consecutive groups of keys.

    >>> groups = Groups(np.array([7, 8, 9]), np.array([1, 3]))
    >>> len(groups), groups[1], groups.start(1), groups.between(0, 2)
    (2, [8, 9], 1, [(7,), (8, 9)])
    """

    def __init__(self, keys: NDArray[np.integer[Any]], ends: NDArray[np.integer[Any]]) -> None:
        self._keys = keys
        self._ends = np.concatenate([[0], ends]).astype(np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> list[int]:
        start, stop = self._ends[number : number + 2].tolist()
        keys: list[int] = self._keys[start:stop].tolist()
        return keys

    def start(self, number: int) -> int:
        """Return the number of keys before a group."""
        return int(self._ends[number])

    def between(self, start: int, stop: int) -> list[tuple[int, ...]]:
        """Return the groups from ``start`` to ``stop - 1`` as tuples."""
        return [tuple(self[number]) for number in range(start, min(stop, len(self)))]


def grouped(keys: NDArray[np.integer[Any]], ends: NDArray[np.integer[Any]], shuffle: Permutations | None) -> Groups:
    """Return the groups that end at ``ends``, in random order if ``shuffle`` is a permutation."""
    if shuffle is None:
        return Groups(keys, ends)
    count = len(ends)
    order = shuffle.at(np.arange(count), count)
    starts = np.concatenate([[0], ends[:-1]])
    sizes = (ends - starts)[order]
    new_ends = np.cumsum(sizes)
    # For each key of the new order: the start of its group in the old order, plus its offset in the group.
    places = np.arange(len(keys)) + np.repeat(starts[order] - (new_ends - sizes), sizes)
    return Groups(keys[places], new_ends)
