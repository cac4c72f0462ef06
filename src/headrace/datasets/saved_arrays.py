"""A file of named arrays that is checked when it is opened, and memory-mapped where it is large."""

from __future__ import annotations

import json
import os
import secrets
import zlib
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray

MAGIC = b"headrace index 2\n"
MAPPED_FROM = 1 << 26
"""Files of this many bytes or more are memory-mapped, so that workers share them; smaller ones are read."""

ROWS = 1 << 16
"""Items that are checked at once."""

_ALIGNED = 64
_DTYPES = ("|u1", "<i4", "<u4", "<u8", "<i8")
_MOST_HEADER = 1 << 26


class SavedArrays:
    """The arrays of an open file, and what is said about them.

    >>> import numpy as np, tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     place = pathlib.Path(folder, "a.index")
    ...     save(place, {"of": "squares"}, {"values": np.arange(4) ** 2})
    ...     with SavedArrays(str(place)) as saved:
    ...         saved.about, saved.array("values").tolist(), [block.tolist() for block in saved.blocks("values")]
    True
    ({'of': 'squares'}, [0, 1, 4, 9], [[0, 1, 4, 9]])

    ``sums`` are the checksums of the arrays, which `blocks` compares and `array` does not. Raises OSError or ValueError
    for a file that cannot be read or is damaged; KeyError or TypeError for a damaged header.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._file = os.open(place, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            self._facts = _facts(os.fstat(self._file))
            self._size = self._facts[0]
            self._start, header = self._header()
            self.about: dict[str, Any] = dict(header["about"])
            self._arrays = {str(name): self._checked(*said) for name, said in header["arrays"].items()}
            self._data = None if self._size >= MAPPED_FROM else self._read(self._start, self._size - self._start)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    @property
    def sums(self) -> tuple[int, ...]:
        """The checksums of all arrays."""
        return tuple(total for _, _, _, total in self._arrays.values())

    def array(self, name: str) -> NDArray[Any]:
        """Return an array that cannot be written to: of bytes that were read, or in a map of a large file."""
        dtype, count, at, _ = self._arrays[name]
        if self._data is not None or not count:
            return np.frombuffer(self._data or b"", dtype, count, at if count else 0)
        array = np.memmap(self._place, dtype, "r", self._start + at, (count,))
        if _facts(os.stat(self._place)) != self._facts:  # noqa: PTH116
            raise ValueError("it was replaced")
        return np.asarray(array)  # or whatever is made of labels would be of the map's type

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield an array in blocks of `ROWS` items, read and not mapped; raise ValueError after a false checksum."""
        dtype, count, at, total = self._arrays[name]
        found = 0
        for begin in range(0, count, ROWS):
            many = min(ROWS, count - begin)
            place, size = at + begin * dtype.itemsize, many * dtype.itemsize
            data = self._data[place : place + size] if self._data else self._read(self._start + place, size)
            found = zlib.crc32(data, found)
            yield np.frombuffer(data, dtype, many)
        if found != total:
            raise ValueError(f"the checksum of {name} does not match")

    def _header(self) -> tuple[int, Any]:
        """Return where the arrays begin, and what the header says."""
        head = self._read(0, len(MAGIC) + 8)
        start = len(head) + int.from_bytes(head[len(MAGIC) :], "little")
        if head[: len(MAGIC)] != MAGIC or start > min(_MOST_HEADER, self._size):
            raise ValueError("it is no saved index")
        return start, json.loads(self._read(len(head), start - len(head)))

    def _checked(self, dtype: str, count: int, at: int, total: int) -> tuple[np.dtype[Any], int, int, int]:
        if dtype not in _DTYPES or min(count, at) < 0 or not isinstance(total, int):
            raise ValueError(dtype)
        kind = np.dtype(dtype)
        if self._start + at + count * kind.itemsize > self._size:
            raise ValueError("an array ends after its file")
        return kind, count, at, total

    def _read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._file, size, offset)
        while len(data) < size and (more := os.pread(self._file, size - len(data), offset + len(data))):
            data += more
        if len(data) < size:
            raise ValueError("it is cut short")
        return data


def _facts(found: os.stat_result) -> tuple[int, ...]:
    return found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev


def save(place: Path, about: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bool:
    """Save arrays under a temporary name, then rename it, so that nobody reads half of a file; False if that fails."""
    said, pieces, at = {}, list[Any](), 0
    for name, array in arrays.items():
        data: Any = np.ascontiguousarray(array).view(np.uint8)
        padding = bytes(-len(data) % _ALIGNED)
        said[name] = (array.dtype.str, len(array), at, zlib.crc32(data))
        pieces += [data, padding]
        at += len(data) + len(padding)
    text = json.dumps({"about": about, "arrays": said}).encode()
    text += b" " * (-(len(MAGIC) + 8 + len(text)) % _ALIGNED)
    passing = place.with_name(f"{place.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with passing.open("xb") as file:
                file.write(MAGIC + len(text).to_bytes(8, "little") + text)
                file.writelines(pieces)
            passing.replace(place)
        finally:
            passing.unlink(missing_ok=True)
    except OSError:
        return False
    return True
