"""Rows of Arrow IPC files and streams, as Hugging Face's `datasets`, Feather and pyarrow write them."""

from __future__ import annotations

import os
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag
from headrace.context.timing import timed
from headrace.datasets.field_samples import FieldDataset
from headrace.datasets.fields import Fields
from headrace.datasets.image_sources import Files, Ranges
from headrace.datasets.packed_list import PackedList
from headrace.datasets.shards import shard_paths
from headrace.datasets.span_table import at_once
from headrace.errors import ArgumentError, BadFile, HeadraceError, SampleError
from headrace.formats import arrow
from headrace.formats.arrow_values import Batch, spans, value, values
from headrace.formats.chunk import Listing
from headrace.formats.features import is_file, kind_of, shaped
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.storage.files import read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.datasets.fields import Decoder
    from headrace.datasets.image_sources import Source
    from headrace.datasets.shards import Shards
    from headrace.formats.arrow import ArrowFile, Column, Type
    from headrace.image.modes import Mode

SUFFIXES = (".arrow", ".arrows", ".feather", ".ipc")
STATE = "state.json"
"""What `datasets` writes beside the files of a dataset that it saves."""


class ArrowDataset(FieldDataset):
    """Rows of Arrow IPC files and streams: those of Hugging Face's `datasets`, Feather version 2, and pyarrow.

    >>> import pathlib, tempfile
    >>> import pyarrow as pa
    >>> from headrace.datasets import ArrowDataset
    >>> table = pa.table({"text": ["hi", "yo"], "n": [3, 5], "ids": [[1, 2], []]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with pa.OSFile(f"{folder}/0.arrow", "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
    ...         writer.write_table(table)
    ...     dataset = ArrowDataset(folder)
    ...     sample, pair, labels = dataset[0], dataset.tuple("text", "n")[1], dataset.labels
    >>> sample, pair, labels
    ({'__key__': '0', 'text': 'hi', 'n': 3, 'ids': array([1, 2])}, ('yo', 5), array([3, 5]))

    ``shards``: a path, a pattern with braces or stars, a folder, or a list of paths. Of a folder that
    `Dataset.save_to_disk` wrote, the files that its ``state.json`` names; of any other its ``.arrow``, ``.feather`` and
    ``.ipc`` files, sorted. A sample is a dict of its columns, and of ``"__key__"``: its row in its file. All files have
    the same columns. pyarrow is not needed.

    Text becomes str, integers and bools Python's, floats NumPy's of their dtype, lists of numbers arrays, other lists
    and structs lists and dicts, times `datetime64` and `timedelta64`, null None. Columns that `datasets` declares as
    images become arrays; audio stays bytes. ``decoders`` by column, as in `WebDataset`: ``{"png": "png"}`` reads
    a column of bytes as images. ``fields``, ``mode``, ``max_pixels``, ``allow_truncated``: as in `WebDataset`.

    Images that are not in the Arrow file but in files of their own, which it names, are refused unless
    ``follow_paths=True``: a file from a stranger could name any file of yours.

    Only metadata is read when the dataset is constructed. A row is read by positioned reads of its buffers, images by
    the native extension. Columns of other types (dictionary, decimal, union, map) are refused: leave them out.

    Raises `BadFile` for files that are damaged, compressed, of different columns, or that change while they are read;
    `MissingFile`; `ArgumentError`. Format: https://arrow.apache.org/docs/format/Columnar.html.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        fields: Iterable[str] | None = None,
        decoders: Mapping[str, Decoder | str | None] | None = None,
        mode: Mode = "RGB",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        follow_paths: bool = False,
    ) -> None:
        decoding = Decoding(mode, max_pixels, allow_truncated)
        paths = _saved(shards) or shard_paths(shards, *SUFFIXES)
        self._hold(at_once(arrow.index, paths), decoding, decoders or {}, fields)
        self._follow, self._plain = flag("follow_paths", follow_paths), False

    @classmethod
    def _of(
        cls,
        files: list[ArrowFile],
        decoding: Decoding,
        decoders: Mapping[str, Decoder | str | None],
        features: Mapping[str, Any],
        *,
        plain: bool,
    ) -> ArrowDataset:
        """Return a dataset of indexed files, from someone who is trusted with the paths in them."""
        dataset = cls.__new__(cls)
        dataset._hold(files, decoding, decoders, None, features)
        dataset._follow, dataset._plain = True, plain
        return dataset

    def _hold(
        self,
        files: list[ArrowFile],
        decoding: Decoding,
        decoders: Mapping[str, Decoder | str | None],
        chosen: Iterable[str] | None,
        features: Mapping[str, Any] | None = None,
    ) -> None:
        self._files = files
        self._types = _types(files)
        self._features = dict(features if features is not None else files[0].features)
        kinds = {name: kind_of(kind, self._features.get(name)) for name, kind in self._types.items()}
        read = Fields(decoding, decoders, {name: kind for name, kind in kinds.items() if kind})
        super().__init__(list(self._types), read, chosen)
        for name in self._chosen:
            _refuse(name, self._types[name], read, kinds[name])
        counts = [len(file.rows) for file in files]
        self._batches = [(file, number) for file, count in enumerate(counts) for number in range(count)]
        rows = np.concatenate([file.rows for file in files])
        self._first: list[int] = np.concatenate([[0], np.cumsum(rows)]).tolist()
        self._file_first: list[int] = np.cumsum([0, *(int(file.rows.sum()) for file in files)]).tolist()
        self._read_numbers: dict[str, NDArray[np.int64]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_read_numbers": {}}

    @property
    def shards(self) -> list[str]:
        """The paths of the files, in order."""
        return [file.path for file in self._files]

    @property
    def shard_lengths(self) -> list[int]:
        """How many rows each file has: what `ShardSampler` takes."""
        return [end - begin for begin, end in pairwise(self._file_first)]

    def __len__(self) -> int:
        return self._first[-1]

    def is_integer(self, field: str) -> bool:
        """Say whether a field is an integer that all samples have."""
        kind = self._types.get(field)
        if kind is None or not kind.is_integer or not self._fields.is_integer(field):
            return False
        return not any(file.nodes[:, file.columns[field].node, 1].any() for file in self._files)

    def read(self, index: int, field: str) -> bytes:
        """Read the bytes of a field of text, bytes, or an image, without decoding them.

        Raises `SampleError` for null, and `ArgumentError` for a field of another type.
        """
        row, name = self._row(index), self._known(field)
        if not _has_bytes(self._types[name]):
            raise ArgumentError(
                f"field {name!r} holds {self._types[name].name}, which is no bytes",
                found=self._types[name].name,
                expected="a field of text, bytes or images",
                cure="Read its value: dataset[index].",
            )
        data = self._bytes(row, name)
        if data is None:
            raise SampleError(
                f"field {name!r} is null", path=self._where(row), index=row, expected="bytes", cure="Leave the row out."
            )
        return data

    def _key(self, row: int) -> str:
        return str(row - self._file_first[self._file_of(row)])

    def _where(self, row: int) -> str:
        return f"{self._files[self._file_of(row)].path}: {self._key(row)}"

    def _file_of(self, row: int) -> int:
        return bisect_right(self._file_first, row) - 1

    def _place(self, row: int, name: str) -> tuple[Batch, Column, int]:
        """Return the batch of a row, the column there, and the row in the batch."""
        place = bisect_right(self._first, row) - 1
        number, batch = self._batches[place]
        file = self._files[number]
        return Batch(file, batch), file.columns[name], row - self._first[place]

    def _value(self, row: int, name: str) -> Any:
        if name in self._read_numbers:
            return int(self._read_numbers[name][row])
        kind = self._types[name]
        if _has_bytes(kind):
            data = self._bytes(row, name)
            return None if data is None else self._decoded(row, name, data)
        batch, column, place = self._place(row, name)
        with timed("read"):
            try:
                found = value(batch, column, place, plain=self._plain)
            except ValueError as error:
                raise self._damaged(row, name, error) from error
        return shaped(found, self._features.get(name), plain=self._plain)

    def _bytes(self, row: int, name: str) -> bytes | None:
        """Return the bytes of a field; None for null."""
        batch, column, place = self._place(row, name)
        try:
            data, path = _stored(batch, column, place)
        except ValueError as error:
            raise self._damaged(row, name, error) from error
        if data is not None or path is None:
            return data
        if not self._follow:
            raise _elsewhere(name, self._where(row), path)
        try:
            with timed("read"):
                return read_file(path)
        except SampleError as error:
            error.at(row)
            raise

    def _damaged(self, row: int, name: str, error: ValueError) -> HeadraceError:
        if isinstance(error, HeadraceError):
            return error
        return BadFile(
            f"field {name!r} cannot be read: {error}",
            path=self._where(row),
            expected="an undamaged Arrow file",
            cure="Copy the file again, or write it again.",
        )

    def _each_batch(self, name: str) -> Iterable[tuple[int, Batch, Column, int]]:
        for place, (number, batch) in enumerate(self._batches):
            file = self._files[number]
            yield self._first[place], Batch(file, batch), file.columns[name], int(file.rows[batch])

    def _numbers(self, name: str) -> NDArray[Any] | None:
        if name not in self._read_numbers and self.is_integer(name):
            found = np.empty(len(self), np.int64)
            for first, batch, column, count in self._each_batch(name):
                try:
                    found[first : first + count] = values(batch, column, 0, count, plain=False)
                except ValueError as error:
                    raise self._damaged(first, name, error) from error
            self._read_numbers[name] = found
        return self._read_numbers.get(name)

    def _source(self, image: str, beside: Sequence[NDArray[Any]]) -> Source | None:
        return self._images(image, beside, None)

    def _images(self, name: str, beside: Sequence[NDArray[Any]], rows: NDArray[np.int64] | None) -> Source | None:
        """Return where the images of these rows are, or of all."""
        offset, length = np.empty(len(self), np.int64), np.empty(len(self), np.int64)
        for first, batch, column, count in self._each_batch(name):
            where = slice(first, first + count)
            try:
                offset[where], length[where] = _spans(batch, column, count)
            except ValueError as error:
                raise self._damaged(first, name, error) from error
        paths, decoding = PackedList(file.path for file in self._files), self._fields.decoding
        file = np.repeat(np.arange(len(paths)), self.shard_lengths)
        if rows is not None:
            file, offset, length = file[rows], offset[rows], length[rows]
        if not (length < 0).any():
            facts = np.array([file.facts for file in self._files], np.int64)
            return Ranges(paths, file, offset, length, "", decoding, facts, beside=tuple(beside))
        if self._follow and is_file(self._types[name]) and (length < 0).all():
            named = self._named(name, rows)
            return None if named is None else Files(named, "", decoding, beside=tuple(beside))
        return None

    def _named(self, image: str, rows: NDArray[np.int64] | None) -> PackedList | None:
        """Return the paths of images that lie in files of their own; None if a row has neither bytes nor a path."""
        found = list[Any]()
        for first, batch, column, count in self._each_batch(image):
            try:
                found += values(batch, column.child("path"), 0, count, plain=False)
            except ValueError as error:
                raise self._damaged(first, image, error) from error
        named = found if rows is None else [found[row] for row in rows.tolist()]
        return None if None in named else PackedList(map(os.path.abspath, named))


def _has_bytes(kind: Type) -> bool:
    return kind.layout == "binary" or is_file(kind)


def _stored(batch: Batch, column: Column, row: int) -> tuple[bytes | None, str | None]:
    """Return the bytes of a row; of an image in a file of its own, the path."""
    whole = column
    if column.type.layout == "struct":
        if batch.valid(column, row, row + 1) is not None:
            return None, None
        column = column.child("bytes")
    if batch.valid(column, row, row + 1) is None:
        begin, end = batch.offsets(column, row, row + 1).tolist()
        with timed("read"):
            return batch.read(column.buffer + 2, begin, end - begin), None
    return None, value(batch, whole.child("path"), row, plain=False) if whole is not column else None


def _spans(batch: Batch, column: Column, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if column.type.layout != "struct":
        return spans(batch, column, 0, count)
    valid = batch.valid(column, 0, count)
    offset, length = spans(batch, column.child("bytes"), 0, count)
    return offset, length if valid is None else np.where(valid, length, -1)


def _types(files: Sequence[ArrowFile]) -> dict[str, Type]:
    """Return the types of the columns; all files must have the same, in any order."""
    types = {name: column.type for name, column in files[0].columns.items()}
    for file in files[1:]:
        found = {name: column.type.name for name, column in file.columns.items()}
        for name in [*types, *found]:
            ours = types[name].name if name in types else "no such column"
            if ours != found.get(name, "no such column"):
                raise BadFile(
                    f"column {name!r} holds {found.get(name, 'no such column')}, and {ours} in files before this one",
                    path=file.path,
                    expected="the same columns in all files",
                    cure="Read these files as two datasets, or write one of them again.",
                )
    return types


def _refuse(name: str, kind: Type, fields: Fields, known: str | None) -> None:
    """Raise `ArgumentError` for a column of a type that is not read, and for decoders of what is no bytes."""
    if any(each.layout == "other" for each in _inside(kind)):
        raise ArgumentError(
            f"column {name!r} holds {kind.name}, which is not read",
            found=kind.name,
            expected="numbers, text, bytes, times, lists and structs",
            cure="Leave it out with fields=, or write it as another type.",
        )
    if known is None and not kind.is_integer and fields.has_own(name):
        raise ArgumentError(
            f"decoders has {name!r}, which holds {kind.name}",
            found=kind.name,
            expected="decoders of columns of bytes, text or images",
            cure="Take it out of decoders=, and pass a function to .map() instead.",
        )


def _inside(kind: Type) -> Iterable[Type]:
    yield kind
    for _, child in kind.children:
        yield from _inside(child)


def _saved(shards: Shards) -> list[str]:
    """Return the files of a dataset that `save_to_disk` wrote; nothing for other shards."""
    if not isinstance(shards, str | os.PathLike) or not Path(shards, STATE).is_file():
        return []
    listing = Listing(os.path.abspath(shards), STATE)  # noqa: PTH100
    return [
        listing.shard(listing.get(each, "filename", str)) for each in listing.get(listing.value, "_data_files", list)
    ]


def _elsewhere(name: str, place: str, path: str) -> SampleError:
    return SampleError(
        f"field {name!r} has no bytes, only the path {path[:200]!r}",
        path=place,
        expected="images in the Arrow file",
        cure="Pass follow_paths=True if you trust whoever wrote the file to name files of yours.",
    )
