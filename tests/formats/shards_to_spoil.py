"""A small shard of each format, written through what spoils its bytes; `SHARDS` has them by name."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tests.formats.fixtures import HERE
from tests.formats.writers import example, feature, write_tfrecord

from headrace.datasets import (
    ArrayRecordDataset,
    ArrowDataset,
    LitDataset,
    MappedColumns,
    MDSDataset,
    ParquetDataset,
    TFRecordDataset,
    WebDataset,
    ZipDataset,
    saved_arrays,
)
from headrace.datasets.saved_arrays import SavedArrays, save
from headrace.formats import mds

if TYPE_CHECKING:
    from collections.abc import Callable

    Spoil = Callable[..., bytes]
    Make = Callable[[], Any]

FILES = [(f"a/{row}.{name}", data) for row in range(3) for name, data in (("cls", b"%d" % row), ("txt", b"hi" * 40))]
FILES += [("a/2.json", b'{"x": [1]}'), ("b/3.npy", b"\x93NUMPY"), ("b/3.jpg", b"\xff\xd8\xff")]
FILES += [("long/" * 40 + "4.txt", b"")]


@cache
def _tar(form: int, mtime: float) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, data in FILES[: None if mtime == 0 else 8]:
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), mtime  # type: ignore[assignment]
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def tar(form: int, folder: Path, spoil: Spoil) -> Make:
    """Write an archive in a dialect."""
    (folder / "a.tar").write_bytes(spoil(_tar(form, 0)))
    return lambda: WebDataset(folder / "a.tar", index=None)


def lists(folder: Path, spoil: Spoil) -> Make:
    """Write the lists of wids and of Energon."""
    whole = _tar(tarfile.GNU_FORMAT, 0)
    (folder / "a.tar").write_bytes(whole)
    wids = {"wids_version": 1, "shardlist": [{"url": "a.tar", "nsamples": 5, "filesize": len(whole)}], "name": "a"}
    (folder / "index.json").write_bytes(spoil(json.dumps(wids).encode()))
    (folder / ".nv-meta").mkdir()
    (folder / ".nv-meta" / ".info.json").write_bytes(spoil(json.dumps({"shard_counts": {"a.tar": 5}}).encode(), 0.5))
    split = "split_parts:\n  train:\n  - a.tar\n  val: []\nexclude: []\n"
    (folder / ".nv-meta" / "split.yaml").write_bytes(spoil(split.encode()))
    options: list[Any] = [{}, {"split": "train"}]
    path = folder / "index.json" if spoil(b"x", 0.5) == b"x" else folder
    return lambda: WebDataset(path, index=None, **options[path == folder])


def zips(how: int, folder: Path, spoil: Spoil) -> Make:
    """Write an archive of stored or deflated members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        for name, data in FILES:
            archive.writestr(name, data)
    (folder / "a.zip").write_bytes(spoil(stream.getvalue()))
    return lambda: ZipDataset(folder / "a.zip", index=None, verify=len(spoil(b"x")) == 1)


def tfrecord(folder: Path, spoil: Spoil) -> Make:
    """Write records whose checksums are true, and spoil what is in them, or the file."""
    records = [
        example(
            {"jpg": feature([b"\xff\xd8"]), "n": feature([row]), "f": feature([0.5] * (row + 1)), "t": feature([1, 2])}
        )
        for row in range(4)
    ]
    path = write_tfrecord(folder / "a.tfrecord", [spoil(record, 0.4) for record in records])
    path.write_bytes(spoil(path.read_bytes(), 0.3))
    return lambda: TFRecordDataset(path, index=None)


def fixture(open_: Callable[..., Any], name: str, folder: Path, spoil: Spoil) -> Make:
    """Copy files that another library wrote, and spoil some; of a folder each, in three of ten."""
    source = HERE / name
    if source.is_file():
        (folder / source.name).write_bytes(spoil(source.read_bytes()))
        return lambda: open_(folder / source.name)
    for path in source.iterdir():
        if path.name != "expected.json":
            (folder / path.name).write_bytes(spoil(path.read_bytes(), 0.3))
    return lambda: open_(folder)


