"""Reused memory: when nobody holds an array any longer, its memory becomes a later array.

Fresh memory is not free: the operating system clears every page at the first touch. For images and batches that costs
as much as copying them (docs/decisions/0006-recycled-memory.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.context.current import Context, current, put, setting

Empty = Callable[[tuple[int, ...], np.dtype[Any]], npt.NDArray[Any]]
"""Lends memory for an array of a shape and dtype: ``np.empty``, or reused memory."""

SMALLEST = 1 << 16
"""Bytes; below this, NumPy's own allocator is as quick."""

ROOMY = 2
"""How many times larger than an array its piece of memory may be."""

ALIGNMENT = 64
"""Bytes of a cache line: a store that crosses from one to the next takes twice as long."""


class Recycler:
    """Lends arrays, and reuses their memory when the last view of them is dropped.

    >>> recycler = Recycler(keep=1)
    >>> batch = recycler.empty((64, 1024), np.dtype("f4"))
    >>> place = batch.ctypes.data
    >>> del batch
    >>> recycler.empty((63, 1024), np.dtype("f4")).ctypes.data == place
    True

    At most ``keep`` pieces of memory are kept idle; with ``keep=0`` none is. Any number of threads may use one.
    """

    __slots__ = ("_idle",)

    def __init__(self, keep: int) -> None:
        # Threads append and pop at once; both are atomic on a deque, and maxlen drops the piece idle the longest.
        self._idle: deque[_Piece] = deque(maxlen=keep)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any] | type[Any]) -> npt.NDArray[Any]:
        """Lend an uninitialized C-contiguous array."""
        dtype = np.dtype(dtype)
        nbytes = prod(shape) * dtype.itemsize
        if nbytes < SMALLEST or dtype.hasobject:
            return np.empty(shape, dtype)
        lease = self._piece(nbytes).view(_Lease)
        lease.idle = self._idle
        return np.ndarray(shape, dtype, lease)

    def _piece(self, nbytes: int) -> _Piece:
        for _ in range(len(self._idle)):
            try:
                piece = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if nbytes <= piece.nbytes <= ROOMY * nbytes:
                return piece
            self._idle.appendleft(piece)
        # Rounded up to an eighth of its power of two, so that images of nearly the same size share pieces.
        step = 1 << max(0, nbytes.bit_length() - 4)
        room = -(-nbytes // step) * step
        piece = _Piece(room + ALIGNMENT, np.uint8)
        start = -piece.ctypes.data % ALIGNMENT
        return piece[start : start + room].view(_Piece)

    def close(self) -> None:
        """Let go of all idle memory."""
        self._idle.clear()


class _Piece(np.ndarray[tuple[int], np.dtype[np.uint8]]):
    """Memory to be lent, in a class of its own because NumPy skips a base that is a plain array."""

    __slots__ = ()


class _Lease(np.ndarray[tuple[int], np.dtype[np.uint8]]):
    """The ``base`` of every view of a lent array: it goes with the last one, and leaves the piece idle."""

    __slots__ = ("idle",)
    idle: deque[_Piece]

    def __del__(self) -> None:
        if type(self.base) is _Piece:  # a view of a lease has another base, and nothing to give back
            self.idle.append(self.base)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any] | type[Any]) -> npt.NDArray[Any]:
    """Return an uninitialized array for a step on the way to a sample: in reused memory, if a loader is at work."""
    recycler: Recycler | None = current().recycler
    return np.empty(shape, dtype) if recycler is None else recycler.empty(shape, dtype)


class recycling(setting):  # noqa: N801  a context manager, named for how it reads
    """Let `empty` lend from a recycler, in this thread, for the length of a block."""

    __slots__ = ("_recycler",)

    def __init__(self, recycler: Recycler) -> None:
        self._recycler = recycler

    def __enter__(self) -> None:
        now = current()
        self._token = put(Context(now.here, now.seconds, self._recycler, now.share, now.worker, now.generator))
