"""The file of a ledger: eight bytes of magic, then records, each ``length, crc32, payload``, appended one by one.

A payload is a session (JSON) or an entry (a few numbers, and keys: as a stretch, or as the steps from one to the next
larger). No record is ever changed, and nothing that is read is run.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import BadFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"hrledgr1"
_FRAME = struct.Struct("<II")
_ENTRY = struct.Struct("<cIqIqqIIQQ?")
_ROW = struct.Struct("<BqI")
_LONGEST = 2**30
_WIDTHS = ("<u1", "<u2", "<u4", "<i8")
_RANGE, _HASHED = 8, 9
"""Ways to write keys down, beside those of `_WIDTHS`."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of the dataset, without their order."""

    count: int = 0
    numbers: range | NDArray[np.int64] | None = range(0)
    """None: they are no integers, and only `hashed` is known."""
    hashed: int = 0
    """The sum of their hashes."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a loop wrote down when it began."""

    number: int
    """Of this attempt; another one that begins at the same place has another."""
    name: str
    parent: str | None
    epoch: int
    first: int
    beyond: tuple[int, ...]
    batches: int
    rank: int
    world: int
    began: int
    """Nanoseconds of the clock on the wall."""
    samples: int | None
    """How many places the epoch's order has, where that is known."""
    ends: int | None
    """The place behind which nothing is delivered: it makes no whole batch."""
    facts: dict[str, Any]

    def undone(self, entry: Entry, *, by_batch: bool) -> bool:
        """Say whether what an earlier session wrote down was made undone when this one began."""
        if by_batch:
            return entry.at >= self.batches
        return entry.at >= self.first and entry.at not in self.beyond


@dataclass(frozen=True, slots=True)
class Entry:
    """A batch that was received, or with ``over``, the end of the epoch and what it left over."""

    session: int
    at: int
    """The step of the plan; the number of the batch where bad samples are left out."""
    lane: int | None
    start: int
    stop: int
    """From where to where in the epoch's order, or of the lane, its samples are; those at the end may be padding."""
    keys: Keys
    bad: Keys
    order: int
    """The fingerprint of its keys."""
    content: int
    """The fingerprint of its bytes; 0 for none."""
    over: bool = False


def _written(keys: Keys) -> bytes:
    """Write keys down: a range as such, integers as the steps from one to the next larger, others as a hash."""
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
    """Return the payload that says what a batch was made of."""
    lane = 0 if entry.lane is None else entry.lane + 1
    counts = entry.keys.count, entry.bad.count
    numbers = entry.session, entry.at, lane, entry.start, entry.stop, *counts, entry.order, entry.content, entry.over
    return _ENTRY.pack(b"B", *numbers) + _written(entry.keys) + _written(entry.bad)


def _keys_read(payload: memoryview, at: int, count: int) -> tuple[Keys, int]:
    if not count:
        return Keys(), at
    way, first, size = _ROW.unpack_from(payload, at)
    at += _ROW.size
    data = payload[at : at + size]
    if len(data) != size:
        raise ValueError("keys cut short")
    at += size
    if way == _RANGE:
        return Keys(count, range(first, first + count)), at
    if way == _HASHED:
        return Keys(count, None, struct.unpack("<Q", data)[0]), at
    steps = np.frombuffer(data, _WIDTHS[way])
    if len(steps) != count - 1:
        raise ValueError("another number of keys than was said")
    numbers = np.empty(count, np.int64)
    numbers[0] = first
    numbers[1:] = steps
    return Keys(count, np.cumsum(numbers, out=numbers)), at


def of_session(session: Session) -> bytes:
    """Return the payload that says of a session what is to be known of it."""
    return b"S" + json.dumps({name: getattr(session, name) for name in Session.__slots__}).encode()


def records(data: bytes, name: str) -> tuple[list[memoryview], int]:
    """Return the payloads of a file, and where the last whole record ends."""
    if data[: len(MAGIC)] != MAGIC[: len(data)]:
        raise BadFile(f"{name} is no ledger: it begins with {data[: len(MAGIC)]!r}, where {MAGIC!r} is expected")
    view, at = memoryview(data), min(len(MAGIC), len(data))
    found = []
    while at + _FRAME.size <= len(data):
        size, crc = _FRAME.unpack_from(view, at)
        begin = at + _FRAME.size
        payload = view[begin : begin + size]
        whole = len(payload) == size
        if not whole and size <= _LONGEST:
            break  # the last one, cut short: the batch was not handed over
        if not whole or zlib.crc32(payload) != crc:
            raise BadFile(
                f"{name} is damaged at byte {at}: a record of {size} bytes does not have its checksum; take the file "
                "out of the proof, or cut it there to keep what stands before"
            )
        found.append(payload)
        at = begin + size
    return found, at


def framed(payload: bytes) -> bytes:
    """Return a payload as it stands in the file."""
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def read(data: bytes, name: str) -> tuple[dict[int, Session], list[Entry]]:
    """Return what a file says: its sessions by number, and all entries, oldest first."""
    sessions: dict[int, Session] = {}
    entries = []
    for number, payload in enumerate(records(data, name)[0]):
        try:
            if bytes(payload[:1]) == b"S":
                session = _session(json.loads(bytes(payload[1:])))
                sessions[session.number] = session
            else:
                entry = _entry(payload)
                entries.append(entry)
                sessions[entry.session]
        except (ValueError, KeyError, IndexError, TypeError, struct.error, RecursionError) as error:
            raise BadFile(f"{name} is damaged: record {number} makes no sense ({error})") from error
    return sessions, entries


def _session(facts: Any) -> Session:
    session = Session(**{**facts, "beyond": tuple(facts["beyond"])})
    for name in ("number", "epoch", "first", "batches", "rank", "world", "began"):
        value = getattr(session, name)
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} is {value!r}")
    samples, ends, parent = session.samples, session.ends, session.parent
    if (samples, ends) != (None, None) and not 0 <= int(ends or 0) <= int(samples or 0) < 2**63:
        raise ValueError(f"samples is {samples!r}, of which {ends!r} are delivered")
    if not isinstance(session.name, str) or not isinstance(parent, str | None) or not isinstance(session.facts, dict):
        raise TypeError("names must be strings, and facts a mapping")
    return session


def _entry(payload: memoryview) -> Entry:
    kind, session, at, lane, start, stop, keys, bad, order, content, over = _ENTRY.unpack_from(payload)
    if kind != b"B" or not 0 <= start <= stop:
        raise ValueError("neither a session nor a batch")
    good, place = _keys_read(payload, _ENTRY.size, keys)
    worse, place = _keys_read(payload, place, bad)
    if place != len(payload):
        raise ValueError("bytes left over")
    return Entry(session, at, lane - 1 if lane else None, start, stop, good, worse, order, content, over)
