"""The transport within one process: a batch is handed over as it is, in memory that is used again.

Fresh memory is not free: the kernel clears every page of it at the first touch, which for a batch of pictures costs
as much as copying it (see docs/decisions/0006-recycled-memory.md). So the memory of a batch that nobody holds any
longer becomes that of a later one.
"""

from __future__ import annotations

from collections import deque
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

SMALLEST = 1 << 16
"""Bytes; below this, NumPy's own allocator is as quick."""


class Direct:
    """Lends arrays whose memory comes back when the last view of them is dropped.

    >>> direct = Direct(keep=1)
    >>> batch = direct.empty((64, 1024), np.dtype("f4"))
    >>> place = batch.ctypes.data
    >>> del batch
    >>> direct.empty((64, 1024), np.dtype("f4")).ctypes.data == place
    True

    ``keep`` is how many pieces lie idle at the most; with ``keep=0`` nothing is kept. Safe on any number of threads.
    """

    def __init__(self, keep: int) -> None:
        # Threads append and pop at once; both are atomic on a deque, and maxlen drops the piece idle the longest.
        self._idle: deque[npt.NDArray[np.uint8]] = deque(maxlen=keep)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any] | type) -> npt.NDArray[Any]:
        """Lend an uninitialised array."""
        dtype = np.dtype(dtype)
        nbytes = prod(shape) * dtype.itemsize
        if nbytes < SMALLEST or dtype.hasobject:
            return np.empty(shape, dtype)
        lease = _Lease(self._piece(nbytes), self._idle)
        return np.asarray(lease).view(dtype).reshape(shape)

    def _piece(self, nbytes: int) -> npt.NDArray[np.uint8]:
        for _ in range(len(self._idle)):
            try:
                piece = self._idle.popleft()
            except IndexError:  # another thread took the last one
                break
            if piece.nbytes == nbytes:
                return piece
            self._idle.append(piece)
        return np.empty(nbytes, np.uint8)

    def close(self) -> None:
        """Let go of all idle memory."""
        self._idle.clear()


class _Lease:
    """Stands under every view of a lent array as its ``base``: it goes with the last one, and leaves the piece idle."""

    __slots__ = ("__array_interface__", "_idle", "_piece")

    def __init__(self, piece: npt.NDArray[np.uint8], idle: deque[npt.NDArray[np.uint8]]) -> None:
        self._piece = piece
        self._idle = idle
        self.__array_interface__ = piece.__array_interface__

    def __del__(self) -> None:
        self._idle.append(self._piece)
