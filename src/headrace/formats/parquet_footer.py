"""The footer of a Parquet file, as far as it says where the columns of row groups lie.

Format: https://parquet.apache.org/docs/file-format/metadata/, in Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md). pyarrow knows all this, but ends
the process for damaged statistics there (26.0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

MAGIC = b"PAR1"
MOST_FOOTER, MOST_DEPTH = 1 << 28, 32

_ROW_GROUPS, _COLUMNS, _ABOUT = 4, 1, 3
_PATH, _SIZE, _DATA, _DICTIONARY = 3, 7, 9, 11
"""The numbers of the fields of FileMetaData, RowGroup, ColumnChunk and ColumnMetaData."""

_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)


def column_ranges(read: Callable[[int, int], bytes], size: int) -> list[dict[str, list[tuple[int, int]]]]:
    """Return the ranges (offset, bytes) of each column in each row group; of a nested column, those of all its leaves.

    ``read(offset, length)`` reads the file, which has ``size`` bytes. Raises ValueError for a damaged footer.
    """
    tail = read(size - 8, 8) if size >= 12 else b""
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or not 0 < length <= min(MOST_FOOTER, size - 12):
        raise ValueError("its end is missing")
    try:
        footer = _Thrift(read(size - 8 - length, length)).struct(0)
        return [_of_group(group) for group in footer[_ROW_GROUPS]]
    except (IndexError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(f"its footer is damaged: {error!r}") from error


def _of_group(group: Any) -> dict[str, list[tuple[int, int]]]:
    found = dict[str, list[tuple[int, int]]]()
    for chunk in group[_COLUMNS]:
        about = chunk[_ABOUT]
        begin = about[_DATA]
        if 0 < about.get(_DICTIONARY, 0) < begin:
            begin = about[_DICTIONARY]
        found.setdefault(about[_PATH][0].decode(), []).append((int(begin), int(about[_SIZE])))
    return found


class _Thrift:
    """Reads values of Thrift's compact protocol: a struct is a dict by the numbers of its fields."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int) -> dict[int, Any]:
        """Read a struct."""
        if depth > MOST_DEPTH:
            raise ValueError("its footer is nested too deeply")
        found, number = dict[int, Any](), 0
        while (head := self._byte()) & 15 != _STOP:
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            found[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in _INTEGERS:
            return self._integer()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, depth + 1) for _ in range(self._possible(count))]
        if kind == _MAP:
            count = self._varint()
            kinds = self._byte() if count else 0
            pairs = range(self._possible(count))
            return [(self._value(kinds >> 4, depth + 1), self._value(kinds & 15, depth + 1)) for _ in pairs]
        if kind in (_TRUE, _FALSE, _BYTE):  # an item of a list
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        raise ValueError(f"its footer has a value of type {kind}")

    def _possible(self, count: int) -> int:
        if count > len(self._data) - self._at:
            raise ValueError(f"its footer claims a list of {count:,} items")
        return count

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, length: int) -> bytes:
        self._at += length
        if self._at > len(self._data):
            raise ValueError("its footer ends in the middle of a value")
        return self._data[self._at - length : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("its footer has a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
