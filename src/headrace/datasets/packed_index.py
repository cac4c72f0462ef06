"""Where the fields of each sample of a packed dataset are: read from its shards, each part with its checksum."""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headrace.datasets.shards import shard_paths
from headrace.datasets.span_table import at_once
from headrace.errors import BadFile
from headrace.formats import arrow
from headrace.formats.packed_layout import (
    LISTING,
    SIDES,
    SUFFIX,
    SUMS,
    FieldLayout,
    Layout,
    ShardLayout,
    buffers_of,
    fixed_buffer,
    part_sizes,
    place,
    read_layout,
    shard_name,
)
from headrace.storage import objects
from headrace.storage.blocks import read_url
from headrace.storage.crc32c import crc32c
from headrace.storage.object_spans import ObjectSpans
from headrace.storage.objects import is_url, joined, path_of, place_of
from headrace.storage.shard_folders import DiskFolder
from headrace.storage.spans import SpanFiles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from headrace.datasets.shards import Shards
    from headrace.formats.arrow import ArrowFile
    from headrace.storage.shard_folders import ShardFolder

MOST_LISTING, MOST_SHARDS = 1 << 26, 1 << 20
"""Bytes of what a folder behind a URL says of itself, and the shards that it may name."""

COPY = "Copy the shards again, or pack the dataset again."


class Spans(NamedTuple):
    """Where the bytes of a field are, (samples,) each: their offset in the file, how many, and their shape, if any."""

    offset: NDArray[np.int64]
    length: NDArray[np.int64]
    shape: NDArray[np.int32] | None
    null: NDArray[np.bool_] | None


