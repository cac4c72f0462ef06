"""Anonymous shared memory: it has no name that could be left behind, and goes when the last process lets go of it."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

PAGE = mmap.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value


def create(size: int) -> int:
    """Return a descriptor of new shared memory, every page of it taken: what is written later cannot fail for want.

    Raises OSError where there is not that much: a write into a page that cannot be had would kill the process.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("headrace", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:  # unlinked already
            fd = os.dup(file.fileno())
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:
            os.ftruncate(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Mapping:
    """A view of shared memory that outlives its descriptor: NumPy's ``base`` under every array in it.

    Not Python's ``mmap``, which keeps a descriptor of its own as long as it lives (until 3.13, which can be told not
    to): a user who keeps a thousand batches must not run out of them.
    """

    __slots__ = ("__array_interface__", "__weakref__", "_unmap", "address", "size")

    def __init__(self, fd: int, size: int) -> None:
        address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
        if address == _FAILED:
            raise OSError(ctypes.get_errno(), f"mapping {size} bytes of shared memory failed")
        self.address: int = address
        self.size = size
        self.__array_interface__: dict[str, Any] = {
            "data": (address, False),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }
        self._unmap = _libc.munmap

    def __del__(self) -> None:
        if hasattr(self, "_unmap"):  # not where mapping failed
            self._unmap(self.address, self.size)


def mapped(fd: int, size: int) -> npt.NDArray[np.uint8]:
    """Return shared memory as bytes; it stays mapped as long as any view of it lives, whatever becomes of ``fd``.

    >>> fd = create(4096)
    >>> one, other = mapped(fd, 4096), mapped(fd, 4096)
    >>> os.close(fd)
    >>> one[7] = 5
    >>> int(other[7])
    5
    """
    return np.asarray(Mapping(fd, size))


def given(message: bytes) -> int:
    """Return a descriptor of shared memory that holds a message, to be sent and then closed.

    >>> bytes(taken(given(b"hello")))
    b'hello'
    """
    fd = create(max(1, len(message)))
    try:
        os.ftruncate(fd, len(message))
        with open(fd, "wb", closefd=False) as file:
            file.write(message)
    except BaseException:
        os.close(fd)
        raise
    return fd


def taken(fd: int) -> bytes:
    """Return the message that shared memory holds, and close its descriptor."""
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read()
