"""Rows of memory-mapped arrays, read so that a file that changes meanwhile is an error and never a crash.

A file that is cut short leaves pages of the map without data: to touch one raises SIGBUS, which ends the interpreter,
and the end of the last page reads as zeros. So the native extension copies rows under a guard; without the extension
they are read from the file. After each batch the file must be what it was.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from headrace._native import extension
from headrace.interop.keys import place
from headrace.storage.mapped_samples import MappedFile, lost

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.errors import BadFile

    Facts = tuple[int, ...]
    Mode = Literal["r", "r+"]


class MappedRows:
    """Reads rows of an array that lies in a memory map."""

    __slots__ = ("_array", "_map", "_offset", "_path", "_strict", "facts")

    def __init__(self, array: NDArray[Any], root: mmap.mmap, path: str | None = None) -> None:
        owner = _owner(array)
        name = path or getattr(owner, "filename", None)
        mode = getattr(owner, "mode", None)
        self._array = array
        self._map = root
        self._path = os.fspath(name) if name is not None else None
        # Whoever may write to the map changes the time himself.
        self._strict = mode == "r"
        self._offset: int | None = None
        if owner is not None and mode != "c":
            self._offset = int(owner.offset) + _address(array) - _address(owner)
        if self._path is not None and self._look()[:1] != (MappedFile(root, None).size,):
            self._path = None  # unlinked, or another file by now: what is mapped has no name
        self.facts = self._look()

    def take(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy rows, from 0 up and in range, side by side into an array; raise `BadFile` where the file has changed."""
        if not rows.size or not out.size:
            return
        if rows.dtype != np.int64 or not rows.flags.c_contiguous:
            rows = np.ascontiguousarray(rows, np.int64)
        if extension is not None:
            missing = cast("Any", extension).gather(self._array, rows, out)
            if missing >= 0:
                raise self._error(int(rows[missing]), self._look())
        elif self._path is not None and self._offset is not None and self._array.flags.c_contiguous:
            self._read(rows, out)
        else:
            self.check(rows)
            self._array.take(rows, axis=0, out=out, mode="clip")
        self.check(rows)

    def place(self) -> tuple[str, int, np.dtype[Any], tuple[int, ...]] | None:
        """Return path, offset, dtype and shape of the array in its file; None if another process would see another."""
        if self._path is None or self._offset is None or not self._array.flags.c_contiguous or not self._array.size:
            return None
        return os.path.abspath(self._path), self._offset, self._array.dtype, self._array.shape  # noqa: PTH100

    @property
    def mode(self) -> Mode:
        """How another process is to map the file: for reading only, unless it is written to."""
        return "r" if self._strict else "r+"

    def check(self, rows: NDArray[np.int64]) -> None:
        """Raise `BadFile` unless the file is what it was when the dataset was made."""
        now = self._look()
        if now != self.facts:
            raise self._error(self._first_lost(rows, now), now)

    def row(self, index: Any) -> Any:
        """Return what indexing the array gives, as a copy."""
        if isinstance(index, tuple) or (isinstance(index, np.ndarray) and index.dtype == bool and index.ndim != 1):
            self.check(np.zeros(1, np.int64))
            found = np.array(self._array[index])
            self.check(np.zeros(1, np.int64))
            return found
        rows = np.arange(len(self._array))[index] if not _is_place(index) else place(index, len(self._array), "{} rows")
        places = np.asarray(rows, np.int64)
        out = np.empty((places.size, *self._array.shape[1:]), self._array.dtype)
        self.take(places.reshape(-1), out)
        return out[0] if places.ndim == 0 else out.reshape(*places.shape, *self._array.shape[1:])

    def _read(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Read rows from the file: a read past its end is short, and no crash."""
        size = out.nbytes // len(rows)
        into = out.reshape(-1).view(np.uint8)
        try:
            file = os.open(cast("str", self._path), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise self._error(int(rows[0]), self._look()) from None
        try:
            for number, row in enumerate(rows.tolist()):
                data = os.pread(file, size, cast("int", self._offset) + row * size)
                if len(data) < size:
                    raise self._error(row, self._look())
                into[number * size : (number + 1) * size] = np.frombuffer(data, np.uint8)
        finally:
            os.close(file)

    def _look(self) -> Facts:
        """Return what tells this file from another; nothing where there is none by its name."""
        if self._path is None:
            size = MappedFile(self._map, None).size
            return () if size is None else (size,)
        try:
            found = os.stat(self._path)  # noqa: PTH116  before and after each batch
        except OSError:
            return ()
        return found.st_size, found.st_dev, found.st_ino, found.st_mtime_ns if self._strict else 0

    def _first_lost(self, rows: NDArray[np.int64], now: Facts) -> int:
        """Return the first of these rows that lies behind the file's end; else the first."""
        if not rows.size:
            return 0
        if now and self._offset is not None and self._array.flags.c_contiguous:
            behind = rows[self._offset + (rows + 1) * self._array.strides[0] > now[0]]
            return int(behind[0] if behind.size else rows[0])
        return int(rows[0])

    def _error(self, row: int, now: Facts) -> BadFile:
        return lost(self._path, f"row {row}", self._reason(now), row)

    def _reason(self, now: Facts) -> str:
        """Say what became of the file."""
        before = self.facts
        if not now:
            return "the file was removed or became unreachable"
        if now[0] < before[0]:
            return _cut_short(before[0], now[0])
        if now[1:3] != before[1:3]:
            return "another file was put in its place"
        if now != before:
            grown = f" (it grew from {before[0]} to {now[0]} bytes)" if now[0] > before[0] else ""
            return f"the file was written to{grown}"
        return "the operating system cannot read that part of it"


class MappedBytes(MappedRows):
    """Reads ranges of a file in a memory map, by their addresses.

    ``facts`` are the size of the file and its time of modification (ns) when it was indexed: reading a file that is no
    longer so is an error, and `ValueError` says that it is too short to be mapped.
    """

    __slots__ = ("_file", "_links", "address", "bytes", "path")

    def __init__(self, path: str, facts: tuple[int, int]) -> None:
        self._file = -1
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # One look at one open file: to open the path twice may give two files.
        found = os.fstat(self._file)
        if found.st_size < facts[0]:
            raise ValueError(_cut_short(facts[0], found.st_size))
        with open(self._file, "rb", closefd=False) as file:
            raw = np.memmap(file, np.uint8, "r", 0, (facts[0],))
        super().__init__(raw, cast("Any", raw)._mmap, path)
        self.path, self.address = path, _address(raw)
        self.bytes: NDArray[np.uint8] = np.asarray(raw)
        self.facts = facts[0], found.st_dev, found.st_ino, facts[1]
        self._links = found.st_nlink

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)

    def look(self) -> str | None:
        """Return what became of the file since it was indexed; None if nothing did."""
        found, known = os.fstat(self._file), self.facts
        # A file that is removed or replaced loses a link. To look its path up would take twice as long.
        same = found.st_size == known[0] and found.st_mtime_ns == known[3] and found.st_nlink == self._links
        if same and found.st_ino == known[2]:
            return None
        now = self._look()
        return None if now == self.facts else self._reason(now)

    def reason(self) -> str:
        """Say why a part of it could not be read."""
        return self._reason(self._look())

    def read(self, offset: int, out: NDArray[np.uint8]) -> bool:
        """Copy a range of the file, without the native extension; say whether it is all there."""
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            data = os.pread(file, len(out), offset)
        finally:
            os.close(file)
        if len(data) == len(out):
            out[:] = np.frombuffer(data, np.uint8)
        return len(data) == len(out)


