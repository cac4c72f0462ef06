"""Data in every format that is read by URL, written to a folder, and what opens it by a path or a URL."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from headrace import ArrayDataset, ImageList
from headrace.datasets import (
    VOC,
    YOLO,
    ArrowDataset,
    CocoDetection,
    HDF5Dataset,
    LitDataset,
    MappedColumns,
    MDSDataset,
    PackedDataset,
    ParquetDataset,
    TFRecordDataset,
    TokenDataset,
    WebDataset,
    ZipDataset,
)
from headrace.formats.tfrecord import masked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAMPLES, BYTES = 96, 4000
"""Samples of each dataset, and bytes of each: of an image, its pixels."""


class Kind(NamedTuple):
    """A kind of dataset: what writes it to a folder, and what opens it in a folder or below a URL."""

    write: Callable[[Path], None]
    open: Callable[[str], Any]


def payload(number: int) -> bytes:
    """Return the bytes of a sample, which nothing compresses."""
    return np.random.default_rng(number).bytes(BYTES)


def picture(number: int) -> Any:
    """Return the pixels of a sample: 40 rows of noise."""
    return np.frombuffer(payload(number), np.uint8)[: BYTES // 120 * 120].reshape(40, -1, 3)


def tar_of(numbers: range) -> bytes:
    """Return a tar archive of samples."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for number in numbers:
            for ending, data in (("bin", payload(number)), ("cls", str(number).encode())):
                member = tarfile.TarInfo(f"{number:04}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return held.getvalue()


def _tar(folder: Path) -> None:
    for shard in range(2):
        (folder / f"t-{shard}.tar").write_bytes(tar_of(range(shard * SAMPLES // 2, (shard + 1) * SAMPLES // 2)))


def _zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        for number in range(SAMPLES):
            archive.writestr(f"{number:04}.bin", payload(number))
            archive.writestr(f"{number:04}.txt", f"text {number}" * 50, zipfile.ZIP_DEFLATED)


def _mds(folder: Path) -> None:
    shards = []
    for shard in range(2):
        numbers = range(shard * SAMPLES // 2, (shard + 1) * SAMPLES // 2)
        samples = [struct.pack("<Iq", BYTES, number) + payload(number) for number in numbers]
        begin = 4 * (len(samples) + 2)
        offsets = [begin + sum(map(len, samples[:number])) for number in range(len(samples) + 1)]
        data = struct.pack(f"<{len(offsets) + 1}I", len(samples), *offsets) + b"".join(samples)
        columns = {"column_names": ["n", "data"], "column_encodings": ["int", "bytes"], "column_sizes": [8, None]}
        raw = {"basename": f"{shard}.mds", "bytes": len(data), "hashes": {}}
        shards.append({"version": 2, "format": "mds", "samples": len(samples), "raw_data": raw, **columns})
        (folder / f"{shard}.mds").write_bytes(data)
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": shards}))


def zipped_mds(folder: Path) -> dict[str, bytes]:
    """Return the MDS shards of a folder, compressed, and their index."""
    about = json.loads((folder / "index.json").read_text())
    found = {}
    for shard in about["shards"]:
        raw = shard["raw_data"]
        data = (folder / raw["basename"]).read_bytes()
        small = gzip.compress(data)
        shard["compression"] = "gz:6"
        shard["zip_data"] = {"basename": f"{raw['basename']}.gz", "bytes": len(small), "hashes": {}}
        found[f"{raw['basename']}.gz"] = small
    return found | {"index.json": json.dumps(about).encode()}


def zipped_litdata(folder: Path) -> dict[str, bytes]:
    """Return the LitData chunk of a folder, compressed, and its index."""
    about = json.loads((folder / "index.json").read_text())
    data = (folder / "chunk-0.bin").read_bytes()
    about["chunks"][0] |= {"filename": "chunk-0.zstd.bin", "chunk_bytes": len(data)}
    about["config"]["compression"] = "zstd"
    packed = pytest.importorskip("zstandard").compress(data)
    return {"chunk-0.zstd.bin": packed, "index.json": json.dumps(about).encode()}


def _litdata(folder: Path) -> None:
    items = [struct.pack("<2Iq", 8, BYTES, number) + payload(number) for number in range(SAMPLES)]
    begin = 4 * (len(items) + 2)
    offsets = np.cumsum([begin, *map(len, items)]).tolist()
    chunk = struct.pack(f"<{len(offsets) + 1}I", len(items), *offsets) + b"".join(items)
    leaf = {"type": None, "context": None, "children_spec": []}
    spec = [1, {"type": "builtins.dict", "context": '["n", "data"]', "children_spec": [leaf, leaf]}]
    config = {"data_format": ["int", "bytes"], "data_spec": json.dumps(spec)}
    listed = [{"filename": "chunk-0.bin", "chunk_size": len(items)}]
    (folder / "chunk-0.bin").write_bytes(chunk)
    (folder / "index.json").write_text(json.dumps({"chunks": listed, "config": config}))


def _tfrecord(folder: Path) -> None:
    with (folder / "r.tfrecord").open("wb") as file:
        for number in range(SAMPLES):
            # Example { features { feature { "data": bytes_list { value: payload } } } }
            data = payload(number)
            values = b"\x0a" + _varint(len(data)) + data
            feature = b"\x0a" + _varint(len(values)) + values
            entry = b"\x0a\x04data\x12" + _varint(len(feature)) + feature
            features = b"\x0a" + _varint(len(entry)) + entry
            record = b"\x0a" + _varint(len(features)) + features
            length = struct.pack("<Q", len(record))
            file.write(length + struct.pack("<I", masked(length)) + record + struct.pack("<I", masked(record)))


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def table() -> Any:
    """Return a table of all layouts of columns: numbers, text, bytes, lists of them, structs, nulls."""
    pyarrow = pytest.importorskip("pyarrow")
    numbers = range(SAMPLES)
    return pyarrow.table({
        "n": list(numbers),
        "data": [payload(number) for number in numbers],
        "text": [None if number % 7 == 3 else f"text {number}" * (number % 9) for number in numbers],
        "ids": [list(range(number % 5)) for number in numbers],
        "words": [[f"word {each}" for each in range(number % 4)] for number in numbers],
        "pair": pyarrow.array([[number, -number] for number in numbers], pyarrow.list_(pyarrow.int16(), 2)),
        "yes": [number % 3 == 0 for number in numbers],
        "of": [{"a": number, "b": f"{number}"} for number in numbers],
    })  # fmt: skip


def _arrow(folder: Path) -> None:
    pyarrow, whole = pytest.importorskip("pyarrow"), table()
    for number in range(2):
        part = whole.slice(number * SAMPLES // 2, SAMPLES // 2)
        with (
            pyarrow.OSFile(str(folder / f"a-{number}.arrow"), "wb") as sink,
            pyarrow.ipc.new_file(sink, whole.schema) as writer,
        ):
            writer.write_table(part, max_chunksize=SAMPLES // 5 + 1)


def _feather(folder: Path) -> None:
    feather = pytest.importorskip("pyarrow.feather")
    feather.write_feather(table(), str(folder / "f.feather"), compression="lz4", chunksize=SAMPLES // 5 + 1)


def _parquet(folder: Path) -> None:
    pytest.importorskip("pyarrow.parquet").write_table(table(), folder / "p.parquet", row_group_size=SAMPLES // 8)


def _tokens(folder: Path) -> None:
    tokens = np.arange(SAMPLES * BYTES // 2 + 1, dtype=np.uint16)
    tokens[: len(tokens) // 2].tofile(folder / "t-0.bin")
    np.save(folder / "t-1.npy", tokens[len(tokens) // 2 :])


def _documents(folder: Path) -> None:
    lengths = np.full(SAMPLES, BYTES // 2)
    lengths[::2] += 7
    lengths[1::2] -= 7
    np.arange(lengths.sum(), dtype=np.uint16).tofile(folder / "d.bin")
    pointers = (np.cumsum(lengths) - lengths) * 2
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, len(lengths), len(lengths) + 1)
    parts = lengths.astype("<i4"), pointers.astype("<i8"), np.arange(len(lengths) + 1, dtype="<i8")
    (folder / "d.idx").write_bytes(head + b"".join(part.tobytes() for part in parts))


def _packed(folder: Path) -> None:
    pytest.importorskip("pyarrow")
    pixels = np.random.default_rng(1).integers(0, 256, (SAMPLES, 40, BYTES // 120, 3), np.uint8)
    ArrayDataset(pixels, np.arange(SAMPLES)).pack(folder / "packed", store="raw", shard_size=50 * BYTES)


def arrays() -> dict[str, Any]:
    """Return arrays of numbers, of bytes, and of labels."""
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 256, (SAMPLES, 20, BYTES // 60, 3), np.uint8)
    return {"image": pixels, "value": rng.normal(size=SAMPLES).astype(">f4"), "label": np.arange(SAMPLES)}


def _npy(folder: Path) -> None:
    (folder / "n").mkdir()
    for name, array in arrays().items():
        np.save(folder / "n" / f"{name}.npy", array)


def _npz(folder: Path) -> None:
    for part in range(2):
        half = slice(part * SAMPLES // 2, (part + 1) * SAMPLES // 2)
        np.savez(folder / f"n-{part}.npz", **{name: array[half] for name, array in arrays().items()})


def _safetensors(folder: Path) -> None:
    header, data = dict[str, Any](), b""
    for name, kind in (("image", "U8"), ("label", "I64")):
        part, array = data, arrays()[name]
        data += array.tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(part), len(data)]}
    text = json.dumps(header).encode()
    (folder / "n.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def _hdf5(folder: Path) -> None:
    h5py, content = pytest.importorskip("h5py"), arrays()
    with h5py.File(folder / "h.h5", "w", userblock_size=512) as file:
        file.create_dataset("image", data=content["image"], chunks=(5, 10, BYTES // 60, 3), compression="gzip")
        file["label"] = content["label"]
    with h5py.File(folder / "c.h5", "w") as file:
        file["image"] = content["image"].reshape(SAMPLES, -1)


def _images(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    lines = []
    for number in range(SAMPLES):
        name = f"{'cat' if number % 2 else 'dog'}/{number:03}.png"
        (folder / name).parent.mkdir(exist_ok=True)
        image.fromarray(picture(number)).save(folder / name)
        lines.append(f"{name} {number}\n")
    (folder / "train.txt").write_text("".join(lines))


def _photos(folder: Path, ending: str = ".png") -> list[str]:
    """Write images, and return their names without endings."""
    image = pytest.importorskip("PIL.Image")
    folder.mkdir(parents=True)
    names = [f"{number:03}" for number in range(SAMPLES)]
    for number, name in enumerate(names):
        image.fromarray(picture(number)).save(folder / f"{name}{ending}", quality=90)
    return names


def _masks(folder: Path, names: list[str]) -> None:
    """Write masks of noise: indices from 0 to 20."""
    image = pytest.importorskip("PIL.Image")
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        image.fromarray(np.random.default_rng(number).integers(0, 21, (40, BYTES // 120), np.uint8)).save(
            folder / f"{name}.png"
        )


def _coco(folder: Path) -> None:
    names = _photos(folder / "photos")
    images = [
        {"id": 7 * each, "file_name": f"{name}.png", "height": 40, "width": BYTES // 120}
        for each, name in enumerate(names)
    ]
    annotations = [
        {"id": 9 * number, "image_id": 7 * (number % SAMPLES), "category_id": 3, "bbox": [1, 2, 3 + number % 9, 4],
         "iscrowd": 0, "segmentation": [[1, 2, 4 + number % 9, 2, 4, 6 + number % 30]]}
        for number in range(SAMPLES * 3 // 2)
    ]  # fmt: skip
    content = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "cat"}]}
    (folder / "c.json").write_text(json.dumps(content))


def _voc(folder: Path) -> None:
    names = _photos(folder / "JPEGImages", ".jpg")
    _masks(folder / "SegmentationClass", names)
    _masks(folder / "SegmentationObject", names)
    (folder / "Annotations").mkdir()
    for kind in ("Main", "Segmentation"):
        (folder / "ImageSets" / kind).mkdir(parents=True)
        (folder / "ImageSets" / kind / "train.txt").write_text("\n".join(names))
    for number, name in enumerate(names):
        box = f"<bndbox><xmin>{1 + number % 9}</xmin><ymin>2</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"
        text = f"<a><object><name>dog</name>{box}</object></a>"
        (folder / "Annotations" / f"{name}.xml").write_text(text)


def _yolo(folder: Path) -> None:
    names = _photos(folder / "images" / "train")
    (folder / "labels" / "train").mkdir(parents=True)
    for number, name in enumerate(names):
        if number % 7:  # the others have no objects
            (folder / "labels" / "train" / f"{name}.txt").write_text(f"{number % 2} 0.5 0.5 0.25 0.{number % 9 + 1}")
    (folder / "train.txt").write_text("".join(f"images/train/{name}.png\n" for name in names))
    (folder / "data.yaml").write_text("path: ../datasets/all\ntrain: train.txt\nval: images/train\nnames: [cat, dog]\n")


def pairs(folder: Path) -> None:
    """Write images and their masks in two folders."""
    _masks(folder / "masks" / "a", _photos(folder / "photos" / "a"))


KINDS: dict[str, Kind] = {
    "tar": Kind(_tar, lambda place: WebDataset(f"{place}/t-{{0..1}}.tar")),
    "zip": Kind(_zip, lambda place: ZipDataset(f"{place}/z.zip")),
    "tfrecord": Kind(_tfrecord, lambda place: TFRecordDataset(f"{place}/r.tfrecord")),
    "mds": Kind(_mds, MDSDataset),
    "litdata": Kind(_litdata, LitDataset),
    "arrow": Kind(_arrow, lambda place: ArrowDataset(f"{place}/a-{{0..1}}.arrow")),
    "feather": Kind(_feather, lambda place: ArrowDataset(f"{place}/f.feather")),
    "parquet": Kind(_parquet, lambda place: ParquetDataset(f"{place}/p.parquet")),
    "packed": Kind(_packed, lambda place: PackedDataset(f"{place}/packed")),
    "tokens": Kind(
        _tokens, lambda place: TokenDataset([f"{place}/t-0.bin", f"{place}/t-1.npy"], BYTES // 2 - 8, dtype="u2")
    ),
    "documents": Kind(_documents, lambda place: TokenDataset(f"{place}/d.bin", documents=True)),
    "npy": Kind(_npy, lambda place: MappedColumns(f"{place}/n/image.npy")),
    "npz": Kind(_npz, lambda place: MappedColumns(f"{place}/n-{{0..1}}.npz")),
    "safetensors": Kind(_safetensors, lambda place: MappedColumns(f"{place}/n.safetensors").tuple("image", "label")),
    "hdf5": Kind(_hdf5, lambda place: HDF5Dataset(f"{place}/h.h5")),
    "hdf5 contiguous": Kind(_hdf5, lambda place: HDF5Dataset(f"{place}/c.h5")),
    "coco": Kind(_coco, lambda place: CocoDetection(f"{place}/photos", f"{place}/c.json", masks=True)),
    "voc": Kind(_voc, VOC),
    "yolo": Kind(_yolo, YOLO),
    "images": Kind(_images, lambda place: ImageList(f"{place}/train.txt")),
}


def objects_of(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder as objects of a server, by path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {f"/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}
