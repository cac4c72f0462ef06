"""Datasets of shards: files that hold many samples each, read by the range of bytes of each field."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from headrace.checks import path as text_of
from headrace.context.timing import timed
from headrace.datasets.field_samples import FieldDataset
from headrace.datasets.fields import Fields
from headrace.datasets.image_sources import FetchedRanges, Ranges
from headrace.datasets.patterns import braces
from headrace.datasets.span_table import indexed
from headrace.errors import ArgumentError, MissingFile, SampleError
from headrace.formats.shard import HIDDEN
from headrace.image.decoding import DEFAULT_MAX_PIXELS, Decoding
from headrace.storage.mapped_samples import mapped_file
from headrace.storage.object_spans import ObjectSpans
from headrace.storage.objects import absolute, is_url, joined, listing, place_of
from headrace.storage.page_faults import cause_of, check_faults, surviving
from headrace.storage.signed_urls import plain
from headrace.storage.spans import read_span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from headrace.datasets.fields import Decoder
    from headrace.datasets.image_sources import Source
    from headrace.datasets.span_table import SpanTable
    from headrace.image.modes import Mode

    Shards = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

T = TypeVar("T")

KIND = "webdataset 1"
"""Names the index of tar shards, and its version."""

_NUMBERED = re.compile(r"-\d+-of-\d+$")


class SpanDataset(FieldDataset):
    """The base of datasets of shards: a sample is a dict of its fields, each read by its range of bytes.

    >>> from headrace.datasets import SpanDataset, WebDataset
    >>> issubclass(WebDataset, SpanDataset)
    True

    Samples are in the order of the shards. ``len`` is known, so shuffling, resuming, ranks, replay and ledgers work
    as for any dataset. ``"__key__"`` is the sample's key in its shard.
    """

    def __init__(self, table: SpanTable, fields: Fields, chosen: Iterable[str] | None) -> None:
        self._table = table
        self._mapped = mapped_file(table.file) is not None
        self._remote = any(is_url(path) for path in table.paths)
        super().__init__(table.fields, fields, chosen)

    @property
    def shards(self) -> list[str]:
        """The paths of the shards, in order."""
        return list(self._table.paths)

    @property
    def index_path(self) -> str | None:
        """The path of the saved index; None where none could be saved, or was to be."""
        return self._table.saved

    @property
    def shard_lengths(self) -> list[int]:
        """How many samples each shard has: what `ShardSampler` takes."""
        lengths: list[int] = (self._table.first[1:] - self._table.first[:-1]).tolist()
        return lengths

    def __len__(self) -> int:
        return len(self._table)

    def _spans_of(self, rows: NDArray[np.int64], names: Iterable[str]) -> list[ObjectSpans]:
        if not self._remote:
            return []
        table = self._table
        read = {name for name in names if self._numbers(name) is None}
        held = [name for name in table.offset if name.partition(HIDDEN)[0] in read and self._is_range(name)]

        def found(_row: int) -> list[ObjectSpans]:
            file = table.file[rows]
            return [
                ObjectSpans(table.paths, table.facts, file, table.offset[name][rows], table.length[name][rows])
                for name in held
            ]

        return self._guarded(found, int(rows[0]) if len(rows) else 0)

    def read(self, index: int, field: str) -> bytes:
        """Read the bytes of one field as they are, without decoding them.

        Raises `SampleError` for a sample that has no such field.
        """
        return self._guarded(lambda at: self._bytes(self._row(at), self._known(field)), index)

    def _guarded(self, read: Callable[[int], T], index: int) -> T:
        """Read something of a sample; raise `BadFile` if the saved index is mapped, and was cut short meanwhile."""
        if not self._mapped:
            return read(index)
        with surviving():
            try:
                found = read(index)
            except Exception as error:
                cause = cause_of(error)
                if cause is error:
                    raise
                raise cause from error
            check_faults("the index of sample ", index)
        return found

    def _is_range(self, column: str) -> bool:  # noqa: ARG002  for formats with other columns
        """Say whether a column of the index has ranges of shards."""
        return True

    def _key(self, row: int) -> str:
        return self._table.key(row)

    def _where(self, row: int) -> str:
        return f"{self._table.paths[int(self._table.file[row])]}: {self._table.key(row)}"

    def _has(self, row: int, name: str) -> bool:
        """Say whether a sample has a field."""
        return bool(self._table.length[name][row] >= 0)

    def _numbers(self, name: str) -> NDArray[Any] | None:
        return self._table.numbers.get(name) if self._fields.is_integer(name) else None

    def _value(self, row: int, name: str) -> Any:
        numbers = self._numbers(name)
        return self._decoded(row, name, self._bytes(row, name)) if numbers is None else int(numbers[row])

    def _source(self, image: str, beside: Sequence[NDArray[Any]]) -> Source | None:
        table = self._table
        offset, length = table.offset[image], table.length[image]
        if (length < 0).any():
            return None
        kind, decoding = FetchedRanges if self._remote else Ranges, self._fields.decoding
        return kind(table.paths, table.file, offset, length, "", decoding, table.facts, beside=tuple(beside))

    def _bytes(self, row: int, name: str) -> bytes:
        if not self._has(row, name):
            raise SampleError(
                f"it has no field {name!r}",
                path=self._where(row),
                index=row,
                expected=f"a field {name!r} in each sample",
                cure="Add the field, or leave it out.",
            )
        return self._span(row, name)

    def _span(self, row: int, name: str) -> bytes:
        """Read a range of the index."""
        table = self._table
        file, offset, length = int(table.file[row]), int(table.offset[name][row]), int(table.length[name][row])
        self._refuse_large(row, name, length)
        with timed("read"):
            return read_span(table.paths[file], offset, length, table.facts[file])


class WebDataset(SpanDataset):
    """Samples in tar files, as WebDataset lays them out: members with one key follow each other.

    >>> import io, tarfile, tempfile
    >>> from headrace.datasets import WebDataset
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with tarfile.open(f"{folder}/0.tar", "w") as archive:
    ...         for name, data in [("cat.txt", b"a cat"), ("cat.cls", b"3"), ("dog.txt", b"a dog"), ("dog.cls", b"5")]:
    ...             member = tarfile.TarInfo(name)
    ...             member.size = len(data)
    ...             archive.addfile(member, io.BytesIO(data))
    ...     dataset = WebDataset(f"{folder}/*.tar")
    ...     sample, pair = dataset[1], dataset.tuple("txt", "cls")[0]
    >>> len(dataset), sample, pair
    (2, {'__key__': 'dog', 'txt': 'a dog', 'cls': 5}, ('a cat', 3))

    ``shards``: a path, a pattern with braces (``"train-{0000..0099}.tar"``, ``"{a,b}.tar"``) or stars, a folder (its
    ``.tar`` files, sorted), a URL, which may have braces, or a list of these. A sample is a dict of ``"__key__"`` and
    its fields. The name of a member is ``key.field``: the field begins after the first dot of the
    file's name, in lower case. Members without a field belong to no sample. ``fields``: which fields to read; all by
    default. ``mode``, ``max_pixels``, ``allow_truncated``: as in `ImageFolder`.

    Images become arrays, ``cls`` an int, ``txt`` a str, ``json`` a value, ``npy`` an array; the rest stays bytes, and
    nothing is unpickled. ``decoders`` by field: a function of the bytes (``{"mp3": decode}``), None for the bytes, or
    the name of a kind (``{"image": "jpg"}``).

    The archives are indexed when the dataset is constructed: the headers are read, not the data. The index is saved
    beside the first shard, or in the user's cache folder if that folder is read-only. A shard that has changed is
    indexed again. ``index``: a folder for the index, or None to save none.

    ``shards`` may be the JSON file of wids, or a folder that Energon prepared: its shards are those listed, must have
    as many samples as it says, and ``split="train"`` takes those of a split. Offsets in the indexes of DALI and Energon
    are not used: to check them takes longer than to find them.

    Raises `BadFile` for a damaged or compressed archive, for links and sparse members in it; `MissingFile`; and
    `ArgumentError`. A shard that changes while it is read raises `BadFile` with its path and the range of bytes.
    Format: https://github.com/webdataset/webdataset (the tar layout), POSIX.1-2017 `pax`.
    """

    def __init__(
        self,
        shards: Shards,
        *,
        fields: Iterable[str] | None = None,
        decoders: Mapping[str, Decoder | str | None] | None = None,
        split: str | None = None,
        mode: Mode = "RGB",
        max_pixels: int = DEFAULT_MAX_PIXELS,
        allow_truncated: bool = False,
        index: str | os.PathLike[str] | None = "auto",
    ) -> None:
        from headrace.datasets.shard_lists import agree, listed_shards
        from headrace.formats import tar

        decoding = Decoding(mode, max_pixels, allow_truncated)
        listed = listed_shards(shards, split)
        paths = [shard.path for shard in listed] or shard_paths(shards, ".tar", urls=True)
        table = indexed(paths, tar.index, KIND, index)
        if listed:
            agree(listed, np.diff(table.first).tolist(), table.facts[:, 0].tolist())
        super().__init__(table, Fields(decoding, decoders or {}), fields)


def shard_paths(shards: Shards, *suffixes: str, urls: bool = False) -> list[str]:
    """Return the absolute paths of shards: of a path, a folder, a pattern, or several of these.

    ``suffixes`` end the names of those in a folder; ``-00000-of-00008`` may follow. ``urls``: whether the format is
    read from URLs; these may have braces.

    >>> [path.rpartition("/")[2] for path in shard_paths(["a-{08..10}.tar", "{x,y}.tar"], ".tar")]
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'x.tar', 'y.tar']

    Raises `MissingFile` for a folder or a pattern of stars that gives none, and `ArgumentError` for no shards at all.
    """
    given = [shards] if isinstance(shards, str | os.PathLike) else list(shards)
    named = [text_of("shards", each) for each in given]
    found = [
        path for each in named for path in (_urls(each, suffixes, urls) if is_url(each) else _expanded(each, suffixes))
    ]
    if not found:
        raise ArgumentError("shards is empty", found="[]", expected="one shard or more", cure="Give their paths.")
    return [absolute(path) for path in found]


def _urls(pattern: str, suffixes: tuple[str, ...], read: bool) -> list[str]:
    """Return the URLs of a pattern; of a folder, which ends with a slash, those of its shards."""
    url = plain(pattern)
    if not read:
        raise ArgumentError(
            f"this format is not read from URLs: {url[:200]!r}",
            found=url[:200],
            expected="paths of files",
            cure="Copy the files, or write the data as tar, zip, TFRecord, MDS, Arrow or Parquet shards.",
        )
    if url.endswith("/") and url == place_of(url):
        inside = [name for name, _ in listing(url) if "/" not in name and has_suffix(name, suffixes)]
        return [joined(url, name) for name in inside] or _none(url, f"it has no {' or '.join(suffixes)} files")
    paths = [plain(path) for path in braces(pattern)]  # in this order: each path is signed as the pattern is
    if not glob.has_magic(place_of(url)[_host_end(url) :]):
        return paths
    return list(chain.from_iterable(map(_matching, paths))) or _none(url, "no object has such a name")


def _host_end(url: str) -> int:
    """Return where the host of a URL ends: that of IPv6 has brackets."""
    begin = url.index("://") + 3
    return begin + len(url[begin:].partition("/")[0])


def _matching(pattern: str) -> list[str]:
    """Return the URLs of a pattern of stars, sorted."""
    magic = re.compile(r"[*?[]").search(pattern, _host_end(pattern))
    if magic is None:
        return [pattern]
    folder = pattern[: magic.start()].rpartition("/")[0]
    parts = [re.compile(fnmatch.translate(part)) for part in pattern[len(folder) + 1 :].split("/")]

    def matches(name: str) -> bool:
        names = name.split("/")
        return len(names) == len(parts) and all(
            part.match(each) and each[:1] != "." for part, each in zip(parts, names, strict=True)
        )

    return [f"{folder}/{name}" for name, _ in listing(folder) if matches(name)]


def _expanded(pattern: str, suffixes: tuple[str, ...]) -> list[str]:
    if os.path.lexists(pattern):  # a name may have braces or stars
        folder = Path(pattern)
        if not folder.is_dir():
            return [pattern]
        inside = sorted(str(path) for path in folder.iterdir() if has_suffix(path.name, suffixes))
        return inside or _none(pattern, f"it has no {' or '.join(suffixes)} files")
    paths = list(braces(pattern))
    if not glob.has_magic(pattern):
        return paths
    return list(chain.from_iterable(sorted(glob.glob(path)) for path in paths)) or _none(  # noqa: PTH207
        pattern, "no file has such a name"
    )


def has_suffix(name: str, suffixes: tuple[str, ...]) -> bool:
    """Say whether the name of a shard ends with one of these, a number of shards left out.

    >>> has_suffix("train.tfrecord-00000-of-00008", (".tfrecord",))
    True
    """
    return _NUMBERED.sub("", name).endswith(suffixes)


def _none(pattern: str, what: str) -> list[str]:
    raise MissingFile(what, path=pattern, expected="shards", cure="Give the path of a shard, a folder or a pattern.")
