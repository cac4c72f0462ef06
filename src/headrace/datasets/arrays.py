"""Arrays in memory (or memory-mapped) as a dataset of their rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.datasets.base import Dataset
from headrace.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from headrace.work import Empty


class ArrayDataset(Dataset[Any]):
    """The rows of one or more arrays of equal length, as samples.

    >>> from headrace import ArrayDataset, DataLoader
    >>> features, labels = np.arange(12.0).reshape(6, 2), np.arange(6)
    >>> dataset = ArrayDataset(features, labels)
    >>> dataset[4]
    (array([8., 9.]), np.int64(4))
    >>> x, y = next(iter(DataLoader(dataset, batch_size=3)))
    >>> x.shape, y
    ((3, 2), array([0, 1, 2]))

    One array gives bare rows, several give tuples of rows. Rows are views; a loader gathers whole batches at a time,
    without touching single rows. Memory-mapped arrays stay on disk.

    Raises `ArgumentError` for arrays of different lengths, without rows' axis, or of Python objects.
    """

    suits_threads = True

    def __init__(self, *arrays: ArrayLike) -> None:
        if not arrays:
            raise ArgumentError("ArrayDataset needs at least one array")
        # asanyarray: a memory-mapped array must stay one.
        self.arrays = tuple(np.asanyarray(array) for array in arrays)
        for number, array in enumerate(self.arrays):
            if isinstance(array, np.ma.MaskedArray):
                raise ArgumentError(
                    f"array {number} of ArrayDataset is masked, and a batch has no mask; fill it first: array.filled(0)"
                )
            if array.ndim == 0:
                raise ArgumentError(f"array {number} of ArrayDataset has no rows: its shape is (); give at least 1-D")
            if array.dtype.hasobject:
                raise ArgumentError(f"array {number} of ArrayDataset holds Python objects; give it a number's dtype")
            if len(array) != len(self.arrays[0]):
                lengths = ", ".join(str(len(a)) for a in self.arrays[: number + 1])
                raise ArgumentError(f"the arrays of ArrayDataset must have equal lengths; found {lengths}, …")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: int) -> Any:
        """Return the row, or the tuple of rows, at an index."""
        if len(self.arrays) == 1:
            return self.arrays[0][index]
        return tuple(array[index] for array in self.arrays)

    def read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        """Gather the rows of these keys into lent memory: one array, or a list of arrays."""
        rows = np.asarray(keys, dtype=np.intp)
        if rows.size and not (-len(self) <= rows.min() and rows.max() < len(self)):
            raise IndexError(f"row {rows.max()} is out of range for an ArrayDataset of {len(self)} rows")
        batch = []
        for array in self.arrays:
            out = empty((len(rows), *array.shape[1:]), array.dtype)
            # mode="wrap" writes straight into out (the default mode makes a copy first) and, the keys being
            # in range, means what indexing means for negative ones.
            np.take(array, rows, axis=0, out=out, mode="wrap")
            batch.append(out)
        return batch[0] if len(batch) == 1 else batch
