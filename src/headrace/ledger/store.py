"""The ledger: a record of what each delivered batch was made of, written as the batch is delivered.

A ledger also holds the batches that a restart undid: those received after the saved state. So every loop writes
under a *session*. Its name depends on where the loop starts, and on the session that it resumes from, which the state
names. Only the entries of a session that later sessions did not undo count.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.checks import flag, shown
from headrace.errors import ArgumentError, ArgumentTypeError, BadFile
from headrace.ledger.format import MAGIC, Entry, Session, framed, read, records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

SUFFIX = ".ledger"


class Ledger:
    """A record of what a training loop received, batch by batch, in memory or in a file.

    >>> import headrace
    >>> ledger = headrace.Ledger()
    >>> loader = headrace.DataLoader(range(10), batch_size=4, shuffle=True, seed=0, ledger=ledger)
    >>> for batch in loader:
    ...     pass
    >>> print(headrace.verify_epoch(ledger))
    epoch 0: each of 10 samples was delivered exactly once

    ``path`` is a file. New records are appended to it, also after a kill. A relative path is resolved at once, so
    a later ``os.chdir`` does not change it. Only one loader writes to a file, and each rank has its own:
    ``DataLoader(..., ledger="folder")`` makes one file per rank in that folder. A record has the keys of a batch and a
    fingerprint of its bytes (see `headrace.verify_epoch` and ``headrace diff``); with ``fingerprints=False`` only the
    keys. A file takes about 80 bytes per batch, and one to four bytes per sample.

    Raises `BadFile` for a file that is not a ledger or is damaged, and the errors of the operating system.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, fingerprints: bool = True) -> None:
        self.path = None if path is None else Path(path).absolute()
        self.fingerprints = flag("fingerprints", fingerprints)
        self._lock = threading.Lock()
        self._memory = io.BytesIO(MAGIC)
        self._memory.seek(0, io.SEEK_END)
        self._file: io.FileIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "fingerprints": self.fingerprints}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # a copy of a ledger in memory is empty

    def __repr__(self) -> str:
        return f"Ledger({'' if self.path is None else repr(str(self.path))})"

    def close(self) -> None:
        """Close the file; the next batch opens it again."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self._file.close()  # type: ignore[union-attr]

    def sessions(self) -> tuple[dict[int, Session], list[Entry]]:
        """Return the sessions by number, and the entries of all of them, oldest first."""
        if self.path is None:
            with self._lock:
                return read(io.BytesIO(self._memory.getvalue()), "the ledger in memory")
        if not self.path.exists():
            return {}, []
        with _regular(self.path) as file:
            return read(file, str(self.path))

    def append(self, payload: bytes) -> None:
        """Add a record; it is in the file when this returns, and survives the process."""
        record = framed(payload)
        with self._lock:
            if self.path is None:
                self._memory.write(record)
                return
            if self._file is None:
                self._file = _opened(self.path)
                if self._file.seek(0, io.SEEK_END) == 0:
                    record = MAGIC + record
            written = self._file.write(record)  # one write, so that a kill leaves all of a record or none
            if written != len(record):
                raise OSError(errno.ENOSPC, f"only {written} of {len(record)} bytes could be written", str(self.path))


def open_ledger(ledger: Any, rank: int) -> Ledger | None:
    """Return the ledger for the `ledger=` of a loader: itself, or this rank's file in the given folder."""
    if ledger is None or isinstance(ledger, Ledger):
        return ledger
    if not isinstance(ledger, str | os.PathLike):
        expected = "a Ledger, or the path of a folder"
        what = f"ledger must be {expected}; got {shown(ledger)}"
        raise ArgumentTypeError(what, found=ledger, expected=expected, cure="pass ledger='folder'")
    if Path(ledger).is_file():
        raise ArgumentError(
            "ledger is a file",
            path=str(ledger),
            found="a file",
            expected="a folder",
            cure="pass Ledger(path) to use one file",
        )
    return Ledger(Path(ledger) / f"rank{rank}{SUFFIX}")


def _opened(path: Path) -> io.FileIO:
    """Open a file to append to, and cut off an incomplete last record (after a full disk or a crash)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.FileIO(path, "a+")
    try:
        if path.is_file():  # a pipe is only written to
            with _regular(path) as written:
                ends = [end for end, _ in records(written, str(path))]
            if ends[-1] < path.stat().st_size or 0 < ends[-1] < len(MAGIC):
                file.truncate(ends[-1] if ends[-1] >= len(MAGIC) else 0)
    except BaseException:
        file.close()
        raise
    return file


def _regular(path: Path) -> BinaryIO:
    """Open a regular file to read; refuse a device or a pipe, which may have no end or wait for a writer."""
    if not stat.S_ISREG(path.stat().st_mode):
        what = "not a ledger: a device, a pipe or a folder"
        raise BadFile(what, path=str(path), expected="a regular file", cure="correct the path")
    return path.open("rb")


def find_ledgers(where: Any) -> Iterator[Ledger]:
    """Yield the ledgers at a path: the given one, a file, or all those in a folder.

    Raises `ArgumentError` if there are none.
    """
    if isinstance(where, Ledger):
        yield where
        return
    path = Path(where)
    paths = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path] if path.exists() else []
    if not paths:
        what = f"no *{SUFFIX} file in this folder" if path.is_dir() else "no such file or folder"
        cure = f"to record a run there, pass ledger={str(path)!r} to the loader"
        raise ArgumentError(what, path=str(path), expected="a ledger, or a folder with ledgers", cure=cure)
    for each in paths:
        yield Ledger(each)
