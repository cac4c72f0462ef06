"""Many small ranges of files at once, by memory maps: what reads a column of a whole batch of rows."""

from __future__ import annotations

import mmap
import os
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace._native import extension
from headrace.storage.objects import is_url
from headrace.storage.spans import SpanFiles, read_span

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SpanMaps:
    """Copies ranges of one length out of files, which stay mapped between calls, at most ``most`` of them.

    >>> import tempfile, pathlib
    >>> maps, found = SpanMaps(), np.empty((2, 3), np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "shard")
    ...     _ = file.write_bytes(b"one two three")
    ...     maps.read(str(file), np.array([4, 0]), (13, file.stat().st_mtime_ns), found)
    >>> found.tobytes()
    b'twoone'

    The native extension copies them under a guard: a file that is cut short is an error, as in `read_span`, whose
    errors this raises. Without the extension each range is a read of its own. Pickled copies are empty.
    """

    def __init__(self, most: int = 64) -> None:
        self._most, self._open, self._lock, self._files = most, dict[str, _Map](), Lock(), SpanFiles(most)

    def __reduce__(self) -> tuple[Any, ...]:
        return SpanMaps, (self._most,)

    def read(self, path: str, offsets: NDArray[np.int64], facts: tuple[int, int], out: NDArray[np.uint8]) -> None:
        """Copy the range at each offset, as long as a row of ``out``, into the rows of ``out`` (n, bytes)."""
        if not out.size:
            return
        width = out.shape[1]
        if extension is not None and not is_url(path) and offsets.min() >= 0 and offsets.max() <= facts[0] - width:
            found = self._open.get(path) or self._keep(path, facts)
            if found is not None and found.copy(offsets, facts, out):
                return
            with self._lock:
                self._open.pop(path, None)
        # It says what is wrong, or reads what has come back.
        for row, offset in enumerate(offsets.tolist()):
            out[row] = np.frombuffer(self._files.read(path, offset, width, facts), np.uint8)

    def _keep(self, path: str, facts: tuple[int, int]) -> _Map | None:
        try:
            read_span(path, 0, 1, facts)
            found = _Map(path)
        except (OSError, ValueError):
            return None
        with self._lock:
            while len(self._open) >= self._most:
                del self._open[next(iter(self._open))]
            self._open[path] = found
        return found


class _Map:
    """A file in memory, and a descriptor of it."""

    def __init__(self, path: str) -> None:
        self._descriptor = -1
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        self._bytes = np.frombuffer(mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ), np.uint8)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def copy(self, offsets: NDArray[np.int64], facts: tuple[int, int], out: NDArray[np.uint8]) -> bool:
        """Copy ranges; False if the file is not what it was."""
        if len(self._bytes) != facts[0]:
            return False
        ranges = np.lib.stride_tricks.sliding_window_view(self._bytes, out.shape[1])
        missing = cast("Any", extension).gather(ranges, np.ascontiguousarray(offsets), out)
        now = os.fstat(self._descriptor)
        return missing < 0 and (now.st_size, now.st_mtime_ns) == facts and now.st_nlink > 0
