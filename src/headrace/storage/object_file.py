"""An object behind a URL, read in order or as a file that Python libraries read."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from headrace.storage import objects
from headrace.storage.blocks import blocks, read_url

if TYPE_CHECKING:
    from headrace.storage.object_clients import Facts

AHEAD = 1 << 24
"""Bytes of an object that are fetched ahead while it is read in order."""


class ReadAhead:
    """Reads ranges of an object; where the second follows the first, what comes next is fetched at once.

    >>> import fsspec
    >>> fsspec.filesystem("memory").pipe("/shards/d", b"one two")
    >>> ReadAhead("memory://shards/d", facts=objects.facts("memory://shards/d")).read(4, 30)
    b'two'

    Raises what `read_url` raises.
    """

    def __init__(self, url: str, facts: Facts) -> None:
        self._url, self._facts, self._last, self._ahead = url, facts, -AHEAD - 1, 0

    def read(self, offset: int, length: int) -> bytes:
        """Return a range, or as much of it as the object has."""
        length = max(0, min(length, self._facts[0] - offset))
        if offset + length > self._ahead and 0 < offset - self._last <= AHEAD:
            self._ahead = min(offset + length + AHEAD, self._facts[0])
            blocks().ensure([(self._url, offset, self._ahead - offset, self._facts)])
        self._last = offset
        return read_url(self._url, offset, length, self._facts)


class ObjectFile(io.RawIOBase):
    """Reads an object by its blocks, from any place on.

    >>> import fsspec
    >>> fsspec.filesystem("memory").pipe("/shards/c", b"one two")
    >>> file = ObjectFile("memory://shards/c")
    >>> file.seek(-3, 2), file.read()
    (4, b'two')

    ``facts``: its size and version, where they are known. ``in_order``: whether it is read from its beginning to its
    end, so that it is fetched ahead. Raises what `read_url` raises.
    """

    def __init__(self, url: str, facts: Facts | None = None, *, in_order: bool = False) -> None:
        self._url, self._facts, self._at = url, facts or objects.facts(url), 0
        self._in_order = ReadAhead(url, self._facts) if in_order else None

    @property
    def size(self) -> int:
        """Its bytes."""
        return self._facts[0]

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it has places."""
        return True

    def tell(self) -> int:
        """Return the place."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._facts[0]}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: object) -> int:
        """Read as many bytes as there is room for."""
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # the base says less of it than it is
        length = max(0, min(len(view), self._facts[0] - self._at))
        if self._in_order is not None:
            view[:length] = self._in_order.read(self._at, length)
        else:
            view[:length] = read_url(self._url, self._at, length, self._facts)
        self._at += length
        return length
