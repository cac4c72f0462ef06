"""Batches that the processes of a machine share: one file in memory for each batch, under a name that says which it is.

    lock      held for a moment by who makes room, joins or leaves
    about     what the batches are made of (JSON): who joins must have the same
    peer-…    one for each process that takes part, locked as long as it lives; the first step that it still needs
    claim-…   a batch in the making (see batch_claims)
    batch-…   a batch that is made, locked by those that hold arrays of it
    memory-…  room for the next one, locked while it is written

A batch is never changed after it got its name. Who reads it maps it privately: pages are shared until somebody writes
to them. The lock of a batch lives as long as the map, in whatever process, so its memory is reused when the last array
of the last process is dropped. All locks are freed by the operating system when a process dies.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import secrets
import shutil
import stat
import struct
import tempfile
from collections import OrderedDict
from contextlib import contextmanager, suppress
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.errors import ArgumentError
from headrace.storage.crc32c import crc32c
from headrace.storage.file_locks import hold, lock_within, try_lock, try_share, unlock
from headrace.transport import batch_claims
from headrace.transport.out_of_band import dumped
from headrace.transport.shared import allocate, mapped
from headrace.transport.slots import Bytes, Message, SlotWriter, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.transport.batch_claims import Claim

Place = tuple[int, int]
"""An epoch, and a step in it."""

HEAD = 1 << 15
"""Bytes at the beginning of each file, for what says where the arrays are."""

ROOMY = 2
"""How many times larger than a batch its memory may be."""

KEPT_MAPS = 64
"""Files that a process keeps mapped for writing: a page costs most when it is touched for the first time."""

LOCKED_SECONDS = 5.0
"""How long a process waits for the lock before it does without: whoever holds it may be stopped."""

LEAVING_SECONDS = 1.0
"""The same for who leaves: the garbage collector may drop it where this thread holds the lock. Others clean up then."""

LAST = -1
"""When a process leaves at its end: after its workers have ended, which may be in the middle of a batch."""

_PREFIX = struct.Struct("<8sII")
_MAGIC = b"HRSHARE1"
_PLACE = struct.Struct("<QQ")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_BATCH = re.compile(r"batch-([0-9a-f]{16})-([0-9a-f]{16})-[0-9a-f]{16}")
_OURS = re.compile(r"(batch|claim)-[0-9a-f-]{50}|(peer|memory)-[0-9a-f]{16}|about|about-new|lock")


class Taken(NamedTuple):
    """A batch out of the store, and what was said of it."""

    batch: Any
    said: Any


class _File(NamedTuple):
    name: str
    size: int
    inode: int
    place: Place | None
    """Of a batch; None for memory."""


class BatchStore:
    """Where the processes of one name put batches, and find those of others; pickled as its folder and its cap.

    ``most`` is the cap in bytes of all its files. Nothing here waits for another process longer than a moment, and what
    cannot be stored is not stored: any process can make any batch itself.
    """

    def __init__(self, folder: str | os.PathLike[str], most: int) -> None:
        self.folder, self.most = Path(folder), most
        self._maps: OrderedDict[int, Bytes] = OrderedDict()
        self._usual = 0
        """Bytes of the last batch."""
        self._patience = LOCKED_SECONDS
        """Seconds to wait for the lock; none once that was in vain, until the lock is free again."""

    def __reduce__(self) -> tuple[Any, ...]:
        return BatchStore, (self.folder, self.most)

    def join(self, facts: Mapping[str, Any], peer: Peer | None = None) -> Peer:
        """Take part, or go on as ``peer``.

        Raises `ArgumentError` if the others have other facts, and OSError where there is no room for files.
        """
        mine = json.loads(json.dumps(dict(facts), default=str))
        while True:
            owned_folder(self.folder.parent)
            owned_folder(self.folder)
            with suppress(FileNotFoundError), self._locked():  # the last one may just have left, with the folder
                if peer is None and not self._places():
                    self._clear(keep=("lock",))
                    self._write_about({"facts": mine})
                _check_facts(self.folder.name, self._about()["facts"], mine)
                return peer or Peer(self)
            peer = None

    def agree(self, digest: str) -> bool:
        """Say whether the samples of the others have this digest too; the first one decides. Raises OSError."""
        with self._locked():
            about = self._about()
            if "digest" not in about:
                self._write_about({**about, "digest": digest})
            return bool(about.get("digest", digest) == digest)

    def take(self, name: str) -> Taken | None:
        """Return a batch, if it is there; its arrays are this process's own."""
        path = self.folder / f"batch-{name}"
        try:
            file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            found = os.fstat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or not try_share(file):
                return None
            if path.lstat().st_ino != found.st_ino:  # its memory was reused between the two calls
                return None
            message, said = _read_head(file, name)
            body = mapped(file, found.st_size, private=True)[HEAD:]
            return Taken(unpacked(message, [body[start : start + length] for start, length in message.spans]), said)
        except Exception:  # noqa: BLE001  damage, or a user's class that can be pickled and not unpickled
            return None
        finally:
            os.close(file)  # the map keeps the lock

    def wanted(self, name: str) -> int:
        """Return how many other processes still need a batch."""
        return _needed(_place(name), self._places()) - 1

    def write(self, name: str) -> BatchWriter:
        """Return what writes a batch: a context manager."""
        return BatchWriter(self, name)

    def claim(self, name: str) -> Claim | None:
        """Claim a batch, to make it; None where somebody else does. Raises OSError."""
        return batch_claims.claim(self.folder / f"claim-{name}")

    def watch(self, name: str) -> int | None:
        """Return a descriptor to poll for news of a batch that somebody else makes; None where nobody does."""
        return batch_claims.watch(self.folder / f"claim-{name}")

    def notify(self, name: str) -> None:
        """Say that a batch is made, or cannot be shared."""
        batch_claims.notify(self.folder / f"claim-{name}")

    def close(self) -> None:
        """Unmap what is kept for the next batches."""
        self._maps.clear()

    def _memory(self, size: int, name: str) -> _Memory | None:
        """Return memory for a batch of so many bytes, locked; None where there is none for it."""
        size = -(-(size + HEAD) // HEAD) * HEAD
        with self._locked():
            places = self._places()
            files = self._files(min(places, default=(0, 0)))
            for gone in set(self._maps) - {each.inode for each in files}:
                self._maps.pop(gone, None)  # a map keeps the memory of a deleted file
            needed = {each: 0 if each.place is None else _needed(each.place, places) for each in files}
            # Memory first, then batches that all have had, then those that the fewest need, the last of them first.
            files.sort(key=lambda each: (needed[each], each.place is not None, [-part for part in each.place or ()]))
            for each in sorted(files, key=lambda each: each.inode not in self._maps):
                if not needed[each] and size <= each.size <= ROOMY * size and (free := self._free(each)) is not None:
                    return free
            used, worth = sum(each.size for each in files), _needed(_place(name), places) - 1
            while True:
                if used + size <= self.most:
                    try:
                        return self._new(size)
                    except OSError as error:
                        if error.errno not in _FULL:
                            raise
                if not files or needed[files[0]] >= max(worth, 1):
                    return None
                first = files.pop(0)
                if first.place is not None or self._is_free(first):
                    used -= first.size
                    with suppress(FileNotFoundError):
                        (self.folder / first.name).unlink()  # who holds arrays of it keeps them

    def _new(self, size: int) -> _Memory:
        path = self.folder / f"memory-{secrets.token_hex(8)}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        hold(file)
        try:
            lock_within(file, LOCKED_SECONDS)  # somebody may look at it just now
            allocate(file, size)
        except BaseException:
            path.unlink(missing_ok=True)
            unlock(file)
            raise
        return _Memory(path, file, self._map(file))

    def _free(self, found: _File) -> _Memory | None:
        """Return a file's memory, locked, if nobody holds anything of it."""
        path = self.folder / found.name
        try:
            file = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        hold(file)
        if not try_lock(file):
            unlock(file)
            return None
        try:
            if path.lstat().st_ino != os.fstat(file).st_ino:
                unlock(file)
                return None
            if found.place is not None:
                path = path.rename(self.folder / f"memory-{secrets.token_hex(8)}")
            return _Memory(path, file, self._map(file))
        except BaseException:
            unlock(file)
            raise

    def _is_free(self, found: _File) -> bool:
        free = self._free(found)
        if free is not None:
            unlock(free.file)
        return free is not None

    def _map(self, file: int) -> Bytes:
        found = os.fstat(file)
        known = self._maps.pop(found.st_ino, None)
        if known is not None and len(known) == found.st_size:
            return known
        return mapped(file, found.st_size, ready=True)

    def _keep_map(self, memory: _Memory) -> None:
        self._maps[os.fstat(memory.file).st_ino] = memory.bytes
        while len(self._maps) > KEPT_MAPS:
            self._maps.popitem(last=False)

    def _places(self) -> list[Place]:
        """Return what each living process needs next; forget the dead."""
        found = []
        for name in self._names("peer-"):
            with suppress(OSError):
                file = os.open(self.folder / name, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
                hold(file)
                try:
                    if try_lock(file):
                        (self.folder / name).unlink(missing_ok=True)
                    else:
                        data = os.pread(file, _PLACE.size, 0)
                        found.append(_PLACE.unpack(data) if len(data) == _PLACE.size else (0, 0))
                finally:
                    unlock(file)
        return found

    def _files(self, floor: Place) -> list[_File]:
        """Return all files that hold memory; delete the claims of batches that nobody needs."""
        found = []
        for name in self._names(""):
            with suppress(OSError):
                if name.startswith("claim-") and _place(name.removeprefix("claim-")) < floor:
                    (self.folder / name).unlink()
                elif name.startswith(("memory-", "batch-")):
                    place = _place(name.removeprefix("batch-")) if _BATCH.fullmatch(name) else None
                    about = (self.folder / name).lstat()
                    found.append(_File(name, about.st_size, about.st_ino, place))
        return found

    def _names(self, begin: str) -> list[str]:
        with suppress(OSError), os.scandir(self.folder) as entries:
            return sorted(each.name for each in entries if each.name.startswith(begin) and _OURS.fullmatch(each.name))
        return []

    def _about(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / "about").read_text(encoding="utf-8")))
        except ValueError as error:
            raise OSError(errno.EIO, "what the batches are made of cannot be read", str(self.folder)) from error

    def _write_about(self, about: dict[str, Any]) -> None:
        written = self.folder / "about-new"
        written.write_text(json.dumps(about), encoding="utf-8")  # where this fails, what is there stays
        written.rename(self.folder / "about")

    def _clear(self, keep: tuple[str, ...] = ()) -> None:
        for name in self._names(""):
            if name not in keep:
                with suppress(OSError):
                    (self.folder / name).unlink()

    @contextmanager
    def _locked(self, seconds: float | None = None) -> Iterator[None]:
        """Hold the lock; raises FileNotFoundError where the folder has gone, and OSError if it is not free in time."""
        while True:
            file = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            hold(file)
            try:
                try:
                    lock_within(file, self._patience if seconds is None else seconds)
                except TimeoutError:
                    self._patience = 0.0
                    raise
                self._patience = LOCKED_SECONDS
                if os.fstat(file).st_nlink:
                    yield
                    return
            finally:
                unlock(file)


