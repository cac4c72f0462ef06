"""What MDS and LitData share: an `index.json`, shards that begin with offsets, samples that begin with sizes."""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from headrace.checks import article
from headrace.errors import BadFile
from headrace.formats.shard import HIDDEN, Shard, Spans
from headrace.storage.files import leads_out, read_file
from headrace.storage.objects import joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.formats.reader import ShardReader

MOST_LISTED = 1 << 28
"""Bytes that an `index.json` may have: that of 100,000 shards has some 100 MB."""

AGAIN = "Copy the dataset again, or write it again."

T = TypeVar("T")


class Listing:
    """The `index.json` of a folder of shards, or another file of JSON that lists them.

    ``digest`` changes with its content. Raises `MissingFile` and `UnreadableFile` for a file that cannot be read, and
    `BadFile` for one that is no JSON object.
    """

    def __init__(self, folder: str, name: str = "index.json") -> None:
        self.folder, self.path = folder, joined(folder, name)
        data = read_file(self.path, max_bytes=MOST_LISTED, cure=AGAIN)
        self.digest = hashlib.sha256(data).hexdigest()[:16]
        try:
            self.value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise self.damaged(f"it is not JSON: {str(error)[:100]}", "a JSON object") from error

    def get(self, holder: Any, key: str, kind: type[T], default: T | None = None) -> T:
        """Return a value of an object; raise `BadFile` unless it is of a kind, or missing where there is a default."""
        if not isinstance(holder, dict):
            raise self.damaged(f"{str(holder)[:40]!r} is where an object with {key!r} belongs", "a JSON object")
        value = holder.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.damaged(f"{key!r} is {str(value)[:40]!r}", article(kind.__name__))
        return value

    def names(self, holder: Any, key: str) -> list[str]:
        """Return a list of strings."""
        value = self.get(holder, key, list)
        if not all(isinstance(each, str) for each in value):
            raise self.damaged(f"{key!r} has an item that is not a string", "a list of strings")
        return value

    def shard(self, name: str) -> str:
        """Return the path of a shard; raise `BadFile` for a name that leads out of the folder."""
        if leads_out(name):
            raise self.damaged(f"the shard {name[:80]!r} is outside of the folder", "shards in the folder")
        return joined(self.folder, name)

    def fields(self, names: list[str]) -> list[str]:
        """Return the names of fields; raise `BadFile` unless each is there once."""
        if len(set(names)) < len(names) or any(HIDDEN in name for name in names):
            raise self.damaged(f"its fields are {str(names)[:80]}", "different names, without zero bytes")
        return names

    def damaged(self, what: str, expected: str, cure: str = AGAIN) -> BadFile:
        """Build the error for a damaged file."""
        return BadFile(what, path=self.path, expected=expected, cure=cure)


def offsets_of(reader: ShardReader, samples: int) -> NDArray[np.int64]:
    """Return where the samples of a shard begin and the last ends: ``u32 n, u32 offsets[n + 1]``, then the samples."""
    if 4 * (samples + 2) > reader.size:
        found = f"it has {reader.size:,} bytes, and {samples:,} samples by index.json"
        raise reader.damaged(found, f"{4 * (samples + 2):,} bytes or more")
    count = int.from_bytes(reader.read(0, 4), "little")
    if count != samples:
        raise reader.damaged(f"it begins with a count of {count:,} samples", f"{samples:,}, as index.json says")
    offsets = np.frombuffer(reader.read(4, 4 * (samples + 1)), "<u4").astype(np.int64)
    if offsets[0] < 4 * (samples + 2) or offsets[-1] > reader.size or (np.diff(offsets) < 0).any():
        raise reader.damaged("the offsets of its samples do not ascend within the file", "whole offsets")
    return offsets


def add_columns(
    shard: Shard, reader: ShardReader, offsets: NDArray[np.int64], sizes: Sequence[tuple[str, int | None]]
) -> None:
    """Add the fields of all samples: first their sizes as u32, where they have no fixed one, then their bytes."""
    begin, end = offsets[:-1], offsets[1:]
    width = 4 * sum(size is None for _, size in sizes)
    at = begin + width
    _fits(reader, at + sum(size or 0 for _, size in sizes), end)  # before any memory is taken for the fields
    heads = reader.gather(begin, width).view("<u4").astype(np.int64) if width else np.empty((len(begin), 0), np.int64)
    given = 0
    for name, size in sizes:
        length = np.full(len(begin), size, np.int64) if size is not None else heads[:, given]
        given += size is None
        shard.fields[name] = Spans.of(at, length)
        at = at + length
    _fits(reader, at, end)


def _fits(reader: ShardReader, at: NDArray[np.int64], end: NDArray[np.int64]) -> None:
    wrong = np.flatnonzero(at > end)
    if len(wrong):
        row = int(wrong[0])
        what = f"sample {row} ends at byte {end[row]:,}, and its fields end at byte {at[row]:,}"
        raise reader.damaged(what, "fields within their sample")


def add_numbers(shard: Shard, reader: ShardReader, name: str, dtype: str) -> None:
    """Read the integers of a field with the index, where all are of their size and fit into 64 bits with a sign."""
    spans = shard.fields[name]
    width = np.dtype(dtype).itemsize
    if any(length != width for length in spans.length):
        return
    values = reader.gather(np.frombuffer(spans.offset, np.int64), width).view(dtype)[:, 0]
    if dtype == "<u8" and (values > np.iinfo(np.int64).max).any():
        return
    numbers = array("q")
    numbers.frombytes(values.astype(np.int64).tobytes())
    shard.numbers[name] = numbers


def scalar(dtype: str, data: bytes) -> Any:
    """Return the number that bytes are, as NumPy has it.

    >>> scalar("<f2", bytes([0, 60]))
    np.float16(1.0)
    """
    if len(data) != np.dtype(dtype).itemsize:
        raise ValueError(f"{np.dtype(dtype)} has {np.dtype(dtype).itemsize} bytes, not {len(data)}")
    return np.frombuffer(data, dtype)[0]


def array_from(data: bytes, at: int, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the array of a shape that bytes hold from an offset on, as a copy of its own.

    >>> array_from(bytes([9, 1, 2]), 1, "|u1", (2,))
    array([1, 2], dtype=uint8)
    """
    if len(shape) > 64 or math.prod(shape) * np.dtype(dtype).itemsize != len(data) - at:
        raise ValueError(
            f"it claims the shape {str(shape)[:60]} of {np.dtype(dtype)}, and has {len(data) - at:,} bytes"
        )
    return np.frombuffer(data, dtype, math.prod(shape), at).reshape(shape).copy()
