"""What an indexer returns for a shard: the keys of its samples, and the range of bytes of each field."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from headrace.errors import BadFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.formats.reader import ShardReader

HIDDEN = "\0"
"""Separates the name of a field from that of a helper column, which is not a field itself."""

INTEGER_FIELDS = frozenset({"class", "cls", "cls2", "count", "id", "index", "inx"})
"""Fields that hold an integer as text, by the last part of their name (WebDataset's own rule)."""

LEAST_ENTRIES = 1 << 22
"""Entries that an index may have for a shard of any size; above them, one for each byte of the shard."""

MOST_DIGITS = 19
"""An int64 has at most so many digits."""


@dataclass(slots=True)
class Spans:
    """The ranges of one field, an entry for each sample of a shard; a length of -1 where a sample has no such field."""

    offset: array[int] = field(default_factory=lambda: array("q"))
    length: array[int] = field(default_factory=lambda: array("q"))

    @classmethod
    def of(cls, offset: NDArray[np.int64], length: NDArray[np.int64]) -> Spans:
        """Return the ranges that two arrays hold."""
        spans = cls()
        spans.offset.frombytes(offset.astype("=i8", copy=False).tobytes())
        spans.length.frombytes(length.astype("=i8", copy=False).tobytes())
        return spans

    def put(self, sample: int, offset: int, length: int) -> None:
        """Set the range of a sample's field; the samples before it that have none are filled in."""
        self.pad(sample)
        self.offset.append(offset)
        self.length.append(length)

    def put_many(self, samples: NDArray[np.int64], offset: NDArray[np.int64], length: NDArray[np.int64]) -> None:
        """Set the ranges of many samples' fields; the samples ascend, and come after those that are set."""
        begin = len(self.offset)
        offsets = np.zeros(int(samples[-1]) + 1 - begin, np.int64)
        lengths = np.full(len(offsets), -1, np.int64)
        offsets[samples - begin], lengths[samples - begin] = offset, length
        self.offset.frombytes(offsets.tobytes())
        self.length.frombytes(lengths.tobytes())

    def pad(self, samples: int) -> None:
        """Say that samples up to here have no such field."""
        missing = samples - len(self.offset)
        if missing > 0:
            self.offset.extend([0] * missing)
            self.length.extend([-1] * missing)


@dataclass(slots=True)
class Shard:
    """The samples of one shard, in order.

    >>> shard = Shard()
    >>> shard.keys += ["a", "b"]
    >>> shard.span("jpg").put(1, 512, 100)
    >>> shard.finished().fields["jpg"].length.tolist()
    [-1, 100]

    ``numbers`` are the values of integer fields that were read with the index: one for each sample. ``kinds`` say what
    the bytes of a field are, by its name, in formats that declare it; elsewhere the name says it. ``path`` and ``size``
    are those of the shard: the size bounds the memory of the index, which has an entry for each missing field too.
    """

    path: str | None = None
    size: int = 0

    keys: list[str] = field(default_factory=list)
    fields: dict[str, Spans] = field(default_factory=dict)
    numbers: dict[str, array[int]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)

    def span(self, name: str) -> Spans:
        """Return the ranges of a field, which begin empty; raise `BadFile` for far more fields than samples have."""
        if len(self.fields) * len(self.keys) > max(LEAST_ENTRIES, self.size):
            raise BadFile(
                f"its {len(self.keys):,} samples have {len(self.fields):,} different fields, and most lack most",
                path=self.path,
                expected="fields that most samples have",
                cure="Give the members names such as key.jpg, without numbers after the first dot.",
            )
        if name not in self.fields:
            self.fields[name] = Spans()
        return self.fields[name]

    def finished(self) -> Shard:
        """Fill in the samples that lack a field."""
        for spans in self.fields.values():
            spans.pad(len(self.keys))
        return self

    def read_numbers(self, reader: ShardReader) -> None:
        """Read the integer fields of all samples, as far as every sample has a number."""
        for name, spans in self.fields.items():
            if is_integer_field(name):
                if (found := digits(reader, spans)) is not None:
                    self.numbers[name] = found
                    continue
                values = array("q")
                for offset, length in zip(spans.offset, spans.length, strict=True):
                    value = None if length < 1 or length > MOST_DIGITS + 2 else integer_of(reader.read(offset, length))
                    if value is None:
                        break
                    values.append(value)
                else:
                    self.numbers[name] = values


def digits(reader: ShardReader, spans: Spans) -> array[int] | None:
    """Read the numbers of a field at once; None where one is not some digits alone."""
    offset, length = np.frombuffer(spans.offset, np.int64), np.frombuffer(spans.length, np.int64)
    width = int(length.max(initial=0))
    if not len(offset) or length.min() < 1 or width >= MOST_DIGITS or (np.diff(offset) < 0).any():
        return None
    if int(offset[-1]) + width > reader.size:
        return None
    text = reader.gather(offset, width)
    values = np.zeros(len(offset), np.int64)
    for place, column in enumerate(text.T):
        there = place < length
        if ((column[there] < ord("0")) | (column[there] > ord("9"))).any():
            return None
        values = np.where(there, values * 10 + column - ord("0"), values)
    return array("q", values.tobytes())


def is_integer_field(name: str) -> bool:
    """Say whether a field holds an integer as text, by its name.

    >>> is_integer_field("cls"), is_integer_field("second.cls"), is_integer_field("jpg")
    (True, True, False)
    """
    return name.rpartition(".")[2] in INTEGER_FIELDS


def integer_of(text: bytes) -> int | None:
    r"""Return the integer that a text is; None for anything else, and for more than 64 bits.

    >>> integer_of(b"7\n"), integer_of(b"-3"), integer_of(b"7.5")
    (7, -3, None)
    """
    bare = text.strip()
    digits = bare[1:] if bare[:1] in (b"-", b"+") else bare
    if not digits.isdigit() or len(digits) > MOST_DIGITS:
        return None
    value = int(bare)
    return value if -(2**63) <= value < 2**63 else None