class Peer:
    """A process that takes part, as long as this object lives; the last one deletes all files."""

    def __init__(self, store: BatchStore) -> None:
        self._place = (0, 0)
        path, self._file = _peer_file(store.folder, self._place)
        # Not `weakref.finalize`: a process that multiprocessing forked ends without the functions of `atexit`.
        self.leave = Finalize(self, _leave, (store, path, self._file), exitpriority=LAST)
        """Take no part any longer; may be called again."""
        self.process = os.getpid()

    def needs(self, place: Place) -> None:
        """Say that this process needs nothing before an epoch and step any more."""
        if place != self._place and self.leave.still_active():
            self._place = place
            with suppress(OSError):
                os.pwrite(self._file, _PLACE.pack(*place), 0)


def _peer_file(folder: Path, place: Place) -> tuple[Path, int]:
    """Make the file of a process that takes part, and lock it; raises OSError."""
    while True:
        path = folder / f"peer-{secrets.token_hex(8)}"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        hold(file)
        try:
            lock_within(file, LOCKED_SECONDS)
            if os.fstat(file).st_nlink:
                os.pwrite(file, _PLACE.pack(*place), 0)
                return path, file
        except BaseException:
            path.unlink(missing_ok=True)
            unlock(file)
            raise
        unlock(file)  # somebody took it for that of a dead process, before it was locked


