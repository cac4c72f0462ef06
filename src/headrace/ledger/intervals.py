"""Intervals of integers: unions, overlaps and gaps, at a cost that depends only on the number of intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from headrace.ledger.format import Keys

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Intervals:
    """Half-open intervals from ``starts`` to ``stops``, sorted by their starts.

    >>> some = Intervals.of([range(4, 9), range(2), range(7, 10), range(6, 6)])
    >>> some.first(8), some.total
    ([range(0, 2), range(4, 9), range(7, 10)], 10)
    >>> union, double = some.merged()
    >>> union.first(8), double.first(8), union.gaps(12).first(8)
    ([range(0, 2), range(4, 10)], [range(7, 9)], [range(2, 4), range(10, 12)])
    >>> double.counts(8)
    {7: 2, 8: 2}
    """

    starts: NDArray[np.int64]
    stops: NDArray[np.int64]

    @classmethod
    def of(cls, ranges: Iterable[range]) -> Intervals:
        """Return the intervals of ranges with step 1."""
        pairs = np.array([(each.start, each.stop) for each in ranges if each], np.int64).reshape(-1, 2)
        return cls(pairs[:, 0], pairs[:, 1])._sorted()

    @classmethod
    def of_keys(cls, keys: Iterable[Keys], size: int) -> Intervals:
        """Return the keys that are indices of a dataset of that size; equal keys are repeated."""
        ranges: list[range] = []
        rows: list[NDArray[np.int64]] = []
        for each in keys:
            if isinstance(each.numbers, range):
                ranges.append(range(max(0, each.numbers.start), min(size, each.numbers.stop)))
            elif each.numbers is not None:
                rows.append(each.numbers)
        single = np.sort(np.concatenate(rows)) if rows else _NONE
        single = single[(single >= 0) & (single < size)]
        again = np.zeros(len(single), np.bool_)
        again[1:] = single[1:] == single[:-1]
        own, double = single[~again], single[again]
        cuts = np.flatnonzero(np.diff(own) != 1) + 1
        firsts = np.concatenate([[0], cuts]) if len(own) else cuts
        lasts = np.concatenate([cuts, [len(own)]]) - 1 if len(own) else cuts
        wide = cls.of(ranges)
        starts = np.concatenate([wide.starts, own[firsts], double])
        stops = np.concatenate([wide.stops, own[lasts] + 1, double + 1])
        return cls(starts, stops)._sorted()

    def _sorted(self) -> Intervals:
        order = np.argsort(self.starts, kind="stable")
        return Intervals(self.starts[order], self.stops[order])

    @property
    def total(self) -> int:
        """The sum of their lengths; a number in several intervals counts several times."""
        return int((self.stops - self.starts).sum())

    @property
    def end(self) -> int:
        """The largest stop, or 0 if there are no intervals."""
        return int(self.stops.max()) if len(self.stops) else 0

    def merged(self) -> tuple[Intervals, Intervals]:
        """Return their union as disjoint intervals, and the overlaps."""
        if not len(self.starts):
            return self, self
        reach = np.maximum.accumulate(self.stops)
        again = self.starts[1:] < reach[:-1]
        double = Intervals(self.starts[1:][again], np.minimum(self.stops[1:], reach[:-1])[again])
        apart = np.flatnonzero(self.starts[1:] > reach[:-1]) + 1
        firsts, lasts = np.concatenate([[0], apart]), np.concatenate([apart, [len(reach)]]) - 1
        return Intervals(self.starts[firsts], reach[lasts]), double

    def gaps(self, size: int) -> Intervals:
        """Return the gaps between these disjoint intervals, below ``size``."""
        starts, stops = np.append(0, self.stops), np.append(self.starts, size)
        stops = np.minimum(stops, size)
        holes = starts < stops
        return Intervals(starts[holes], stops[holes])

    def first(self, most: int) -> list[range]:
        """Return the first ``most`` intervals as ranges."""
        pairs = zip(self.starts[:most].tolist(), self.stops[:most].tolist(), strict=True)
        return [range(start, stop) for start, stop in pairs]

    def counts(self, most: int) -> dict[int, int]:
        """Return the first ``most`` repeated numbers of the overlaps, and how often each occurs."""
        numbers: list[int] = []
        for interval in self.merged()[0].first(most):
            numbers += interval[: most - len(numbers)]
        ends = np.sort(self.stops)
        begun, ended = np.searchsorted(self.starts, numbers, "right"), np.searchsorted(ends, numbers, "right")
        return dict(zip(numbers, (begun - ended + 1).tolist(), strict=True))
