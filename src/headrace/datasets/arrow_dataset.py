"""Rows of Arrow IPC files and streams, as Hugging Face's `datasets`, Feather and pyarrow write them."""

from __future__ import annotations

import os
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag
from headrace.datasets.arrow_columns import Layout, reader_of
from headrace.datasets.arrow_rows import ArrowRows, agreed
from headrace.datasets.image_sources import Files, Ranges
from headrace.datasets.packed_list import PackedList
from headrace.datasets.shards import shard_paths
from headrace.datasets.span_table import at_once
from headrace.formats import arrow
from headrace.formats.arrow_spans import RowSpans
from headrace.formats.arrow_values import Batch, Buffers, spans, values
from headrace.formats.chunk import Listing
from headrace.formats.features import is_file
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.storage.objects import absolute, is_there, is_url, joined, path_of, place_of
from headrace.storage.span_maps import SpanMaps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.datasets.arrow_columns import Reader
    from headrace.datasets.fields import Decoder
    from headrace.datasets.image_sources import Source
    from headrace.datasets.shards import Shards
    from headrace.formats.arrow import ArrowFile, Column, Type
    from headrace.image.modes import Mode
    from headrace.storage.object_spans import ObjectSpans

SUFFIXES = (".arrow", ".arrows", ".feather", ".ipc")
STATE = "state.json"
"""What `datasets` writes beside the files of a dataset that it saves."""


class ArrowDataset(ArrowRows):
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

    ``shards``: a path, a pattern with braces or stars, a folder, a URL, or a list of these. Of a folder that
    `Dataset.save_to_disk` wrote, the files that its ``state.json`` names; of any other its ``.arrow``, ``.feather`` and
    ``.ipc`` files, sorted. A sample is a dict of its columns, and of ``"__key__"``: its row in its file. All files have
    the same columns. pyarrow is not needed, unless files are compressed.

    Text becomes str, integers and bools Python's, floats NumPy's of their dtype, lists of numbers arrays, other lists
    and structs lists and dicts, times `datetime64` and `timedelta64`, null None. Columns that `datasets` declares as
    images become arrays; audio stays bytes. ``decoders`` by column, as in `WebDataset`: ``{"png": "png"}`` reads
    a column of bytes as images. ``fields``, ``mode``, ``max_pixels``, ``allow_truncated``: as in `WebDataset`.

    Images that are not in the Arrow file but in files of their own, which it names, are refused unless
    ``follow_paths=True``: a file from a stranger could name any file of yours.

    Only metadata is read when the dataset is constructed. A row is read by positioned reads of its buffers, images by
    the native extension. Compressed files (Feather's default) need pyarrow: a buffer of a record batch is decompressed
    as a whole and kept for a while, and the native extension cannot read their images. Columns of other types
    (dictionary, decimal, union, map) are refused: leave them out.

    Raises `BadFile` for files that are damaged, of different columns, or that change while they are read;
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
        paths = _saved(shards) or shard_paths(shards, *SUFFIXES, urls=True)
        follow = flag("follow_paths", follow_paths)
        self._hold(at_once(arrow.index, paths, remote=any(map(is_url, paths))))
        super().__init__(
            _types(self._files), self._files[0].features, decoding, decoders or {}, fields, follow_paths=follow
        )

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
        dataset._hold(files)
        ArrowRows.__init__(dataset, _types(files), features, decoding, decoders, None, follow_paths=True, plain=plain)
        return dataset

    def _hold(self, files: list[ArrowFile]) -> None:
        self._files, self._buffers, self._maps = files, Buffers(), SpanMaps()
        self._read_whole: dict[str, Reader | None] = {}
        counts = [len(file.rows) for file in files]
        self._batches = [(file, number) for file, count in enumerate(counts) for number in range(count)]
        self._lay_out([file.path for file in files], [file.rows.tolist() for file in files])
        self._row_spans = RowSpans(files, self._first) if self._remote else None

    @property
    def shard_lengths(self) -> list[int]:
        """How many rows each file has: what `ShardSampler` takes."""
        return [end - begin for begin, end in pairwise(self._file_first)]

    def _place(self, row: int, name: str) -> tuple[Batch, Column, int]:
        """Return the batch of a row, the column there, and the row in the batch."""
        place = bisect_right(self._first, row) - 1
        number, batch = self._batches[place]
        file = self._files[number]
        return Batch(file, batch, self._buffers), file.columns[name], row - self._first[place]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_read_whole": {}}

    def _spans_of(self, rows: NDArray[np.int64], names: Iterable[str]) -> list[ObjectSpans]:
        if self._row_spans is None:
            return []
        return [self._row_spans.of(rows, [name for name in names if name not in self._read_numbers])]

    def _readers(self, names: Sequence[str]) -> list[Reader] | None:
        missing = [name for name in dict.fromkeys(names) if name not in self._read_whole]
        if missing:
            layout = Layout(self._files, self._first, self._maps)
            for name in missing:
                by_row = name in self._decoded_fields or name in self._shaped
                found = None if by_row else reader_of(layout, name, self._buffers.files, plain=self._plain)
                self._read_whole[name] = found
        readers = [reader for name in names if (reader := self._read_whole[name]) is not None]
        return readers if len(readers) == len(names) else None

    def _each_batch(self, name: str) -> Iterable[tuple[int, Batch, Column, int]]:
        for place, (number, batch) in enumerate(self._batches):
            file = self._files[number]
            yield self._first[place], Batch(file, batch, self._buffers), file.columns[name], int(file.rows[batch])

    def _has_nulls(self, name: str) -> bool:
        return any(file.nodes[:, file.columns[name].node, 1].any() for file in self._files)

    def _source(self, image: str, beside: Sequence[NDArray[Any]]) -> Source | None:
        return self._images(image, beside, None)

    def _images(self, name: str, beside: Sequence[NDArray[Any]], rows: NDArray[np.int64] | None) -> Source | None:
        """Return where the images of these rows are, or of all; None for those in compressed buffers."""
        if any(file.codec or is_url(file.path) for file in self._files):
            return None
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


def _spans(batch: Batch, column: Column, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if column.type.layout != "struct":
        return spans(batch, column, 0, count)
    valid = batch.valid(column, 0, count)
    offset, length = spans(batch, column.child("bytes"), 0, count)
    return offset, length if valid is None else np.where(valid, length, -1)


def _types(files: Sequence[ArrowFile]) -> dict[str, Type]:
    return agreed((file.path, {name: column.type for name, column in file.columns.items()}) for file in files)


def _saved(shards: Shards) -> list[str]:
    """Return the files of a dataset that `save_to_disk` wrote; nothing for other shards."""
    if not isinstance(shards, str | os.PathLike):
        return []
    folder = path_of("shards", shards)
    if is_url(folder):
        is_saved = place_of(folder).endswith("/") and is_there(joined(folder, STATE))
    else:
        is_saved = Path(shards, STATE).is_file()
    if not is_saved:
        return []
    listing = Listing(absolute(folder), STATE)
    return [
        listing.shard(listing.get(each, "filename", str)) for each in listing.get(listing.value, "_data_files", list)
    ]