class PackedIndex:
    """The shards of a packed dataset, opened; arrays over all samples are read when they are first asked for.

    Pickled copies read them again, and from the same files, or not at all.
    """

    def __init__(self, shards: Shards) -> None:
        told = None
        url = path_of("shards", shards) if isinstance(shards, str) else ""
        if is_url(url) and not place_of(url).endswith(SUFFIX):
            told = _listing_of(url)
            shards = [joined(url, shard_name(number)) for number in range(int(told["shards"]))]
        paths = shard_paths(shards, SUFFIX, urls=True)
        self.remote = any(map(is_url, paths))
        """Whether shards are objects behind URLs."""
        found = at_once(_opened, paths, remote=self.remote)
        self.layout: Layout = found[0][1].layout
        for (file, shard), (last, before) in zip(found[1:], found, strict=False):
            _follows(file, shard, last, before)
        rows = sum(shard.rows for _, shard in found)
        if told is not None:
            _check_count(paths[0].rpartition("/")[0], told, len(paths), rows)
        elif isinstance(shards, str | os.PathLike) and not is_url(os.fspath(shards)):
            _check_listing(Path(shards), len(paths), rows)
        self.files = [file for file, _ in found]
        self.told = [shard for _, shard in found]
        self.paths, self.facts = paths, np.array([file.facts for file in self.files], np.int64)
        self.first: list[int] = np.cumsum([0, *(shard.rows for shard in self.told)]).tolist()
        self._spans: dict[str, Spans] = {}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._lock = Lock()
        self._reads = SpanFiles()

    def __getstate__(self) -> dict[str, Any]:
        held = {name: value for name, value in vars(self).items() if name != "_lock"}
        return held | {"_spans": {}, "_arrays": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = Lock()

    def __len__(self) -> int:
        return self.first[-1]

    def file_of(self, row: int) -> int:
        """Return the number of the file that a sample is in."""
        return bisect_right(self.first, row) - 1

    def read(self, file: int, offset: int, length: int) -> bytes:
        """Read a range of a file; raise `BadFile` for a file that is not what it was."""
        at = self.files[file]
        return self._reads.read(at.path, offset, length, at.facts) if length else b""

    def numbers(self, each: FieldLayout) -> NDArray[Any]:
        """Return the values of a field of numbers, (samples,)."""
        return self._kept(each.name, lambda: np.concatenate(self._each(partial(self._numbers, each))))

    def sums(self) -> NDArray[np.uint32]:
        """Return the checksums of the fields that have bytes, (samples, fields)."""
        width = len(self.layout.with_bytes)
        return self._kept(SUMS, lambda: np.concatenate(self._each(partial(self._fixed, SUMS, "<u4", width))))

    def sides(self) -> NDArray[np.int32]:
        """Return height and width of each image that is stored as pixels among encoded ones, (samples, 2 * images)."""
        width = 2 * sum(each.kind == "image" for each in self.layout.fields)
        return self._kept(SIDES, lambda: np.concatenate(self._each(partial(self._fixed, SIDES, "<i4", width))))

    def spans(self, each: FieldLayout) -> Spans:
        """Return where the bytes of a field are."""
        found = self._spans.get(each.name)
        if found is None:
            parts = self._each(partial(self._located, each))
            shapes = [part.shape for part in parts if part.shape is not None]
            nulls = [np.zeros(len(part.length), bool) if part.null is None else part.null for part in parts]
            found = Spans(
                np.concatenate([part.offset for part in parts]),
                np.concatenate([part.length for part in parts]),
                np.concatenate(shapes) if shapes else None,
                np.concatenate(nulls) if any(part.null is not None for part in parts) else None,
            )
            with self._lock:
                found = self._spans.setdefault(each.name, found)
        return found

    def object_spans(self, rows: NDArray[np.int64], fields: Iterable[FieldLayout]) -> list[ObjectSpans]:
        """Return which ranges of the shards these fields of samples are in, where they have bytes."""
        file = np.searchsorted(self.first, rows, "right") - 1
        found = [self.spans(each) for each in fields if each.has_bytes]
        return [ObjectSpans(self.paths, self.facts, file, each.offset[rows], each.length[rows]) for each in found]

    def _kept(self, name: str, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        found = self._arrays.get(name)
        if found is None:
            made = make()
            made.flags.writeable = False
            with self._lock:
                found = self._arrays.setdefault(name, made)
        return found

    def _each(self, read: Callable[[int], Any]) -> list[Any]:
        if len(self.files) < 8 and not self.remote:
            return [self._checked(read, number) for number in range(len(self.files))]
        return at_once(partial(self._checked, read), range(len(self.files)), remote=self.remote)

    def _checked(self, read: Callable[[int], Any], number: int) -> Any:
        try:
            return read(number)
        except ValueError as error:
            raise _damaged(self.files[number].path, error) from error

    def _part(self, number: int, name: str, buffer: int, size: int) -> bytes:
        """Read a buffer of a shard that is not bytes of samples."""
        file = self.files[number]
        data = self.read(number, place(file, buffer, size), size)
        if crc32c(data) != self.told[number].parts.get(name):
            raise ValueError(f"its buffer {name} has another checksum than when it was packed")
        return data

    def _numbers(self, each: FieldLayout, number: int) -> NDArray[Any]:
        file, rows = self.files[number], self.told[number].rows
        buffers = buffers_of(each, file.columns[each.name], self.layout.store)
        size = part_sizes(each, rows, self.layout.store, nulls=False)["values"]
        data = np.frombuffer(self._part(number, f"{each.name}:values", buffers.values, size), np.uint8)
        if each.stored:
            return data.view(each.stored)
        return np.unpackbits(data, count=rows, bitorder="little").astype(bool)

    def _fixed(self, name: str, dtype: str, width: int, number: int) -> NDArray[Any]:
        file, rows = self.files[number], self.told[number].rows
        if name not in file.columns:
            raise ValueError(f"it has no column {name}")
        buffer = fixed_buffer(name, file.columns[name], dtype, width)
        return np.frombuffer(self._part(number, f"{name}:values", buffer, 4 * rows * width), dtype).reshape(rows, width)

    def _located(self, each: FieldLayout, number: int) -> Spans:
        file, rows, store = self.files[number], self.told[number].rows, self.layout.store
        buffers = buffers_of(each, file.columns[each.name], store)
        sizes = part_sizes(each, rows, store, nulls=each.name in self.told[number].nulls)
        where = {"valid": buffers.valid, "offsets": buffers.offsets, "shape": buffers.shape}
        parts = {name: self._part(number, f"{each.name}:{name}", where[name], size) for name, size in sizes.items()}
        itemsize = np.dtype(each.stored).itemsize if each.kind == "array" else 1
        offsets = itemsize * np.frombuffer(parts["offsets"], "<i4").astype(np.int64)
        if offsets[0] != 0 or (offsets[1:] < offsets[:-1]).any():
            raise ValueError(f"the offsets of column {each.name!r} do not ascend")
        shape = np.frombuffer(parts["shape"], "<i4").reshape(rows, each.axes) if "shape" in parts else None
        bits = np.frombuffer(parts.get("valid", b""), np.uint8)
        null = ~np.unpackbits(bits, count=rows, bitorder="little").astype(bool) if "valid" in parts else None
        return Spans(offsets[:-1] + place(file, buffers.values, int(offsets[-1])), np.diff(offsets), shape, null)


def _opened(path: str) -> tuple[ArrowFile, ShardLayout]:
    file = arrow.index(path)
    try:
        return file, _checked_layout(file)
    except (ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _checked_layout(file: ArrowFile) -> ShardLayout:
    """Return what a shard says of itself; raise ValueError where its metadata does not fit that."""
    shard = read_layout(file.metadata)
    if len(file.rows) != 1 or int(file.rows[0]) != shard.rows or file.codec:
        raise ValueError(f"it has {file.rows.tolist()} rows, and its schema says {shard.rows:,} in one batch")
    for each in shard.layout.fields:
        if each.name not in file.columns:
            raise ValueError(f"it has no column {each.name!r}")
        buffers_of(each, file.columns[each.name], shard.layout.store)
    return shard


def _follows(file: ArrowFile, shard: ShardLayout, last: ArrowFile, before: ShardLayout) -> None:
    """Raise unless a shard continues the one before it, or begins what was added later."""
    if shard.layout != before.layout:
        raise BadFile(
            f"it was packed in another way than {Path(last.path).name}",
            path=file.path,
            expected="shards of one packed dataset",
            cure="Open them as two datasets, and join these with +.",
        )
    if shard.first not in (0, before.first + before.rows):
        raise BadFile(
            f"it begins with sample {shard.first:,}, and {Path(last.path).name} ends before "
            f"{before.first + before.rows:,}",
            path=file.path,
            expected="all shards, in order",
            cure="Bring back the shards between them.",
        )


def read_listing(folder: ShardFolder) -> dict[str, Any] | None:
    """Return what a folder of shards says of itself; None where it says nothing."""
    try:
        told = json.loads(folder.read(LISTING) or b"")
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _check_listing(folder: Path, shards: int, rows: int) -> None:
    told = read_listing(DiskFolder(folder))
    if told is not None:
        _check_count(str(folder), told, shards, rows)


def _listing_of(url: str) -> dict[str, Any]:
    """Return what a folder behind a URL says of itself."""
    path = joined(url, LISTING)
    size, version = objects.facts(path)
    expected, cure = "what packing a dataset leaves beside its shards", "Upload the whole folder, or give its shards."
    text = read_url(path, 0, size, (size, version)) if size <= MOST_LISTING else b""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    shards = told.get("shards") if isinstance(told, dict) and told.get("finished") else None
    if not isinstance(told, dict) or not isinstance(shards, int) or not 0 < shards <= MOST_SHARDS:
        raise BadFile("it does not name the shards of a finished dataset", path=path, expected=expected, cure=cure)
    return told


def _check_count(folder: str, told: dict[str, Any], shards: int, rows: int) -> None:
    if not told.get("finished"):
        raise BadFile(
            "packing was not finished",
            path=folder,
            expected="all shards of the dataset",
            cure="Run the same command again: it continues. Or give a pattern of the shards that are there: "
            f"{folder}/*{SUFFIX}.",
        )
    if (told.get("shards"), told.get("samples")) != (shards, rows):
        raise BadFile(
            f"it has {shards} shards of {rows:,} samples",
            path=folder,
            expected=f"{told.get('shards')} shards of {told.get('samples')} samples, as {LISTING} says",
            cure=COPY,
        )


def _damaged(path: str, error: Exception) -> BadFile:
    if isinstance(error, BadFile):
        return error
    return BadFile(
        f"it is damaged, or not packed: {error}", path=path, expected="a shard of a packed dataset", cure=COPY
    )
