"""Index a tar shard as WebDataset lays it out: members of one key follow each other, a field for each.

Formats: POSIX.1-2017 `pax` (ustar and extended headers), the GNU tar manual ("Basic Tar Format"), and for the keys
https://github.com/webdataset/webdataset: the key is the path up to the first dot after the last slash.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._native import extension
from headrace.errors import BadFile
from headrace.formats.reader import COPY, ShardReader
from headrace.formats.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLOCK = 512
AT_ONCE = 1 << 16
"""Members that the native extension finds in a call."""

MOST_EXTENDED = 1 << 20
"""Bytes that a long name or an extended header may have; real ones have some hundred."""

_DESCRIBES = (b"L", b"K", b"x", b"X", b"g")
"""Types of entries that describe the next member: long names and extended headers."""

_REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
    b"S": "a sparse file",
}
_BLANK = b" " * 8
"""Blanks, which replace the checksum while the sum of a header is computed."""

_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ": "xz"}
"""How compressed files begin."""

_META = re.compile(r"__[^/]*__($|/)")
"""Members that describe the archive (WebDataset skips them too)."""


def index(path: str) -> tuple[Shard, tuple[int, int]]:
    """Index a tar shard; returns its samples, and its size and time of modification.

    Raises `BadFile` for an archive that is damaged or compressed, for links and sparse members, and for a sample with
    two fields of one name; `MissingFile` and `UnreadableFile` for a file that cannot be read.
    """
    with ShardReader(path) as reader:
        samples = _Samples(Shard(path, reader.size))
        for member in members(reader, samples.walked):
            samples.add(*member)
        samples.shard.finished().read_numbers(reader)
        return samples.shard, reader.facts


class _Samples:
    """Sorts members into samples: those of one key that follow each other."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self._last = ""

    def add(self, name: str, offset: int, length: int) -> None:
        """Add a member."""
        key, found = split(name)
        if not found:
            return
        if key != self._last:
            self.shard.keys.append(key)
            self._last = key
        spans = self.shard.span(found)
        if len(spans.offset) == len(self.shard.keys):
            raise self._twice(len(self.shard.keys) - 1, found, offset)
        spans.put(len(self.shard.keys) - 1, offset, length)

    def walked(self, reader: ShardReader, at: int) -> int:
        """Add the plain members from an entry on, as the native extension finds them; return where it has stopped.

        There the archive ends, or has an entry of another kind.
        """
        scan: Any = None if reader.is_remote else getattr(extension, "scan_tar", None)
        count = AT_ONCE
        while scan is not None and count == AT_ONCE:
            # The extension finds keys of UTF-8 alone, so that none is the last one if that is not.
            last = self._last if _is_utf8(self._last) else "\0"
            at, keys, fields, *arrays = scan(reader.descriptor, reader.size, at, last, AT_ONCE)
            sample, field, offset, length = (np.frombuffer(array, np.int64) for array in arrays)
            rows = len(self.shard.keys) - 1 + sample
            self.shard.keys += keys
            self._last = keys[-1] if keys else self._last
            for number, name in enumerate(fields):
                of_field = np.flatnonzero(field == number)
                spans, places = self.shard.span(name), rows[of_field]
                again = np.flatnonzero(np.diff(places, prepend=len(spans.offset) - 1) < 1)
                if len(again):
                    raise self._twice(int(places[again[0]]), name, int(offset[of_field[again[0]]]))
                spans.put_many(places, offset[of_field], length[of_field])
            count = len(sample)
        return at

    def _twice(self, row: int, field: str, offset: int) -> BadFile:
        return BadFile(
            f"sample {self.shard.keys[row]!r} has two fields {field!r}, the second at byte {offset:,}",
            path=self.shard.path,
            expected="each field once in a sample",
            cure="Rename one of the members, or give the samples different keys.",
        )


def split(name: str) -> tuple[str, str]:
    """Return the key and the field of a member's name; no field for a member that belongs to no sample.

    >>> split("train/0001.seg.PNG"), split("./a.b/0001.jpg"), split("a.b/README"), split("__meta__/x.json")
    (('train/0001', 'seg.png'), ('a.b/0001', 'jpg'), ('a.b/README', ''), ('__meta__/x', ''))
    """
    name = name.removeprefix("./")
    folder, slash, base = name.rpartition("/")
    stem, _, field = base.partition(".")
    if not stem or _META.match(name):
        return folder + slash + stem, ""
    return folder + slash + stem, field.lower()


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes of another encoding, each decoded as a surrogate
        return False
    return True


