"""Packed datasets: samples that `Dataset.pack` stored in Arrow shards, read in place from memory-mapped files."""

from __future__ import annotations

import copy
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace import _native
from headrace.checks import flag
from headrace.context.timing import timed
from headrace.datasets.base import Dataset
from headrace.datasets.image_sources import Source
from headrace.datasets.packed_index import COPY, PackedIndex
from headrace.datasets.warming import Warming
from headrace.errors import ArgumentError, BadFile, HeadraceError, SampleError
from headrace.formats.packed_layout import KEY
from headrace.formats.packed_tables import is_integer, label_of
from headrace.image.decoder import decode_as
from headrace.image.decoding import Decoding
from headrace.interop.keys import place as place_of
from headrace.plan.work import BadSample
from headrace.storage.crc32c import crc32c
from headrace.storage.object_spans import fetch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from headrace.datasets.shards import Shards
    from headrace.formats.packed_layout import FieldLayout
    from headrace.storage.object_spans import ObjectSpans

    Sides = tuple["Shape | None", int]
    Columns = tuple[NDArray[np.int32], NDArray[np.int32]]

Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class PackedImages(Source):
    """Images in memory-mapped shards, encoded or as pixels, each with a checksum: what the native extension reads."""

    paths: tuple[str, ...]
    facts: tuple[tuple[int, int], ...]
    file: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    checksum: NDArray[np.uint32]
    height: NDArray[np.int32]
    width: NDArray[np.int32]
    channels: int
    decoding: Decoding | None = field(default_factory=Decoding)
    """None where all images are pixels of ``shape``."""
    shape: tuple[int, ...] | None = None

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """The shape of each image, where all are pixels of one shape."""
        return self.shape

    def refusal(self, name: str) -> str:
        """Refuse images that are not RGB and differ in size."""
        if _native.extension is not None and not hasattr(_native.extension, "map_file"):
            return f"the native extension was built before it could read {name}: build it again"
        if self.channels == 3 or self.shape is not None:
            return ""
        return f"the native extension reads packed images of 3 channels, or all of one size; {name} has others"

    def opened_by(self, extension: Any) -> Any:
        """Map the files, and hand them over."""
        maps = []
        for path, facts in zip(self.paths, self.facts, strict=True):
            found = extension.map_file(os.fsencode(path), *facts)
            if found is None:
                raise _changed(path)
            maps.append(found)
        sides = (self.height, self.width)
        return extension.Source.mapped(maps, self.file, self.offset, self.length, self.checksum, *sides, self.channels)

    def check(self, rows: NDArray[np.int64]) -> None:
        """Raise `BadFile` where a shard has changed since it was opened."""
        for number in np.unique(self.file[rows]).tolist():
            path = self.paths[number]
            try:
                now = os.stat(path)  # noqa: PTH116  for each batch
            except OSError as error:
                raise _changed(path) from error
            if (now.st_size, now.st_mtime_ns) != self.facts[number]:
                raise _changed(path)


