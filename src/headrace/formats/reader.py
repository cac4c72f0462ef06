"""Positioned reads of a shard while it is indexed: small ones share a block, and none goes past the end."""

from __future__ import annotations

import os
from stat import S_ISREG
from typing import TYPE_CHECKING, Self

import numpy as np

from headrace.errors import BadFile
from headrace.storage.files import unread
from headrace.storage.object_file import ReadAhead
from headrace.storage.objects import facts, is_url

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

BLOCK = 1 << 14
"""Bytes that are read ahead where the last two reads were near each other."""

WINDOW, MOST_ROWS, SPARSE = 1 << 20, 1 << 15, 1 << 14
"""What `ShardReader.gather` reads at once: bytes and rows; and the distance of rows above which it reads each alone."""

COPY = "Copy the shard again, or write it again."
"""The cure for a shard whose layout is damaged."""


class ShardReader:
    """A shard that is open for its index.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "shard")
    ...     _ = file.write_bytes(bytes(range(100)))
    ...     with ShardReader(str(file)) as shard:
    ...         shard.size, shard.read(98, 2)
    (100, b'bc')

    ``facts`` are its size in bytes and its time of modification (ns). Raises `MissingFile` or `UnreadableFile` for what
    is no readable regular file, and `BadFile` for a read past the end.
    """

    def __init__(self, path: str) -> None:
        self.path, self.is_remote = path, is_url(path)
        self._block, self._start, self._last = b"", 0, -BLOCK
        if self.is_remote:
            self._file, self.facts = -1, facts(path)
            self.size, self._object = self.facts[0], ReadAhead(path, self.facts)
            return
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise unread(path, error, COPY) from error
        found = os.fstat(self._file)
        if not S_ISREG(found.st_mode):
            os.close(self._file)
            raise unread(path, OSError(0, "it is not a regular file"), "Give the path of a shard.")
        self.size, self.facts = found.st_size, (found.st_size, found.st_mtime_ns)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file >= 0:
            os.close(self._file)

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from an offset on."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._block):
            if offset + length > self.size:
                raise self.damaged(f"it ends in the middle of an entry at byte {offset:,}", f"{length} bytes there")
            near = 0 <= offset - self._last <= BLOCK
            self._block = self._pread(offset, max(length, BLOCK) if near else length)
            self._start, self._last, begin = offset, offset, 0
            if len(self._block) < length:
                raise self._shrunk()
        return self._block[begin : begin + length]

    @property
    def descriptor(self) -> int:
        """The descriptor of the open file, for the native extension; -1 of an object behind a URL."""
        return self._file

    def gather(self, offsets: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
        """Return ``width`` bytes from each of many offsets on, as the rows of an array; the offsets must ascend."""
        rows = np.empty((len(offsets), width), np.uint8)
        if width and len(offsets) and int(offsets[-1]) + width > self.size:
            raise self.damaged(f"it ends before byte {int(offsets[-1]) + width:,}", "a whole file")
        begin = 0 if width else len(offsets)
        while begin < len(offsets):
            start = int(offsets[begin])
            near = np.searchsorted(offsets[begin : begin + MOST_ROWS], start + WINDOW, "right")
            end = begin + max(1, int(near))
            reach = int(offsets[end - 1]) - start
            if reach > SPARSE * (end - begin):
                for row in range(begin, end):
                    rows[row] = np.frombuffer(self._whole(int(offsets[row]), width), np.uint8)
            else:
                block = np.frombuffer(self._whole(start, reach + width), np.uint8)
                rows[begin:end] = np.lib.stride_tricks.sliding_window_view(block, width)[offsets[begin:end] - start]
            begin = end
        return rows

    def damaged(self, what: str, expected: str) -> BadFile:
        """Build the error for a shard whose layout is damaged."""
        return BadFile(what, path=self.path, expected=expected, cure=COPY)

    def _whole(self, offset: int, length: int) -> bytes:
        data = self._pread(offset, length)
        if len(data) < length:
            raise self._shrunk()
        return data

    def _shrunk(self) -> BadFile:
        return self.damaged("it was cut short while it was indexed", f"{self.size:,} bytes")

    def _pread(self, offset: int, length: int) -> bytes:
        if self.is_remote:
            return self._object.read(offset, length)
        try:
            data = os.pread(self._file, length, offset)
            while len(data) < length and (more := os.pread(self._file, length - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise unread(self.path, error, COPY) from error
        return data


class MemoryReader:
    """Bytes in memory, read as a shard is.

    >>> MemoryReader("a", memoryview(b"abc"), (3, 0)).read(1, 2)
    b'bc'

    ``path`` and ``facts`` are those of the file that the bytes were made from.
    """

    def __init__(self, path: str, data: memoryview, facts: tuple[int, int]) -> None:
        self.path, self.facts, self.size, self._data = path, facts, len(data), data

    def read(self, offset: int, length: int) -> bytes:
        """Return ``length`` bytes from an offset on."""
        if not 0 <= offset <= self.size - length:
            raise self.damaged(f"it ends in the middle of an entry at byte {offset:,}", f"{length} bytes there")
        return bytes(self._data[offset : offset + length])

    def damaged(self, what: str, expected: str) -> BadFile:
        """Build the error for data whose layout is damaged."""
        return BadFile(what, path=self.path, expected=expected, cure=COPY)
