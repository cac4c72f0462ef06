"""A batch sampler that packs several short samples in one row of a batch, to avoid padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headrace.checks import flag, integer, one_of
from headrace.plan.groups import Groups, grouped
from headrace.plan.permutation import Permutations
from headrace.plan.planned import Longer, PlannedBatchSampler, counts, digest, kept_lengths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from headrace.context.seeds import Key

Fit = Literal["first", "best"]


class PackingBatchSampler(PlannedBatchSampler[tuple[int, ...]]):
    """Batches of rows; each row is a group of samples that fit in it together.

    >>> from headrace.samplers import PackingBatchSampler
    >>> lengths = [7, 4, 3, 6, 2, 8]
    >>> for batch in PackingBatchSampler(lengths, row_length=10, batch_size=2, shuffle=False):
    ...     print(batch)
    [(5, 4), (0, 2)]
    [(3, 1)]
    >>> import numpy as np
    >>> from headrace import DataLoader
    >>> from headrace.collate import PackedCollate
    >>> from headrace.datasets import GroupedDataset
    >>> words = GroupedDataset([np.full(length, length) for length in lengths])
    >>> rows = PackingBatchSampler(lengths, row_length=10, batch_size=2, shuffle=False)
    >>> for values, segment_ids, positions in DataLoader(words, batch_sampler=rows, collate_fn=PackedCollate(10)):
    ...     print(values)
    [[8 8 8 8 8 8 8 8 2 2]
     [7 7 7 7 7 7 7 3 3 3]]
    [[6 6 6 6 6 6 4 4 4 4]]

    A key is a tuple with the indices of a row's samples. `GroupedDataset` reads them, and `PackedCollate` concatenates
    them, with the segment ids and positions that attention needs. ``lengths`` has the length of each sample.

    ``fit`` puts a sample into the fullest row that has room for it ("best"), or into the first such row ("first"). If
    no row has room, a new one starts. With ``decreasing``, the longest samples go first, which leaves little room
    unused: at most 11/9 of the smallest number of rows, plus a few (Johnson et al., "Worst-case performance bounds for
    simple one-dimensional packing algorithms", 1974). In each epoch the samples are shuffled and packed, ``window`` of
    them at a time. The rows come in random order. With ``shuffle=False`` everything stays in order.

    ``longer`` handles a sample longer than a row: an error ("raise"), dropped ("drop"), or counted as a whole row
    ("truncate"; `PackedCollate` then cuts it). The last batch may have fewer rows; ``drop_last`` drops it. The number
    of rows may differ from epoch to epoch. They are computed when the first batch is requested, in a few seconds for a
    million samples, and cached. ``seed`` is as in `BucketBatchSampler`.

    Raises `ArgumentError` for lengths that are not integers from 0 up or longer than a row, with the first such sample,
    and for other numbers below 1.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        row_length: int,
        batch_size: int,
        *,
        fit: Fit = "best",
        decreasing: bool = True,
        window: int = 8192,
        longer: Longer = "raise",
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        found = counts("lengths", lengths)
        self.row_length = integer("row_length", row_length, least=1)
        self.batch_size = integer("batch_size", batch_size, least=1)
        self.fit: Fit = one_of("fit", fit, ("first", "best"))
        self.decreasing = flag("decreasing", decreasing)
        self.window = integer("window", window, least=1)
        self.longer: Longer = one_of("longer", longer, ("raise", "drop", "truncate"))
        self.shuffle = flag("shuffle", shuffle)
        self.drop_last = flag("drop_last", drop_last)
        self._kept, self._lengths = kept_lengths(found, self.row_length, self.longer, "row_length")
        self._digest = digest(found)

    def batch_order(self, key: Key) -> PackingOrder:
        """Return the batches for a key, or for the sampler's own seed if it has one."""
        return PackingOrder(self, self._kept, self._lengths, self.key_for(key))

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings of the batches, by name."""
        names = ("row_length", "batch_size", "fit", "decreasing", "window", "longer", "shuffle", "drop_last", "seed")
        return {"lengths": self._digest, **{name: getattr(self, name) for name in names}}


class PackingOrder:
    """The batches of a `PackingBatchSampler`, computed epoch by epoch. Positions count rows."""

    def __init__(
        self, sampler: PackingBatchSampler, kept: NDArray[np.int64], lengths: NDArray[np.int64], key: Key
    ) -> None:
        self._sampler = sampler
        self._kept = kept
        self._lengths = lengths
        self._key = key
        self._planned: tuple[int, Groups] | None = None

    def count(self, epoch: int) -> int:
        """Return how many batches an epoch has."""
        whole, rest = divmod(len(self._rows(epoch)), self._sampler.batch_size)
        return whole + (rest > 0 and not self._sampler.drop_last)

    def start(self, epoch: int, step: int) -> int:  # noqa: ARG002  the same in every epoch
        """Return the position of a batch's first row."""
        return step * self._sampler.batch_size

    def keys(self, epoch: int, step: int) -> list[tuple[int, ...]]:
        """Return the keys of a batch: a tuple for each row."""
        start = self.start(epoch, step)
        return self._rows(epoch).between(start, start + self._sampler.batch_size)

    def _rows(self, epoch: int) -> Groups:
        planned = self._planned
        if planned is None or planned[0] != epoch:
            planned = self._planned = epoch, self._plan(epoch)
        return planned[1]

    def _plan(self, epoch: int) -> Groups:
        how, size = self._sampler, len(self._lengths)
        samples = np.arange(size)
        if how.shuffle:
            samples = Permutations(self._key, epoch).at(samples, size)
        pack = best_fit if how.fit == "best" else first_fit
        order: list[NDArray[np.int64]] = []
        ends: list[NDArray[np.int64]] = []
        packed = 0
        for start in range(0, size, how.window):
            window = samples[start : start + how.window]
            if how.decreasing:
                window = window[np.argsort(-self._lengths[window], kind="stable")]
            rows = np.array(pack(self._lengths[window].tolist(), how.row_length))
            order.append(window[np.argsort(rows, kind="stable")])
            ends.append(packed + np.cumsum(np.bincount(rows)))
            packed += len(window)
        shuffle = Permutations(self._key, epoch, stream=1) if how.shuffle else None
        return grouped(self._kept[np.concatenate(order)], np.concatenate(ends), shuffle)


def best_fit(lengths: Sequence[int], room: int) -> list[int]:
    """Return the row of each sample: the fullest that has room, and the oldest of equally full ones.

    >>> best_fit([7, 4, 3, 6], room=10)
    [0, 1, 0, 1]
    """
    rows: list[int] = []
    rests: list[int] = []  # the distinct amounts of free room, sorted; `having` has the rows with each
    having: dict[int, list[int]] = {}
    opened = 0
    for length in lengths:
        place = bisect_left(rests, length)
        if place == len(rests):
            row, rest = opened, room - length
            opened += 1
        else:
            left = rests[place]
            row, rest = heappop(having[left]), left - length
            if not having[left]:
                del rests[place]
        rows.append(row)
        alike = having.setdefault(rest, [])
        if not alike:
            insort(rests, rest)
        heappush(alike, row)
    return rows


def first_fit(lengths: Sequence[int], room: int) -> list[int]:
    """Return the row of each sample: the first that has room.

    >>> first_fit([3, 6, 4, 3], room=10)
    [0, 0, 1, 1]
    """
    rows: list[int] = []
    leaves = 1 << (len(lengths) - 1).bit_length()
    # A tree of free room: rows are the leaves, from index ``leaves`` on; inner nodes hold the maximum below them.
    rests = [room] * (2 * leaves)
    for length in lengths:
        node = 1
        while node < leaves:
            node *= 2
            if rests[node] < length:
                node += 1
        rows.append(node - leaves)
        rests[node] -= length
        while node > 1:
            node //= 2
            most = max(rests[2 * node], rests[2 * node + 1])
            if rests[node] == most:
                break
            rests[node] = most
    return rows
