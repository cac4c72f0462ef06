"""Locks on files between processes, which the operating system frees when a process dies."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress

_held: set[int] = set()
"""Descriptors that hold a lock: a forked child closes them, so that a lock does not outlive its process."""


def hold(file: int) -> None:
    """Let a forked child close this descriptor."""
    _held.add(file)


def try_lock(file: int) -> bool:
    """Lock a file for this process alone, unless another one has it.

    >>> import tempfile
    >>> with tempfile.TemporaryFile() as file:
    ...     try_lock(file.fileno())
    True
    """
    return _tried(file, fcntl.LOCK_EX)


def try_share(file: int) -> bool:
    """Lock a file together with others who do the same, unless somebody has it alone."""
    return _tried(file, fcntl.LOCK_SH)


def lock_within(file: int, seconds: float) -> None:
    """Lock a file for this process alone; raises OSError if it is not free in time: whoever has it may be stopped."""
    until, pause = time.monotonic() + seconds, 0.0005
    while not try_lock(file):
        if time.monotonic() > until:
            raise OSError(errno.ETIMEDOUT, f"a lock was not freed within {seconds:g} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)


def unlock(file: int) -> None:
    """Free a lock, and close the descriptor."""
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)  # closing alone would not free it while a forked child has a copy
    _held.discard(file)
    os.close(file)


def reserve(file: int, size: int) -> None:
    """Allocate every byte of a file; raises OSError if there is not that much room."""
    allocate = getattr(os, "posix_fallocate", None)
    if allocate is None:
        os.ftruncate(file, size)
    else:
        allocate(file, 0, size)


def _tried(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _forget() -> None:
    for file in _held:
        with suppress(OSError):
            os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
