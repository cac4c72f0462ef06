"""A batch sampler that packs several short samples in one row of a batch, to avoid padding."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headrace._native import extension
from headrace.checks import flag, integer, one_of
from headrace.plan.piece import Piece
from headrace.plan.planned import PlannedBatchSampler
from headrace.plan.sample_lengths import SampleLengths
from headrace.plan.windows import Groups, WindowOrder, WindowSettings, checked_sampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from headrace.context.seeds import Key
    from headrace.plan.planned import PlannedSampler
    from headrace.plan.sample_lengths import Longer, Parts

Fit = Literal["first", "best"]

NATIVE_ROOM = 2**20
"""Up to this row length the extension packs: it needs 4 bytes for each amount of free room."""


class PackingBatchSampler(PlannedBatchSampler[tuple[int | Piece, ...]]):
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

    ``sampler`` is a planned sampler of indices, such as `MixtureSampler` or `ShardSampler`: it decides in which order
    the samples come. Without one, all samples are shuffled. The next ``window`` samples of that order are packed
    together, so that no plan depends on how many samples there are: not the time to the first batch, nor the memory.
    The rows of a window come in random order. With ``shuffle=False`` they do not, and samples without a sampler
    are not shuffled.

    ``fit`` puts a sample into the fullest row that has room for it ("best"), or into the first such row ("first"). If
    no row has room, a new one starts. With ``decreasing``, the longest samples go first, which leaves little room
    unused: at most 11/9 of the smallest number of rows, plus a few (Johnson et al., "Worst-case performance bounds for
    simple one-dimensional packing algorithms", 1974).

    ``longer`` handles a sample longer than a row: it becomes several parts of at most a row ("split"), is cut after
    ``row_length`` ("truncate"), is left out ("drop"), or is an error. A part's key is a `Piece`, and the loader cuts
    the sample. The last batch may have fewer rows; ``drop_last`` drops it. ``seed`` is as in `BucketBatchSampler`.

    The number of rows may differ from epoch to epoch. ``len`` packs all windows: a loop does not ask for it, and finds
    the end of the epoch when it comes.

    Raises `ArgumentError` for lengths that are not integers from 0 up or longer than a row, with the first such sample,
    and for other numbers below 1. Of more than 4 million lengths, those of a window are checked when it is packed.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        row_length: int,
        batch_size: int,
        *,
        sampler: PlannedSampler[int] | None = None,
        fit: Fit = "best",
        decreasing: bool = True,
        window: int = 8192,
        longer: Longer = "error",
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.row_length = integer("row_length", row_length, least=1)
        self.batch_size = integer("batch_size", batch_size, least=1)
        self.sampler = checked_sampler(sampler)
        self.fit: Fit = one_of("fit", fit, ("first", "best"))
        self.decreasing = flag("decreasing", decreasing)
        self.window = integer("window", window, least=1)
        self.shuffle = flag("shuffle", shuffle)
        self.drop_last = flag("drop_last", drop_last)
        known = SampleLengths(lengths, self.row_length, longer, "row_length")
        self.longer: Longer = known.longer
        self._settings = WindowSettings(known, self.sampler, self.window, self.shuffle)

    def batch_order(self, key: Key) -> PackingOrder:
        """Return the batches for a key, or for the sampler's own seed if it has one."""
        return PackingOrder(self, self._settings, self.key_for(key))

    @property
    def cuts(self) -> bool:
        """Whether some keys are a `Piece`: a part of a sample."""
        return self.longer in ("split", "truncate")

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings of the batches, by name."""
        names = ("row_length", "batch_size", "fit", "decreasing", "drop_last", "seed")
        return {**self._settings.fingerprint, **{name: getattr(self, name) for name in names}}


class PackingOrder(WindowOrder):
    """The batches of a `PackingBatchSampler`, planned window by window. Positions count rows."""

    group_counts = True

    def __init__(self, sampler: PackingBatchSampler, settings: WindowSettings, key: Key) -> None:
        super().__init__(settings, key)
        self.size = sampler.batch_size
        self.drop_last = sampler.drop_last
        self._decreasing = sampler.decreasing
        self._row_length = sampler.row_length
        self._fit: Fit = sampler.fit

    def divide(self, parts: Parts) -> Groups:
        """Divide samples into rows."""
        return packed(parts, self._row_length, self._fit, decreasing=self._decreasing)

    def collect(self, groups: Sequence[list[Any]]) -> list[tuple[Any, ...]]:
        """Return a tuple for each row."""
        return [tuple(group) for group in groups]


def packed(parts: Parts, room: int, fit: Fit = "best", *, decreasing: bool = True) -> Groups:
    """Return the rows that samples, or parts of them, are packed in.

    >>> from headrace.plan.sample_lengths import Parts
    >>> parts = Parts(np.arange(4), np.zeros(4, int), np.array([7, 4, 3, 6]))
    >>> packed(parts, room=10).between(0, 2)
    [[0, 2], [3, 1]]
    """
    sizes = parts.sizes
    taken = np.argsort(-sizes, kind="stable") if decreasing else np.arange(len(sizes))
    rows = (best_fit if fit == "best" else first_fit)(sizes[taken], room)
    return Groups(parts.take(taken[np.argsort(rows, kind="stable")]), np.cumsum(np.bincount(rows)))


def best_fit(lengths: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Return the row of each sample: the fullest that has room, and of equally full ones the last to become so.

    >>> best_fit(np.array([7, 4, 3, 6]), room=10)
    array([0, 1, 0, 1])
    """
    native = getattr(extension, "best_fit", None)
    if native is None or room > NATIVE_ROOM:
        return best_fit_by_steps(lengths, room)
    rows = np.empty(len(lengths), np.int64)
    native(np.ascontiguousarray(lengths, np.int64), room, rows)
    return rows


def best_fit_by_steps(lengths: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Return what `best_fit` does, without the native extension."""
    rests: list[int] = []  # the distinct amounts of free room, sorted; `having` has the rows with each
    having: dict[int, list[int]] = {}
    opened = 0
    rows = np.empty(len(lengths), np.int64)
    for place, length in enumerate(lengths.tolist()):
        at = bisect_left(rests, length)
        if at == len(rests):
            row, rest = opened, room - length
            opened += 1
        else:
            left = rests[at]
            row, rest = having[left].pop(), left - length
            if not having[left]:
                del rests[at]
        rows[place] = row
        alike = having.setdefault(rest, [])
        if not alike:
            insort(rests, rest)
        alike.append(row)
    return rows


def first_fit(lengths: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Return the row of each sample: the first that has room.

    >>> first_fit(np.array([3, 6, 4, 3]), room=10)
    array([0, 0, 1, 1])
    """
    rows: list[int] = []
    leaves = 1 << (len(lengths) - 1).bit_length()
    # A tree of free room: rows are the leaves, from index ``leaves`` on; inner nodes hold the maximum below them.
    rests = [room] * (2 * leaves)
    for length in lengths.tolist():
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
    return np.array(rows, np.int64)
