"""Samples in ArrayRecord files, as Grain and TensorFlow Datasets write them."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from headrace.context.timing import timed
from headrace.datasets.field_samples import FieldDataset
from headrace.datasets.fields import Fields
from headrace.datasets.shards import shard_paths
from headrace.datasets.span_table import at_once
from headrace.formats import array_record
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from headrace.datasets.fields import Decoder
    from headrace.datasets.shards import Shards
    from headrace.image.modes import Mode

SUFFIXES = (".array_record", ".arrayrecord")
RECORD = "record"


class ArrayRecordDataset(FieldDataset):
    """Samples in ArrayRecord files, as Grain and TensorFlow Datasets write them: the bytes of each record.

    >>> from headrace.datasets import ArrayRecordDataset
    >>> dataset = ArrayRecordDataset("train.array_record-00000-of-00002", decoders={"record": bytes.decode})
    Traceback (most recent call last):
    headrace.errors.MissingFile: ...

    ``shards``: a path, a pattern with braces or stars, a folder (its ``.array_record`` files, sorted), or a list of
    paths. A sample is a dict of ``"__key__"``, its number in its file, and ``"record"``: bytes, or what ``decoders=
    {"record": function}`` makes of them, such as ``"jpg"`` for images. ``mode``, ``max_pixels``, ``allow_truncated``:
    as in `WebDataset`.

    The library ``array-record`` reads the records. It decompresses a chunk for each: write files with ``group_size:1``,
    a chunk for each record. Images are decoded in Python, not by the native extension. Each process opens the files
    itself. No index is needed, and none is saved.

    Raises `MissingDependency` without the library (``pip install 'headrace[array-record]'``); `BadFile` for files that
    are damaged or change while they are read: checksums are always checked; `MissingFile`; `ArgumentError`. The library
    sets no limit to the memory of a record: read no files of strangers. Format:
    https://github.com/google/array_record.
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
    ) -> None:
        decoding = Decoding(mode, max_pixels, allow_truncated)
        self._paths = shard_paths(shards, *SUFFIXES)
        found = at_once(array_record.index, self._paths)
        self._facts = [facts for _, facts in found]
        self._first = [0, *accumulate(count for count, _ in found)]
        self._open_files = array_record.RecordReaders()
        super().__init__([RECORD], Fields(decoding, decoders or {}, {RECORD: "bytes"}), fields)

    @property
    def shards(self) -> list[str]:
        """The paths of the files, in order."""
        return list(self._paths)

    @property
    def shard_lengths(self) -> list[int]:
        """How many records each file has: what `ShardSampler` takes."""
        return [end - begin for begin, end in zip(self._first, self._first[1:], strict=False)]

    def __len__(self) -> int:
        return self._first[-1]

    def read(self, index: int, field: str) -> bytes:
        """Read the bytes of a record, without decoding them."""
        self._known(field)
        return self._bytes(self._row(index))

    def _bytes(self, row: int) -> bytes:
        file, number = self._place(row)
        with timed("read"):
            return self._open_files.read(self._paths[file], number, self._facts[file])

    def _place(self, row: int) -> tuple[int, int]:
        """Return the number of a row's file, and its number in it."""
        file = bisect_right(self._first, row) - 1
        return file, row - self._first[file]

    def _key(self, row: int) -> str:
        return str(self._place(row)[1])

    def _where(self, row: int) -> str:
        file, number = self._place(row)
        return f"{self._paths[file]}: {number}"

    def _value(self, row: int, name: str) -> Any:
        return self._decoded(row, name, self._bytes(row))
