"""Opening HDF5 files, on this machine or behind a URL, with errors that say what is wrong."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.errors import HeadraceError, UnreadableFile, missing
from headrace.interop.interrupt import held_back
from headrace.storage.files import unopened
from headrace.storage.object_file import ObjectFile
from headrace.storage.objects import is_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.datasets.unchanged import Unchanged

HDF5 = "an HDF5 or MATLAB v7.3 file"


@contextmanager
def opened(path: str, facts: Unchanged | None) -> Iterator[Any]:
    """Open a file for a block."""
    file = h5py_file(path, facts)
    try:
        yield file
    finally:
        file.close()


def h5py_file(path: str, facts: Unchanged | None) -> Any:
    """Open a file, or an object behind a URL as it was when ``facts`` were taken.

    Raises `MissingFile`, `UnreadableFile` and `MissingDependency`.
    """
    try:
        with held_back():
            import h5py
    except ImportError:
        raise missing("h5py", extra="hdf5", purpose="reading HDF5 files") from None
    source: Any = path
    if is_url(path):
        known = None if facts is None else (facts.size, facts.written)
        source = ObjectFile(path, known)  # without a buffer, which would read past the ranges that are fetched ahead
        begin = source.read(128)
    else:
        begin = _beginning(path)
    try:
        return h5py.File(source, "r", locking="best-effort")
    except (OSError, RuntimeError, ValueError) as error:
        if begin.startswith(b"MATLAB 5.0"):
            raise UnreadableFile(
                "a MATLAB file older than version 7.3",
                path=path,
                expected=HDF5,
                cure="Save it with '-v7.3' in MATLAB, or read it with scipy.io.loadmat and use ArrayDataset.",
            ) from error
        cure = "Check the path, or write the file again."
        raise UnreadableFile(f"not an HDF5 file, or damaged: {error}", path=path, expected=HDF5, cure=cure) from error


def _beginning(path: str) -> bytes:
    """Return the first bytes of a file; the errors that this raises are clearer than HDF5's."""
    if Path(path).exists() and not Path(path).is_file():  # a pipe would be waited for, for ever
        raise UnreadableFile("it is a folder, a pipe or a device", path=path, expected=HDF5, cure="Fix the path.")
    try:
        with Path(path).open("rb") as raw:
            return raw.read(128)
    except OSError as error:
        raise unopened(path, error, expected=HDF5, cure="Fix the path or its permissions.") from error


@contextmanager
def located(path: str, part: str = "") -> Iterator[None]:
    """Raise what h5py raises, of any kind, as an error of ours that names the file and the part of it."""
    try:
        yield
    except HeadraceError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise UnreadableFile(
            f"{path}{part}: cannot be read: {error}",
            path=path,
            expected="a whole HDF5 file",
            cure="The file may be damaged: write or copy it again.",
        ) from error
