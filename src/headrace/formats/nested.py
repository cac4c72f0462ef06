"""Read lists and dicts as LitData writes them: a tag for each value; JSON where the first byte is no tag.

Format: https://github.com/Lightning-AI/litdata (streaming/serializers.py, ``_nested_dumps``).
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

_JSON, _STRS, _I64S, _F64S, _BOOLS, _DICT, _RECORDS, _STR, _I64, _F64, _BOOL, _NONE = range(12)
_IN_RECORD = {0x10: _NONE, 0x11: _STR, 0x12: _I64, 0x13: _F64, 0x14: _BOOL}
_LAST_TAG = 0x20


def nested(data: bytes) -> Any:
    r"""Return the value that bytes are; raise ValueError for bytes that are none.

    >>> nested(b"\x02\x02\0\0\0" + bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0])), nested(b'{"a": null}')
    ([1, 2], {'a': None})
    """
    if not data or data[0] > _LAST_TAG:
        return json.loads(data)
    reader = _Reader(data)
    value = reader.value(reader.byte())
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at:,} bytes follow its value")
    return value


class _Reader:
    """A position in bytes; a count that the bytes cannot hold raises before memory is allocated for it."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def value(self, tag: int) -> Any:
        if tag in (_I64S, _F64S):
            return np.frombuffer(self.take(8 * self.count()), "<i8" if tag == _I64S else "<f8").tolist()
        if tag in (_I64, _F64):
            return struct.unpack("<q" if tag == _I64 else "<d", self.take(8))[0]
        if tag == _STRS:
            return [self.text() for _ in range(self.count(least=4))]
        if tag == _BOOLS:
            return [byte != 0 for byte in self.take(self.count())]
        if tag == _DICT:
            return {self.text(): self.value(self.byte()) for _ in range(self.count(least=5))}
        if tag == _RECORDS:
            return self.records()
        if tag == _JSON:
            return json.loads(self.take(self.count()))
        if tag == _STR:
            return self.text()
        if tag == _BOOL:
            return self.byte() != 0
        if tag == _NONE:
            return None
        raise ValueError(f"no kind of value has the tag {tag}")

    def records(self) -> list[dict[str, Any]]:
        """Read dicts of the same keys: their number, the keys, then a tag and a value for each."""
        rows, keys = self.count(), [self.text() for _ in range(self.count(least=4))]
        if rows * max(1, len(keys)) > len(self.data) - self.at:
            raise ValueError(f"it claims {rows:,} rows, and has {len(self.data) - self.at:,} bytes for them")
        return [{key: self.value(_IN_RECORD.get(self.byte(), -1)) for key in keys} for _ in range(rows)]

    def count(self, least: int = 1) -> int:
        """Read a count of what has at least so many bytes."""
        count: int = struct.unpack("<I", self.take(4))[0]
        if count * least > len(self.data) - self.at:
            raise ValueError(f"it claims {count:,} values, and has {len(self.data) - self.at:,} bytes for them")
        return count

    def text(self) -> str:
        return self.take(self.count()).decode()

    def byte(self) -> int:
        return self.take(1)[0]

    def take(self, size: int) -> bytes:
        data = self.data[self.at : self.at + size]
        if len(data) < size:
            raise ValueError("it ends within a value")
        self.at += size
        return data
