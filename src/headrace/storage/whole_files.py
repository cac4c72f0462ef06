"""Files that are there whole or not at all: written under another name, and renamed at the end."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PARTIAL = ".partial"
"""What the name of a file that is being written ends with."""


def write_whole(path: Path, write: Callable[[Path], Any], *, durable: bool = False) -> None:
    """Write a file under a temporary name, and rename it when it is whole.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "a.txt")
    ...     write_whole(path, lambda place: place.write_text("hello"), durable=True)
    ...     path.read_text(), len(os.listdir(folder))
    ('hello', 1)

    ``durable``: the bytes are on disk before the file has its name, and the name before this returns, so that neither a
    kill nor a power cut leaves half a file. Raises what ``write`` raises, and then leaves nothing.
    """
    passing = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        write(passing)
        if durable:
            _flush(passing, os.O_RDONLY)
        passing.replace(path)
        if durable:
            _flush(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    finally:
        passing.unlink(missing_ok=True)


def is_partial(name: str) -> bool:
    """Say whether a name is that of a file that is being written.

    >>> is_partial(".0.arrow.17.partial"), is_partial("0.arrow")
    (True, False)
    """
    return name.startswith(".") and name.endswith(PARTIAL)


def remove_partial(folder: Path, ending: str) -> None:
    """Remove what a killed process has left of files whose names have this ending.

    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, f".0.arrow.{2**31}{PARTIAL}").write_text("half")
    ...     _ = pathlib.Path(folder, "0.arrow").write_text("whole")
    ...     remove_partial(pathlib.Path(folder), ".arrow")
    ...     os.listdir(folder)
    ['0.arrow']
    """
    for path in folder.glob(f".*{ending}.*{PARTIAL}"):
        process = path.name.removesuffix(PARTIAL).rpartition(".")[2]
        if process.isdigit() and not _runs(int(process)):
            with suppress(OSError):
                path.unlink()


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _flush(path: Path, how: int) -> None:
    descriptor = os.open(path, how | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
