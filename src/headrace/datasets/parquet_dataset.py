"""Rows of Parquet files, a row group at a time."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag, integer
from headrace.context.timing import timed
from headrace.datasets.arrow_rows import ArrowRows, agreed
from headrace.datasets.shards import shard_paths
from headrace.datasets.span_table import at_once
from headrace.formats import parquet
from headrace.formats.arrow_values import Batch
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.storage.object_spans import ObjectSpans
from headrace.storage.objects import is_url
from headrace.storage.row_cache import RowCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.datasets.fields import Decoder
    from headrace.datasets.image_sources import Source
    from headrace.datasets.shards import Shards
    from headrace.formats.arrow import ArrowFile, Column
    from headrace.image.modes import Mode

CACHE_BYTES = 1 << 28
SUFFIXES = (".parquet", ".parq", ".pq")


class ParquetDataset(ArrowRows):
    """Rows of Parquet files; a column of a row group is decoded as a whole, and kept while it is in use.

    >>> import tempfile
    >>> import pyarrow as pa, pyarrow.parquet
    >>> from headrace import DataLoader
    >>> from headrace.datasets import ParquetDataset
    >>> from headrace.samplers import ShardSampler
    >>> table = pa.table({"text": ["a", "b", "c", "d"], "n": [3, 5, 7, 9]})
    >>> folder = tempfile.TemporaryDirectory()
    >>> pa.parquet.write_table(table, f"{folder.name}/0.parquet", row_group_size=2)
    >>> dataset = ParquetDataset(folder.name)
    >>> dataset[1], dataset.shard_lengths
    ({'__key__': '1', 'text': 'b', 'n': 5}, [2, 2])
    >>> sampler = ShardSampler.of(dataset, window=1, seed=1)
    >>> [batch["n"].tolist() for batch in DataLoader(dataset, 2, sampler=sampler)]
    [[9, 7], [3, 5]]
    >>> folder.cleanup()

    ``shards``: a path, a pattern with braces or stars, a folder (its ``.parquet`` files, sorted), a URL, or a list
    of these. A sample is a dict of its columns, and of ``"__key__"``: its row in its file. ``fields``: which columns to
    read. Columns that are not asked for, by ``tuple`` too, are not decoded. Types, images, ``decoders``,
    ``follow_paths``, ``mode``, ``max_pixels``, ``allow_truncated``: as in `ArrowDataset`; a column of words in a
    dictionary becomes text.

    Parquet has no access to single rows. `ShardSampler.of(dataset, window=…)` shuffles row groups, and the rows of
    ``window`` row groups together; ``DataLoader(shuffle=True)`` would decode a row group for nearly each row.
    ``cache_bytes``: the decoded row groups that each process keeps, 256 MiB by default, and at least one. A window of
    row groups should fit.

    Raises `MissingDependency` without pyarrow (``pip install 'headrace[arrow]'``); `BadFile` for files that are
    damaged, of different columns, or that change while they are read; `MissingFile`; `ArgumentError`.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        fields: Iterable[str] | None = None,
        decoders: Mapping[str, Decoder | str | None] | None = None,
        cache_bytes: int = CACHE_BYTES,
        mode: Mode = "RGB",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        follow_paths: bool = False,
    ) -> None:
        decoding = Decoding(mode, max_pixels, allow_truncated)
        self._cache: RowCache[ArrowFile] = RowCache(integer("cache_bytes", cache_bytes, least=0))
        paths = shard_paths(shards, *SUFFIXES, urls=True)
        self._files = files = at_once(parquet.index, paths, remote=any(map(is_url, paths)))
        follow = flag("follow_paths", follow_paths)
        self._groups = [(file, group) for file, each in enumerate(files) for group in range(len(each.rows))]
        self._lay_out([file.path for file in files], [file.rows for file in files])
        self._facts = np.array([file.facts for file in files], np.int64)
        self._read_ranges = dict[int, list[dict[str, list[tuple[int, int]]]]]()
        types = agreed((file.path, file.types) for file in files)
        super().__init__(types, files[0].features, decoding, decoders or {}, fields, follow_paths=follow)

    @property
    def shard_lengths(self) -> list[int]:
        """How many rows each row group has: what `ShardSampler` takes."""
        return [rows for file in self._files for rows in file.rows]

    def _spans_of(self, rows: NDArray[np.int64], names: Iterable[str]) -> list[ObjectSpans]:
        found = list[tuple[int, int, int]]()
        if self._remote:
            chosen = [name for name in names if name not in self._read_numbers]
            for place in np.unique(np.searchsorted(self._first, rows, "right") - 1).tolist():
                file, group = self._groups[place]
                columns = self._ranges(file)[group]
                found += [(file, *each) for name in chosen for each in columns.get(name, ())]
        file_of, offset, length = np.array(found, np.int64).reshape(-1, 3).T
        return [ObjectSpans(self._paths, self._facts, file_of, offset, length)] if self._remote else []

    def _ranges(self, number: int) -> list[dict[str, list[tuple[int, int]]]]:
        """Return where the columns of each row group of a file are."""
        found = self._read_ranges.get(number)
        if found is None:
            file = self._files[number]
            empty: list[dict[str, list[tuple[int, int]]]] = [{} for _ in file.rows]
            read = parquet.ranges(file) if is_url(file.path) else empty
            found = self._read_ranges[number] = read if len(read) == len(empty) else empty
        return found

    def _place(self, row: int, name: str) -> tuple[Batch, Column, int]:
        place = bisect_right(self._first, row) - 1
        with timed("read"):
            found = self._column(place, name)
        return _in_batch(found, name, row - self._first[place])

    def _column(self, place: int, name: str) -> ArrowFile:
        return self._cache.get((place, name), lambda: self._decoded_column(place, name))

    def _decoded_column(self, place: int, name: str) -> tuple[ArrowFile, int]:
        file, group = self._groups[place]
        found = parquet.decoded(self._files[file], group, name)
        return found, len(found.data or b"")

    def _each_batch(self, name: str) -> Iterable[tuple[int, Batch, Column, int]]:
        for place, first in enumerate(self._first[:-1]):
            found = self._column(place, name)
            for batch, rows in enumerate(found.rows.tolist()):
                yield first, Batch(found, batch), found.columns[name], rows
                first += rows

    def _has_nulls(self, name: str) -> bool:
        columns = (self._column(place, name) for place in range(len(self._groups)))
        return any(found.nodes[:, found.columns[name].node, 1].any() for found in columns)

    def _labels(self, names: Iterable[str]) -> NDArray[Any] | None:
        candidates = [name for name in dict.fromkeys(names) if self._types[name].is_integer]
        return self._numbers(candidates[0]) if len(candidates) == 1 else None  # else all of them would be decoded

    def _native(self, names: Sequence[str]) -> Source | None:  # noqa: ARG002  its images are in no file as such
        return None


def _in_batch(file: ArrowFile, name: str, row: int) -> tuple[Batch, Column, int]:
    """Return the batch of a row in a decoded row group, which nearly always is one batch."""
    number = 0
    for number, rows in enumerate(file.rows.tolist()):  # noqa: B007
        if row < rows:
            break
        row -= rows
    return Batch(file, number), file.columns[name], row
