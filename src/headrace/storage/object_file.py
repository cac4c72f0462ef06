"""An object behind a URL as a file that Python libraries read."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from headrace.storage import objects
from headrace.storage.blocks import read_url

if TYPE_CHECKING:
    from headrace.storage.object_clients import Facts


class ObjectFile(io.RawIOBase):
    """Reads an object by its blocks, from any place on.

    >>> import fsspec
    >>> fsspec.filesystem("memory").pipe("/shards/c", b"one two")
    >>> file = ObjectFile("memory://shards/c")
    >>> file.seek(-3, 2), file.read()
    (4, b'two')

    ``facts``: its size and version, where they are known. Raises what `read_url` raises.
    """

    def __init__(self, url: str, facts: Facts | None = None) -> None:
        self._url, self._facts, self._at = url, facts or objects.facts(url), 0

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
        view[:length] = read_url(self._url, self._at, length, self._facts)
        self._at += length
        return length
