"""Read values of Arrow columns from the buffers of a record batch, by positioned reads of the rows in question."""

from __future__ import annotations

import datetime as dt
import struct
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from headrace.errors import missing
from headrace.storage.files import DEFAULT_MAX_BYTES
from headrace.storage.row_cache import RowCache
from headrace.storage.spans import SpanFiles, read_span

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.formats.arrow import ArrowFile, Column, Type

_PAIRS = {4: struct.Struct("<2i"), 8: struct.Struct("<2q")}


MOST_ITEMS = 1 << 27
"""Items of a value: those of some types take no bytes in a file, but in memory."""

CACHE_BYTES = 1 << 26
"""Decompressed buffers that a process keeps for a dataset: 64 MiB, and at least one."""


class Buffers:
    """What reads the buffers of Arrow files: files stay open, and decompressed buffers are kept for a while.

    Pickled copies are empty.
    """

    def __init__(self) -> None:
        self.files, self.unpacked = SpanFiles(), RowCache[bytes](CACHE_BYTES)

    def part(self, file: ArrowFile, number: int, buffer: int, begin: int, length: int) -> bytes:
        """Read a part of a compressed buffer; raise ValueError for one outside of it."""
        whole = self.unpacked.get((file.path, number, buffer), lambda: self._unpacked(file, number, buffer))
        if not (0 <= begin <= len(whole) - length and length >= 0):
            raise ValueError(f"bytes {begin:,} to {begin + length:,} are outside of a buffer of {len(whole):,}")
        return whole[begin : begin + length]

    def _unpacked(self, file: ArrowFile, number: int, buffer: int) -> tuple[bytes, int]:
        offset, size = file.buffers[number, buffer].tolist()
        data = self.files.read(file.path, offset, size, file.facts) if size else b""
        found = decompressed(data, file.codec)
        return found, len(found)


def decompressed(data: bytes, codec: str) -> bytes:
    """Return the bytes of a compressed buffer: ``i64 size``, -1 for none, then the data."""
    if not data:
        return b""
    size = int.from_bytes(data[:8], "little", signed=True)
    if size == -1:
        return data[8:]
    if not 0 <= size <= DEFAULT_MAX_BYTES or len(data) < 8:
        raise ValueError(f"a compressed buffer claims {size:,} bytes, and at most {DEFAULT_MAX_BYTES:,} are read")
    try:
        import pyarrow as pa
    except ImportError as error:
        raise missing("pyarrow", extra="arrow", purpose="reading compressed Arrow files") from error
    try:
        found: bytes = pa.decompress(data[8:], size, codec, asbytes=True) if size else b""
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"a buffer cannot be decompressed: {str(error)[:100]}") from error
    return found


