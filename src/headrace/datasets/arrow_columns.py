"""Columns of Arrow files that are read for a whole batch of rows at once: where each value lies is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.formats.arrow import Column
from headrace.formats.arrow_values import Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.context.memory import Empty
    from headrace.formats.arrow import ArrowFile, Type
    from headrace.storage.span_maps import SpanMaps
    from headrace.storage.spans import SpanFiles


class Layout:
    """The record batches of some files: ``first`` is the number of each batch's first row, and of all rows at the end.

    ``maps`` copies ranges of the files.
    """

    def __init__(self, files: Sequence[ArrowFile], first: Sequence[int], maps: SpanMaps) -> None:
        self.files, self.maps = files, maps
        self._first = np.asarray(first, np.int64)
        self._file_of = np.repeat(np.arange(len(files)), [len(file.rows) for file in files])

    def place(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the batch of each row, and the row there."""
        part = np.searchsorted(self._first, rows, "right") - 1
        return part, rows - self._first[part]

    def read(self, part: NDArray[np.int64], offsets: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """Copy a range for each row, whose batch is in ``part``, into the rows of ``out``."""
        of_row = self._file_of[part]
        one = not len(of_row) or (of_row[0] == of_row).all()  # in less time than it takes to sort them
        numbers = of_row[:1].tolist() if one else np.unique(of_row).tolist()
        for number in numbers:
            file = self.files[number]
            if len(numbers) == 1:
                self.maps.read(file.path, offsets, file.facts, out)
                continue
            rows = np.flatnonzero(of_row == number)
            found = np.empty((len(rows), out.shape[1]), np.uint8)
            self.maps.read(file.path, offsets[rows], file.facts, found)
            out[rows] = found


@dataclass(frozen=True, eq=False, slots=True)
class Numbers:
    """A column of numbers, or of lists of equally many, without nulls; ``begin``: of each batch, where it begins."""

    layout: Layout
    begin: NDArray[np.int64]
    stored: np.dtype[Any]
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __call__(self, rows: NDArray[np.int64], empty: Empty) -> NDArray[Any]:
        """Return the values of these rows, in lent memory."""
        part, row = self.layout.place(rows)
        width = self.stored.itemsize * int(np.prod(self.shape, dtype=np.int64))
        out = empty((len(rows), *self.shape), self.dtype)
        same = self.stored == self.dtype
        raw = out if same else np.empty((len(rows), *self.shape), self.stored)
        if raw.size:
            self.layout.read(part, self.begin[part] + row * width, raw.view(np.uint8).reshape(len(rows), width))
        if not same:
            out[...] = raw
        return out


@dataclass(frozen=True, eq=False, slots=True)
class Texts:
    """A column of text or bytes without nulls."""

    layout: Layout
    begin: NDArray[np.int64]
    data: NDArray[np.int64]
    size: NDArray[np.int64]
    width: int
    is_text: bool
    files: SpanFiles

    def __call__(self, rows: NDArray[np.int64], empty: Empty) -> list[Any]:  # noqa: ARG002  text lies in no array
        """Return the values of these rows."""
        part, row = self.layout.place(rows)
        pairs = np.empty((len(rows), 2), f"<i{self.width}")
        if len(rows):
            offsets = self.begin[part] + row * self.width
            self.layout.read(part, offsets, pairs.view(np.uint8).reshape(len(rows), 2 * self.width))
        begin, end = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
        if ((begin < 0) | (begin > end) | (end > self.size[part])).any():
            raise ValueError("the offsets of a column do not ascend within its buffer")
        files = [self.layout.files[number] for number in self.layout._file_of[part].tolist()]
        where = (self.data[part] + begin).tolist()
        found = [
            self.files.read(file.path, at, length, file.facts) if length else b""
            for file, at, length in zip(files, where, (end - begin).tolist(), strict=True)
        ]
        return [data.decode() for data in found] if self.is_text else found


Reader = Numbers | Texts


def reader_of(layout: Layout, name: str, files: SpanFiles, *, plain: bool) -> Reader | None:
    """Return what reads a column of many rows at once; None for one that has to be read row by row.

    ``plain``: as Python's own objects, as `arrow_values.value` has it.
    """
    try:
        kind = layout.files[0].columns[name].type
        if any(file.codec or file.data is not None for file in layout.files):
            return None
        if kind.layout == "binary":
            begin, data, size = (
                np.concatenate(each)
                for each in zip(*(_text_buffers(file, file.columns[name]) for file in layout.files), strict=True)
            )
            return Texts(layout, begin, data, size, kind.width, kind.is_text, files)
        value, count = _values(layout, kind, name, plain=plain)
        stored = np.dtype(value.stored)
        dtype = stored
        if count is None:
            # What collating Python's numbers gives.
            dtype = np.dtype(np.int64) if stored.kind in "iu" else np.dtype(np.float64) if plain else stored
        begin = np.concatenate([_number_buffers(file, name, count) for file in layout.files])
        return Numbers(layout, begin, stored, dtype, () if count is None else (count,))
    except ValueError:  # reading such a row says what is wrong
        return None


def _values(layout: Layout, kind: Type, name: str, *, plain: bool) -> tuple[Type, int | None]:
    """Return the type of the numbers in a column, and how many each row has; None for one without a list."""
    if kind.is_number and kind.dtype != "<u8":
        return kind, None
    if plain or kind.layout not in ("list", "fixed_list") or not kind.children[0][1].is_number:
        raise ValueError(kind.name)
    if kind.layout == "fixed_list":
        count = kind.width
    else:
        counts = {_count(file, file.columns[name]) for file in layout.files if int(file.rows.sum())}
        count = counts.pop() if len(counts) == 1 else 0
    if count < 1:
        raise ValueError("lists of several lengths")
    return kind.children[0][1], count


def _count(file: ArrowFile, column: Column) -> int:
    """Return how many items each row has; 0 where they differ."""
    found = set[int]()
    for number, rows in enumerate(file.rows.tolist()):
        if rows:
            lengths = np.diff(Batch(file, number).offsets(column, 0, rows))
            found |= {int(lengths.min()), int(lengths.max())}
    return found.pop() if len(found) == 1 else 0


def _number_buffers(file: ArrowFile, name: str, count: int | None) -> NDArray[np.int64]:
    """Return where the values of each batch begin; raise ValueError for nulls and for buffers that are too small."""
    column = file.columns[name]
    if count is None:
        return _begin(file, column, file.rows)
    _no_nulls(file, column)
    kind = column.type.children[0][1]
    if column.type.layout == "fixed_list":
        return _begin(file, Column(kind, column.node + 1, column.buffer + 1), file.rows * count)
    starts = np.array(
        [
            int(Batch(file, number).offsets(column, 0, 1)[0]) if rows else 0
            for number, rows in enumerate(file.rows.tolist())
        ],
        np.int64,
    )
    child = Column(kind, column.node + 1, column.buffer + 2)
    return _begin(file, child, starts + file.rows * count) + starts * kind.width


def _text_buffers(file: ArrowFile, column: Column) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return where the offsets and the bytes of each batch begin, and how many bytes there are."""
    _no_nulls(file, column)
    begin = _within(file, column.buffer + 1, np.where(file.rows > 0, file.rows + 1, 0) * column.type.width)
    data = file.buffers[:, column.buffer + 2]
    return begin, _within(file, column.buffer + 2, data[:, 1]), data[:, 1]


def _begin(file: ArrowFile, column: Column, items: NDArray[np.int64]) -> NDArray[np.int64]:
    _no_nulls(file, column)
    if (file.nodes[:, column.node, 0] < items).any():
        raise ValueError("a column has fewer values than its rows say")
    return _within(file, column.buffer + 1, items * column.type.width)


def _no_nulls(file: ArrowFile, column: Column) -> None:
    if file.nodes[:, column.node, 1].any():
        raise ValueError("a column has nulls")


def _within(file: ArrowFile, buffer: int, size: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where a buffer of each batch begins; raise ValueError unless it has these bytes, within the file."""
    offset, length = file.buffers[:, buffer, 0], file.buffers[:, buffer, 1]
    if ((size > length) | (offset < 0) | (length < 0) | (offset > file.facts[0] - length)).any():
        raise ValueError("a buffer is smaller than its rows say, or ends after the file")
    return offset.astype(np.int64)
