"""Ranges of objects, read by blocks: from the cache on disk, from memory, or from the server, several at once."""

from __future__ import annotations

import copy
import hashlib
import os
import threading
import warnings
from collections import OrderedDict
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from headrace.checks import nbytes
from headrace.errors import BadFile, HeadraceError
from headrace.storage import objects
from headrace.storage.block_cache import BlockCache, CachedFile, Claim
from headrace.storage.next_use import PlannedEviction
from headrace.storage.object_clients import ON_THIS_MACHINE
from headrace.storage.request_limit import RequestLimit
from headrace.storage.request_loop import at_once, check_stopped, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from headrace.storage.object_clients import Facts

BLOCK = 1 << 20
"""Bytes of a block: what is fetched for any byte in it."""

JOINED, IN_MEMORY, MOST_FAILED = 8, 1 << 26, 1024
"""Neighboring blocks that one request fetches; bytes of blocks in the memory of a process; errors kept for readers."""

FOLDER, MOST = "HEADRACE_CACHE_DIR", "HEADRACE_CACHE_BYTES"
"""The variables of the environment that set the cache: its folder, and the most bytes it may take (0: no cache)."""

DEFAULT_MOST = 1 << 34
"""The most bytes of the cache: 16 GiB."""

_CHANGED = "Construct the dataset again; do not write to an object while it is read."


