"""The ledger: what each batch that the training loop received was made of, written down as it is handed over.

A ledger belongs to a state. Batches that were received after the last state was saved, and that a restart has made
undone, stand in it all the same; so every loop writes under a *session*, whose name follows from where it begins and
from the session it goes on from, which the state names. What counts of a session is what its successors did not undo.
"""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import ArgumentError, BadFile
from headrace.interop.calls import flag
from headrace.ledger.format import MAGIC, Entry, Session, framed, read, records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

SUFFIX = ".ledger"


class Ledger:
    """What a training loop has received, batch by batch: in memory, or in a file that is appended to.

    >>> import headrace
    >>> ledger = headrace.Ledger()
    >>> loader = headrace.DataLoader(range(10), batch_size=4, shuffle=True, seed=0, ledger=ledger)
    >>> for batch in loader:
    ...     pass
    >>> print(headrace.verify_epoch(ledger))
    epoch 0: each of 10 samples was delivered exactly once

    ``path``: a file, which goes on where it ends, whatever killed the process that wrote it. A relative one is taken
    from the folder that is the current one now, whatever ``os.chdir`` does later. One loader writes to it,
    and each rank has its own: ``DataLoader(..., ledger="folder")`` makes one a rank in that folder. Written down are
    the keys of each batch and a fingerprint of its bytes (see `headrace.verify_epoch` and ``headrace diff``); without
    ``fingerprints`` the keys alone. A file takes about 80 bytes a batch, and one to four bytes for each of its samples.

    Raises `BadFile` for a file that is no ledger or is damaged, and what the operating system raises.
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
        self.__init__(**state)  # type: ignore[misc]  # a copy of one in memory is empty

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
        """Return what stands in it: sessions by number, and the entries of all of them, oldest first."""
        if self.path is None:
            with self._lock:
                return read(io.BytesIO(self._memory.getvalue()), "the ledger in memory")
        if not self.path.exists():
            return {}, []
        with _regular(self.path) as file:
            return read(file, str(self.path))

    def append(self, payload: bytes) -> None:
        """Add a record, which is in the file when this returns: it survives the process."""
        record = framed(payload)
        with self._lock:
            if self.path is None:
                self._memory.write(record)
                return
            if self._file is None:
                self._file = _opened(self.path)
                if self._file.seek(0, io.SEEK_END) == 0:
                    record = MAGIC + record
            written = self._file.write(record)  # at once: a kill finds all of a record there, or none
            if written != len(record):
                raise OSError(28, f"only {written} of {len(record)} bytes could be written", str(self.path))


def open_ledger(ledger: Any, rank: int) -> Ledger | None:
    """Return the ledger that a loader was given: one, or the folder in which each rank has its own."""
    if ledger is None or isinstance(ledger, Ledger):
        return ledger
    if not isinstance(ledger, str | os.PathLike):
        raise ArgumentError(f"ledger must be a Ledger, or a folder for the ledgers of all ranks; got {ledger!r}")
    if Path(ledger).is_file():
        raise ArgumentError(f"ledger={str(ledger)!r} is a file, and a folder is expected; Ledger(path) takes a file")
    return Ledger(Path(ledger) / f"rank{rank}{SUFFIX}")


def _opened(path: Path) -> io.FileIO:
    """Open a file to append to; what a full disk or the machine's crash left of its last record is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.FileIO(path, "a+")
    try:
        if path.is_file():  # a pipe is written to, and never read
            with _regular(path) as written:
                ends = [end for end, _ in records(written, str(path))]
            if ends[-1] < path.stat().st_size or 0 < ends[-1] < len(MAGIC):
                file.truncate(ends[-1] if ends[-1] >= len(MAGIC) else 0)
    except BaseException:
        file.close()
        raise
    return file


def _regular(path: Path) -> BinaryIO:
    """Open a file to read; what has no end, or waits for a writer, is refused."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise BadFile(f"{path} is no ledger: a device, a pipe or a folder, where a file is expected")
    return path.open("rb")


def find_ledgers(where: Any) -> Iterator[Ledger]:
    """Return the ledgers that something names: itself, a file, or all those in a folder.

    Raises `ArgumentError` where there are none.
    """
    if isinstance(where, Ledger):
        yield where
        return
    path = Path(where)
    paths = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path] if path.exists() else []
    if not paths:
        what = f"no file *{SUFFIX} in the folder" if path.is_dir() else "no such file or folder"
        raise ArgumentError(f"{path}: {what}; a loader with ledger={str(path)!r} makes them there")
    for each in paths:
        yield Ledger(each)
