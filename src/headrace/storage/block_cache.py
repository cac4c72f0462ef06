"""A cache of blocks of objects on disk, which the processes of a machine share, with a cap on its bytes."""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from headrace.errors import ArgumentError
from headrace.storage.crc32c import crc32c
from headrace.storage.file_locks import hold, lock_within, reserve, try_lock, unlock
from headrace.storage.request_loop import check_stopped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SUM = 4
"""Bytes of the checksum at the end of each file."""

STATE = ".headrace-cache"
"""The file that makes a folder a cache: it is locked for each change, and holds the bytes that are in use."""

LOCKED_SECONDS = 20.0
"""How long a process waits for a lock before it does without the cache: whoever holds it may be stopped."""

SLACK, LOW, TOUCHED_SECONDS, MOST_VERIFIED = 64, 0.9, 30, 1 << 16
"""Of the cap, eviction frees one part of so many at once; of a full disk, it leaves this share; how exact the time of
use is; names that a process remembers."""

FEW, QUEUED = 1 << 12, 8
"""A cache of at most so many blocks is listed at each eviction. Of a larger one, a listing also chooses those that go
next, one in so many: to list 100,000 files takes a second of CPU."""

TRUSTED_SECONDS = 1.0
"""How long a block that this process has looked at is taken to be there, by those who read its file themselves."""

NEW_SECONDS = 0.2
"""How long a process waits for the lock of a file that it has just made: `wait` may hold it for a moment."""

_BLOCK = re.compile(r"[0-9a-f]{32}-[0-9a-f]{8}\.(block|part)")


class Entry(NamedTuple):
    """A block in the cache: its name, the bytes of its file, when it was used last (ns)."""

    name: str
    nbytes: int
    used: int


