"""Memory that is used again: the pieces of arrays that nobody holds any longer become later arrays.

Fresh memory is not free: the kernel clears every page of it at the first touch, which for pictures and for batches of
them costs as much as copying does (docs/decisions/0006-recycled-memory.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from types import TracebackType

Empty = Callable[[tuple[int, ...], np.dtype[Any]], npt.NDArray[Any]]
"""Lends memory for an array of a shape and dtype: ``np.empty``, or reused memory."""

SMALLEST = 1 << 16
"""Bytes; below this, NumPy's own allocator is as quick."""

ROOMY = 2
"""How many times larger than an array the piece may be that it is put in."""


class Recycler:
    """Lends arrays whose memory comes back when the last view of them is dropped.

    >>> recycler = Recycler(keep=1)
    >>> batch = recycler.empty((64, 1024), np.dtype("f4"))
    >>> place = batch.ctypes.data
    >>> del batch
    >>> recycler.empty((63, 1024), np.dtype("f4")).ctypes.data == place
    True

    ``keep`` is how many pieces lie idle at the most; with ``keep=0`` nothing is kept. Safe on any number of threads.
    """

    __slots__ = ("_idle",)

    def __init__(self, keep: int) -> None:
        # Threads append and pop at once; both are atomic on a deque, and maxlen drops the piece idle the longest.
        self._idle: deque[_Piece] = deque(maxlen=keep)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any] | type[Any]) -> npt.NDArray[Any]:
        """Lend an uninitialised C-contiguous array."""
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
        # Rounded up to an eighth of its power of two, so that pictures of nearly one size share pieces.
        step = 1 << max(0, nbytes.bit_length() - 4)
        return _Piece(-(-nbytes // step) * step, np.uint8)

    def close(self) -> None:
        """Let go of all idle memory."""
        self._idle.clear()


class _Piece(np.ndarray[tuple[int], np.dtype[np.uint8]]):
    """Memory to be lent; of a class of its own, for NumPy passes over a base that is a plain array."""

    __slots__ = ()


class _Lease(np.ndarray[tuple[int], np.dtype[np.uint8]]):
    """Stands under every view of a lent array as its ``base``: it goes with the last one, and leaves the piece idle."""

    __slots__ = ("idle",)
    idle: deque[_Piece]

    def __del__(self) -> None:
        if type(self.base) is _Piece:  # a view of a lease has another base, and nothing to give back
            self.idle.append(self.base)


_scratch: ContextVar[Recycler | None] = ContextVar("headrace_scratch", default=None)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any] | type[Any]) -> npt.NDArray[Any]:
    """Return an uninitialised array for a step on the way to a sample: recycled memory, where a loader is at work."""
    scratch = _scratch.get()
    return np.empty(shape, dtype) if scratch is None else scratch.empty(shape, dtype)


class recycling:  # noqa: N801  a context manager, named for how it reads
    """Let `empty` lend from a recycler, in this thread, for the length of a block."""

    __slots__ = ("_recycler", "_token")

    def __init__(self, recycler: Recycler) -> None:
        self._recycler = recycler

    def __enter__(self) -> None:
        self._token = _scratch.set(self._recycler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _scratch.reset(self._token)


def leave() -> None:
    """Lend nothing in this context: what is lent is counted on to come back to one thread."""
    _scratch.set(None)
