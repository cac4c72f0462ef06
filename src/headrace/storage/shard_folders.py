"""Folders that shards are written to, on this machine or behind a URL: each file is there whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headrace.errors import ArgumentError, BadFile, HeadraceError, MissingFile
from headrace.storage import objects
from headrace.storage.signed_urls import plain
from headrace.storage.whole_files import is_partial, remove_partial, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.storage.object_clients import Facts

UPLOADS = ".headrace-uploads.json"
"""In a folder behind a URL that is not finished: size, version and SHA-256 of each file that was read back."""

PART = 8 << 20
"""Bytes that are read back at once."""


class ShardFolder(Protocol):
    """A folder that is written to, file by file."""

    def names(self) -> list[str]:
        """Return the names of the files in it, sorted; none where there is no such folder."""
        ...

    def place(self, name: str) -> str:
        """Return the path or URL of a file in it."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a small file; None where it is not there."""
        ...

    def write(self, name: str, write: Callable[[Path], Any]) -> None:
        """Write a file: ``write`` writes it under a path that it is given. Raises OSError and what ``write`` raises."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file."""
        ...

    def is_known(self, name: str) -> bool:
        """Say whether a file is what was written and read back, so that nobody has to look into it."""
        ...

    def finish(self) -> None:
        """Note that all files are written."""
        ...


