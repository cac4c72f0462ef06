"""Index a zip archive by its central directory: stored members are ranges of bytes, deflated ones are inflated later.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT; keys and fields of members as in tar shards.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._native import extension
from headrace.errors import BadFile
from headrace.formats.reader import ShardReader
from headrace.formats.shard import HIDDEN, MOST_DIGITS, Shard, Spans, digits, integer_of, is_integer_field
from headrace.formats.tar import split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

DEFLATED, SIZES = HIDDEN + "deflated", HIDDEN + "sizes"
"""End the names of two columns of a field: ranges of deflated members; their CRC-32 and size, as offset and length."""

MOST_RATIO = 1032
"""The most bytes that one deflated byte becomes (zlib's technical details)."""

_END, _END64, _LOCATOR, _ENTRY, _LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
_MOST_COMMENT = 0xFFFF
_METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 98: "ppmd"}
_LINK = 0o120000
_BLOCK = 1 << 20
_MOST_DIRECTORY = 1 << 28
_MOST_TEXT = 4 * MOST_DIGITS
"""Bytes of an integer as text, and deflated."""


@dataclass(slots=True)
class _Members:
    """The members of one field: sample, where the header is, the compressed and the whole size, checksum, method."""

    row: array[int] = field(default_factory=lambda: array("q"))
    header: array[int] = field(default_factory=lambda: array("q"))
    packed: array[int] = field(default_factory=lambda: array("q"))
    size: array[int] = field(default_factory=lambda: array("q"))
    sum: array[int] = field(default_factory=lambda: array("q"))
    method: array[int] = field(default_factory=lambda: array("q"))


@dataclass(frozen=True, slots=True)
class Entry:
    """A member, as the central directory has it."""

    name: str
    flags: int
    method: int
    sum: int
    packed: int
    size: int
    header: int
    mode: int


def index(path: str, *, verify: bool = False) -> tuple[Shard, tuple[int, int]]:
    """Index a zip archive; returns its samples, and its size and time of modification.

    ``verify``: read all stored members, and check their CRC-32; that of deflated ones is checked whenever they are
    read. Raises `BadFile` for an archive that is damaged or in several files, for members that are encrypted, links or
    compressed by another method than deflate, and for a sample with two fields of one name.
    """
    with ShardReader(path) as reader:
        shard = Shard(path, reader.size)
        members = dict[str, _Members]()
        start, end, moved, count = directory(reader)
        passed, at = _walked(shard, members, reader, start, end, moved, count)
        rows = {key: row for row, key in enumerate(shard.keys)} if passed < count else {}
        for entry in entries(reader, at, end, moved, count - passed):
            key, name = split(entry.name)
            if not name or entry.name.endswith("/"):
                continue
            refuse(reader, entry)
            row = rows.setdefault(key, len(rows))
            if row == len(shard.keys):
                shard.keys.append(key)
            shard.span(name)
            held = members.setdefault(name, _Members())
            for column, value in zip(
                (held.row, held.header, held.packed, held.size, held.sum, held.method),
                (row, entry.header, entry.packed, entry.size, entry.sum, entry.method),
                strict=True,
            ):
                column.append(value)
        for name, held in members.items():
            _add(shard, reader, name, held, start, verify=verify)
        return shard, reader.facts


def _walked(
    shard: Shard, members: dict[str, _Members], reader: ShardReader, start: int, end: int, moved: int, count: int
) -> tuple[int, int]:
    """Add the plain members at the begin of a directory, as the native extension finds them.

    Returns how many entries it has passed over, and where the next is.
    """
    scan: Any = getattr(extension, "scan_zip", None)
    if scan is None or end - start > _MOST_DIRECTORY:
        return 0, start
    passed, length, keys, fields, *arrays = scan(reader.read(start, end - start), count)
    number, *columns = (np.frombuffer(each, np.int64) for each in arrays)
    columns[1] = columns[1] + moved
    shard.keys += keys
    for place, name in enumerate(fields):
        shard.span(name)
        members[name] = _Members(*(array("q", column[number == place].tobytes()) for column in columns))
    return passed, start + length