def members(
    reader: ShardReader, walked: Callable[[ShardReader, int], int] | None = None
) -> Iterator[tuple[str, int, int]]:
    """Yield the name, the offset and the length of each regular member of an archive.

    ``walked`` is called with the place of each entry that begins a member. It returns the place of the first one that
    it has not passed over.
    """
    at, nothing = 0, _Extended()
    extended = nothing
    while True:
        if walked is not None and extended is nothing:
            at = walked(reader, at)
        if at >= reader.size:
            return
        header = reader.read(at, min(BLOCK, reader.size - at))
        if not header[0] and header.count(0) == len(header):
            return  # the end of the archive: what follows is padding
        if len(header) < BLOCK or not is_header(header):
            raise _no_header(reader, at, header)
        kind, size, body = header[156:157], _size(reader, header, at), at + BLOCK
        if kind in _DESCRIBES:
            extended = _Extended() if extended is nothing else extended
            extended.add(reader, kind, at, size)
        else:
            name = _name(header)
            if extended is not nothing:
                name = extended.records.get("path") or extended.name or name
                size = extended.size(reader, size, at)
            if kind in _REFUSED or extended.sparse:
                raise _refused(reader, name, _REFUSED.get(kind, "a sparse file"))
            is_folder = kind == b"5" or name.endswith("/")
            size = 0 if is_folder else size  # a folder has no data, whatever its size says
            if body + size > reader.size:
                found = f"member {name!r} at byte {at:,} has {size:,} bytes by its header"
                raise reader.damaged(f"{found}; {max(0, reader.size - body):,} are left", "a whole archive")
            if kind != b"V" and not is_folder:
                yield name, body, size
            extended = nothing
        at = body + -(-size // BLOCK) * BLOCK


class _Extended:
    """The long name and the extended header of the next member."""

    __slots__ = ("name", "records")

    def __init__(self) -> None:
        self.name = ""
        self.records: dict[str, str] = {}

    @property
    def sparse(self) -> bool:
        return bool(self.records) and any(key.startswith("GNU.sparse.") for key in self.records)

    def add(self, reader: ShardReader, kind: bytes, at: int, size: int) -> None:
        if size > MOST_EXTENDED:
            found = f"the extended header at byte {at:,} has {size:,} bytes"
            raise reader.damaged(found, f"at most {MOST_EXTENDED:,} bytes")
        text = reader.read(at + BLOCK, size)
        if kind == b"L":
            self.name = text.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
        elif kind in (b"x", b"X"):
            self.records |= _records(reader, text, at)

    def size(self, reader: ShardReader, size: int, at: int) -> int:
        """Return the size of the member: an extended header overrides the header."""
        text = self.records.get("size")
        if text is None:
            return size
        if text.isascii() and text.isdigit() and len(text) < 20:
            return int(text)
        raise reader.damaged(f"the size of the member at byte {at:,} is {text[:40]!r}", "decimal digits")


def is_header(header: bytes) -> bool:
    """Say whether a block is a header, by its checksum: of unsigned bytes, or (in old programs) of signed ones."""
    saved = _octal(header[148:156])
    counted = header[:148] + _BLANK + header[156:]
    # Adler-32 holds 1 + the sum of all bytes, modulo 65521: fifteen times as fast as `sum`, for each header.
    if saved is None or (saved + 1) % 65521 == zlib.adler32(counted) & 0xFFFF:
        return saved is not None
    return saved == sum(counted) - 256 * sum(byte > 127 for byte in counted)


def _size(reader: ShardReader, header: bytes, at: int) -> int:
    """Return the size of a member: octal digits, or a number in base 256."""
    digits = header[124:136]
    size = int.from_bytes(digits[1:], "big") if digits[0] == 0x80 else _octal(digits)
    if size is None:
        raise reader.damaged(f"the size of the member at byte {at:,} is {digits!r}", "octal digits")
    return size


def _octal(text: bytes) -> int | None:
    digits = text.strip(b" \0") or b"0"
    return int(digits, 8) if not digits.strip(b"01234567") else None


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _records(reader: ShardReader, text: bytes, at: int) -> dict[str, str]:
    """Return the records of an extended header: lines of a length, a space, a key, an equals sign and a value."""
    records = {}
    place = 0
    while place < len(text) and text[place] != 0:
        space = text.find(b" ", place, place + 10)
        length = int(text[place:space]) if space > place and text[place:space].isdigit() else 0
        line = text[space + 1 : place + length]
        key, equals, value = line.partition(b"=")
        if not equals or not line.endswith(b"\n") or place + length > len(text):
            raise reader.damaged(f"the extended header at byte {at:,} is damaged", "records of length, key and value")
        records[key.decode("utf-8", "surrogateescape")] = value[:-1].decode("utf-8", "surrogateescape")
        place += length
    return records


def _refused(reader: ShardReader, name: str, what: str) -> BadFile:
    return BadFile(
        f"member {name!r} is {what}",
        path=reader.path,
        expected="regular files only",
        cure="Write the archive again with the files themselves (tar --dereference --hard-dereference).",
    )


def _no_header(reader: ShardReader, at: int, header: bytes) -> BadFile:
    if at == 0:
        for magic, name in _COMPRESSED.items():
            if header.startswith(magic):
                return BadFile(
                    f"it is compressed with {name}",
                    path=reader.path,
                    expected="a tar archive, whose members can be read one by one",
                    cure=f"Decompress it first; images in it are compressed already ({name} saves almost nothing).",
                )
        return BadFile(
            "it is not a tar archive: no tar header begins at byte 0",
            path=reader.path,
            expected="a tar archive",
            cure="Take the file out of the list of shards.",
        )
    return BadFile(
        f"no tar header begins at byte {at:,}, where the archive goes on",
        path=reader.path,
        expected="a header, or the end of the archive (a block of zeros)",
        cure=COPY,
    )