def _leave(store: BatchStore, path: Path, file: int) -> None:
    store.close()
    with suppress(OSError):
        path.unlink(missing_ok=True)
        with store._locked(LEAVING_SECONDS):
            if not store._places():
                store._clear()
    with suppress(OSError):
        store.folder.rmdir()
        store.folder.parent.rmdir()
    unlock(file)


class _Memory(NamedTuple):
    """A file that this process alone writes to."""

    path: Path
    file: int
    bytes: Bytes


class BatchWriter:
    """Writes a batch into the store: `empty` lends its memory, `publish` gives it its name.

    A context manager: what was not published is free for another batch at the end.
    """

    def __init__(self, store: BatchStore, name: str) -> None:
        self._store, self._name = store, name
        self._memories: list[_Memory] = []
        """Those that parts of the batch may lie in; the last is the one that is written to."""
        self._pieces: dict[int, Bytes] = {}
        self._writer = SlotWriter(self._pieces, 0, self._grow)

    def __enter__(self) -> BatchWriter:
        if self._store._usual:
            with suppress(OSError):
                self._pieces[0] = self._grow(self._store._usual)[1]
        return self

    def __exit__(self, *_: object) -> None:
        memories, self._memories = self._memories, []
        for memory in memories:
            self._store._keep_map(memory)
            unlock(memory.file)

    @property
    def lends(self) -> bool:
        """Whether there is memory to lend: not for the first batch, whose size nobody knows."""
        return bool(self._memories)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Lend an array in the store, or outside where it does not fit."""
        return self._writer.empty(shape, dtype)

    def publish(self, batch: Any, said: Any) -> bool:
        """Give a batch its name, for all others; False where there is no room. Raises what pickling the batch raises.

        Its arrays must not be used afterwards: `BatchStore.take` returns others, `copied` where it was not published.
        """
        message, _ = self._writer.pack(batch)
        if message.loose:
            return False
        try:
            if not self._memories:  # a batch without arrays
                self._grow(1)
            memory = self._memories[-1]
            _write_head(memory.file, self._name, message, said)
            with self._store._locked():  # who looks for memory meanwhile would take one file for another
                memory.path.rename(self._store.folder / f"batch-{self._name}")
        except OSError:
            return False
        self._store._usual = len(memory.bytes) - HEAD
        self.__exit__()
        return True

    def copied(self, batch: Any) -> Any:
        """Return a batch in memory of this process's own."""
        buffers: list[pickle.PickleBuffer] = []
        head = dumped(batch, buffers.append)
        return pickle.loads(head, buffers=[bytearray(each.raw()) for each in buffers])  # noqa: S301  made just now

    def _grow(self, size: int) -> tuple[None, Bytes]:
        memory = self._store._memory(size, self._name)
        if memory is None:
            raise OSError(errno.ENOSPC, "there is no room for the batch", str(self._store.folder))
        self._memories.append(memory)
        return None, memory.bytes[HEAD:]


