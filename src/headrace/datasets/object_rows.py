"""Rows of an array that lies in an object behind a URL."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.context.timing import timed
from headrace.datasets.base import Dataset
from headrace.datasets.columns import Columns
from headrace.errors import BadFile, SampleError
from headrace.interop.keys import place, places
from headrace.storage.blocks import read_url
from headrace.storage.object_spans import ObjectSpans, fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.context.memory import Empty
    from headrace.formats.npy import ArraySpan
    from headrace.storage.object_clients import Facts

NEAR, MOST = 1 << 14, 1 << 22
"""Bytes between two rows that are read at once, and bytes of an array in which they are."""

WHAT = "an array of {} rows"


class ObjectRows(Dataset[Any]):
    """The rows of an array behind a URL, read by ranges: a sample is a row.

    >>> import fsspec
    >>> from headrace.formats.npy import ArraySpan
    >>> from headrace.storage.objects import facts
    >>> url = "memory://arrays/a.bin"
    >>> fsspec.filesystem("memory").pipe(url, np.arange(6.0).tobytes())
    >>> rows = ObjectRows(url, facts(url), "a", ArraySpan(0, np.dtype(float), (3, 2)))
    >>> rows[-1], rows[:2].tolist()
    (array([4., 5.]), [[0.0, 1.0], [2.0, 3.0]])

    Raises `BadFile` for an array whose columns come first, as its rows are scattered over the whole object.
    """

    suits_threads = True
    reads_many = True

    def __init__(self, url: str, facts: Facts, name: str, span: ArraySpan) -> None:
        if span.fortran and sum(side > 1 for side in span.shape) > 1:
            raise BadFile(
                f"array {name!r} is stored column by column, and its rows cannot be read by URL",
                path=url,
                expected="arrays that are stored row by row",
                cure="Write it with numpy.ascontiguousarray, or copy the file here.",
            )
        self._url, self._span, self._known = url, span, (int(facts[0]), int(facts[1]))
        self._row = prod(span.shape[1:]) * span.dtype.itemsize
        self._objects = [url], np.array([self._known], np.int64)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the array."""
        return self._span.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""
        return self._span.shape

    @property
    def ndim(self) -> int:
        """How many axes the array has."""
        return len(self._span.shape)

    @property
    def columns(self) -> Columns:
        """The array of a whole batch."""
        return Columns(((self.dtype, self.shape[1:]),), bare=True)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        """Read the row at an index, or the array of the rows of a slice."""
        if isinstance(index, slice):
            return self.read_batch(range(len(self))[index])
        at = place(index, len(self), WHAT)
        try:
            return self.read_batch([at])[0]
        except SampleError as error:
            raise error.at(at) from error.__cause__

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Read many rows, by several requests at once."""
        return list(self.read_batch(indices))

    def read_batch(self, keys: Sequence[int], *, empty: Empty = np.empty) -> Any:
        """Read the rows of these keys into lent memory: one array."""
        rows = places(keys, len(self), WHAT)
        out: NDArray[Any] = empty((len(rows), *self.shape[1:]), self.dtype)
        if not out.size:
            return out
        fetch(self.object_spans(rows))
        order = np.argsort(rows, kind="stable")
        sorted_rows = rows[order]
        gaps = np.diff(sorted_rows) > max(1, NEAR // self._row)
        begins = np.flatnonzero(gaps | (np.diff(sorted_rows // max(1, MOST // self._row)) > 0)) + 1
        into = out.reshape(len(rows), -1).view(np.uint8)
        with timed("read"):
            for mine in np.split(order, begins):
                first, last = int(rows[mine[0]]), int(rows[mine[-1]])
                begin = self._span.offset + first * self._row
                data = read_url(self._url, begin, (last + 1 - first) * self._row, self._known)
                into[mine] = np.frombuffer(data, np.uint8).reshape(-1, self._row)[rows[mine] - first]
        return out

    def object_spans(self, keys: Sequence[int] | NDArray[np.intp]) -> list[ObjectSpans]:
        """Return which ranges of the object the rows of these keys are."""
        rows = places(keys, len(self), WHAT).astype(np.int64, copy=False)
        begins = self._span.offset + rows * self._row
        return [ObjectSpans(*self._objects, np.zeros_like(rows), begins, np.full_like(rows, self._row))]

    def where(self, index: int) -> str:
        """Return the URL, and the row there, for errors."""
        return f"{self._url}: row {place(index, len(self), WHAT)}"
