"""Anonymous shared memory: it has no name that could be left behind, and is freed with its last user."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.context.dropped import when_dropped
from headrace.storage.file_locks import reserve

PAGE = mmap.PAGESIZE

LARGE_PAGE = 1 << 21
"""Bytes of a large page; memory of fewer has none."""

_MADV_COLLAPSE = 25
_MAP_FIXED = 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_NOTHING = 0
"""The protection of addresses that are only kept free."""
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


def allocate(fd: int, size: int) -> None:
    """Allocate every byte of a new file in memory, in large pages where the kernel has them (Linux 6.1 or later).

    Mapping a large page costs as much as mapping a small one, which is a 512th of it. Raises OSError as `reserve` does.
    """
    whole = size - size % LARGE_PAGE
    if whole and sys.platform == "linux":
        os.ftruncate(fd, size)
        for start in range(0, whole, LARGE_PAGE):
            os.pwrite(fd, b"\0", start)  # large pages are made of what has begun; a full disk is an error here
        memory = Mapping(fd, size)
        _libc.madvise(memory.address, whole, _MADV_COLLAPSE)  # where it cannot, the pages stay small
    reserve(fd, size)


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
        large = size >= LARGE_PAGE and sys.platform == "linux"
        address = _mapped_at_large_page(fd, size, flags) if large else _mapped(None, size, flags, fd)
        self.address: int = address
        self.size = size
        self.__array_interface__: dict[str, Any] = {
            "data": (address, False),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }
        when_dropped(self, _libc.munmap, address, size)


def _mapped(address: int | None, size: int, flags: int, fd: int, protection: int = _READ_WRITE) -> int:
    found = _libc.mmap(address, size, protection, flags, fd, 0)
    if found == _FAILED:
        raise OSError(ctypes.get_errno(), f"mapping {size} bytes of shared memory failed")
    return int(found)


def _mapped_at_large_page(fd: int, size: int, flags: int) -> int:
    """Map a file where a large page may begin: the kernel itself looks for such a place only in some mounts."""
    room = -(-size // PAGE) * PAGE + LARGE_PAGE
    begin = _mapped(None, room, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, _NOTHING)
    address = begin + -begin % LARGE_PAGE
    try:
        _mapped(address, size, flags | _MAP_FIXED, fd)
    except OSError:
        _libc.munmap(begin, room)
        raise
    end = address + room - LARGE_PAGE
    if address > begin:
        _libc.munmap(begin, address - begin)
    if end < begin + room:
        _libc.munmap(end, begin + room - end)
    return address


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