class PackedDataset(Dataset[Any]):
    """The samples that `Dataset.pack` stored, by index: each is what the dataset gave, its images scaled and encoded.

    >>> import tempfile
    >>> import numpy as np
    >>> from headrace import ArrayDataset
    >>> from headrace.datasets import PackedDataset
    >>> photos = ArrayDataset(np.zeros((6, 40, 60, 3), np.uint8), np.arange(6))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = photos.pack(folder, store="raw", max_side=30)
    ...     packed = PackedDataset(folder)
    ...     image, label = packed[4]
    >>> image.shape, label, packed.labels.tolist()
    ((20, 30, 3), np.int64(4), [0, 1, 2, 3, 4, 5])

    ``shards``: the folder, or a shard, a pattern or a list of shards in order. Shards are Arrow files, which
    `datasets`, polars, DuckDB and pyarrow open too. Only metadata is read when the dataset is constructed. URLs
    (``s3://``, ``https://``, …) are read by blocks; images are then decoded and scaled sample by sample.

    A sample of an image and numbers is read by the native extension. Pixels (``store="raw"``) go from the page cache to
    the batch: cropped, scaled, flipped and normalized in one pass, without a copy of the whole image. Each sample has a
    CRC-32C, which is compared when a process reads it for the first time; all else has one too. A sample that is
    damaged is a `SampleError` that names shard and key: ``on_error="skip"`` leaves it out.

    ``warm``: whether to read the shards ahead into the page cache, in the background, as far as memory reaches; it is
    shared by all processes of the machine. `warming` says how much fits.

    Raises `BadFile` for shards that are damaged, missing, of another dataset or not finished; `MissingFile`.
    """

    suits_threads = True

    def __init__(self, shards: Shards, *, warm: bool = False) -> None:
        self._index = PackedIndex(shards)
        self._layout = self._index.layout
        self._structure = self._layout.structure
        for each in self._layout.fields:
            if not each.has_bytes:
                self._index.numbers(each)  # damage there is an error now, and not at the first sample
        self._warned = set[str]()
        self._source = self._native()
        self.warming: Warming | None = None
        """How much of the shards fits in memory, and how far reading ahead is; None without ``warm=True``."""
        if flag("warm", warm):
            if self._index.remote:
                raise ArgumentError(
                    "warm=True was given for shards behind URLs",
                    found=True,
                    expected="shards on this machine, which the page cache holds",
                    cure="Leave warm out: the cache keeps blocks on disk. Or copy the shards.",
                )
            self.warming = Warming([(file.path, file.facts[0]) for file in self._index.files])

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_source": None, "warming": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        with suppress(HeadraceError):  # a shard has changed: its samples say so when they are read
            self._source = self._native()

    @property
    def fields(self) -> list[str]:
        """The names of the fields of a sample."""
        return [self._layout.fields[number].name for number in _numbers_in(self._structure)]

    @property
    def shards(self) -> list[str]:
        """The paths of the shards, in order."""
        return [file.path for file in self._index.files]

    @property
    def shard_lengths(self) -> list[int]:
        """How many samples each shard has: what `ShardSampler` takes."""
        return [shard.rows for shard in self._index.told]

    @property
    def labels(self) -> NDArray[Any] | None:
        """The values of the one field of integers in a sample, read-only; None where there are several, or none."""
        fields = [self._layout.fields[number] for number in _numbers_in(self._structure)]
        found = [each for each in fields if each.kind == "number" and is_integer(each)]
        return self._index.numbers(found[0]) if len(found) == 1 else None

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, by label, as the dataset had them."""
        return list(self._layout.classes) if label_of(self._layout) in self.fields else []

    @property
    def skipped(self) -> list[BadSample]:
        """The samples that packing left out (``on_error="skip"``): their indices in the dataset that was packed."""
        return [BadSample(int(row), where, error) for shard in self._index.told for row, where, error in shard.skipped]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Any:
        """Read the sample at an index, in the form that it was packed in."""
        return self._made(self._structure, place_of(index, len(self), "a PackedDataset of {} samples"))

    @property
    def reads_many(self) -> bool:
        """Whether reading many samples at once is better than one by one: of shards behind URLs."""
        return self._index.remote

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Read many samples; what they need of shards behind URLs is fetched by several requests at once."""
        if self._index.remote:
            fetch(self.object_spans(indices))
        return [self[index] for index in indices]

    def object_spans(self, keys: Sequence[Any]) -> list[ObjectSpans]:
        """Return which ranges of shards behind URLs the samples of these keys need."""
        if not self._index.remote:
            return []
        count = len(self)
        rows = np.array([place_of(key, count, "a PackedDataset of {} samples") for key in keys], np.int64)
        fields = [self._layout.fields[number] for number in _numbers_in(self._structure)]
        return self._index.object_spans(rows, fields)

    def is_image(self, field: str) -> bool:
        """Say whether a field is an image."""
        return any(each.name == field and each.kind == "image" for each in self._layout.fields)

    def is_integer(self, field: str) -> bool:
        """Say whether a field is an integer, which is known without reading samples."""
        return any(each.name == field and not each.has_bytes and is_integer(each) for each in self._layout.fields)

    def tuple(self, *fields: str) -> PackedDataset:
        """Return a dataset whose samples are tuples of these fields: ``dataset.tuple("image", "label")``.

        With an image first and numbers after it, the native extension reads them. Raises `ArgumentError` for a field
        that samples do not have.
        """
        known = {each.name: number for number, each in enumerate(self._layout.fields)}
        for name in fields:
            if name not in known:
                raise ArgumentError(
                    f"no sample has a field {name!r}",
                    found=name,
                    expected=f"one of {', '.join(map(repr, known))}",
                    cure="Give one of these names.",
                )
        made = copy.copy(self)
        made._structure = ["tuple", [known[name] for name in fields]]
        made._source = made._native()
        return made

    def key(self, index: int) -> str:
        """Return the key of a sample: its path, or its key in the shard, as the dataset had it."""
        return self._key(place_of(index, len(self), "a PackedDataset of {} samples"))

    def where(self, index: int) -> str:
        """Return the shard and the key of a sample, for errors."""
        row = place_of(index, len(self), "a PackedDataset of {} samples")
        try:
            key = self._key(row)
        except HeadraceError:
            key = f"row {row - self._index.first[self._index.file_of(row)]}"
        return f"{self._index.files[self._index.file_of(row)].path}: {key}"

    def native_source(self) -> PackedImages | None:
        """Return where the images are, with the numbers beside them; None for samples of another form."""
        return self._source

    def _key(self, row: int) -> str:
        each = next(each for each in self._layout.fields if each.name == KEY)
        return str(self._value(each, row))

    def _made(self, structure: Any, row: int) -> Any:
        if isinstance(structure, int):
            return self._value(self._layout.fields[structure], row)
        kind, parts = structure
        if kind == "tuple":
            return tuple([self._made(part, row) for part in parts])
        return {name: self._made(part, row) for name, part in parts}

    def _value(self, each: FieldLayout, row: int) -> Any:
        if not each.has_bytes:
            value = self._index.numbers(each)[row]
            return value.item() if each.dtype in ("int", "float", "bool") else value
        spans = self._index.spans(each)
        if spans.null is not None and spans.null[row]:
            return None
        shape = None if spans.shape is None else tuple(spans.shape[row].tolist())
        offset, length = int(spans.offset[row]), int(spans.length[row])
        if each.kind == "image" and self._layout.store == "smart":
            shape, skipped = self._sides(each, row, length)
            offset, length = offset + skipped, length - skipped
        with timed("read"):
            data = self._index.read(self._index.file_of(row), offset, length)
        if crc32c(data) != self._index.sums()[row, self._layout.with_bytes.index(each.name)]:
            raise self._bad(each, row, "its bytes have another checksum than when it was packed")
        try:
            return self._decoded(each, row, data, shape)
        except (ValueError, RecursionError) as error:
            if isinstance(error, HeadraceError):
                raise
            raise self._bad(each, row, f"it cannot be read: {error}") from error

    def _decoded(self, each: FieldLayout, row: int, data: bytes, shape: Shape | None) -> Any:
        if each.kind == "image" and shape is None:
            with timed("decode"):
                decoding = Decoding("L" if each.channels == 1 else "RGB")
                try:
                    pixels = decode_as(data, self.where(row), decoding, self._warned)
                except SampleError as error:
                    error.at(row)
                    raise
                return pixels[:, :, None] if each.axes > pixels.ndim else pixels
        if each.kind in ("image", "array"):
            values = np.frombuffer(bytearray(data), each.stored)
            values = values.astype(bool) if each.dtype == "|b1" else values
            return values if shape is None else values.reshape(shape)
        if each.kind == "bytes":
            return data
        return json.loads(data) if each.kind == "json" else data.decode()

    def _sides(self, each: FieldLayout, row: int, length: int) -> Sides:
        """Return the shape of an image that is stored as pixels, and the bytes before them; None for encoded ones."""
        height, width = self._side_columns(each)
        rows, columns = int(height[row]), int(width[row])
        if not rows or not columns:
            return None, 0
        shape = (rows, columns) if each.axes == 2 else (rows, columns, each.channels)
        return shape, max(0, length - rows * columns * each.channels)

    def _skipped(self, each: FieldLayout) -> NDArray[np.int64]:
        """Return how many bytes come before the pixels of each sample, in a field of images or any other."""
        if each.kind != "image" or self._layout.store != "smart":
            return np.zeros(len(self), np.int64)
        height, width = self._side_columns(each)
        pixels = height.astype(np.int64) * width * each.channels
        return np.where(pixels > 0, np.maximum(0, self._index.spans(each).length - pixels), 0)

    def _side_columns(self, each: FieldLayout) -> Columns:
        images = [field.name for field in self._layout.fields if field.kind == "image"]
        sides, first = self._index.sides(), 2 * images.index(each.name)
        return sides[:, first], sides[:, first + 1]

    def _bad(self, each: FieldLayout, row: int, what: str) -> SampleError:
        where = self.where(row) if each.name != KEY else self._index.files[self._index.file_of(row)].path
        return SampleError(
            f"field {each.name!r}: {what}",
            path=where,
            index=row,
            expected="undamaged bytes",
            cure=f'{COPY} on_error="skip" leaves the sample out.',
        )

    def _native(self) -> PackedImages | None:
        """Return the source of the images, where a sample is an image, or one and numbers."""
        if self._index.remote:
            return None
        numbers = [self._structure] if isinstance(self._structure, int) else self._structure[1]
        if not isinstance(self._structure, int) and (self._structure[0] != "tuple" or not numbers):
            return None
        if not all(isinstance(number, int) for number in numbers):
            return None
        image, *beside = (self._layout.fields[number] for number in numbers)
        if image.kind != "image" or any(each.has_bytes for each in beside):
            return None
        spans = self._index.spans(image)
        shape = spans.shape
        offset, length = spans.offset, spans.length
        height, width = (np.zeros(len(self), np.int32) for _ in range(2))
        if shape is not None:
            height, width = (np.ascontiguousarray(shape[:, axis]) for axis in (0, 1))
        elif self._layout.store == "smart":
            height, width = map(np.ascontiguousarray, self._side_columns(image))
            skipped = self._skipped(image)
            offset, length = offset + skipped, length - skipped
        alike = shape is not None and len(shape) > 0 and bool((shape == shape[0]).all())
        column = self._layout.with_bytes.index(image.name)
        files = self._index.files
        return PackedImages(
            tuple(file.path for file in files),
            tuple(file.facts for file in files),
            np.repeat(np.arange(len(files), dtype=np.int32), self.shard_lengths),
            offset,
            length,
            np.ascontiguousarray(self._index.sums()[:, column]),
            height,
            width,
            image.channels,
            None if alike else Decoding(),
            tuple(shape[0].tolist()) if alike and shape is not None else None,
            beside=tuple(map(self._index.numbers, beside)),
            bare=isinstance(self._structure, int),
        )


def _numbers_in(structure: Any) -> list[int]:
    """Return the numbers of the fields in a structure."""
    if isinstance(structure, int):
        return [structure]
    kind, parts = structure
    inner = parts if kind == "tuple" else [part for _, part in parts]
    return [number for part in inner for number in _numbers_in(cast("Any", part))]


def _changed(path: str) -> BadFile:
    return BadFile(
        "the shard was changed, replaced or removed after it was opened",
        path=path,
        expected="the shard as it was packed",
        cure="Restore it, or construct the dataset again; do not write to a shard while it is read.",
    )