class Sent:
    """A mapped array on its way to a copy of its dataset: the same one here, and in another process a map of its file.

    A map whose file has no name any longer, or whose changes stay in this process (``mode="c"``), is sent as its
    contents.
    """

    __slots__ = ("array", "rows")

    def __init__(self, array: NDArray[Any], rows: MappedRows) -> None:
        self.array = array
        self.rows = rows

    def __reduce__(self) -> tuple[Any, ...]:
        place = self.rows.place()
        if place is None:
            return np.asarray, (self.rows.row(slice(None)),)
        return _reopened, (*place, self.rows.mode, self.rows.facts)


def _reopened(
    path: str, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...], mode: Mode, facts: Facts
) -> NDArray[Any]:
    """Map an array of another process; raise `BadFile` if the file is another one, or too short for the array."""
    try:
        found = os.stat(path)  # noqa: PTH116
        if facts[1:3] in ((), (found.st_dev, found.st_ino)) and found.st_size >= facts[0]:
            return np.memmap(path, dtype, mode, offset, shape)
        why = "the file was cut short, or another one was put in its place"
    except OSError as error:
        why = f"the file cannot be opened: {error.strerror}"
    raise lost(path, "an array", why)


def mapped_rows(array: NDArray[Any], path: str | None = None) -> MappedRows | None:
    """Return a reader for an array that lies in a memory map; None for one that lies in memory.

    >>> mapped_rows(np.zeros(3)) is None
    True
    """
    at: Any = array
    while at is not None and not isinstance(at, mmap.mmap):
        at = at.obj if isinstance(at, memoryview) else getattr(at, "base", None)
    return None if at is None else MappedRows(array, at, path)


def _owner(array: NDArray[Any]) -> Any:
    """Return the memory map of NumPy's that an array is a part of, if it is."""
    at: Any = array
    while at is not None:
        base: Any = getattr(at, "base", None)
        if isinstance(at, np.memmap) and isinstance(base, mmap.mmap):
            return at
        at = base
    return None


def _cut_short(before: int, now: int) -> str:
    return f"the file was cut short from {before} to {now} bytes"


def _address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def _is_place(index: Any) -> bool:
    return not isinstance(index, (bool, np.bool_)) and hasattr(type(index), "__index__") and not np.ndim(index)
