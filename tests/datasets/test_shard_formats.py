"""The suites of formats and of datasets, on the shards of every format."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.formats.writers import example, feature, write_litdata, write_mds, write_tfrecord
from tests.image_files import encoded, photo

from headrace.datasets import (
    ArrowDataset,
    LitDataset,
    MDSDataset,
    ParquetDataset,
    TFRecordDataset,
    WebDataset,
    ZipDataset,
)
from headrace.testing import DatasetTests, FormatTests

SHARDS = [range(7), range(7, 14), range(14, 21)]


@cache
def image(row: int) -> bytes:
    """Return an image of a size of its own; every fifth is a BMP."""
    return encoded(photo(row, 40 + row, 50), "BMP" if row % 5 == 4 else "JPEG")


def notes(row: int) -> bytes:
    return json.dumps({"row": row, "n": [0] * 50}).encode()


def web(folder: Path) -> None:
    for number, rows in enumerate(SHARDS):
        with tarfile.open(folder / f"train-{number:02}.tar", "w") as archive:
            for row in rows:
                for name, data in (("jpg", image(row)), ("cls", b"%d" % (row % 3)), ("json", notes(row))):
                    member = tarfile.TarInfo(f"{row:04}.{name}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def zips(folder: Path) -> None:
    """Store images, deflate notes, and leave the members of a key apart."""
    for number, rows in enumerate(SHARDS):
        with zipfile.ZipFile(folder / f"train-{number:02}.zip", "w") as archive:
            for row in rows:
                archive.writestr(f"{row:04}.jpg", image(row))
            for row in rows:
                archive.writestr(f"{row:04}.cls", str(row % 3))
                archive.writestr(f"{row:04}.json", notes(row), zipfile.ZIP_DEFLATED)


def tfrecords(folder: Path) -> None:
    for number, rows in enumerate(SHARDS):
        records = [
            example(
                {
                    "image/encoded": feature([image(row)]),
                    "label": feature([row % 3]),
                    "ids": feature(list(range(row % 4))),
                    "score": feature([row / 7]),
                }
            )
            for row in rows
        ]
        write_tfrecord(folder / f"train.tfrecord-{number:05}-of-00003", records)


def _columns() -> list[list[list[bytes]]]:
    return [[[image(row), struct.pack("<q", row % 3), b"x" * row] for row in rows] for rows in SHARDS]


def mds(folder: Path) -> None:
    write_mds(folder, [("image", "jpeg", None), ("label", "int", 8), ("text", "str", None)], _columns())


def lit(folder: Path) -> None:
    write_litdata(folder, {"image": "jpeg", "label": "int", "text": "str"}, _columns())


def tables() -> list[Any]:
    """Return a table for each shard, with images as Hugging Face's `datasets` lays them out."""
    pa = pytest.importorskip("pyarrow")
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b", "c"]}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    file = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    types = zip(("image", "label", "text", "ids"), (file, pa.int64(), pa.string(), pa.list_(pa.int32())), strict=True)
    schema = pa.schema(list(types), metadata=about)
    found = []
    for rows in SHARDS:
        images = [{"bytes": image(row), "path": None} for row in rows]
        columns = [images, [row % 3 for row in rows], ["x" * row for row in rows], [[row] * (row % 4) for row in rows]]
        arrays = [pa.array(each, kind) for each, kind in zip(columns, schema.types, strict=True)]
        found.append(pa.table(arrays, schema))
    return found


def arrow(folder: Path) -> None:
    """Write streams in batches of three rows."""
    for number, table in enumerate(tables()):
        ipc = pytest.importorskip("pyarrow").ipc
        with ipc.new_stream(str(folder / f"{number}.arrow"), table.schema) as writer:
            writer.write_table(table, max_chunksize=3)


def parquet(folder: Path) -> None:
    for number, table in enumerate(tables()):
        pytest.importorskip("pyarrow.parquet").write_table(table, folder / f"{number}.parquet")


FORMATS: dict[str, tuple[Callable[[Path], None], Any, tuple[str, str], list[str]]] = {
    "tar": (web, WebDataset, ("jpg", "cls"), ["cls", "json"]),
    "zip": (zips, ZipDataset, ("jpg", "cls"), ["cls", "json"]),
    "tfrecord": (tfrecords, TFRecordDataset, ("image/encoded", "label"), ["label", "ids", "score"]),
    "mds": (mds, MDSDataset, ("image", "label"), ["label", "text"]),
    "arrow": (arrow, ArrowDataset, ("image", "label"), ["label", "text", "ids"]),
    "lit": (lit, LitDataset, ("image", "label"), ["label", "text"]),
}
"""What writes shards, the dataset that reads them, the fields of a pair, and fields without images."""
WITHOUT_RANGES: Any = {"parquet": (parquet, ParquetDataset, ("image", "label"), ["label", "text", "ids"])}
"""Formats whose images are in no file as such, so that the native extension cannot read them."""


class Shards:
    """Shards of one format, in a folder."""

    collates = False

    @pytest.fixture(autouse=True, params=FORMATS)
    def shards(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self.write(request.param, tmp_path)

    def write(self, name: str, folder: Path) -> None:
        write, self.dataset, self.pair, self.plain = (FORMATS | WITHOUT_RANGES)[name]
        write(folder)
        self.folder = folder


class TestPairs(Shards, FormatTests):
    """Images with labels, which the native extension reads."""

    def make(self) -> Any:
        return self.dataset(self.folder).tuple(*self.pair)

    def test_the_ranges_of_samples_are_not_pickled(self) -> None:
        """Send the dataset to other processes, which find the ranges in its index."""
        pairs = self.make()
        assert len(pickle.dumps(pairs)) < len(pickle.dumps(pairs._dataset)) + 300
        copy = pickle.loads(pickle.dumps(pairs))
        np.testing.assert_array_equal(copy.native_source().offset, pairs.native_source().offset)


class TestSamples(Shards, DatasetTests):
    """Samples with some of their fields, as dicts."""

    @pytest.fixture(autouse=True, params=[*FORMATS, *WITHOUT_RANGES])
    def shards(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self.write(request.param, tmp_path)

    def make(self) -> Any:
        return self.dataset(self.folder, fields=self.plain)

    def label(self, sample: Any) -> Any:
        return sample[self.plain[0]]

    def test_labels_keys_and_shards_are_known_without_reading(self) -> None:
        """Give the labels of all samples, the lengths of the shards, and the place of a sample."""
        dataset = self.make()
        assert dataset.labels.tolist() == [row % 3 for row in range(21)]
        assert dataset.shard_lengths == [7, 7, 7]
        assert dataset.where(7).startswith(f"{dataset.shards[1]}: ")
        assert dataset[7]["__key__"] == dataset.where(7).rpartition(": ")[2]


class TestImagesWithoutRanges(Shards, DatasetTests):
    """Pairs of formats whose images are decoded one by one."""

    @pytest.fixture(autouse=True, params=WITHOUT_RANGES)
    def shards(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        self.write(request.param, tmp_path)

    def make(self) -> Any:
        return self.dataset(self.folder).tuple(*self.pair)
