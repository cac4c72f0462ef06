"""A key for a part of a sample."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Piece:
    """The key of a part of a sample: its elements from ``start`` to ``stop - 1``.

    >>> from headrace.samplers import PackingBatchSampler
    >>> list(PackingBatchSampler([7, 2], row_length=5, batch_size=2, longer="split", shuffle=False))
    [[(Piece(index=0, start=0, stop=5),), (Piece(index=0, start=5, stop=7), 1)]]

    A loader asks the dataset for ``index`` and cuts what it gets: arrays, and lists of numbers, along the first axis.
    """

    index: int
    start: int
    stop: int
