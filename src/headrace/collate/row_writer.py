"""Write each sample's arrays into their rows of the batch while they are still in the CPU cache.

Keeping all arrays until the batch is collated costs new memory for each of them and a second pass over it. With two
threads, that alone can take as long as decoding. So an array is copied into its row of the batch at once and dropped.
The pixels of an image that are not made yet are made there. Collate sees samples with views of those rows. If all rows
of a column are written, the batch is already complete. If something does not fit, collate handles the views as usual,
with the same result or the same error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from headrace.context.timing import timed
from headrace.image.pending import Pending, done
from headrace.storage.mapped_samples import holds_no_array, in_memory, parts_in_memory, write_row

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from headrace.context.memory import Empty

SMALLEST = 2048
"""The smallest row in bytes; for less, the view costs more than the copy saves."""


class WrittenRow(np.ndarray[Any, np.dtype[Any]]):
    """A row of an unfinished batch, with a reference to the whole column."""

    column: npt.NDArray[Any]
    row: int


class RowWriter:
    """Write the arrays of samples into the rows of one batch.

    >>> writer = RowWriter(2, np.empty)
    >>> samples = [writer.write(row, (np.full(1000, row), f"sample {row}")) for row in range(2)]
    >>> column_of([array for array, name in samples])[:, 0], samples[1][1]
    (array([0, 1]), 'sample 1')
    """

    __slots__ = ("_apart", "_columns", "_empty", "_rows")

    def __init__(self, rows: int, empty: Empty, apart: Collection[str] = ()) -> None:
        self._rows = rows
        self._empty = empty
        self._apart = apart
        self._columns: dict[tuple[Any, ...], npt.NDArray[Any]] = {}

    @property
    def writes(self) -> bool:
        """Whether there are columns to write to: after the first sample, which defines them, that is settled."""
        return bool(self._columns)

    def write(self, row: int, sample: Any) -> Any:
        """Return the sample with its larger arrays replaced by their rows of the batch, but those in fields apart."""
        if row == 0 and holds_no_array(sample):
            return sample
        if self._apart and type(sample) is dict:
            return {
                key: parts_in_memory(done(item)) if key in self._apart else self._write(row, item, (key,))
                for key, item in sample.items()
            }
        return self._write(row, sample, ())

    def _write(self, row: int, sample: Any, place: tuple[Any, ...]) -> Any:
        kind = type(sample)
        if isinstance(sample, np.ndarray):
            return self._place(row, sample, place)
        if kind is tuple:
            return tuple([self._write(row, item, (*place, index)) for index, item in enumerate(sample)])
        if kind is list:
            return [self._write(row, item, (*place, index)) for index, item in enumerate(sample)]
        if kind is dict:
            return {key: self._write(row, item, (*place, key)) for key, item in sample.items()}
        return sample

    def _place(self, row: int, array: npt.NDArray[Any], place: tuple[Any, ...]) -> npt.NDArray[Any]:
        if array.nbytes < SMALLEST or array.dtype.hasobject or isinstance(array, np.ma.MaskedArray):
            return in_memory(done(array))
        if row == 0:  # as in collate, the first sample defines the columns
            self._columns[place] = self._empty((self._rows, *array.shape), array.dtype)
        column = self._columns.get(place)
        if column is None or column.shape[1:] != array.shape or column.dtype != array.dtype:
            return in_memory(done(array))
        if isinstance(array, Pending):
            with timed("transform"):
                array.pixels(column[row])
        else:
            with timed("collate"):
                write_row(column, row, array)
        written: WrittenRow = column[row].view(WrittenRow)
        written.column, written.row = column, row
        return written


def column_of(arrays: Sequence[Any]) -> npt.NDArray[Any] | None:
    """Return the column whose rows are exactly these arrays, in order; otherwise None."""
    first = arrays[0]
    if type(first) is not WrittenRow or len(first.column) != len(arrays):
        return None
    column = first.column
    for row, array in enumerate(arrays):
        if type(array) is not WrittenRow or array.column is not column or array.row != row:
            return None
    return column
