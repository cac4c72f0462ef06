"""Which sample each thread of a worker is at, in memory that the loader can read after the worker's death."""

from __future__ import annotations

import mmap
import struct

from headrace.context.seeds import POSITION, Here

SIZE = mmap.PAGESIZE
"""Bytes for all threads of a worker."""

_ENTRY = struct.Struct("=qq")
"""The step, and the row within its batch."""


class ReportedHere(Here):
    """A place in the data that is written down for the loader before each sample."""

    __slots__ = ("_entry", "_start", "_step")

    def __init__(self, memory: mmap.mmap, thread: int) -> None:
        self._entry = memoryview(memory).cast("q")[2 * thread : 2 * thread + 2]
        self._step, self._start = -1, 1  # no batch is begun: position 0 is row -1
        super().__init__()

    def begin(self, step: int, start: int) -> None:
        """Begin the batch of a step, whose first sample is at position ``start``."""
        self._step, self._start = step, start

    @property
    def position(self) -> int:
        """The sample at hand."""
        return int(POSITION.__get__(self))

    @position.setter
    def position(self, position: int) -> None:
        POSITION.__set__(self, position)
        # Not by `pack_into`, which writes zeros first: the worker may be killed at any moment.
        self._entry[1] = position - self._start
        self._entry[0] = self._step


def clear(memory: mmap.mmap) -> None:
    """Write down that no thread has begun a batch."""
    for offset in range(0, SIZE, _ENTRY.size):
        _ENTRY.pack_into(memory, offset, -1, -1)


def read(memory: mmap.mmap, thread: int) -> tuple[int, int]:
    """Return the step and the row that a thread has written down last; -1 and -1 before its first batch."""
    step, row = _ENTRY.unpack_from(memory, thread * _ENTRY.size)
    return step, row
