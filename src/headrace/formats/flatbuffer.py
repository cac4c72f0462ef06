"""Read tables of FlatBuffers, the encoding of Arrow's metadata, with each position checked before it is used.

Format: https://flatbuffers.dev/internals.
"""

from __future__ import annotations


class Table:
    """A table in a buffer: fields by number, each with a default where it is missing.

    >>> empty = bytes([8, 0, 0, 0, 4, 0, 4, 0, 4, 0, 0, 0])
    >>> Table.root(empty).integer(0, 4, default=7)
    7

    Every method raises ValueError for a position outside of the buffer.
    """

    __slots__ = ("_at", "_data", "_size", "_vtable")

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - self._number(at, 4, signed=True)
        self._size = self._number(self._vtable, 2)

    @classmethod
    def root(cls, data: bytes) -> Table:
        """Return the table that a buffer begins with."""
        if len(data) < 4:
            raise ValueError("its metadata is cut short")
        return cls(data, int.from_bytes(data[:4], "little"))

    def integer(self, field: int, width: int, default: int = 0) -> int:
        """Return a signed integer of ``width`` bytes."""
        at = self._field(field)
        return default if not at else self._number(at, width, signed=True)

    def table(self, field: int) -> Table | None:
        """Return a table; None where it is missing."""
        at = self._field(field)
        return None if not at else Table(self._data, at + self._number(at, 4))

    def tables(self, field: int) -> list[Table]:
        """Return the tables of a vector."""
        start, count = self.vector(field, 4)
        places = range(start, start + 4 * count, 4)
        return [Table(self._data, at + self._number(at, 4)) for at in places]

    def text(self, field: int) -> str | None:
        """Return a string; None where it is missing."""
        start, count = self.vector(field, 1)
        return self._data[start : start + count].decode() if start else None

    def vector(self, field: int, width: int) -> tuple[int, int]:
        """Return where the items of a vector begin, and how many there are; 0 and 0 where it is missing."""
        at = self._field(field)
        if not at:
            return 0, 0
        start = at + self._number(at, 4)
        count = self._number(start, 4)
        if count * width > len(self._data) - start - 4:
            raise ValueError(f"its metadata claims {count:,} items, and has {len(self._data):,} bytes")
        return start + 4, count

    def _field(self, field: int) -> int:
        place = 4 + 2 * field
        offset = self._number(self._vtable + place, 2) if place < self._size else 0
        return self._at + offset if offset else 0

    def _number(self, at: int, width: int, *, signed: bool = False) -> int:
        if not 0 <= at <= len(self._data) - width:
            raise ValueError(f"its metadata points to byte {at:,} of {len(self._data):,}")
        return int.from_bytes(self._data[at : at + width], "little", signed=signed)
