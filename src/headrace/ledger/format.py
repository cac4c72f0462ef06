"""The file format of a ledger: eight magic bytes, then records, appended one by one.

A record is ``length, crc32 of the payload, crc32 of the eight bytes before, payload``. A kill can truncate a record:
less than its first 12 bytes remain, or all 12 and a part of the payload. A length that does not match its checksum is
damage, not truncation.

A payload is a session (JSON), or an entry: a few numbers, and keys as an interval or as differences of sorted keys. A
record is never changed, and nothing in it is executed.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import BadFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray

MAGIC = b"hrledgr2"
_FIRST = b"hrledgr1"
"""The magic bytes of the old format, where lengths had no checksum."""
_FRAME = struct.Struct("<III")
_ENTRY = struct.Struct("<cIqIqqIIQQ?")
_COUNTS = struct.Struct("<QQ")
_ROW = struct.Struct("<BqI")
_WIDTHS = ("<u1", "<u2", "<u4", "<i8")
_RANGE, _HASHED = 8, 9
"""Encodings of keys besides those of `_WIDTHS`."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of the dataset, without their order."""

    count: int = 0
    numbers: range | NDArray[np.int64] | None = range(0)
    """None if the keys are not integers; then only `hashed` is known."""
    hashed: int = 0
    """The sum of their hashes."""


@dataclass(frozen=True, slots=True)
class Session:
    """The record that a loop writes when it starts."""

    number: int
    """A random number of this attempt; another attempt from the same position has another number."""
    name: str
    parent: str | None
    epoch: int
    first: int
    beyond: tuple[int, ...]
    batches: int
    rank: int
    world: int
    began: int
    """Wall-clock time in nanoseconds."""
    samples: int | None
    """The number of positions in the epoch's order, if known."""
    ends: int | None
    """The position from which nothing is delivered, because it makes no full batch."""
    facts: dict[str, Any]

    def undone(self, *, by_batch: bool) -> Callable[[Entry], bool]:
        """Return a function that says whether this session undid an entry of an earlier one."""
        if by_batch:
            return lambda entry: entry.at >= self.batches
        beyond = frozenset(self.beyond)
        return lambda entry: entry.at >= self.first and entry.at not in beyond


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch that was received; with ``over``, the end of the epoch and its remaining samples."""

    session: int
    at: int
    """The step of the plan; with `on_error="skip"`, the number of the batch."""
    replica: int | None
    start: int
    stop: int
    """With ``start``: its positions in the epoch's order, or in the replica; the last ones may be padding."""
    keys: Keys
    bad: Keys
    order: int
    """The hash of its keys."""
    content: int
    """The fingerprint of its bytes, or 0."""
    over: bool = False
    documents: int = 0
    """The samples with its tokens: each sample of a packed row counts, a split sample counts once."""
    tokens: int = 0


def _written(keys: Keys) -> bytes:
    """Encode keys: a range as it is, sorted integers as differences, other keys as a hash."""
    if not keys.count:
        return b""
    numbers = keys.numbers
    if numbers is None:
        return _ROW.pack(_HASHED, 0, 8) + struct.pack("<Q", keys.hashed)
    first = int(numbers[0])
    if isinstance(numbers, range):
        return _ROW.pack(_RANGE, first, 0)
    steps = np.diff(numbers.view(np.uint64))
    largest = int(steps.max()) if len(steps) else 0
    if largest == 1 and int(steps.min()) == 1:
        return _ROW.pack(_RANGE, first, 0)
    way = next(way for way in range(4) if largest < 2 ** (8 << way))
    data = steps.astype(_WIDTHS[way]).tobytes()
    return _ROW.pack(way, first, len(data)) + data


def of_entry(entry: Entry) -> bytes:
    """Return the payload of a batch."""
    replica = 0 if entry.replica is None else entry.replica + 1
    counts = entry.keys.count, entry.bad.count
    numbers = entry.session, entry.at, replica, entry.start, entry.stop, *counts, entry.order, entry.content, entry.over
    keys = _written(entry.keys) + _written(entry.bad)
    if not entry.tokens and not entry.documents:
        return _ENTRY.pack(b"B", *numbers) + keys
    return _ENTRY.pack(b"C", *numbers) + _COUNTS.pack(entry.documents, entry.tokens) + keys


def _keys_read(payload: memoryview, at: int, count: int) -> tuple[Keys, int]:
    if not count:
        return Keys(), at
    way, first, size = _ROW.unpack_from(payload, at)
    at += _ROW.size
    data = payload[at : at + size]
    if len(data) != size:
        raise ValueError("keys are truncated")
    at += size
    if way == _RANGE:
        return Keys(count, range(first, first + count)), at
    if way == _HASHED:
        return Keys(count, None, struct.unpack("<Q", data)[0]), at
    steps = np.frombuffer(data, _WIDTHS[way])
    if len(steps) != count - 1:
        raise ValueError("the number of keys does not match")
    numbers = np.empty(count, np.int64)
    numbers[0] = first
    numbers[1:] = steps
    return Keys(count, np.cumsum(numbers, out=numbers)), at


