"""Which ranges of Arrow files the rows of a column are in: what is fetched ahead of objects behind URLs."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from headrace.errors import HeadraceError
from headrace.formats.arrow import Column
from headrace.storage.blocks import blocks, read_url
from headrace.storage.object_spans import ObjectSpans, may_read
from headrace.storage.objects import is_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from headrace.formats.arrow import ArrowFile

    Numbers = NDArray[np.int64]
    Found = tuple[Numbers, Numbers, Numbers]
    """Of ranges: the record batch, the offset in its file, the bytes."""

MOST_OFFSETS = 1 << 27
"""Offsets of a column that are held; of a longer one, where its rows are is estimated."""


class RowSpans:
    """Finds the ranges of rows in the record batches of some files.

    The files say where each text, each value of bytes and each list begins. These offsets are read when a row of their
    record batch is first asked for, those of all columns and rows at once. Pickled copies read them again.
    """

    def __init__(self, files: Sequence[ArrowFile], first: Sequence[int]) -> None:
        self._given = files, first
        self._files, self._first = files, np.asarray(first, np.int64)
        self._paths, self._facts = [file.path for file in files], np.array([file.facts for file in files], np.int64)
        self._file_of = np.repeat(np.arange(len(files)), [len(file.rows) for file in files])
        self._nodes = np.concatenate([file.nodes for file in files])
        self._buffers = np.concatenate([file.buffers for file in files])
        self._packed = np.array([bool(file.codec) for file in files])
        self._offsets = dict[Column, _Offsets]()
        self._lock = Lock()

    def __reduce__(self) -> tuple[type[RowSpans], tuple[Sequence[ArrowFile], Sequence[int]]]:
        return RowSpans, self._given

    def of(self, rows: NDArray[np.int64], names: Iterable[str]) -> ObjectSpans:
        """Return the ranges of these rows in these columns."""
        part = np.searchsorted(self._first, rows, "right") - 1
        begin, file = rows - self._first[part], self._file_of[part]
        found = [(np.empty(0, np.int64),) * 3]
        single: list[tuple[Column, NDArray[np.bool_]]] = []
        for name in names:
            columns = [each.columns[name] for each in self._files]
            for column in dict.fromkeys(columns):
                here = np.array([each == column for each in columns])[file]
                found += self._whole(column, part[here & self._packed[file]])
                single.append((column, here & ~self._packed[file]))
        if may_read():
            self._load([(each, part[here]) for column, here in single for each in _with_offsets(column)])
        for column, here in single:
            found += self._of(column, part[here], begin[here], begin[here] + 1)
        batch, offset, length = (np.concatenate(each) for each in zip(*found, strict=True))
        return ObjectSpans(self._paths, self._facts, self._file_of[batch], offset, length)

    def _whole(self, column: Column, part: Numbers) -> list[Found]:
        """Return the whole buffers of a column: compressed ones."""
        part = np.unique(part)
        numbers = range(column.buffer, column.buffer + column.type.buffers)
        return [(part, self._buffers[part, number, 0], self._buffers[part, number, 1]) for number in numbers]

    def _of(self, column: Column, part: Numbers, begin: Numbers, end: Numbers) -> list[Found]:
        """Return the ranges of rows of a column, or of a child of one, in their record batches."""
        kind = column.type
        if not len(part) or kind.layout in ("null", "other"):
            return []
        found: list[Found] = []
        null = self._nodes[part, column.node, 1] > 0
        if null.any():
            found.append(self._bits(column.buffer, part[null], begin[null], end[null]))
        if kind.layout == "bool":
            found.append(self._bits(column.buffer + 1, part, begin, end))
        elif kind.layout == "fixed":
            found.append(self._range(column.buffer + 1, part, begin * kind.width, end * kind.width))
        elif kind.layout in ("binary", "list"):
            found.append(self._range(column.buffer + 1, part, begin * kind.width, (end + 1) * kind.width))
            places = self._places(column, part, begin, end)
            if kind.layout == "binary":
                found.append(self._range(column.buffer + 2, part, *places))
            else:
                found += self._of(_child(column, 2), part, *places)
        elif kind.layout == "fixed_list":
            found += self._of(_child(column, 1), part, begin * kind.width, end * kind.width)
        else:
            for name, _ in kind.children:
                found += self._of(column.child(name), part, begin, end)
        return found

    def _range(self, buffer: int, part: Numbers, begin: Numbers, end: Numbers) -> Found:
        return part, self._buffers[part, buffer, 0] + begin, end - begin

    def _bits(self, buffer: int, part: Numbers, begin: Numbers, end: Numbers) -> Found:
        return self._range(buffer, part, begin // 8, (end + 7) // 8)

    def _places(self, column: Column, part: Numbers, begin: Numbers, end: Numbers) -> tuple[Numbers, Numbers]:
        """Return where the items of rows begin and end."""
        with self._lock:
            held = self._held(column)
            return held.at(part, begin), held.at(part, end)

    def _held(self, column: Column) -> _Offsets:
        held = self._offsets.get(column)
        if held is None:
            is_list = column.type.layout == "list"
            items = self._nodes[:, column.node + 1, 0] if is_list else self._buffers[:, column.buffer + 2, 1]
            held = self._offsets[column] = _Offsets(self._nodes[:, column.node, 0], items, column.type.width)
        return held

    def _load(self, asked: Iterable[tuple[Column, Numbers]]) -> None:
        """Read the offsets of columns in record batches; of a damaged one there are none, and who reads it says so."""
        wanted = list[tuple[_Offsets, int, str, int, int, tuple[int, int]]]()
        with self._lock:
            for column, parts in asked:
                held = self._held(column)
                for part in held.missing(parts).tolist():
                    file = self._files[int(self._file_of[part])]
                    offset, size = self._buffers[part, column.buffer + 1].tolist()
                    length = held.size(part)
                    held.put(part, b"")  # asked for once
                    if is_url(file.path) and length <= size:
                        wanted.append((held, part, file.path, offset, length, file.facts))
            if wanted:
                blocks().ensure(each[2:] for each in wanted)
            for held, part, path, offset, length, facts in wanted:
                try:
                    held.put(part, read_url(path, offset, length, facts))
                except HeadraceError:  # whoever reads the rows gets it
                    continue


class _Offsets:
    """Where the items of each row of a column begin, in all record batches: as they were read, or estimated.

    ``rows`` and ``items``: how many of them each record batch has.
    """

    def __init__(self, rows: Numbers, items: Numbers, width: int) -> None:
        self._rows, self._items, self._dtype = rows, items, np.dtype(f"<i{width}")
        self._first = np.cumsum(rows + 1) - rows - 1
        self._asked, self._read = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        total = int(rows.sum()) + len(rows)
        self._values = np.zeros(total if total <= MOST_OFFSETS else 0, self._dtype)

    def missing(self, part: Numbers) -> Numbers:
        """Return which of these record batches are to be read; none where there are too many rows."""
        return np.unique(part[~self._asked[part]]) if len(self._values) else part[:0]

    def size(self, part: int) -> int:
        """Return the bytes of the offsets of a record batch."""
        return (int(self._rows[part]) + 1) * self._dtype.itemsize

    def put(self, part: int, data: bytes) -> None:
        """Keep the offsets of a record batch, unless they do not ascend."""
        self._asked[part] = True
        found = np.frombuffer(data, self._dtype)
        if len(found) and found[0] >= 0 and (found[1:] >= found[:-1]).all():
            self._values[self._first[part] : self._first[part] + len(found)] = found
            self._read[part] = True

    def at(self, part: Numbers, row: Numbers) -> Numbers:
        """Return where the items of rows begin; of a batch that was not read, as if all rows had as many."""
        found: Numbers = row * self._items[part] // np.maximum(self._rows[part], 1)
        exact = self._read[part]
        found[exact] = self._values[self._first[part[exact]] + row[exact]]
        return found


def _with_offsets(column: Column) -> Iterator[Column]:
    """Yield a column and the children in it whose rows begin where offsets in the file say."""
    kind = column.type
    if kind.layout in ("binary", "list"):
        yield column
    if kind.layout == "struct":
        for name, _ in kind.children:
            yield from _with_offsets(column.child(name))
    elif kind.layout in ("list", "fixed_list"):
        yield from _with_offsets(_child(column, 2 if kind.layout == "list" else 1))


def _child(column: Column, own: int) -> Column:
    return Column(column.type.children[0][1], column.node + 1, column.buffer + own)
