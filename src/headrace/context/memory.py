"""Reused memory: when nobody holds an array any longer, its memory becomes a later array.

Fresh memory is not free: the operating system clears every page at the first touch. For images and batches that costs
as much as copying them (docs/decisions/0006-recycled-memory.md).
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator
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

    At most ``keep`` pieces of memory of about one size are kept idle; with ``keep=0`` none is. So the parts of a batch,
    such as images and masks, do not crowd out each other. Any number of threads may use one.
    ``leftover``: where `close` leaves the idle pieces for another loop; None: they are freed.
    """

    __slots__ = ("_idle", "_leftover")

    def __init__(self, keep: int, leftover: Leftover | None = None) -> None:
        left = None if leftover is None else leftover.take()
        self._idle = left if left is not None and left.keep == keep else _Idle(keep)
        self._leftover = None if leftover is None else weakref.ref(leftover)  # it lives no longer than its loader

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any] | type[Any]) -> npt.NDArray[Any]:
        """Lend an uninitialized C-contiguous array."""
        dtype = np.dtype(dtype)
        nbytes = prod(shape) * dtype.itemsize
        if nbytes < SMALLEST or dtype.hasobject:
            return np.empty(shape, dtype)
        piece = self._piece(nbytes)
        lease = piece.view(_Lease)
        lease.idle = self._idle.like(piece.nbytes)
        return np.ndarray(shape, dtype, lease)

    def _piece(self, nbytes: int) -> _Piece:
        for most in (nbytes, ROOMY * nbytes):
            idle = self._idle.like(most)
            for _ in range(len(idle)):
                try:
                    piece = idle.pop()
                except IndexError:  # another thread took the last one
                    break
                if nbytes <= piece.nbytes <= ROOMY * nbytes:
                    return piece
                idle.appendleft(piece)
        # Rounded up to an eighth of its power of two, so that images of nearly the same size share pieces.
        step = 1 << max(0, nbytes.bit_length() - 4)
        room = -(-nbytes // step) * step
        piece = _Piece(room + ALIGNMENT, np.uint8)
        start = -piece.ctypes.data % ALIGNMENT
        return piece[start : start + room].view(_Piece)

    def close(self) -> None:
        """Leave all idle memory to another loop, or free it."""
        leftover = None if self._leftover is None else self._leftover()
        if leftover is None:
            self._idle.clear()
        else:
            leftover.leave(self._idle)


class Leftover:
    """The memory of batches that the last loop of a loader left; the next loop in this process takes it.

    >>> leftover = Leftover()
    >>> first = Recycler(keep=1, leftover=leftover)
    >>> batch = first.empty((64, 1024), np.dtype("f4"))
    >>> place = batch.ctypes.data
    >>> first.close()
    >>> second = Recycler(keep=1, leftover=leftover)
    >>> del batch  # the loop that it came from has ended
    >>> second.empty((64, 1024), np.dtype("f4")).ctypes.data == place
    True

    Only the memory of the loop that ended last is kept. So training and validation, one after the other, need no more
    than the larger of the two. It is freed with the loader, and by `drop`.
    """

    __slots__ = ("__weakref__", "_pieces")

    _latest: weakref.ref[Leftover] | None = None

    def __init__(self) -> None:
        self._pieces: _Idle | None = None

    def __reduce__(self) -> tuple[type[Leftover], tuple[()]]:
        return Leftover, ()  # memory stays in its process, and with its loader

    def take(self) -> _Idle | None:
        """Take what the last loop left, in any loader; pieces that are still lent come to it later."""
        latest = None if Leftover._latest is None else Leftover._latest()
        return None if latest is None else latest.drop()

    def leave(self, pieces: _Idle) -> None:
        """Leave the pieces of a loop that has ended, in the place of those that were left before."""
        self.take()
        self._pieces = pieces
        Leftover._latest = weakref.ref(self)

    def drop(self) -> _Idle | None:
        """Forget the pieces, and return them."""
        pieces, self._pieces = self._pieces, None
        return pieces


class _Idle:
    """The idle pieces, by the bits of their size."""

    __slots__ = ("_by_bits", "keep")

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self._by_bits: dict[int, deque[_Piece]] = {}

    def like(self, nbytes: int) -> deque[_Piece]:
        """Return the idle pieces of about this size."""
        # Threads append and pop at once; both are atomic on a deque, and maxlen drops the piece idle the longest.
        idle = self._by_bits.get(nbytes.bit_length())
        return self._by_bits.setdefault(nbytes.bit_length(), deque(maxlen=self.keep)) if idle is None else idle

    def __iter__(self) -> Iterator[_Piece]:
        for idle in tuple(self._by_bits.values()):
            yield from tuple(idle)

    def clear(self) -> None:
        """Let go of all of them."""
        for idle in tuple(self._by_bits.values()):
            idle.clear()


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
