"""The ledger: what each batch that the training loop received was made of, written down as it is handed over.

A ledger belongs to a state. Batches that were received after the last state was saved, and that a restart has made
undone, stand in it all the same; so every loop writes under a *session*, whose name follows from where it begins and
from the session it goes on from, which the state names. What counts of a session is what its successors did not undo.

The file: eight bytes of magic, then records, each ``length, crc32, payload``; appended one by one, never changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import threading
import time
import zlib
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import fingerprint
from headrace.errors import ArgumentError, BadFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from headrace.work import Done, Work

MAGIC = b"hrledgr1"
SUFFIX = ".ledger"
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


class Ledger:
    """What a training loop has received, batch by batch: in memory, or in a file that is appended to.

    >>> import headrace
    >>> ledger = headrace.Ledger()
    >>> loader = headrace.DataLoader(range(10), batch_size=4, shuffle=True, seed=0, ledger=ledger)
    >>> for batch in loader:
    ...     pass
    >>> print(headrace.verify_epoch(ledger))
    epoch 0: each of 10 samples was delivered exactly once

    ``path``: a file, which goes on where it ends, whatever killed the process that wrote it. One loader writes to it,
    and each rank has its own: ``DataLoader(..., ledger="folder")`` makes one a rank in that folder. Written down are
    the keys of each batch and a fingerprint of its bytes (see `headrace.verify_epoch` and ``headrace diff``); without
    ``fingerprints`` the keys alone. A file takes about 80 bytes a batch, and one to four bytes for each of its samples.

    Raises `BadFile` for a file that is no ledger or is damaged, and what the operating system raises.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, fingerprints: bool = True) -> None:
        self.path = None if path is None else Path(path)
        self.fingerprints = bool(fingerprints)
        self._lock = threading.Lock()
        self._memory = io.BytesIO(MAGIC)
        self._memory.seek(0, io.SEEK_END)
        self._file: io.FileIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "fingerprints": self.fingerprints}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a copy of one in memory is empty

    def __repr__(self) -> str:
        return f"Ledger({'' if self.path is None else repr(str(self.path))})"

    def close(self) -> None:
        """Close the file; the next batch opens it again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._file.close()  # type: ignore[union-attr]

    def sessions(self) -> tuple[dict[int, Session], list[Entry]]:
        """Return what stands in it: sessions by number, and the entries of all of them, oldest first."""
        if self.path is None:
            return _read(self._memory.getvalue(), "the ledger in memory")
        return _read(self.path.read_bytes() if self.path.exists() else MAGIC, str(self.path))

    def append(self, payload: bytes) -> None:
        """Add a record, which is in the file when this returns: it survives the process."""
        record = _FRAME.pack(len(payload), zlib.crc32(payload)) + payload
        with self._lock:
            if self.path is None:
                self._memory.write(record)
                return
            if self._file is None:
                self._file = _opened(self.path)
                if self._file.seek(0, io.SEEK_END) == 0:
                    record = MAGIC + record
            written = self._file.write(record)  # at once: a kill finds all of a record there, or none
            if written != len(record):
                raise OSError(28, f"only {written} of {len(record)} bytes could be written", str(self.path))


@dataclass(slots=True)
class Recorder:
    """What one loop does about its ledger: notes what is asked for and made, writes down what is handed over."""

    ledger: Ledger
    session: Session
    by_batch: bool
    """Whether bad samples are left out, so that batches are cut from what is left and not from the plan's steps."""
    passed: int = 0
    """Good samples of the first step that were in a batch before."""
    _asked: dict[int, Work] = field(default_factory=dict)
    _taken: tuple[Work, Keys, Keys] | None = None
    _waiting: deque[tuple[int, Any, bool]] = field(default_factory=deque)
    """Where bad samples are left out: position, key, and whether it is bad, of what was made and not handed over."""
    _stands: int | None = None
    _begun: bool = False

    def asked(self, work: Work) -> None:
        """Note what a batch is to be made of."""
        self._asked[work.step] = work

    def lost(self, step: int) -> None:
        """Note that a batch will not come: an error came in its place."""
        self._asked.pop(step, None)

    def made(self, done: Done) -> None:
        """Note what a batch was made of."""
        work = self._asked.pop(done.step)
        bad = [each.index for each in done.bad]
        keys: Sequence[Any] = work.keys if work.lane is None else range(work.lane.start, work.lane.start + work.rows)
        if not self.by_batch:
            here = self._real(work, keys)
            self._taken = work, _keys_of(_without(here, bad)), _keys_of(bad)
            return
        start = work.start if work.lane is None else work.lane.start
        left = deque(bad)
        for position, key in enumerate(keys, start):
            is_bad = bool(left) and left[0] == key
            if is_bad:
                left.popleft()
            if self.passed:
                self.passed -= not is_bad
            else:
                self._waiting.append((position, key, is_bad))

    def _real(self, work: Work, keys: Sequence[Any]) -> Sequence[Any]:
        """Leave out what only fills up the last global batch; of a stream, keys are what was read."""
        if work.lane is not None:
            return ()
        samples = self.session.samples
        return keys if samples is None else keys[: max(0, samples - work.start)]

    def entry(self, batch: Any, number: int, rows: int) -> bytes:
        """Return the record of a batch, of which it is known how many rows it has (0: not known)."""
        content = fingerprint.of_batch(batch) if self.ledger.fingerprints else 0
        if self.by_batch:
            return self._regrouped(number, rows, content)
        assert self._taken is not None  # noqa: S101  for the type checker: a batch is made before it is handed over
        (work, keys, bad), self._taken = self._taken, None
        if work.lane is None:
            order = fingerprint.of_keys(work.keys)
            return self._packed(work.step, None, work.start, work.rows, keys, bad, order, content)
        lane = work.lane
        first, count = (lane.start, min(rows or lane.size, lane.size)) if not work.keys else (work.start, lane.size)
        number = lane.number if not work.keys else 0
        return self._packed(work.step, number, first, count, keys, bad, 0, content)

    def _regrouped(self, number: int, rows: int, content: int) -> bytes:
        keys: list[Any] = []
        bad: list[Any] = []
        start = self._waiting[0][0] if self._stands is None and self._waiting else self._stands or 0
        stop = start
        while len(keys) < rows and self._waiting:
            position, key, is_bad = self._waiting.popleft()
            (bad if is_bad else keys).append(key)
            stop = position + 1
        self._stands = stop
        order = fingerprint.of_keys(keys)
        return self._packed(number, None, start, stop - start, _keys_of(keys), _keys_of(bad), order, content)

    def _packed(
        self,
        at: int,
        lane: int | None,
        start: int,
        count: int,
        keys: Keys,
        bad: Keys,
        order: int,
        content: int,
        *,
        over: bool = False,
    ) -> bytes:
        lane = 0 if lane is None else lane + 1
        head = (b"B", self.session.number, at, lane, start, start + count, keys.count, bad.count, order, content)
        return _ENTRY.pack(*head, over) + _written(keys) + _written(bad)

    def over(self, at: int) -> bytes:
        """Return the record of the epoch's end: what was bad behind the last batch, or left out for its size."""
        bad = [key for _, key, is_bad in self._waiting if is_bad]
        start = self._waiting[0][0] if self._waiting else self._stands or 0
        return self._packed(at, None, start, len(self._waiting), Keys(), _keys_of(bad), 0, 0, over=True)

    def write(self, record: bytes | None) -> None:
        """Write down that the session has begun, and a record, where there is one: an error leaves none."""
        if not self._begun:
            self._begun = True
            self.ledger.append(b"S" + _json_of(self.session))
        if record is not None:
            self.ledger.append(record)


