"""Spans: ranges of bytes in files, such as samples in a shard. A file that changes is an error, never other bytes."""

from __future__ import annotations

import errno
import os
from stat import S_ISREG
from threading import Lock
from typing import TYPE_CHECKING, Any

from headrace.errors import BadFile, MissingFile, UnreadableFile
from headrace.storage.blocks import read_url
from headrace.storage.files import CURE
from headrace.storage.objects import is_url

if TYPE_CHECKING:
    from headrace.errors import HeadraceError

KEEP = "Restore the file, or construct the dataset again; do not write to a shard while it is read."


def read_span(path: str, offset: int, length: int, facts: Any = None) -> bytes:
    """Read a range of a file, by one positioned read; of an object behind a URL, by its blocks.

    >>> import tempfile, pathlib
    >>> from headrace.storage.spans import read_span
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "shard")
    ...     _ = file.write_bytes(b"one two three")
    ...     read_span(str(file), 4, 3)
    b'two'

    ``facts``, if given, are the file's size in bytes and time of modification (ns) when it was indexed; of an object,
    its size and the number of its version. Raises
    `MissingFile` or `UnreadableFile` for a file that cannot be opened, and `BadFile` for one that is too short or is
    not what ``facts`` say. Errors name path and offset.
    """
    if is_url(path):
        return read_url(path, offset, length, facts)
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            data = os.pread(file, length, offset)
            while len(data) < length and (more := os.pread(file, length - len(data), offset + len(data))):
                data += more
            now = os.fstat(file)
        finally:
            os.close(file)
    except FileNotFoundError as error:
        raise span_error("missing", path, offset, length, error=errno.ENOENT) from error
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise span_error("unreadable", path, offset, length, error=getattr(error, "errno", None) or 0) from error
    if not S_ISREG(now.st_mode):
        raise span_error("unreadable", path, offset, length, error=errno.EINVAL)
    if facts is not None and (now.st_size, now.st_mtime_ns) != (int(facts[0]), int(facts[1])):
        kind = "cut short" if now.st_size < int(facts[0]) else "changed"
        raise span_error(kind, path, offset, length, found=now.st_size)
    if len(data) < length:
        raise span_error("cut short", path, offset, length, found=now.st_size)
    return data


class SpanFiles:
    """Files that stay open between reads of their ranges, at most ``most`` of them.

    >>> import tempfile, pathlib
    >>> files = SpanFiles()
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "shard")
    ...     _ = file.write_bytes(b"one two three")
    ...     files.read(str(file), 4, 3, (13, file.stat().st_mtime_ns))
    b'two'

    Each read checks that the file is what ``facts`` say, as `read_span` does, whose errors it raises. Pickled copies
    are empty.
    """

    def __init__(self, most: int = 64) -> None:
        self._most, self._open, self._lock = most, dict[str, _OpenFile](), Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return SpanFiles, (self._most,)

    def read(self, path: str, offset: int, length: int, facts: tuple[int, int]) -> bytes:
        """Read a range of a file."""
        if is_url(path):
            return read_url(path, offset, length, facts)
        file = self._open.get(path)
        if file is None:
            data = read_span(path, offset, length, facts)
            self._keep(path)
            return data
        try:
            data = os.pread(file.descriptor, length, offset)
            now = os.fstat(file.descriptor)
        except OSError:
            now = None
        if now is None or len(data) < length or (now.st_size, now.st_mtime_ns) != facts or not now.st_nlink:
            with self._lock:
                self._open.pop(path, None)
            return read_span(path, offset, length, facts)  # it says what is wrong, or reads what has come back
        return data

    def _keep(self, path: str) -> None:
        try:
            file = _OpenFile(path)
        except OSError:
            return  # it was there a moment ago: the next read says what is wrong
        with self._lock:
            while len(self._open) >= self._most:
                del self._open[next(iter(self._open))]
            self._open[path] = file


class _OpenFile:
    """A descriptor, which is closed when the last thread that reads from it lets go of it."""

    __slots__ = ("descriptor",)

    def __init__(self, path: str) -> None:
        self.descriptor = -1
        self.descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


_WHAT = {
    "cut short": "the file has {found:,} bytes",
    "changed": "the file was written to after it was indexed or opened, and has {found:,} bytes now",
    "replaced": "another file was put in its place",
    "removed": "the file was removed or replaced while it was read",
}


def span_error(kind: str, path: str, offset: int, length: int, *, found: int = -1, error: int = 0) -> HeadraceError:
    """Build the error for a range that cannot be read; ``kind`` is that of the native extension's ``ReadFailure``.

    >>> print(span_error("cut short", "a.tar", 512, 100, found=600))
    a.tar: bytes 512 to 612 cannot be read: the file has 600 bytes; expected the file as it was indexed. Restore the \
file, or construct the dataset again; do not write to a shard while it is read.

    Gives `MissingFile` or `UnreadableFile` for ``missing`` and ``unreadable``, by ``error``, and else `BadFile`.
    """
    said: HeadraceError
    place = f"bytes {offset} to {offset + length} cannot be read"
    if kind in ("missing", "unreadable"):
        what = f"{place}: {os.strerror(error) if error else 'no file has such a path'}"
        of_file = MissingFile if kind == "missing" else UnreadableFile
        said = of_file(what, path=path, expected="a regular file", cure=CURE)
        said.errno = error or None
    else:
        what = f"{place}: {_WHAT[kind].format(found=found)}"
        said = BadFile(what, path=path, expected="the file as it was indexed", cure=KEEP)
    return said
