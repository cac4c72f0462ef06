"""Positioned reads of a shard while it is indexed: small ones share a block, and none goes past the end."""

from __future__ import annotations

import os
from stat import S_ISREG
from typing import TYPE_CHECKING, Self

from headrace.errors import BadFile
from headrace.storage.files import unread

if TYPE_CHECKING:
    from types import TracebackType

BLOCK = 1 << 14
"""Bytes that are read ahead where the last two reads were near each other."""

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
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise unread(path, error, COPY) from error
        found = os.fstat(self._file)
        if not S_ISREG(found.st_mode):
            os.close(self._file)
            raise unread(path, OSError(0, "it is no regular file"), "Give the path of a shard.")
        self.size, self.facts = found.st_size, (found.st_size, found.st_mtime_ns)
        self._block, self._start, self._last = b"", 0, -BLOCK

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
                raise self.damaged("it was cut short while it was indexed", f"{self.size:,} bytes")
        return self._block[begin : begin + length]

    def damaged(self, what: str, expected: str) -> BadFile:
        """Build the error for a shard whose layout is damaged."""
        return BadFile(what, path=self.path, expected=expected, cure=COPY)

    def _pread(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._file, length, offset)
            while len(data) < length and (more := os.pread(self._file, length - len(data), offset + len(data))):
                data += more
        except OSError as error:
            raise unread(self.path, error, COPY) from error
        return data
