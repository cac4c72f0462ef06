"""Anonymous shared memory: it has no name that could be left behind, and is freed with its last user."""

from __future__ import annotations

import ctypes
import mmap
import os
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.context.dropped import when_dropped
from headrace.storage.file_locks import reserve

PAGE = mmap.PAGESIZE

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_FAILED = ctypes.c_void_p(-1).value


def create(size: int) -> int:
    """Return a descriptor of new shared memory, with every page allocated.

    Raises OSError if there is not that much: a later write to a page that cannot be allocated would kill the process.
    """
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("headrace", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:  # unlinked already
            fd = os.dup(file.fileno())
    try:
        reserve(fd, size)
    except BaseException:
        os.close(fd)
        raise
    return fd


class Mapping:
    """Maps shared memory for as long as any array in it lives: NumPy's ``base`` of each.

    ``private``: what is written there is seen by nobody else, and pages that are not written to are still shared.
    ``ready``: all pages can be written to at once, which costs less than one after the other.

    Python's ``mmap`` keeps a descriptor of its own for that long (until 3.13, where that can be turned off), and a user
    who keeps a thousand batches must not run out of descriptors.
    """

    __slots__ = ("__array_interface__", "__weakref__", "address", "size")

    def __init__(self, fd: int, size: int, *, private: bool = False, ready: bool = False) -> None:
        flags = mmap.MAP_PRIVATE if private else mmap.MAP_SHARED
        flags |= getattr(mmap, "MAP_POPULATE", 0) if ready else 0
        address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0)
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
        when_dropped(self, _libc.munmap, address, size)


def mapped(fd: int, size: int, *, private: bool = False, ready: bool = False) -> npt.NDArray[np.uint8]:
    """Return shared memory as bytes; it stays mapped while any view of it lives, even if ``fd`` is closed.

    >>> fd = create(4096)
    >>> one, other = mapped(fd, 4096), mapped(fd, 4096)
    >>> os.close(fd)
    >>> one[7] = 5
    >>> int(other[7])
    5
    """
    return np.asarray(Mapping(fd, size, private=private, ready=ready))


def store(message: bytes) -> int:
    """Put a message into shared memory, and return its descriptor, to be sent and then closed.

    >>> bytes(load(store(b"hello")))
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


def load(fd: int) -> bytes:
    """Return the message in shared memory, and close its descriptor."""
    with open(fd, "rb") as file:
        file.seek(0)
        return file.read()