class Batch:
    """A record batch of a file: reads parts of its buffers."""

    __slots__ = ("_buffers", "_file", "_number")

    def __init__(self, file: ArrowFile, number: int, buffers: Buffers | None = None) -> None:
        self._file, self._number, self._buffers = file, number, buffers

    def read(self, buffer: int, begin: int, length: int) -> bytes:
        """Read a part of a buffer; raise ValueError for one outside of it."""
        if self._file.codec and self._buffers is not None:
            return self._buffers.part(self._file, self._number, buffer, begin, length)
        offset = self.place(buffer, begin, length)
        if length > DEFAULT_MAX_BYTES:
            raise ValueError(f"a value has {length:,} bytes, and at most {DEFAULT_MAX_BYTES:,} are read")
        if self._file.data is not None:
            return bytes(self._file.data[offset : offset + length])
        if not length:
            return b""
        read = read_span if self._buffers is None else self._buffers.files.read
        return read(self._file.path, offset, length, self._file.facts)

    def place(self, buffer: int, begin: int, length: int) -> int:
        """Return where a part of a buffer lies in the file."""
        size = self._file.buffers.item(self._number, buffer, 1)
        if not (0 <= begin <= size - length and length >= 0):
            raise ValueError(f"bytes {begin:,} to {begin + length:,} are outside of a buffer of {size:,}")
        return int(self._file.buffers.item(self._number, buffer, 0)) + begin

    def valid(self, column: Column, begin: int, end: int) -> NDArray[np.bool_] | None:
        """Say which of these rows are not null; None if none is."""
        if not self._may_be_null(column, begin, end):
            return None
        bits = self._bits(column.buffer, begin, end)
        return None if bits.all() else bits

    def is_null(self, column: Column, row: int) -> bool:
        """Say whether one row is null."""
        if not self._may_be_null(column, row, row + 1):
            return False
        return not self.read(column.buffer, row >> 3, 1)[0] >> (row & 7) & 1

    def bounds(self, column: Column, row: int) -> tuple[int, int]:
        """Return where the items of one row begin and end; raise ValueError unless they ascend."""
        width = column.type.width
        data = self.read(column.buffer + 1, row * width, 2 * width)
        begin, end = _PAIRS[width].unpack(data)
        if not 0 <= begin <= end:
            raise ValueError("the offsets of a column do not ascend")
        return begin, end

    def _may_be_null(self, column: Column, begin: int, end: int) -> bool:
        length = self._file.nodes.item(self._number, column.node, 0)
        if not 0 <= begin <= end <= length:
            raise ValueError(f"rows {begin:,} to {end:,} are outside of a column of {length:,}")
        return bool(self._file.nodes.item(self._number, column.node, 1)) and column.type.layout != "null"

    def bools(self, column: Column, begin: int, end: int) -> NDArray[np.bool_]:
        """Return the values of a column of bools."""
        return self._bits(column.buffer + 1, begin, end)

    def offsets(self, column: Column, begin: int, end: int) -> NDArray[np.int64]:
        """Return where the items of these rows begin, and the last ends; raise ValueError unless they ascend."""
        width = column.type.width
        if begin == end:
            return np.zeros(1, np.int64)  # a column without rows may have no offsets at all
        data = self.read(column.buffer + 1, begin * width, (end - begin + 1) * width)
        found = np.frombuffer(data, f"<i{width}").astype(np.int64)
        if found[0] < 0 or (found[1:] < found[:-1]).any():
            raise ValueError("the offsets of a column do not ascend")
        return found

    def _bits(self, buffer: int, begin: int, end: int) -> NDArray[np.bool_]:
        first = begin // 8
        data = np.frombuffer(self.read(buffer, first, (end + 7) // 8 - first), np.uint8)
        return np.unpackbits(data, bitorder="little")[begin - 8 * first : end - 8 * first].astype(bool)


def spans(batch: Batch, column: Column, begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the values of a binary column lie in the file, and their bytes: -1 for null."""
    valid, offsets = batch.valid(column, begin, end), batch.offsets(column, begin, end)
    start, length = offsets[:-1], np.diff(offsets)
    if length.size:
        start = start + batch.place(column.buffer + 2, int(offsets[0]), int(offsets[-1] - offsets[0])) - offsets[0]
    return start, length if valid is None else np.where(valid, length, -1)


def value(batch: Batch, column: Column, row: int, *, plain: bool) -> Any:
    """Return the value of one row; None for null.

    ``plain``: as Python's own objects. Otherwise floats are NumPy's, and lists of numbers arrays.
    """
    kind = column.type
    if kind.layout not in ("binary", "list") and not kind.is_number:
        return _each(kind, values(batch, column, row, row + 1, plain=plain), plain)[0]
    if batch.is_null(column, row):
        return None
    if kind.is_number:
        data = batch.read(column.buffer + 1, row * kind.width, kind.width)
        number = np.frombuffer(data, kind.stored)[0]
        return number if not plain and kind.stored[1] == "f" else number.item()
    begin, end = batch.bounds(column, row)
    if kind.layout == "list":
        return values(batch, _child(column, kind.children[0][1], 2), begin, end, plain=plain)
    data = batch.read(column.buffer + 2, begin, end - begin)
    return data.decode() if kind.is_text else data


def blob(batch: Batch, column: Column, row: int) -> bytes | None:
    """Return the bytes of one row of a binary column; None for null."""
    if batch.is_null(column, row):
        return None
    begin, end = batch.bounds(column, row)
    return batch.read(column.buffer + 2, begin, end - begin)


def values(batch: Batch, column: Column, begin: int, end: int, *, plain: bool) -> Any:
    """Return the values of rows: an array of numbers where it can be one and ``plain`` is False, else a list."""
    kind = column.type
    if end - begin > MOST_ITEMS:
        raise ValueError(f"a value has {end - begin:,} items, and at most {MOST_ITEMS:,} are read")
    valid = batch.valid(column, begin, end)
    found: Any
    if kind.layout == "null":
        return [None] * (end - begin)
    if kind.layout == "bool":
        found = batch.bools(column, begin, end)
    elif kind.layout == "fixed":
        data = batch.read(column.buffer + 1, begin * kind.width, (end - begin) * kind.width)
        found = np.frombuffer(bytearray(data), kind.stored)
        found = found.view(kind.dtype) if kind.width == 8 else found.astype(kind.dtype)
    elif kind.layout == "binary":
        found = _binary(batch, column, begin, end)
    elif kind.layout in ("list", "fixed_list"):
        found = _lists(batch, column, begin, end, plain)
    elif kind.layout == "struct":
        children = [column.child(name) for name, _ in kind.children]
        parts = [_each(each.type, values(batch, each, begin, end, plain=plain), plain) for each in children]
        names = [name for name, _ in kind.children]
        found = [dict(zip(names, row, strict=True)) for row in zip(*parts, strict=True)] or [{}] * (end - begin)
    else:
        raise ValueError(f"columns of {kind.name} are not read")
    if valid is None:
        return _each(kind, found, plain) if plain else found
    return [one if there else None for one, there in zip(_each(kind, found, plain), valid.tolist(), strict=True)]


def _binary(batch: Batch, column: Column, begin: int, end: int) -> list[Any]:
    offsets = batch.offsets(column, begin, end)
    start = int(offsets[0])
    data = batch.read(column.buffer + 2, start, int(offsets[-1]) - start)
    ends = (offsets - start).tolist()
    found = [data[first:last] for first, last in pairwise(ends)]
    return [each.decode() for each in found] if column.type.is_text else found


def _lists(batch: Batch, column: Column, begin: int, end: int, plain: bool) -> list[Any]:
    kind = column.type.children[0][1]
    if column.type.layout == "list":
        offsets, child = batch.offsets(column, begin, end), _child(column, kind, 2)
    else:
        offsets, child = np.arange(begin, end + 1, dtype=np.int64) * column.type.width, _child(column, kind, 1)
    start = int(offsets[0])
    items = values(batch, child, start, int(offsets[-1]), plain=plain)
    ends = (offsets - start).tolist()
    return [items[first:last] for first, last in pairwise(ends)]


def _child(column: Column, kind: Type, own: int) -> Column:
    return type(column)(kind, column.node + 1, column.buffer + own)


def _each(kind: Type, found: Any, plain: bool) -> list[Any]:
    """Return values as a list: integers and bools as Python's, other numbers as ``plain`` says."""
    if isinstance(found, list):
        return found
    if kind.layout == "bool" or kind.dtype[0] == "V" or kind.dtype[1] in "iu":
        return list(found.tolist())
    if not plain:
        return list(found)
    if kind.dtype[1] not in "Mm" or kind.dtype.endswith("[ns]"):
        return list(found.tolist() if kind.dtype[1] not in "Mm" else found)
    if kind.name.startswith("time["):
        return [(dt.datetime.min + each).time() for each in found.tolist()]  # noqa: DTZ901  a time of day has no zone
    return [_zoned(each, kind) for each in found.tolist()]


def _zoned(moment: Any, kind: Type) -> Any:
    if kind.name == "date64" and isinstance(moment, dt.datetime):
        return moment.date()
    if not kind.zone or not isinstance(moment, dt.datetime):
        return moment
    try:
        return moment.replace(tzinfo=dt.UTC).astimezone(ZoneInfo(kind.zone))
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"the time zone {kind.zone[:40]!r} is not known") from error
