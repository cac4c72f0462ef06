"""Samples of a stream in groups that fit in one row together."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import integer, kind_of, one_of, shown
from headrace.datasets.iterable import StreamView
from headrace.datasets.pieces import cut, length_of
from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.plan.packing import packed
from headrace.plan.sample_lengths import LONGER, SampleLengths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headrace.plan.sample_lengths import Longer


class PackedStream(StreamView[list[Any]]):
    """Groups the samples of a stream that fit in one row; `PackingBatchSampler` does this for other datasets.

    >>> import numpy as np
    >>> from headrace import DataLoader
    >>> from headrace.collate import PackedCollate
    >>> from headrace.datasets import PackedStream
    >>> texts = (np.full(length, length) for length in (3, 5, 2, 4, 9))
    >>> rows = PackedStream(texts, row_length=8, longer="split")
    >>> for batch in DataLoader(rows, batch_size=3, collate_fn=PackedCollate(8)):
    ...     print(batch.values)
    [[9 9 9 9 9 9 9 9]
     [5 5 5 5 5 3 3 3]
     [4 4 4 4 2 2 9 0]]

    ``stream`` is an iterable dataset, or any iterable, of arrays, lists of numbers, or mappings and tuples of them. The
    length of a sample is that of its longest part. A sample of this dataset is the list of samples of a row, which
    `PackedCollate` concatenates.

    The next ``window`` samples of the stream are packed together, by best fit, the longest first; a larger window
    leaves less padding and holds more samples in memory. ``longer`` handles a sample longer than a row: it becomes
    several parts ("split"), is cut ("truncate"), is left out ("drop"), or is an error.

    Raises `ArgumentError` for invalid arguments, and while it is read for a sample that is too long or has no length.
    """

    def __init__(self, stream: Iterable[Any], row_length: int, *, window: int = 1024, longer: Longer = "error") -> None:
        if not hasattr(stream, "__iter__"):
            raise ArgumentTypeError(
                f"PackedStream: stream must be iterable; got {kind_of(stream)}",
                found=stream,
                expected="an object with __iter__",
                cure="For a dataset with an index, use PackingBatchSampler.",
            )
        super().__init__(stream)
        self.row_length = integer("row_length", row_length, least=1)
        self.window = integer("window", window, least=1)
        self.longer: Longer = one_of("longer", longer, LONGER)

    def __iter__(self) -> Iterator[list[Any]]:
        samples = self._read()
        before = 0
        while window := list(islice(samples, self.window)):
            yield from self._rows(window, before)
            before += len(window)

    def _rows(self, samples: list[Any], before: int) -> Iterator[list[Any]]:
        """Return the rows of a window; ``before`` is the number of samples before it."""
        lengths = np.array([self._length(sample, before + place) for place, sample in enumerate(samples)], np.int64)
        kept = np.flatnonzero(lengths <= self.row_length) if self.longer == "drop" else np.arange(len(lengths))
        if not len(kept):
            return
        parts = SampleLengths(lengths, self.row_length, "split" if self.longer == "drop" else self.longer, "row_length")
        rows = packed(parts.parts(kept), self.row_length)
        for keys in rows.between(0, len(rows)):
            yield [
                samples[key] if isinstance(key, int) else cut(samples[key.index], key.start, key.stop) for key in keys
            ]

    def _length(self, sample: Any, number: int) -> int:
        length = length_of(sample)
        if length is None:
            raise ArgumentTypeError(
                f"sample {number} of the stream is {shown(sample)}, which has no length",
                found=sample,
                expected="an array, a list of numbers, or a mapping or tuple of them",
                cure="Map the stream to arrays first.",
            )
        if length > self.row_length and self.longer == "error":
            raise ArgumentError(
                f"sample {number} of the stream has length {length}, more than row_length={self.row_length}",
                index=number,
                found=length,
                expected=f"at most {self.row_length}",
                cure='increase row_length, or pass longer="split", "truncate" or "drop"',
            )
        return length
