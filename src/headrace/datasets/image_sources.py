"""Where the images of a dataset are: what the native extension reads them from, without asking Python for each."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import numpy as np

from headrace.context.timing import timed
from headrace.errors import ArgumentError, HeadraceError
from headrace.image.decoding import Decoding
from headrace.storage.blocks import blocks, is_elsewhere
from headrace.storage.cached_pieces import cached_pieces
from headrace.storage.files import DEFAULT_MAX_BYTES
from headrace.storage.mapped_samples import check, gather, in_memory, mapped_file
from headrace.storage.object_spans import ObjectSpans
from headrace.storage.spans import read_span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.datasets.memory_maps import MappedRows
    from headrace.datasets.packed_list import PackedList

NUMBERS = frozenset("?bBhHiIlLqQefd")
"""The dtypes, by their letter in NumPy, of arrays that the extension knows."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """What all sources have: the arrays whose rows go with the images, and whether a sample is the image alone.

    A sample is the image, then its row of each array in ``beside``; where it is ``bare``, the image and no tuple.
    A dataset makes its source once, and returns the same object from each call of ``native_source()``.
    """

    beside: tuple[NDArray[Any], ...] = ()
    bare: bool = False

    def __post_init__(self) -> None:
        if self.bare and self.beside:
            raise ArgumentError(
                f"a bare sample is the image alone, but {len(self.beside)} arrays are beside it",
                found=len(self.beside),
                expected="no arrays beside the images",
                cure="Pass bare=False, or leave beside= out.",
            )

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """The shape that all images have, where they have one before they are read."""
        return None

    def refusal(self, name: str) -> str:
        """Say why the native extension cannot read the images of a dataset of this name; nothing where it can."""
        return f"the native extension reads no {type(self).__qualname__}; {name} is read sample by sample"

    def opened_by(self, extension: Any) -> Any:
        """Return the native extension's own source of the same images."""
        raise NotImplementedError(f"{type(self).__qualname__} is not known to the native extension")

    @property
    def waits(self) -> bool:
        """Whether reading images may wait for a server: their batches are then begun by a worker, not by the loop."""
        return False

    def opened_for(self, extension: Any, rows: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
        """Return the native extension's source of the images of a batch, and their rows in it."""
        found = _opened.get(self)
        return (found if found is not None else _opened.setdefault(self, self.opened_by(extension))), rows

    @property
    def gathers(self) -> bool:
        """Whether the extension may copy rows of the arrays beside the images in the place of `take`."""
        return all(
            array.flags.c_contiguous and array.dtype.char in NUMBERS and array.dtype.isnative and not mapped_file(array)
            for array in self.beside
        )

    def take(self, number: int, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy rows of one of the arrays beside the images, counted from 0, into an array."""
        gather(self.beside[number], rows, out)

    def check(self, rows: NDArray[np.int64]) -> None:
        """Raise `BadFile` where a file that the rows came from has changed since it was opened."""

    def sample(self, columns: Sequence[NDArray[Any]], row: int) -> Any:
        """Return one sample of the columns of a batch: labels are Python numbers."""
        if self.bare:
            return columns[0][row]
        return columns[0][row], *(label_of(column[row]) for column in columns[1:])


_opened: WeakKeyDictionary[Source, Any] = WeakKeyDictionary()
"""The extension's own source of each source: made once in a process, with the files that it keeps open."""


@dataclass(frozen=True, eq=False)
class Files(Source):
    """One file for each image: ``paths``, each absolute or below ``folder``."""

    paths: PackedList
    folder: str = ""
    decoding: Decoding = field(default_factory=Decoding)

    def refusal(self, name: str) -> str:
        """Refuse what is not decoded to RGB."""
        return _mode_refusal(self.decoding, name)

    def opened_by(self, extension: Any) -> Any:
        """Hand over the paths."""
        return extension.Source.files(*_packed(self.paths, self.folder))


@dataclass(frozen=True, eq=False)
class Ranges(Source):
    """A range of a file for each image: the bytes from ``offset`` on, ``length`` of them, in ``paths[file]``.

    >>> import numpy as np
    >>> from headrace.datasets import PackedList
    >>> shards = PackedList(["0.tar", "1.tar"])
    >>> source = Ranges(shards, np.array([0, 0, 1]), np.array([512, 2048, 512]), np.array([900, 700, 800]))
    >>> source.offset[1], source.length[1]
    (np.int64(2048), np.int64(700))

    ``file``, ``offset`` and ``length`` are arrays of int64, int32 or uint32 with an entry for each sample. ``facts``,
    where the index was made earlier: an int64 array of each file's size in bytes and time of modification (ns) at that
    time. A file that differs from them, or from what it was when it was first opened, is an error that names path and
    offset.
    """

    paths: PackedList
    file: NDArray[Any]
    offset: NDArray[Any]
    length: NDArray[Any]
    folder: str = ""
    decoding: Decoding = field(default_factory=Decoding)
    facts: NDArray[np.int64] | None = None

    def refusal(self, name: str) -> str:
        """Refuse what is not decoded to RGB."""
        return _mode_refusal(self.decoding, name)

    def opened_by(self, extension: Any) -> Any:
        """Hand over paths and ranges: at most 64 files stay open, each checked after each read."""
        ranges = (_integers(each, extension) for each in (self.file, self.offset, self.length))
        facts = None if self.facts is None else _int64(self.facts)
        return extension.Source.ranges(*_packed(self.paths, self.folder), *ranges, facts)

    def read(self, row: int) -> bytes:
        """Read the bytes of one image, in Python; raises what `read_span` raises."""
        file = int(self.file[row])
        facts = None if self.facts is None else self.facts[file]
        path = os.path.join(self.folder, self.paths[file])  # noqa: PTH118  as the extension joins them
        return read_span(path, int(self.offset[row]), int(self.length[row]), facts)


@dataclass(frozen=True, eq=False)
class FetchedRanges(Ranges):
    """Ranges of files and of objects behind URLs: those of a batch are fetched together, and then made.

    What cannot be fetched is left to the step-by-step path, whose error names the sample.
    """

    @property
    def waits(self) -> bool:
        """Say that a server may let it wait."""
        return True

    def opened_for(self, extension: Any, rows: NDArray[np.int64]) -> tuple[Any, NDArray[np.int64]]:
        """Fetch the images of a batch, and hand over where they lie in the cache, or else their bytes."""
        with timed("read"):
            spans = self._spans(rows)
            pieces = None if self._has_files else cached_pieces(blocks(), spans)
            if pieces is not None:
                return extension.Source.pieces(*pieces), np.arange(len(rows))
            blocks().ensure(spans.each())
            images = [self._read_or_nothing(row) for row in rows.tolist()]
        return extension.Source.bytes(images), np.arange(len(rows))

    @cached_property
    def _has_files(self) -> bool:
        return not all(map(is_elsewhere, self.paths))

    def _spans(self, rows: NDArray[np.int64]) -> ObjectSpans:
        """Return which ranges of objects these rows need; files on this machine have no size here, and no blocks."""
        facts = cast("NDArray[np.int64]", self.facts)
        return ObjectSpans(self.paths, facts, self.file[rows], self.offset[rows], self.length[rows])

    def _read_or_nothing(self, row: int) -> bytes:
        try:
            return self.read(row) if self.length[row] <= DEFAULT_MAX_BYTES else b""
        except HeadraceError:
            return b""


@dataclass(frozen=True, eq=False)
class Bytes(Source):
    """The bytes of image files in memory: image ``i`` is ``buffer[begins[i]:begins[i + 1]]``.

    ``buffer`` is a uint8 array, ``begins`` an int64 array of one entry more than there are images.
    """

    buffer: NDArray[np.uint8]
    begins: NDArray[np.int64]
    decoding: Decoding = field(default_factory=Decoding)

    def refusal(self, name: str) -> str:
        """Refuse what is not decoded to RGB."""
        return _mode_refusal(self.decoding, name)

    def opened_by(self, extension: Any) -> Any:
        """Hand over the buffer; a memory-mapped one is read under guard."""
        return extension.Source.packed(self.buffer, _int64(self.begins), mapped_file(self.buffer) is not None)

    def check(self, rows: NDArray[np.int64]) -> None:
        """Raise `BadFile` if the buffer lies in a file that was cut short."""
        file = mapped_file(self.buffer)
        check(() if file is None else (file,), f"image {rows[0] if rows.size else 0}")

    def read(self, row: int) -> bytes:
        """Return the bytes of one image."""
        return in_memory(self.buffer[int(self.begins[row]) : int(self.begins[row + 1])]).tobytes()


@dataclass(frozen=True, eq=False)
class Arrays(Source):
    """Pixels in memory or in a memory map: ``images`` is a uint8 array of (N, H, W) or (N, H, W, C).

    ``maps`` read the rows of those arrays, the images first, that lie in memory-mapped files.
    """

    images: NDArray[Any]
    maps: tuple[MappedRows | None, ...] = ()

    @property
    def image_shape(self) -> tuple[int, ...]:
        """The shape of each image."""
        return self.images.shape[1:]

    @property
    def is_mapped(self) -> bool:
        """Whether the images lie in a memory-mapped file."""
        return bool(self.maps) and self.maps[0] is not None

    def refusal(self, name: str) -> str:
        """Refuse arrays that hold no images, or not side by side."""
        images = self.images
        fits = images.dtype == np.uint8 and images.flags.c_contiguous and images.size
        channels = images.shape[3] if images.ndim == 4 else 1
        if fits and images.ndim in (3, 4) and channels <= 4:
            return ""
        return (
            "the native extension reads C-contiguous uint8 arrays of (N, H, W) or (N, H, W, C), C up to 4; "
            f"{name} has another"
        )

    def opened_by(self, extension: Any) -> Any:
        """Hand over the array of images."""
        return extension.Source.arrays(self.images, self.is_mapped)

    @property
    def gathers(self) -> bool:
        """Whether none of them is memory-mapped."""
        return not any(self.maps[1:]) and super().gathers

    def take(self, number: int, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy rows of an array, from its file where it is memory-mapped."""
        mapped = self.maps[number + 1] if self.maps else None
        if mapped is not None:
            mapped.take(rows, out)
        else:
            super().take(number, rows, out)

    def check(self, rows: NDArray[np.int64]) -> None:
        """Raise `BadFile` unless the mapped files are what they were."""
        for mapped in self.maps:
            if mapped is not None:
                mapped.check(rows)

    def sample(self, columns: Sequence[NDArray[Any]], row: int) -> Any:
        """Return one sample: the rows as the arrays have them."""
        return columns[0][row] if self.bare else tuple(column[row] for column in columns)


def label_of(value: Any) -> Any:
    """Return a label as a sample has it: a Python number, or a row of several as an array of its own.

    >>> label_of(np.int64(3)), label_of(np.array([1.5, 2.0]))
    (3, array([1.5, 2. ]))
    """
    return value.item() if value.ndim == 0 else value.copy()


def _packed(paths: PackedList, folder: str) -> tuple[NDArray[np.uint8], NDArray[Any], bytes]:
    return paths._text, paths._ends, os.fsencode(folder)


def _int64(numbers: NDArray[Any]) -> NDArray[np.int64]:
    return np.ascontiguousarray(numbers, np.int64)


def _integers(numbers: NDArray[Any], extension: Any) -> NDArray[Any]:
    """Return numbers as the extension reads them: those of 4 bytes as they are, which are often mapped."""
    narrow = numbers.dtype in (np.int32, np.uint32) and getattr(extension, "NARROW_RANGES", False)
    return np.ascontiguousarray(numbers) if narrow else _int64(numbers)


def _mode_refusal(decoding: Decoding, name: str) -> str:
    if decoding.mode == "RGB":
        return ""
    return f"the native extension decodes to RGB; {name} has mode={decoding.mode!r}"