def store_folder(name: str) -> Path:
    """Return where the processes of one name keep their batches: in memory, where the system has files there."""
    shared = Path("/dev/shm")  # noqa: S108  the folder of our own inside has mode 0700, and its owner is checked
    root = shared if os.access(shared, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    return root / f"headrace-{os.geteuid()}" / name


def room(folder: Path) -> int:
    """Return how many bytes can be used in a folder, or where it is to be made; 0 where nobody knows."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def owned_folder(folder: Path) -> None:
    """Make a folder that nobody else may enter; raises `ArgumentError` where it is there and is not such a folder."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        expected = "a folder of this user, with mode 0700"
        raise ArgumentError(
            f"{str(folder)!r} is not {expected}, so its batches cannot be trusted",
            found=str(folder),
            expected=expected,
            cure="Delete it, if it is yours, or ask its owner to.",
        )


def _check_facts(name: str, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    different = [key for key in {**theirs, **mine} if theirs.get(key) != mine.get(key)]
    if different:
        said = ", ".join(f"{key}: {theirs.get(key)!r} there, {mine.get(key)!r} here" for key in different)
        raise ArgumentError(
            f"other processes share batches under the name {name!r} that are made otherwise ({said})",
            found=tuple(different),
            expected="the same dataset, order and seed in all processes of one name",
            cure="Use another name for another run.",
        )


def _place(name: str) -> Place:
    epoch, step, _ = name.split("-")
    return int(epoch, 16), int(step, 16)


def _needed(place: Place, places: list[Place]) -> int:
    return sum(first <= place for first in places)


def _write_head(file: int, name: str, message: Message, said: Any) -> None:
    body = pickle.dumps((name, message, said), protocol=5)
    data = _PREFIX.pack(_MAGIC, crc32c(body), len(body)) + body
    if len(data) > HEAD:
        raise OSError(errno.EMSGSIZE, "what is to be said of the batch is too long")
    if os.pwrite(file, data, 0) != len(data):
        raise OSError(errno.EIO, "the batch could not be written")


def _read_head(file: int, name: str) -> tuple[Message, Any]:
    data = os.pread(file, HEAD, 0)
    magic, checksum, length = _PREFIX.unpack(data[: _PREFIX.size])
    body = data[_PREFIX.size : _PREFIX.size + length]
    if magic != _MAGIC or len(body) != length or crc32c(body) != checksum:
        raise ValueError("not a batch")
    found, message, said = pickle.loads(body)  # noqa: S301  of this user, in a folder that nobody else can enter
    if found != name:
        raise ValueError("another batch")
    return message, said