class Eviction(Protocol):
    """Chooses which blocks go first; what knows the plan can order them by their next use."""

    def __call__(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Return the blocks, those to remove first at the front."""
        ...


def least_recent(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Order blocks by their last use.

    >>> [entry.name for entry in least_recent([Entry("a", 1, 7), Entry("b", 1, 3)])]
    ['b', 'a']
    """
    return sorted(entries, key=lambda entry: (entry.used, entry.name))


class CachedFile(NamedTuple):
    """The file of a block: its path, its bytes with the checksum, its time of modification (ns)."""

    path: bytes
    nbytes: int
    modified: int


class _Seen(NamedTuple):
    """What a block's file was when it was checked, and when it was looked at last."""

    file: CachedFile
    inode: int
    looked: float


class CacheStatus(NamedTuple):
    """What a cache holds: blocks, their bytes, downloads that run, files of others."""

    blocks: int
    nbytes: int
    downloads: int
    strangers: tuple[str, ...]


class BlockCache:
    """Blocks of bytes by name, one file each: written under a temporary name, checked by CRC-32C, and renamed.

    >>> import tempfile
    >>> name = f"{0:032x}-{0:08x}"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     held = BlockCache(folder, 1 << 20)
    ...     claim = held.claim(name, 5)
    ...     claim.finish(b"hello")
    ...     held.part(name, 5, 1, 3), held.claim(name, 5), held.status().nbytes
    (b'ell', 'held', 9)

    ``most``: the cap in bytes of all files of blocks, whole and in the making, over all processes. Space is reserved
    before a download. Only regular files whose names have the pattern of blocks are ever deleted, and no link is
    followed. `claim` raises OSError where the folder cannot be used: read-only, full, or without `flock`.
    """

    def __init__(self, folder: str | os.PathLike[str], most: int, eviction: Eviction = least_recent) -> None:
        self.folder, self.most, self.eviction = Path(folder), most, eviction
        self._verified: dict[str, _Seen] = {}
        self._next: Sequence[Entry] = []
        """Blocks of a large cache that go next, as it was when it was listed."""
        self._turn = os.getpid(), threading.Lock()

    def part(self, name: str, size: int, begin: int, length: int) -> bytes | None:
        """Return bytes of a block; None where it is not held. A damaged block is deleted."""
        opened = self._opened(name, size)
        if opened is None:
            return None
        file, found, _ = opened
        try:
            data = os.pread(file, length, begin)
        except OSError:
            return None
        finally:
            os.close(file)
        if len(data) == length:
            return data
        self._verified.pop(name, None)  # it was cut short after it was checked
        self._drop(name, found)
        return None

    def file(self, name: str, size: int) -> CachedFile | None:
        """Return the file of a block, which others may delete; None where it is not held. A damaged block is deleted.

        It is looked at once in `TRUSTED_SECONDS`: whoever reads it compares its size and time, and asks `part` if they
        differ.
        """
        seen = self._verified.get(name)
        if seen is None or time.monotonic() - seen.looked > TRUSTED_SECONDS:
            opened = self._opened(name, size)
            if opened is None:
                return None
            file, _, seen = opened  # not `_verified`: another thread may have found the block gone since
            os.close(file)
        return seen.file

    def _opened(self, name: str, size: int) -> tuple[int, os.stat_result, _Seen] | None:
        """Open a block, checked when it is opened for the first time."""
        try:
            file = os.open(self._block(name), _READ)
        except OSError:
            self._verified.pop(name, None)
            return None
        keep = False
        try:
            found = os.fstat(file)
            seen = self._verified.get(name)
            if seen is None or (seen.inode, seen.file.modified) != (found.st_ino, found.st_mtime_ns):
                data = _whole(file, size + SUM + 1) if stat.S_ISREG(found.st_mode) else b""
                if len(data) != size + SUM or crc32c(data[:-SUM]) != int.from_bytes(data[-SUM:], "little"):
                    self._drop(name, found)
                    return None
                seen = None
            if len(self._verified) >= MOST_VERIFIED:
                self._verified.clear()
            as_read = seen.file if seen else CachedFile(os.fsencode(self._block(name)), size + SUM, found.st_mtime_ns)
            self._verified[name] = seen = _Seen(as_read, found.st_ino, time.monotonic())
            now = time.time_ns()
            if abs(now - found.st_atime_ns) > TOUCHED_SECONDS * 10**9:
                with suppress(OSError):
                    os.utime(file, ns=(now, found.st_mtime_ns))
            keep = True
            return file, found, seen
        except OSError:
            return None
        finally:
            if not keep:
                os.close(file)

    def has(self, name: str) -> bool:
        """Say whether a block is there, without reading it."""
        return os.access(self._block(name), os.R_OK)

    def claim(self, name: str, size: int) -> Claim | Literal["held", "busy"] | None:
        """Reserve the space of a block, to be downloaded; None where it cannot fit under the cap.

        "held" says that it is there, "busy" that another thread or process downloads it: see `wait`. Raises OSError.
        """
        need = size + SUM
        if need > self.most:
            return None
        with self._locked() as state:
            if self._block(name).exists():
                return "held"
            part = self._part(name)
            with suppress(FileNotFoundError):
                if self._reap(part, state) is False:
                    return "busy"
            if state.used + need > self.most and not self._evict(state, need):
                return None
            state.write(state.used + need)  # first: a kill between the two leaves a number too large, never too small
            file = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            hold(file)
            claim = Claim(self, name, need, file)
            try:
                lock_within(file, NEW_SECONDS)
                reserve(file, need)
            except OSError as error:
                claim._given_up(state)
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    self._evict(state, 0, round(state.used * LOW))  # others need the disk too
                raise
            return claim

    def wait(self, name: str, seconds: float = LOCKED_SECONDS) -> bool:
        """Wait until nobody downloads a block, because it is there or its process has died; False if that is late."""
        until = time.monotonic() + seconds
        pause = 0.001
        while True:
            try:
                file = os.open(self._part(name), _READ)
            except OSError:
                return True
            try:
                if try_lock(file):
                    return True
            finally:
                unlock(file)  # closing alone would not free it while a process that was forked now has a copy
            check_stopped()
            if time.monotonic() > until:
                return False
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)

    def status(self) -> CacheStatus:
        """Say what the cache holds."""
        entries, strangers = self._listed()
        blocks = [entry for entry in entries if entry.name.endswith(".block")]
        nbytes = sum(entry.nbytes for entry in entries)
        return CacheStatus(len(blocks), nbytes, len(entries) - len(blocks), tuple(strangers))

    def verify(self) -> tuple[int, list[str]]:
        """Check all blocks; return how many are sound, and the names of the damaged ones, which are deleted."""
        sound, damaged = 0, []
        for entry in self._listed()[0]:
            name, _, kind = entry.name.partition(".")
            if kind == "block":
                self._verified.pop(name, None)
                if self.part(name, entry.nbytes - SUM, 0, 0) is None:
                    damaged.append(entry.name)
                else:
                    sound += 1
        return sound, damaged

    def clear(self) -> tuple[int, int]:
        """Delete all blocks that nobody is downloading; return how many, and their bytes.

        Raises `ArgumentError` for a folder that holds files of others, and deletes nothing there.
        """
        if not self.folder.is_dir():
            return 0, 0
        strangers = self._listed()[1]
        if strangers or not (self.folder / STATE).is_file():
            what = f"the folder holds {strangers[0]!r}" if strangers else "the folder is no cache of headrace"
            raise ArgumentError(
                f"{what}: {str(self.folder)!r} is not cleared",
                found=str(self.folder),
                expected="a folder that holds nothing but cached blocks",
                cure="Give the folder of the cache, or move the other files away.",
            )
        with self._locked() as state:
            before, used = self.status(), state.used
            self._evict(state, 0, 0)
            return before.blocks - self.status().blocks, used - state.used

    def _block(self, name: str) -> Path:
        return self.folder / f"{name}.block"

    def _part(self, name: str) -> Path:
        return self.folder / f"{name}.part"

    def give_up(self, claims: Iterable[Claim]) -> None:
        """Free what was reserved for claims that are not finished."""
        left = [claim for claim in claims if claim.is_open]
        if not left:
            return
        try:
            with self._locked() as state:
                for claim in left:
                    claim._given_up(state)
        except OSError:  # the next eviction finds the files, and nobody holding them
            for claim in left:
                claim._let_go()

    @contextmanager
    def _locked(self) -> Iterator[_State]:
        """Hold the lock of the cache; freed by the operating system where the process dies."""
        with self._first_here():
            yield from self._locked_file()

    @contextmanager
    def _first_here(self) -> Iterator[None]:
        """Let one thread of this process wait for the lock of the file: many of them would wait for each other's."""
        process, turn = self._turn
        if process != os.getpid():  # in a forked process, the lock may be that of a thread which is not there
            process, turn = self._turn = os.getpid(), threading.Lock()
        if not turn.acquire(timeout=LOCKED_SECONDS):
            raise OSError(errno.ETIMEDOUT, f"a lock was not freed within {LOCKED_SECONDS:g} s")
        try:
            yield
        finally:
            turn.release()

    def _locked_file(self) -> Iterator[_State]:
        path = self.folder / STATE
        while True:
            file = self._state_file(path)
            hold(file)
            try:
                lock_within(file, LOCKED_SECONDS)
                if os.fstat(file).st_nlink:  # else the folder was deleted meanwhile
                    state = _State(file)
                    if state.fresh:
                        state.write(sum(entry.nbytes for entry in self._listed()[0]))
                    yield state
                    return
            finally:
                unlock(file)

    def _state_file(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(path, flags, 0o600)

    def _listed(self) -> tuple[list[Entry], list[str]]:
        """Return our files, and the names of those that are not ours."""
        entries, strangers = [], []
        with suppress(FileNotFoundError), os.scandir(self.folder) as found:
            for each in found:
                with suppress(FileNotFoundError):
                    about = each.stat(follow_symlinks=False)
                    if not (each.name == STATE or _BLOCK.fullmatch(each.name)) or not stat.S_ISREG(about.st_mode):
                        strangers.append(each.name)
                    elif each.name != STATE:
                        entries.append(Entry(each.name, about.st_size, about.st_atime_ns))
        return entries, strangers

    def _evict(self, state: _State, need: int, target: int | None = None) -> bool:
        """Make room for ``need`` bytes, or leave at most ``target``; say whether there is room."""
        limit = self.most - max(need, self.most // SLACK) if target is None else target
        if target is None and self._next:
            self._next = self._deleted(self.eviction(self._next), limit, state)
            if state.used + need <= self.most:
                return True
        entries, _ = self._listed()
        used, blocks = sum(entry.nbytes for entry in entries), []
        state.write(used)
        for entry in entries:
            if entry.name.endswith(".part"):
                with suppress(OSError):
                    self._reap(self.folder / entry.name, state)
            else:
                blocks.append(entry)
        if target is None and state.used <= self.most - need:
            return True  # the number was too large
        left = self._deleted(self.eviction(blocks), limit, state)
        self._next = left[: len(blocks) // QUEUED] if len(blocks) > FEW else []
        return state.used + need <= self.most

    def _deleted(self, entries: Sequence[Entry], limit: int, state: _State) -> Sequence[Entry]:
        """Delete blocks, the first ones first, until at most ``limit`` bytes are in use; return those that are left."""
        for place, entry in enumerate(entries):
            if state.used <= limit:
                return entries[place:]
            with suppress(FileNotFoundError):
                if self._is_unused(entry):
                    (self.folder / entry.name).unlink()
                    state.write(max(0, state.used - entry.nbytes))
        return []

    def _is_unused(self, entry: Entry) -> bool:
        """Say whether a block is what it was when the folder was listed, and nobody has used it since."""
        now = (self.folder / entry.name).lstat()
        return stat.S_ISREG(now.st_mode) and (now.st_size, now.st_atime_ns) == entry[1:]

    def _reap(self, part: Path, state: _State) -> bool:
        """Delete the unfinished download of a process that died; False where it lives."""
        file = os.open(part, _READ)
        try:
            if not try_lock(file):
                return False
            self._unlinked(part, os.fstat(file), state)
            return True
        finally:
            unlock(file)

    def _unlinked(self, path: Path, found: os.stat_result, state: _State) -> None:
        """Delete a file, if it still is the one that was looked at, and subtract its bytes."""
        with suppress(FileNotFoundError):
            if path.lstat().st_ino == found.st_ino:
                size = path.lstat().st_size
                path.unlink()
                state.write(max(0, state.used - size))

    def _drop(self, name: str, found: os.stat_result) -> None:
        """Delete a damaged block."""
        if not stat.S_ISREG(found.st_mode):
            return
        with suppress(OSError), self._locked() as state:
            self._unlinked(self._block(name), found, state)


class Claim:
    """A block that this thread downloads, and the space that is reserved for it."""

    def __init__(self, owner: BlockCache, name: str, need: int, file: int) -> None:
        self._owner, self._name, self._need, self._file = owner, name, need, file

    def finish(self, data: bytes) -> None:
        """Write the block and give it its name; raises OSError, and then leaves nothing."""
        try:
            whole = memoryview(data + crc32c(data).to_bytes(SUM, "little"))
            at = 0
            while at < len(whole):
                at += os.pwrite(self._file, whole[at:], at)
            with self._owner._locked():  # who counts the files meanwhile would miss it, or count it twice
                self._owner._part(self._name).rename(self._owner._block(self._name))
        except OSError:
            self.give_up()
            raise
        file, self._file = self._file, -1
        unlock(file)

    @property
    def is_open(self) -> bool:
        """Whether it is neither finished nor given up."""
        return self._file >= 0

    def give_up(self) -> None:
        """Free what was reserved."""
        self._owner.give_up([self])

    def _let_go(self) -> None:
        if self.is_open:
            file, self._file = self._file, -1
            unlock(file)

    def _given_up(self, state: _State) -> None:
        file, self._file = self._file, -1
        with suppress(OSError):
            part, found = self._owner._part(self._name), os.fstat(file)
            if part.lstat().st_ino == found.st_ino:
                part.unlink()
                state.write(max(0, state.used - self._need))
        unlock(file)


class _State:
    """The bytes in use, as the locked file has them."""

    def __init__(self, file: int) -> None:
        self._file = file
        data = os.pread(file, 8, 0)
        self.used, self.fresh = int.from_bytes(data, "little"), len(data) < 8

    def write(self, used: int) -> None:
        """Change the number."""
        self.used = used
        os.pwrite(self._file, used.to_bytes(8, "little"), 0)


_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def _whole(file: int, most: int) -> bytes:
    data = os.pread(file, most, 0)
    while len(data) < most and (more := os.pread(file, most - len(data), len(data))):
        data += more
    return data