class DiskFolder:
    """A folder on this machine. Unfinished files of killed processes are removed, if their names end in ``endings``."""

    def __init__(self, path: Path, *endings: str) -> None:
        self.path, self._endings = path, endings

    def names(self) -> list[str]:
        """Return the names of the files in it, after what a killed process has left of some is removed."""
        if not self.path.exists():
            return []
        for ending in self._endings:
            remove_partial(self.path, ending)
        return sorted(each.name for each in self.path.iterdir())

    def place(self, name: str) -> str:
        """Return the path of a file in it."""
        return str(self.path / name)

    def read(self, name: str) -> bytes | None:
        """Return a small file."""
        try:
            return (self.path / name).read_bytes()
        except OSError:
            return None

    def write(self, name: str, write: Callable[[Path], Any]) -> None:
        """Write a file under another name, flush it to the disk, and rename it."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / name, write, durable=True)

    def remove(self, name: str) -> None:
        """Delete a file."""
        (self.path / name).unlink()

    def is_known(self, name: str) -> bool:  # noqa: ARG002
        """Say no: a file on a disk is read again."""
        return False

    def finish(self) -> None:
        """Do nothing: each file says itself that it is whole."""


class ObjectFolder:
    """A folder behind a URL. A file is written on this machine, uploaded, and read back.

    >>> folder = ObjectFolder("memory://bucket/shards")
    >>> folder.write("a.txt", lambda path: path.write_text("hello"))
    >>> folder.names(), folder.read("a.txt"), folder.is_known("a.txt")
    (['a.txt'], b'hello', True)

    What was uploaded is noted in the folder until `finish`, with the version that the server gave it. So a process that
    continues after a kill need not read it again. Raises `ArgumentError` for URLs that cannot be written to. All
    methods raise `MissingFile` and `UnreadableFile`. For threads.
    """

    def __init__(self, url: str) -> None:
        scheme = url.partition("://")[0].lower()
        if scheme in ("http", "https"):
            raise ArgumentError(
                f"nothing is written to {scheme}:// URLs: {url[:200]!r}",
                found=url[:200],
                expected="s3://, gs:// or az://, or a file system of fsspec",
                cure="Give the URL of a bucket, such as s3://bucket/folder.",
            )
        self.url = url.rstrip("/")
        self._lock = threading.Lock()
        self._uploads: dict[str, list[Any]] | None = None

    def names(self) -> list[str]:
        """Return the names of the files and folders in it, but for what a killed process was writing."""
        found = {name.partition("/")[0] for name, _ in objects.listing(self.url)}
        return sorted(name for name in found if name != UPLOADS and not is_partial(name))

    def place(self, name: str) -> str:
        """Return the URL of a file in it."""
        return f"{self.url}/{name}" if name else self.url

    def read(self, name: str) -> bytes | None:
        """Return a small file."""
        url = self.place(name)
        with suppress(MissingFile):
            return objects.read_range(url, 0, size)[0] if (size := objects.facts(url)[0]) else b""
        return None

    def write(self, name: str, write: Callable[[Path], Any]) -> None:
        """Write a file on this machine, and upload it."""
        with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
            path = Path(folder, name)
            write(path)
            self.put(name, path)

    def put(self, name: str, path: Path) -> bool:
        """Upload a file and read it back; return False where the same bytes are there already.

        Raises `BadFile` if the server gives back other bytes.
        """
        url, (size, digest) = self.place(name), _digest_of(path)
        there = self._there(url)
        if there is not None and there[0] == size:
            same = self._known().get(name) == [*there, digest] or _digest_at(url, there) == digest
            if same:
                self._note(name, [*there, digest])
                return False
        objects.client(url).write(url, str(path))
        there = objects.facts(url)
        if there[0] != size or _digest_at(url, there) != digest:
            raise BadFile(
                "what was written reads back differently",
                path=url,
                expected=f"the {size:,} bytes that were uploaded",
                cure="Look at whether something else writes there; then run the same again: it continues.",
            )
        self._note(name, [*there, digest])
        return True

    def remove(self, name: str) -> None:
        """Delete a file."""
        objects.client(self.url).delete(self.place(name))

    def is_known(self, name: str) -> bool:
        """Say whether a file has the size and the version that it had when it was read back."""
        noted = self._known().get(name)
        return noted is not None and noted[:2] == list(self._there(self.place(name)) or ())

    def finish(self) -> None:
        """Delete the note of what was uploaded."""
        with self._lock:
            self._uploads = {}
        objects.client(self.url).delete(self.place(UPLOADS))

    def _there(self, url: str) -> Facts | None:
        try:
            return objects.facts(url)
        except MissingFile:
            return None

    def _known(self) -> dict[str, list[Any]]:
        with self._lock:
            if self._uploads is None:
                try:
                    told = json.loads(self.read(UPLOADS) or b"{}")
                except ValueError:
                    told = {}
                # A damaged note costs reading again what is there.
                noted = told.items() if isinstance(told, dict) else ()
                self._uploads = {name: facts for name, facts in noted if isinstance(facts, list)}
            return self._uploads

    def _note(self, name: str, facts: list[Any]) -> None:
        known = self._known()
        with self._lock:
            if known.get(name) == facts:
                return
            known[name] = facts
            with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
                path = Path(folder, UPLOADS)
                path.write_text(json.dumps(known), encoding="utf-8")
                objects.client(self.url).write(self.place(UPLOADS), str(path))


def shard_folder(path: str, *endings: str) -> DiskFolder | ObjectFolder:
    """Return the folder of a path or a URL; for ``endings``, see `DiskFolder`.

    >>> shard_folder("/data/shards").place("a.tar"), shard_folder("s3://bucket/shards/").place("a.tar")
    ('/data/shards/a.tar', 's3://bucket/shards/a.tar')
    """
    return ObjectFolder(plain(path)) if objects.is_url(path) else DiskFolder(Path(path), *endings)


def _digest_of(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _digest_at(url: str, facts: Facts) -> str:
    """Return the digest of an object, read in parts and not through the cache; nothing if it changes meanwhile."""
    digest = hashlib.sha256()
    for begin in range(0, facts[0], PART):
        try:
            data, now = objects.read_range(url, begin, min(begin + PART, facts[0]))
        except HeadraceError:
            if objects.facts(url) == facts:
                raise
            return ""
        if now != facts:
            return ""
        digest.update(data)
    return digest.hexdigest()