def pickled_apart(open_: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Open what may have columns of pickles, which are refused unless they are read as bytes."""
    return lambda folder: open_(folder, index=None, decoders=dict.fromkeys(("pkl", mds.PICKLED)), **options)


def parquet(folder: Path, spoil: Spoil) -> Make:
    """Write two row groups."""
    import pyarrow as pa
    import pyarrow.parquet

    stream = io.BytesIO()
    table = pa.table({"n": [1, 2, 3, 4], "t": ["a", "b", None, "d"], "l": [[1], [], [2, 3], [4]]})
    pa.parquet.write_table(table, stream, row_group_size=2)
    (folder / "a.parquet").write_bytes(spoil(stream.getvalue()))
    return lambda: ParquetDataset(folder / "a.parquet")


def arrays(folder: Path, spoil: Spoil) -> Make:
    """Write an archive of arrays, a folder of them, and tensors."""
    columns = {"x": np.arange(12.0).reshape(4, 3), "n": np.arange(4)}
    stream = io.BytesIO()
    np.savez(stream, **columns)
    (folder / "a.npz").write_bytes(spoil(stream.getvalue()))
    return lambda: MappedColumns(folder / "a.npz")


def npy(folder: Path, spoil: Spoil) -> Make:
    """Write a folder of arrays."""
    for name in ("x", "n"):
        stream = io.BytesIO()
        np.save(stream, np.arange(8.0).reshape(4, 2))
        (folder / f"{name}.npy").write_bytes(spoil(stream.getvalue(), 0.6))
    return lambda: MappedColumns(folder)


def index(limit: int, folder: Path, spoil: Spoil) -> Make:
    """Spoil a saved index, or forge one whose checksums are true."""
    saved_arrays.MAPPED_FROM = limit
    (folder / "a.tar").write_bytes(_tar(tarfile.GNU_FORMAT, 0))
    made = WebDataset(folder / "a.tar").index_path
    place = Path(str(made))
    if spoil(b"x", 0.5) == b"x":
        place.write_bytes(spoil(place.read_bytes()))
        return lambda: WebDataset(folder / "a.tar")
    with SavedArrays(str(place)) as saved:
        held = {name: saved.array(name).copy() for name in saved._arrays}
        about = saved.about
    for name, array in held.items():
        data = spoil(array.tobytes(), 0.2)
        held[name] = np.frombuffer(data[: len(data) // array.itemsize * array.itemsize], array.dtype)
    save(place, about, held)
    return lambda: WebDataset(folder / "a.tar")


def array_record(folder: Path, spoil: Spoil) -> Make:
    """Write records of text; the files end with zeros, which are not spoiled."""
    path = folder / "a.array_record"
    writer = import_module("array_record.python.array_record_module").ArrayRecordWriter(str(path), "group_size:2")
    for row in range(9):
        writer.write(b"record %d" % row * row)
    writer.close()
    whole = path.read_bytes()
    path.write_bytes(spoil(whole[:512], 0.8) + spoil(whole[512:], 0.4))
    return lambda: ArrayRecordDataset(path)


SHARDS: dict[str, Callable[[Path, Spoil], Make]] = {
    "tar": partial(tar, tarfile.GNU_FORMAT),
    "tar-pax": partial(tar, tarfile.PAX_FORMAT),
    "lists": lists,
    "zip": partial(zips, zipfile.ZIP_STORED),
    "zip-deflated": partial(zips, zipfile.ZIP_DEFLATED),
    "tfrecord": tfrecord,
    "mds": partial(fixture, pickled_apart(MDSDataset), "mds"),
    "mds-gz": partial(fixture, pickled_apart(MDSDataset), "mds_gz"),
    "litdata": partial(fixture, pickled_apart(LitDataset), "litdata"),
    "litdata-nested": partial(fixture, pickled_apart(LitDataset), "litdata_nested"),
    "arrow": partial(fixture, ArrowDataset, "arrow/data-00000-of-00002.arrow"),
    "arrow-folder": partial(fixture, ArrowDataset, "arrow"),
    "feather": partial(fixture, ArrowDataset, "arrow/plain.feather"),
    "feather-packed": partial(fixture, ArrowDataset, "arrow/packed.feather"),
    "parquet": parquet,
    "npz": arrays,
    "npy": npy,
    "safetensors": partial(fixture, MappedColumns, "safetensors/a.safetensors"),
    "index": partial(index, 1 << 26),
    "index-mapped": partial(index, 0),
}
if find_spec("array_record") is not None:
    SHARDS["array-record"] = array_record