def directory(reader: ShardReader) -> tuple[int, int, int, int]:
    """Return begin and end of the central directory, what to add to all offsets, and its number of entries."""
    tail = max(0, reader.size - 22 - _MOST_COMMENT)
    text = reader.read(tail, reader.size - tail)
    at = text.rfind(_END)
    if at < 0 or len(text) < at + 22:
        raise reader.damaged("it is not a zip archive, or its end is missing", "the directory of an archive at its end")
    disk, first, here, count, size, offset = struct.unpack_from("<4H2I", text, at + 4)
    end = tail + at
    locator = reader.read(end - 20, 20) if end >= 20 else b""
    if locator[:4] == _LOCATOR and (count == 0xFFFF or 0xFFFFFFFF in (size, offset)):
        found = end - 76  # where it is in archives that are moved; else the locator says it
        if found < 0 or reader.read(found, 4) != _END64:
            found = int.from_bytes(locator[8:16], "little")
        if found > end - 76:
            raise reader.damaged("the end of its directory is not where it says", "a whole archive")
        record = reader.read(found, 56)
        if record[:4] != _END64:
            raise reader.damaged("the end of its directory is not where it says", "a whole archive")
        disk, first, here, count, size, offset = struct.unpack_from("<2I4Q", record, 16)
        end = found
    if disk or first or here != count:
        raise BadFile(
            "it is one of several files of an archive",
            path=reader.path,
            expected="a whole archive",
            cure="Join the files (zip -s 0 parts.zip --out whole.zip).",
        )
    if size > end or offset > end - size or count * 46 > size:
        raise reader.damaged(f"its directory claims {count:,} members in {size:,} bytes", "a directory that fits")
    return end - size, end, end - size - offset, count


def entries(reader: ShardReader, at: int, end: int, moved: int, count: int) -> Iterator[Entry]:
    """Yield the members of an archive, as its central directory has them."""
    for _ in range(count):
        head = reader.read(at, 46)
        made, flags, method, total, packed, size, name_size, extra_size, comment, disk, _, mode, header = (
            struct.unpack_from("<H2xHH4x3I4HHII", head, 4)
        )
        after = at + 46 + name_size + extra_size
        if head[:4] != _ENTRY or after + comment > end:
            raise reader.damaged(f"no entry of its directory begins at byte {at:,}", "a whole directory")
        tail = reader.read(at + 46, name_size + extra_size)
        name = tail[:name_size].decode("utf-8" if flags & 0x800 else "cp437", "surrogateescape")
        if 0xFFFFFFFF in (packed, size, header):
            size, packed, header = _long(reader, tail[name_size:], size, packed, header, name)
        if disk not in (0, 0xFFFF):
            raise reader.damaged(f"member {name!r} is in another file", "a whole archive")
        unix = mode >> 16 if made >> 8 == 3 else 0
        yield Entry(name, flags, method, total, packed, size, header + moved, unix)
        at = after + comment