def user_folder(name: str) -> Path:
    """Return a folder in the user's cache, as the XDG base directory specification has it."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "headrace" / name  # noqa: PTH117


def cache_of_environment() -> BlockCache:
    """Return the cache that the environment sets; its cap is 0 where there is to be none."""
    most = nbytes(MOST, os.environ.get(MOST, "") or DEFAULT_MOST, least=0)
    folder = os.environ.get(FOLDER, "")
    return BlockCache(Path(folder).absolute() if folder else user_folder("blocks"), most, PlannedEviction())


class Counts:
    """What this process has read of objects: requests, bytes fetched, blocks found in the cache and not found."""

    __slots__ = ("fetched_bytes", "hits", "misses", "requests")

    def __init__(self) -> None:
        self.requests = self.fetched_bytes = self.hits = self.misses = 0


class Block(NamedTuple):
    """A block of one version of an object, counted from 0."""

    url: str
    facts: Facts
    number: int

    @property
    def size(self) -> int:
        """Its bytes: the last block of an object is shorter."""
        return min(BLOCK, self.facts[0] - self.number * BLOCK)

    @property
    def name(self) -> str:
        """Its name in the cache."""
        return f"{_prefix(self.url, self.facts, BLOCK)}-{self.number:08x}"


@lru_cache(1 << 12)
def _prefix(url: str, facts: Facts, block: int) -> str:
    """Return what the names of the blocks of one version of an object begin with."""
    said = f"{url}\0{facts[0]}\0{facts[1]}\0{block}"
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Blocks:
    """Reads ranges of objects by blocks, each fetched once and kept.

    ``disk``: the cache; where it cannot be used, blocks are kept in memory, at most ``in_memory`` bytes of them, and a
    warning says so once. ``fetch(url, begin, end)`` returns bytes, and the facts of their object. For threads.
    """

    def __init__(
        self,
        disk: BlockCache,
        fetch: Callable[[str, int, int], tuple[bytes, Facts]] = objects.read_range,
        in_memory: int = IN_MEMORY,
        limit: RequestLimit | None = None,
    ) -> None:
        self.disk, self.counts = disk, Counts()
        self._fetch, self._most = fetch, in_memory
        self._lock = threading.Lock()
        self._held: OrderedDict[Block, bytes] = OrderedDict()
        self._held_bytes = 0
        self._making: dict[Block, threading.Event] = {}
        self.limit = limit or RequestLimit()
        self._failed: OrderedDict[Block, HeadraceError] = OrderedDict()
        self._warned = False

    def read(self, url: str, offset: int, length: int, facts: Facts) -> bytes:
        """Return a range of an object that is what ``facts`` say.

        Raises `BadFile` where the range ends behind the object, and where the object has changed.
        """
        if offset < 0 or length < 0 or offset + length > facts[0]:
            raise BadFile(
                f"bytes {offset} to {offset + length} cannot be read: the object has {facts[0]:,} bytes",
                path=url,
                expected="the object as it was indexed",
                cure=_CHANGED,
            )
        if not length:
            return b""
        keys = [Block(url, facts, number) for number in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)]
        parts = [self._part(key, offset, length) for key in keys]
        missing = [key for key, part in zip(keys, parts, strict=True) if part is None]
        self.counts.hits += len(keys) - len(missing)
        if len(missing) > JOINED:
            self.ensure([(url, offset, length, facts)])
        if missing and self._failed:
            self._raise_failed(missing)
        made = self._blocks(missing) if missing else {}
        return b"".join(
            _cut(key, made[key], offset, length) if part is None else part
            for key, part in zip(keys, parts, strict=True)
        )

    def ensure(self, spans: Iterable[tuple[str, int, int, Facts]]) -> None:
        """Fetch the blocks of ranges (url, offset, length, facts) that are not held: several requests at once.

        Files on this machine are passed over. What cannot be fetched raises its error when it is read next, without
        another request.
        """
        wanted: dict[Block, None] = {}
        for url, offset, length, facts in spans:
            if offset >= 0 and 0 < length <= facts[0] - offset and "://" in url:
                for number in range(offset // BLOCK, (offset + length - 1) // BLOCK + 1):
                    wanted[Block(url, facts, number)] = None
        self._bring([key for key in wanted if not self._is_sound(key)])

    def files(self, keys: Sequence[Block]) -> list[CachedFile] | None:
        """Return the files of blocks in the cache, those that are not held fetched first; None where one is in no file.

        Others may delete them at any time, so whoever reads a file compares what it is.
        """
        if not all(map(self._on_disk, keys)):
            return None
        found = [self.disk.file(key.name, key.size) for key in keys]
        missing = [place for place, file in enumerate(found) if file is None]
        self._bring([keys[place] for place in missing])
        for place in missing:
            found[place] = self.disk.file(keys[place].name, keys[place].size)
        whole = [file for file in found if file is not None]
        if len(whole) < len(keys):
            return None
        self.counts.hits += len(keys) - len(missing)
        return whole

    def _bring(self, missing: Sequence[Block]) -> None:
        """Fetch blocks, by several requests at once."""
        room = max(1, self._most // BLOCK)  # without a disk, no more than memory holds
        runs = list(runs_of(missing if self.disk.most else missing[:room]))
        if len(runs) == 1:
            self._noted(runs[0])
        elif runs:
            at_once(self._noted, runs, min(self.limit.now, len(runs)), "headrace-blocks")

    def fetch(self, run: Sequence[Block]) -> None:
        """Fetch neighboring blocks by one request, for whoever reads them later: to the disk, else to memory.

        Raises what `read` raises.
        """
        self._blocks(run, ahead=True)

    def holds(self, block: Block) -> bool:
        """Say whether a block is here; it is not read, nor its checksum compared."""
        return block in self._held or (self._on_disk(block) and self.disk.has(block.name))

    def for_others(self) -> Blocks:
        """Return a reader over the same cache that keeps nothing in memory, where other processes find nothing."""
        return Blocks(self.disk, self._fetch, in_memory=0, limit=self.limit)

    def room(self) -> int:
        """Return how many bytes of blocks may be held at once: on the disk, or in memory where there is no cache."""
        return self.disk.most or self._most

    def _noted(self, run: list[Block]) -> None:
        try:
            self._blocks(run)
        except HeadraceError as error:  # all that a client raises
            with self._lock:
                for block in run:
                    self._failed[block] = error
                while len(self._failed) > MOST_FAILED:
                    self._failed.popitem(last=False)

    def _raise_failed(self, keys: Sequence[Block]) -> None:
        with self._lock:
            found = [error for key in keys if (error := self._failed.pop(key, None)) is not None]
        if found:
            raise copy.copy(found[0]) from found[0].__cause__  # a copy: samples add their own notes

    def _part(self, key: Block, offset: int, length: int) -> bytes | None:
        data = self._held.get(key)
        if data is not None:
            return _cut(key, data, offset, length)
        begin, end = _within(key, offset, length)
        return self.disk.part(key.name, key.size, begin, max(0, end - begin)) if self._on_disk(key) else None

    def _is_sound(self, key: Block) -> bool:
        """Say whether a block is held, checked by this process."""
        return key in self._held or (self._on_disk(key) and self.disk.file(key.name, key.size) is not None)

    def _on_disk(self, key: Block) -> bool:
        """Say whether a block goes to the cache: not where there is none, and not what is on this machine anyway."""
        return bool(self.disk.most) and not key.url.startswith(ON_THIS_MACHINE)

    def _blocks(self, keys: Sequence[Block], *, ahead: bool = False) -> dict[Block, bytes]:
        """Return whole blocks; a block that another thread fetches is waited for.

        ``ahead``: whether nobody waits for them yet.
        """
        found: dict[Block, bytes] = {}
        while missing := [key for key in keys if key not in found]:
            mine, others = list[Block](), list[threading.Event]()
            with self._lock:
                for key in missing:
                    if key in self._held:
                        found[key] = self._held[key]
                    elif key in self._making:
                        others.append(self._making[key])
                    else:
                        self._making[key] = threading.Event()
                        mine.append(key)
            try:
                for key, data in self._made(mine, ahead=ahead):
                    found[key] = data
                    if not (ahead and self._on_disk(key) and self.disk.has(key.name)):
                        self._keep(key, data)
            finally:
                with self._lock:
                    for key in mine:
                        self._making.pop(key).set()
            for event in others:
                wait_for(event)
        return found

    def _keep(self, key: Block, data: bytes) -> None:
        with self._lock:
            if key not in self._held:
                self._held[key] = data
                self._held_bytes += len(data)
            while self._held_bytes > self._most:
                self._held_bytes -= len(self._held.popitem(last=False)[1])

    def _made(self, keys: Sequence[Block], *, ahead: bool) -> Iterator[tuple[Block, bytes]]:
        """Yield blocks from the disk or from the server, those that other processes fetch at the end."""
        busy, alone, claims = list[Block](), list[Block](), dict[Block, Claim]()
        try:
            for key in keys:
                check_stopped()
                data = self.disk.part(key.name, key.size, 0, key.size) if self._on_disk(key) else None
                if data is not None:
                    yield key, data
                    continue
                claim = self._claimed(key)
                if isinstance(claim, Claim):
                    claims[key] = claim
                elif claim is None:
                    alone.append(key)
                else:
                    busy.append(key)
            for run in runs_of(sorted([*claims, *alone])):
                for key, data in zip(run, self._fetched(run, ahead=ahead), strict=True):
                    if key in claims:
                        self._stored(claims.pop(key), data)
                    yield key, data
        finally:
            self.disk.give_up(claims.values())
        # Only now, without a claim of our own: two processes that wait for each other would wait for ever.
        for key in busy:
            waited = self.disk.wait(key.name)
            data = self.disk.part(key.name, key.size, 0, key.size)
            if data is None:
                claim = self._claimed(key) if waited else None
                data = next(iter(self._fetched_with(key, claim if isinstance(claim, Claim) else None)))
            yield key, data

    def _fetched_with(self, key: Block, claim: Claim | None) -> list[bytes]:
        try:
            found = self._fetched([key])
        except BaseException:
            if claim is not None:
                claim.give_up()
            raise
        if claim is not None:
            self._stored(claim, found[0])
        return found

    def _claimed(self, key: Block) -> Claim | str | None:
        if not self._on_disk(key):
            return None
        try:
            return self.disk.claim(key.name, key.size)
        except OSError as error:
            self._warn(error)
            return None

    def _stored(self, claim: Claim, data: bytes) -> None:
        try:
            claim.finish(data)
        except OSError as error:
            self._warn(error)

    def _fetched(self, run: list[Block], *, ahead: bool = False) -> list[bytes]:
        """Fetch neighboring blocks by one request."""
        url, facts, first = run[0]
        begin, end = first * BLOCK, run[-1].number * BLOCK + run[-1].size
        with self.limit.request(end - begin, urgent=not ahead):
            data, now = self._fetch(url, begin, end)
        if now != facts or len(data) != end - begin:
            raise BadFile(
                f"bytes {begin} to {end} cannot be read: the object has changed, and has {now[0]:,} bytes now",
                path=url,
                expected=f"the version that was indexed, of {facts[0]:,} bytes",
                cure=_CHANGED,
            )
        with self._lock:
            self.counts.requests += 1
            self.counts.fetched_bytes += len(data)
            self.counts.misses += len(run)
        return [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]

    def _warn(self, error: OSError) -> None:
        with self._lock:
            first, self._warned = not self._warned, True
        if first:
            warnings.warn(
                f"the cache {str(self.disk.folder)!r} cannot be used ({error.strerror or error}); blocks are kept in "
                f"memory. Set {FOLDER} to a folder that can be written to, or {MOST}=0 for no cache",
                RuntimeWarning,
                stacklevel=2,
            )


def is_elsewhere(path: str) -> bool:
    """Say whether a path is a URL of something that is not on this machine.

    >>> is_elsewhere("s3://bucket/a"), is_elsewhere("/data/a"), is_elsewhere("memory://a")
    (True, False, False)
    """
    return objects.is_url(path) and not path.startswith(ON_THIS_MACHINE)


def read_url(url: str, offset: int, length: int, facts: Facts | None = None) -> bytes:
    """Read a range of an object, by the blocks of this process.

    >>> import fsspec
    >>> fsspec.filesystem("memory").pipe("/shards/b", b"one two")
    >>> read_url("memory://shards/b", 4, 3)
    b'two'

    ``facts`` are what `objects.facts` returned when it was indexed. Raises `MissingFile`, `UnreadableFile` and
    `BadFile`.
    """
    known = objects.facts(url) if facts is None else (int(facts[0]), int(facts[1]))
    return blocks().read(url, offset, length, known)


def blocks() -> Blocks:
    """Return what reads objects in this process; a forked child has its own."""
    return _of_process(os.getpid(), os.environ.get(FOLDER, ""), os.environ.get(MOST, ""))


@cache
def _of_process(process: int, folder: str, most: str) -> Blocks:  # noqa: ARG001  they are the key
    return Blocks(cache_of_environment(), limit=objects.limit())


def _within(key: Block, offset: int, length: int) -> tuple[int, int]:
    begin = key.number * BLOCK
    return max(0, offset - begin), min(key.size, offset + length - begin)


def _cut(key: Block, data: bytes, offset: int, length: int) -> bytes:
    begin, end = _within(key, offset, length)
    return data[begin:end]


def runs_of(keys: Iterable[Block]) -> Iterator[list[Block]]:
    """Yield neighboring blocks of one object, at most as many as one request fetches."""
    run = list[Block]()
    for key in sorted(keys):
        if run and (key[:2] != run[-1][:2] or key.number != run[-1].number + 1 or len(run) == JOINED):
            yield run
            run = []
        run.append(key)
    if run:
        yield run