def begun(
    ledger: Ledger,
    *,
    parent: str | None,
    epoch: int,
    first: int,
    beyond: tuple[int, ...],
    batches: int,
    offset: int,
    rank: int,
    world: int,
    samples: int | None,
    facts: dict[str, Any],
) -> Recorder:
    """Return the recorder of a loop that begins.

    The session's name depends on what all ranks know alike, and not on the attempt: of two that begin at the same
    place, the first was made undone by a restart.
    """
    place = json.dumps([parent, epoch, first, batches, offset, world, facts], sort_keys=True)
    name = hashlib.blake2b(place.encode(), digest_size=8).hexdigest()
    number = int.from_bytes(os.urandom(4), "little")
    session = Session(number, name, parent, epoch, first, beyond, batches, rank, world, time.time_ns(), samples, facts)
    return Recorder(ledger, session, by_batch=facts.get("on_error") == "skip", passed=offset)


def opened(ledger: Any, rank: int) -> Ledger | None:
    """Return the ledger that a loader was given: one, or the folder in which each rank has its own."""
    if ledger is None or isinstance(ledger, Ledger):
        return ledger
    if not isinstance(ledger, str | os.PathLike):
        raise ArgumentError(f"ledger must be a Ledger, or a folder for the ledgers of all ranks; got {ledger!r}")
    if Path(ledger).is_file():
        raise ArgumentError(f"ledger={str(ledger)!r} is a file, and a folder is expected; Ledger(path) takes a file")
    return Ledger(Path(ledger) / f"rank{rank}{SUFFIX}")


def _opened(path: Path) -> io.FileIO:
    """Open a file to append to; what a full disk or the machine's crash left of its last record is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.FileIO(path, "a+")
    try:
        data = path.read_bytes() if path.is_file() else b""  # a pipe is written to, and never read
        end = _records(data, str(path))[1]
        if end < len(data) or 0 < end < len(MAGIC):
            file.truncate(end if end >= len(MAGIC) else 0)
    except BaseException:
        file.close()
        raise
    return file


def _without(keys: Sequence[Any], bad: Sequence[Any]) -> Sequence[Any]:
    if not bad:
        return keys
    left = list(keys)
    for key in bad:
        if key in left:
            left.remove(key)
    return left


def _keys_of(keys: Sequence[Any]) -> Keys:
    if isinstance(keys, range) and keys.step == 1:
        return Keys(len(keys), keys)
    numbers = fingerprint.integers(keys)
    if numbers is None:
        return Keys(len(keys), None, sum(fingerprint.of_keys([key]) for key in keys) % 2**64)
    return Keys(len(numbers), np.sort(numbers))


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


def _json_of(session: Session) -> bytes:
    return json.dumps({name: getattr(session, name) for name in Session.__slots__}).encode()


def _records(data: bytes, name: str) -> tuple[list[memoryview], int]:
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


def _read(data: bytes, name: str) -> tuple[dict[int, Session], list[Entry]]:
    sessions: dict[int, Session] = {}
    entries = []
    for number, payload in enumerate(_records(data, name)[0]):
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
    samples, parent = session.samples, session.parent
    if samples is not None and (not isinstance(samples, int) or not 0 <= samples < 2**63):
        raise ValueError(f"samples is {samples!r}")
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


def found(where: Any) -> Iterator[Ledger]:
    """Return the ledgers that something names: itself, a file, or all those in a folder.

    Raises `ArgumentError` where there are none.
    """
    if isinstance(where, Ledger):
        yield where
        return
    path = Path(where)
    paths = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path] if path.exists() else []
    if not paths:
        what = f"no file *{SUFFIX} in the folder" if path.is_dir() else "no such file or folder"
        raise ArgumentError(f"{path}: {what}; a loader with ledger={str(path)!r} makes them there")
    for each in paths:
        yield Ledger(each)