def _long(reader: ShardReader, extra: bytes, size: int, packed: int, header: int, name: str) -> tuple[int, int, int]:
    """Return sizes and offset of a member, from the field for 64 bits where they have it."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        values = iter(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
        if kind == 1:
            found = [next(values, -1) if value == 0xFFFFFFFF else value for value in (size, packed, header)]
            if min(found) >= 0 and max(found) < 1 << 62:
                return found[0], found[1], found[2]
        at += 4 + length
    raise reader.damaged(f"member {name!r} has sizes of 64 bits that are missing", "a whole directory")


def refuse(reader: ShardReader, entry: Entry) -> None:
    """Raise `BadFile` for a member that cannot be read."""
    what = ""
    cure = "Write the archive again with the files themselves."
    if entry.flags & 0x2041:  # encrypted, strongly, or with a masked directory
        what, cure = "is encrypted", "Decrypt the archive, and write it again without a password."
    elif entry.mode & 0o170000 == _LINK:
        what = "is a symbolic link"
    elif entry.method not in (0, 8):
        what = f"is compressed by {_METHODS.get(entry.method, f'method {entry.method}')}"
        cure = "Write the archive again, without compression (zip -0) or with deflate."
    elif entry.method == 0 and entry.packed != entry.size:
        raise reader.damaged(f"member {entry.name!r} is stored, and has two sizes", "one size")
    if what:
        raise BadFile(
            f"member {entry.name!r} {what}",
            path=reader.path,
            expected="regular files, stored or deflated",
            cure=cure,
        )


def _add(shard: Shard, reader: ShardReader, name: str, held: _Members, end: int, *, verify: bool) -> None:
    """Add a field: its stored and its deflated members, each a range of the archive."""
    rows, headers, packed, sizes, sums, methods = (
        np.asarray(column, np.int64)
        for column in (held.row, held.header, held.packed, held.size, held.sum, held.method)
    )
    kept = np.unique(rows, return_counts=True)
    if (kept[1] > 1).any():
        key = shard.keys[int(kept[0][kept[1] > 1][0])]
        raise BadFile(
            f"sample {key!r} has two fields {name!r}",
            path=reader.path,
            expected="each field once in a sample",
            cure="Rename one of the members, or give the samples different keys.",
        )
    starts = begins(reader, headers, packed, end)
    stored = methods == 0
    if verify:
        for row, at, size, total in zip(*(each[stored].tolist() for each in (rows, starts, sizes, sums)), strict=True):
            _verify(shard, reader, name, row, at, size, total)
    count = len(shard.keys)
    shard.fields[name] = _column(count, rows[stored], starts[stored], sizes[stored])
    if not stored.all():
        deflated = ~stored
        shard.fields[name + DEFLATED] = _column(count, rows[deflated], starts[deflated], packed[deflated])
        shard.fields[name + SIZES] = _column(count, rows[deflated], sums[deflated], sizes[deflated])
    if is_integer_field(name) and len(rows) == count:
        found = digits(reader, shard.fields[name]) if stored.all() else None
        if found is not None:
            shard.numbers[name] = found
        else:
            _read_numbers(shard, reader, name)


def _verify(shard: Shard, reader: ShardReader, name: str, row: int, at: int, size: int, total: int) -> None:
    found = 0
    for begin in range(at, at + size, _BLOCK):
        found = zlib.crc32(reader.read(begin, min(_BLOCK, at + size - begin)), found)
    if found != total:
        what = f"the CRC-32 of field {name!r} of sample {shard.keys[row]!r}, at byte {at:,}, does not match"
        raise reader.damaged(what, "the data that the archive was written with")


def begins(reader: ShardReader, headers: NDArray[np.int64], packed: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    """Return where the data of members begin: after their local headers, whose length is in them."""
    if (headers < 0).any() or (headers + 30 > end).any():
        raise reader.damaged("members begin outside of the archive", "a whole archive")
    order = np.argsort(headers, kind="stable")
    heads = np.empty((len(headers), 30), np.uint8)
    heads[order] = reader.gather(headers[order], 30)
    lengths = np.ascontiguousarray(heads[:, 26:30]).view("<u2").astype(np.int64).sum(axis=1)
    found: NDArray[np.int64] = headers + 30 + lengths
    wrong = (heads[:, :4] != np.frombuffer(_LOCAL, np.uint8)).any(axis=1) | (packed > end - found)
    if wrong.any():
        place = int(headers[wrong][0])
        raise reader.damaged(f"no member begins at byte {place:,}, or it is cut short", "a whole archive")
    return found


def _column(count: int, rows: NDArray[np.int64], offset: NDArray[np.int64], length: NDArray[np.int64]) -> Spans:
    offsets, lengths = np.zeros(count, np.int64), np.full(count, -1, np.int64)
    offsets[rows], lengths[rows] = offset, length
    return Spans.of(offsets, lengths)


def _read_numbers(shard: Shard, reader: ShardReader, name: str) -> None:
    """Read the integers of a field that all samples have, deflated ones too."""
    spans, packed, sizes = (shard.fields.get(name + column) for column in ("", DEFLATED, SIZES))
    values = array("q")
    for row in range(len(shard.keys)):
        text = b""
        if spans is not None and 0 <= spans.length[row] <= _MOST_TEXT:
            text = reader.read(spans.offset[row], spans.length[row])
        elif packed is not None and sizes is not None and packed.length[row] <= _MOST_TEXT >= sizes.length[row]:
            try:
                text = reader.read(packed.offset[row], packed.length[row])
                text = inflated(text, sizes.length[row], sizes.offset[row])
            except ValueError:
                return  # who reads the sample gets the error
        value = integer_of(text)
        if value is None:
            return
        values.append(value)
    shard.numbers[name] = values


def inflated(data: bytes, size: int, total: int) -> bytes:
    """Return the bytes of a deflated member; raise ValueError unless they have their size and their CRC-32.

    >>> import zlib
    >>> packed = zlib.compress(b"hello", wbits=-15)
    >>> inflated(packed, 5, zlib.crc32(b"hello"))
    b'hello'
    """
    if size > MOST_RATIO * len(data) + 64:
        raise ValueError(f"it claims {size:,} bytes, and {len(data):,} deflated bytes give no more than 1,032 each")
    reader = zlib.decompressobj(-15)
    try:
        whole = reader.decompress(data, size + 1)
    except zlib.error as error:
        raise ValueError(f"it cannot be inflated: {error}") from error
    if len(whole) != size or not reader.eof:
        raise ValueError(f"it claims {size:,} bytes, and gives {'more' if len(whole) > size else 'others'}")
    if zlib.crc32(whole) != total:
        raise ValueError("its CRC-32 does not match")
    return whole