def of_session(session: Session) -> bytes:
    """Return the payload of a session."""
    return b"S" + json.dumps({name: getattr(session, name) for name in Session.__slots__}).encode()


def records(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    """Yield the end of each record of a file, and its payload; first the end of the magic bytes.

    An incomplete last record is ignored: its batch was not delivered. A forged length never reads past the file's end.
    """
    magic = file.read(len(MAGIC))
    if magic == _FIRST:
        raise BadFile(
            f"a ledger of an older version: it starts with {_FIRST!r}",
            path=name,
            found=_FIRST,
            expected=repr(MAGIC),
            cure="move it away and start a new one, or read it with the headrace version that wrote it",
        )
    if magic != MAGIC[: len(magic)]:
        raise BadFile(
            f"not a ledger: it starts with {magic!r}",
            path=name,
            found=magic,
            expected=repr(MAGIC),
            cure="give the path of a ledger, or of a folder with ledgers",
        )
    at, size = len(magic), file.seek(0, io.SEEK_END)
    file.seek(at)
    yield at, b""
    while len(frame := file.read(_FRAME.size)) == _FRAME.size:
        length, crc, own = _FRAME.unpack(frame)
        if zlib.crc32(frame[:-4]) != own:
            raise _damaged(name, at, "the length of a record does not match its checksum")
        end = at + _FRAME.size + length
        if end > size:
            return
        payload = file.read(length)
        if zlib.crc32(payload) != crc:
            raise _damaged(name, at, f"a record of {length} bytes does not match its checksum")
        yield end, payload
        at = end


def _damaged(name: str, at: int, what: str) -> BadFile:
    return BadFile(
        f"damaged at byte {at}: {what}",
        path=name,
        expected="records that match their checksums",
        cure="leave the file out of the proof, or truncate it there to keep the records before",
    )


def framed(payload: bytes) -> bytes:
    """Return a payload with its header, as it is in the file."""
    head = struct.pack("<II", len(payload), zlib.crc32(payload))
    return head + struct.pack("<I", zlib.crc32(head)) + payload


def read(file: BinaryIO, name: str) -> tuple[dict[int, Session], list[Entry]]:
    """Return the sessions of a file by number, and all entries, oldest first."""
    sessions: dict[int, Session] = {}
    entries = []
    found = records(file, name)
    at, _ = next(found)
    for number, (end, payload) in enumerate(found):
        try:
            if payload[:1] == b"S":
                session = _session(json.loads(payload[1:]))
                sessions[session.number] = session
            else:
                entry = _entry(memoryview(payload))
                entries.append(entry)
                sessions[entry.session]
        except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error, RecursionError) as error:
            raise _damaged(name, at, f"record {number} is invalid ({error!r})") from error
        at = end
    return sessions, entries


def _session(facts: Any) -> Session:
    session = Session(**{**facts, "beyond": tuple(facts["beyond"])})
    for name in ("number", "epoch", "first", "batches", "rank", "world", "began"):
        value = getattr(session, name)
        if type(value) is not int or not 0 <= value < 2**63:
            raise ValueError(f"{name} is {value!r}")
    if session.rank >= session.world:
        raise ValueError(f"rank is {session.rank!r} of {session.world!r}")
    samples, ends, parent = session.samples, session.ends, session.parent
    if (samples, ends) != (None, None) and not (
        type(samples) is int and type(ends) is int and 0 <= ends <= samples < 2**63
    ):
        raise ValueError(f"samples is {samples!r} and ends is {ends!r}")
    if not isinstance(session.name, str) or not isinstance(parent, str | None) or not isinstance(session.facts, dict):
        raise TypeError("names must be strings, and facts a mapping")
    if not all(type(step) is int for step in session.beyond):
        raise TypeError("steps must be integers")
    return session


def _entry(payload: memoryview) -> Entry:
    kind, session, at, replica, start, stop, keys, bad, order, content, over = _ENTRY.unpack_from(payload)
    if kind not in (b"B", b"C") or not 0 <= start <= stop:
        raise ValueError("neither a session nor a batch")
    place, counts = _ENTRY.size, (0, 0)
    if kind == b"C":
        counts = _COUNTS.unpack_from(payload, place)
        place += _COUNTS.size
    good, place = _keys_read(payload, place, keys)
    worse, place = _keys_read(payload, place, bad)
    if place != len(payload):
        raise ValueError("bytes after the last key")
    number = replica - 1 if replica else None
    return Entry(session, at, number, start, stop, good, worse, order, content, over, *counts)
