"""Shards of any format: their bytes say which one it is, not their names."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.checks import path as text_of
from headrace.datasets.array_record_dataset import SUFFIXES as ARRAY_RECORD
from headrace.datasets.array_record_dataset import ArrayRecordDataset
from headrace.datasets.arrow_dataset import SUFFIXES as ARROW
from headrace.datasets.arrow_dataset import ArrowDataset
from headrace.datasets.lit_dataset import LitDataset
from headrace.datasets.mds_dataset import MDSDataset
from headrace.datasets.parquet_dataset import SUFFIXES as PARQUET
from headrace.datasets.parquet_dataset import ParquetDataset
from headrace.datasets.shard_lists import INFO, META, is_wids
from headrace.datasets.shards import WebDataset, has_suffix, shard_paths
from headrace.datasets.tfrecord_dataset import SUFFIXES as TFRECORD
from headrace.datasets.tfrecord_dataset import TFRecordDataset
from headrace.datasets.zip_dataset import ZipDataset
from headrace.errors import BadFile
from headrace.formats import array_record, tar, tfrecord
from headrace.formats.chunk import Listing
from headrace.formats.reader import ShardReader
from headrace.storage.objects import is_there, is_url, joined, listing, path_of, place_of
from headrace.storage.signed_urls import path_part, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace.datasets.field_samples import FieldDataset

HEAD = 512
"""Bytes that are looked at: as many as a header of tar has."""


class ShardKind(NamedTuple):
    """A format of shards: its name, what opens it, how its files end and begin."""

    name: str
    dataset: Callable[..., FieldDataset]
    suffixes: tuple[str, ...] = ()
    begins: Callable[[bytes], bool] = lambda _head: False
    indexed: bool = True
    """Whether an index is saved for it."""


def _tfrecord(head: bytes) -> bool:
    return len(head) >= 12 and tfrecord.masked(head[:8]) == int.from_bytes(head[8:12], "little")


def _arrow(head: bytes) -> bool:
    # A file, or a stream, which begins with the size of its schema.
    return head.startswith(b"ARROW1") or (
        head[:4] == b"\xff\xff\xff\xff" and int.from_bytes(head[4:8], "little", signed=True) > 0
    )


MDS = ShardKind("MDS", MDSDataset)
LITDATA = ShardKind("LitData", LitDataset)
TAR = ShardKind("tar", WebDataset, (".tar",), lambda head: len(head) == HEAD and tar.is_header(head))
FILES = (
    TAR,
    ShardKind("zip", ZipDataset, (".zip",), lambda head: head[:4] in (b"PK\3\4", b"PK\5\6")),
    ShardKind("TFRecord", TFRecordDataset, TFRECORD, _tfrecord),
    ShardKind("Arrow", ArrowDataset, ARROW, _arrow, indexed=False),
    ShardKind("Parquet", ParquetDataset, PARQUET, lambda head: head[:4] == b"PAR1", indexed=False),
    ShardKind(
        "ArrayRecord",
        ArrayRecordDataset,
        ARRAY_RECORD,
        lambda head: head.startswith(array_record.MAGIC),
        indexed=False,
    ),
)
"""Formats that are recognized by the first bytes of a file; MDS and LitData are folders with an `index.json`."""


def shard_kind(shards: str | os.PathLike[str]) -> ShardKind | None:
    """Return the format of a shard, a pattern or a folder of shards; None for anything else.

    >>> import io, tarfile, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with tarfile.open(f"{folder}/photos.bin", "w") as archive:
    ...         archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())
    ...     kind = shard_kind(f"{folder}/photos.bin")
    >>> kind.name
    'tar'
    """
    given = text_of("shards", shards)
    if is_url(given):
        return _of_url(given)
    path = Path(given)
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        return _of_file(path)
    if os.path.lexists(path) or not (glob.has_magic(str(path)) or "{" in str(path)):
        return None
    first = next(iter(shard_paths(str(path))), "")
    return _of_file(Path(first)) if Path(first).is_file() else None


def _of_url(pattern: str) -> ShardKind | None:
    """Return the format of the first object of a pattern; of a folder's URL, what its ``index.json`` lists."""
    url, (place, query) = plain(pattern), path_part(pattern)
    if place_of(url).endswith("/") and not is_there(joined(url, "index.json")):
        names = [name for name, _ in listing(url) if "/" not in name]
        return next((kind for kind in FILES if any(has_suffix(name, kind.suffixes) for name in names)), None)
    first = shard_paths(f"{place.rstrip('/')}{query}", urls=True)[0]
    if "." not in place_of(first).rpartition("/")[2]:
        return _of_listing(Listing(first))
    return _of_head(first)


def _of_listing(listing: Listing) -> ShardKind | None:
    listed = listing.value if isinstance(listing.value, dict) else {}
    return MDS if "shards" in listed else LITDATA if "chunks" in listed else None


def _of_folder(folder: Path) -> ShardKind | None:
    if (folder / "index.json").is_file() and (kind := _of_listing(Listing(str(folder.absolute())))) is not None:
        return kind
    if (folder / META / INFO).is_file():
        return TAR
    for kind in FILES:
        if any(has_suffix(entry.name, kind.suffixes) for entry in folder.iterdir()):
            return kind
    return None


def _of_file(file: Path) -> ShardKind | None:
    if file.suffix == ".npz":
        return None  # an archive of arrays, which `MappedColumns` reads
    if file.suffix == ".json":
        return TAR if is_wids(file) else None
    return _of_head(str(file))


def _of_head(file: str) -> ShardKind | None:
    with ShardReader(file) as shard:
        head = shard.read(0, min(HEAD, shard.size))
    if file.endswith(".tar") and len(head) == HEAD and not any(head):
        return TAR  # an archive without members has an end and nothing else
    return next((kind for kind in FILES if kind.begins(head)), None)


def open_shards(shards: str | os.PathLike[str], *, fields: Iterable[str] | None = None, **options: Any) -> FieldDataset:
    """Open shards of any format that headrace reads: tar, zip, TFRecord, Arrow, Parquet, MDS and others.

    >>> import io, tarfile, tempfile
    >>> from headrace.datasets import open_shards
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with tarfile.open(f"{folder}/0.tar", "w") as archive:
    ...         archive.addfile(tarfile.TarInfo("cat.txt"), io.BytesIO())
    ...     dataset = open_shards(folder)
    ...     dataset[0], type(dataset).__name__
    ({'__key__': 'cat', 'txt': ''}, 'WebDataset')

    ``shards``: a shard, a pattern (``"train-{00..99}.tar"``), a folder, or a URL of these. The first bytes of a file
    say which format it has, not its name. ``fields``: which to read. ``options``: those of the format's own class, such
    as ``decoders``.

    Raises `MissingFile`, and `BadFile` for what is in no such format or damaged.
    """
    given, kind = path_of("shards", shards), shard_kind(shards)
    if kind is None:
        if is_url(given) or not Path(shards).is_dir():
            with ShardReader(shard_paths(shards, urls=True)[0]):
                pass  # a path that does not exist is named as such
        raise BadFile(
            "its first bytes are those of no format of shards",
            path=given,
            expected=f"{', '.join(kind.name for kind in (*FILES, MDS, LITDATA))}",
            cure="Unpack it first, or write a dataset of your own for it: docs/contributing/add-a-format.md.",
        )
    return kind.dataset(shards, fields=fields, **options)
