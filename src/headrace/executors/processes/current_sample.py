"""Which sample each thread of a worker is at, in memory that the loader can read after the worker's death."""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

from headrace.context.seeds import Here

if TYPE_CHECKING:
    import numpy as np

SIZE = mmap.PAGESIZE
"""Bytes for all threads of a worker."""

_ENTRY = struct.Struct("<qq")
"""The step, and the row within its batch."""


class ReportedHere(Here):
    """A place in the data that is written down for the loader before each sample."""

    __slots__ = ("_memory", "_offset", "_start", "_step")

    def __init__(self, memory: mmap.mmap, thread: int) -> None:
        super().__init__()
        self._memory, self._offset, self._start, self._step = memory, thread * _ENTRY.size, 0, 0

    def begin(self, step: int, start: int) -> None:
        """Begin the batch of a step, whose first sample is at position ``start``."""
        self._step, self._start = step, start

    def move(self, position: int, *, reading: bool = False, begun: np.random.Generator | None = None) -> None:
        """Go to another sample."""
        Here.move(self, position, reading=reading, begun=begun)
        _ENTRY.pack_into(self._memory, self._offset, self._step, position - self._start)


def clear(memory: mmap.mmap) -> None:
    """Write down that no thread has begun a batch."""
    for offset in range(0, SIZE, _ENTRY.size):
        _ENTRY.pack_into(memory, offset, -1, -1)


def read(memory: mmap.mmap, thread: int) -> tuple[int, int]:
    """Return the step and the row that a thread has written down last; -1 and -1 before its first batch."""
    step, row = _ENTRY.unpack_from(memory, thread * _ENTRY.size)
    return step, row
