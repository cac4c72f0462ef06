"""Who makes which batch, among processes that share them: a FIFO for each batch in the making.

Its maker keeps both ends open and holds its lock. Who waits for the batch polls the FIFO: a byte in it says that the
batch is made, or cannot be shared; its end says that the maker has died. The operating system gives both notices at
once, so nobody looks again and again.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from headrace.storage.file_locks import hold, try_lock, unlock

if TYPE_CHECKING:
    from pathlib import Path

_FLAGS = os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


class Claim:
    """This process makes the batch; the claim ends with `release`, or with the process."""

    __slots__ = ("_file", "_path")

    def __init__(self, path: Path, file: int) -> None:
        self._path, self._file = path, file

    def release(self) -> None:
        """Let others claim the batch, and wake those that wait for it; may be called again."""
        file, self._file = self._file, -1
        if file >= 0:
            with suppress(OSError):
                self._path.unlink()
            unlock(file)


def claim(path: Path) -> Claim | None:
    """Claim a batch; None where another process or thread has claimed it. Raises OSError.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mine = claim(pathlib.Path(folder, "claim"))
    ...     claim(pathlib.Path(folder, "claim")) is None
    ...     mine.release()
    ...     list(pathlib.Path(folder).iterdir())
    True
    []
    """
    while True:
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        try:
            file = os.open(path, os.O_RDWR | _FLAGS)
        except FileNotFoundError:  # released since
            continue
        hold(file)
        found = os.fstat(file)
        if not stat.S_ISFIFO(found.st_mode):
            unlock(file)
            raise FileExistsError(f"{path} is no FIFO")
        if not try_lock(file):
            unlock(file)
            return None
        if os.fstat(file).st_nlink:
            return Claim(path, file)
        unlock(file)  # its maker released it between the two calls


def watch(path: Path) -> int | None:
    """Return a descriptor to poll: it is readable, or has ended, when there is news. None where nobody has a claim."""
    try:
        file = os.open(path, os.O_RDONLY | _FLAGS)
    except OSError:
        return None
    # Its maker opened it before locking it, so where the lock is held the end will be noticed.
    if try_lock(file):
        unlock(file)
        return None
    return file


def notify(path: Path) -> None:
    """Wake all that wait for a batch."""
    with suppress(OSError):  # nobody has claimed it, or the claim has ended
        file = os.open(path, os.O_WRONLY | _FLAGS)
        try:
            os.write(file, b"!")
        finally:
            os.close(file)
