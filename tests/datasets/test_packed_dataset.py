"""Packed datasets: what goes in comes out, by whole batches and one by one, and whoever changes it is found out."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from headrace import (
    ArrayDataset,
    CenterCrop,
    DataLoader,
    ImageFolder,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToFloat,
)
from headrace.datasets import Dataset, EncodedImages, PackedDataset
from headrace.datasets.pack_writer import pack
from headrace.errors import ArgumentError, BadFile, SampleError
from headrace.image import decode
from headrace.testing.datasets import DatasetTests, OneByOne, assert_same

if TYPE_CHECKING:
    from collections.abc import Sequence

pytest.importorskip("pyarrow")


def blocks(height: int, width: int, seed: int = 0) -> Any:
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]


def jpeg(pixels: Any, quality: int = 92) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return file.getvalue()


class Listed(Dataset[Any]):
    """Any samples."""

    def __init__(self, samples: Sequence[Any]) -> None:
        self.samples = samples

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)


def photos(count: int = 10) -> EncodedImages:
    return EncodedImages([jpeg(blocks(60 + 8 * n, 90, n)) for n in range(count)], np.arange(count) % 3)


class TestRaw(DatasetTests):
    """The conformance suite, over pixels of several sizes."""

    collates = False

    @pytest.fixture(autouse=True)
    def _packed(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "packed"
        photos().pack(self.folder, store="raw", max_side=64, shard_size=30_000)

    def make(self) -> Any:
        return PackedDataset(self.folder)


class TestMapped(DatasetTests):
    """The conformance suite, over batches that the native extension makes of encoded images."""

    @pytest.fixture(autouse=True)
    def _packed(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "packed"
        photos().pack(self.folder, max_side=64, shard_size=5000)

    def make(self) -> Any:
        return PackedDataset(self.folder).map(RandomResizedCrop(16), RandomHorizontalFlip(), ToFloat(), ToCHW())


@pytest.mark.parametrize(("store", "budget"), [("jpeg", None), ("raw", None), ("smart", 60_000)])
def test_batches_are_those_of_the_samples_one_by_one(tmp_path: Path, store: Any, budget: int | None) -> None:
    packed = photos().pack(tmp_path, store=store, budget=budget, max_side=64, shard_size=20_000)
    assert len(packed.shard_lengths) > 1
    chain = RandomResizedCrop(32), RandomHorizontalFlip(), ToFloat(), ToCHW()
    mapped = packed.map(*chain)
    assert "all fused" in mapped.explain()
    batches, alone = (list(DataLoader(each, 4, shuffle=True, seed=3)) for each in (mapped, OneByOne(mapped)))
    for (images, labels), (images_alone, labels_alone) in zip(batches, alone, strict=True):
        assert np.abs(images - images_alone).max() < 0.02
        assert np.array_equal(labels, labels_alone)


def test_pixels_that_are_kept_are_those_of_the_transform(tmp_path: Path) -> None:
    source = photos(3)
    packed = source.pack(tmp_path, store="raw", max_side=64)
    for (image, label), (whole, expected) in zip(packed, source, strict=True):
        assert max(image.shape[:2]) == 64
        assert np.array_equal(image, Resize(image.shape[:2])(whole))
        assert label == expected


def test_a_smart_dataset_keeps_pixels_as_far_as_its_budget_reaches(tmp_path: Path) -> None:
    source = photos()
    sizes = [sum(image.nbytes for image, _ in source)]
    for number, share in enumerate((0.0, 0.5, 2.0)):
        budget = max(1, int(sizes[0] * share))
        packed = source.pack(tmp_path / str(number), store="smart", budget=budget)
        kept = int((packed._index.sides()[:, 0] > 0).sum())
        stored = sum(path.stat().st_size for path in (tmp_path / str(number)).glob("*.arrow"))
        assert {0: kept == 0, 1: 0 < kept < len(source), 2: kept == len(source)}[number]
        assert number != 1 or stored < budget + 20_000


def test_jpeg_files_of_the_right_size_stay_as_they_are(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.jpg").write_bytes(jpeg(blocks(40, 50)))
        Image.fromarray(blocks(30, 20)).save(tmp_path / "photos" / name / "2.png")
    folder = ImageFolder(tmp_path / "photos")
    packed = folder.pack(tmp_path / "packed")
    assert [packed.key(row) for row in range(4)] == ["a/1.jpg", "a/2.png", "b/1.jpg", "b/2.png"]
    assert (packed.classes, packed.class_to_idx) == (["a", "b"], {"a": 0, "b": 1})
    assert packed.labels is not None
    assert packed.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(packed[0][0], folder[0][0])
    assert packed[1][0].shape == (30, 20, 3)
    assert packed.where(2) == f"{tmp_path}/packed/packed-00000.arrow: b/1.jpg"
    assert type(packed[2][1]) is int


SAMPLES: dict[str, Any] = {
    "a dict": {"image": blocks(8, 9), "boxes": np.ones((2, 4), np.float32), "text": "é", "data": b"\0\1", "n": 3},
    "a target": (
        blocks(8, 9),
        {"masks": np.ones((2, 8, 9), bool), "labels": np.arange(2)},
        {"caption": ["a", 1.5, None]},
    ),
    "audio": (np.linspace(0, 1, 50, dtype=np.float32), 16_000, "hello", True),
    "tokens": np.arange(7, dtype=np.uint16),
    "a number": np.float32(1.5),
    "gray": (blocks(8, 9)[:, :, 0].copy(), np.int8(3)),
    "four channels": blocks(8, 9)[:, :, [0, 1, 2, 0]].copy(),
    "lists": {"a": [1, [2, "b"]], "b": {"c": {}}, "halves": np.ones(3, np.float16), "empty": np.zeros((0, 3))},
}


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_of_any_form_come_back_as_they_were(name: str, tmp_path: Path) -> None:
    samples = [SAMPLES[name]] * 5
    packed = Listed(samples).pack(tmp_path, store="raw", shard_size=300)
    assert_same(list(packed), samples)
    assert_same(list(pickle.loads(pickle.dumps(packed))), samples)


def test_what_is_none_comes_back_as_none(tmp_path: Path) -> None:
    samples = [
        {"text": "a", "ids": np.arange(2), "masks": np.ones((1, 2)), "json": [1]},
        dict.fromkeys(("text", "ids")),
    ]
    samples[1] |= {"masks": None, "json": None}
    packed = Listed(samples).pack(tmp_path)
    assert_same(list(packed), samples)


def test_masks_and_boxes_are_scaled_with_the_image(tmp_path: Path) -> None:
    sample = {"image": blocks(40, 80), "boxes": np.array([[0, 0, 40, 20]], np.float32), "mask": blocks(40, 80)[:, :, 0]}
    packed = Listed([sample] * 2).pack(tmp_path, store="raw", max_side=40)
    found = packed[1]
    assert found["image"].shape == (20, 40, 3)
    assert found["mask"].shape == (20, 40)
    assert found["boxes"].tolist() == [[0, 0, 20, 10]]


def test_some_fields_are_a_tuple_that_the_extension_reads(tmp_path: Path) -> None:
    samples = [{"text": str(n), "image": blocks(16, 16 + n), "label": n} for n in range(4)]
    packed = Listed(samples).pack(tmp_path, store="raw").tuple("image", "label")
    assert packed.map(CenterCrop(8)).explain().startswith("Mapped: all fused")
    assert packed.labels is not None
    assert packed.labels.tolist() == [0, 1, 2, 3]
    assert packed.fields == ["image", "label"]
    with pytest.raises(ArgumentError, match="no sample has a field 'other'"):
        packed.tuple("other")


@pytest.mark.parametrize(
    ("samples", "what"),
    [
        ([(blocks(8, 8), 1), (blocks(8, 8), 1.5)], "field 'label' is 1.5"),
        ([{"a": 1}, {"b": 1}], "a dict of b"),
        ([(1, 2), (1, 2, 3)], "a tuple of 3"),
        ([(blocks(8, 8), 1), (blocks(8, 8)[:, :, 0].copy(), 1)], r"uint8 \(8, 8\)"),
        ([np.arange(3), np.arange(3.0)], "float64"),
        ([{"a": object()}], "object"),
        ([{"a": np.array(["text"])}], "<U4"),
        ([{1: 2}], "the key 1"),
    ],
)
def test_samples_that_differ_or_cannot_be_stored_are_refused(samples: list[Any], what: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=what):
        Listed(samples).pack(tmp_path / "packed")


def test_a_dataset_that_draws_or_is_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="draws random numbers"):
        photos().map(RandomResizedCrop(8)).pack(tmp_path)
    with pytest.raises(ArgumentError, match="is empty"):
        photos().take(0).pack(tmp_path)
    with pytest.raises(ArgumentError, match="no image"):
        ArrayDataset(np.arange(3)).pack(tmp_path / "a", max_side=4)
    with pytest.raises(ArgumentError, match="budget"):
        photos().pack(tmp_path, store="smart")
    with pytest.raises(ArgumentError, match="shard_size must be a number of bytes"):
        photos().pack(tmp_path, shard_size="many")


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("store", ["jpeg", "smart"])
def test_the_bytes_do_not_depend_on_the_workers(store: Any, tmp_path: Path) -> None:
    budget = 60_000 if store == "smart" else None
    for workers in (1, 4):
        photos().pack(
            tmp_path / str(workers), store=store, budget=budget, max_side=64, shard_size=9000, workers=workers
        )
    assert shards(tmp_path / "1") == shards(tmp_path / "4")


def test_packing_continues_behind_the_shards_that_are_right(tmp_path: Path) -> None:
    how: dict[str, Any] = {"store": "smart", "budget": 60_000, "max_side": 64, "shard_size": 9000}
    photos().pack(tmp_path / "whole", **how)
    whole = shards(tmp_path / "whole")
    assert len(whole) > 4
    photos().pack(tmp_path / "left", **how)
    (tmp_path / "left" / "packed-00002.arrow").unlink()
    damaged = bytearray(whole["packed-00001.arrow"])
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "left" / "packed-00001.arrow").write_bytes(damaged)
    (tmp_path / "left" / f".packed-00003.arrow.{2**30}.partial").write_bytes(b"half")
    done = list[int]()
    photos().pack(tmp_path / "left", **how, progress=done.append)
    assert shards(tmp_path / "left") == whole
    assert sum(done) == 10
    assert done[0] > 0
    photos().pack(tmp_path / "left", **how)
    assert shards(tmp_path / "left") == whole


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ArgumentError, match="other files"):
        photos().pack(tmp_path)
    photos().pack(tmp_path / "packed")
    with pytest.raises(ArgumentError, match="another dataset"):
        photos().pack(tmp_path / "packed", quality=50)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_shards_are_added_to_a_packed_dataset(tmp_path: Path) -> None:
    photos().take(4).pack(tmp_path, shard_size=5000)
    more = photos().skip(4)
    packed = more.pack(tmp_path, shard_size=5000, append=True)
    assert [label for _, label in packed] == [n % 3 for n in range(10)]
    again = shards(tmp_path)
    more.pack(tmp_path, shard_size=5000, append=True)
    assert shards(tmp_path) == again
    with pytest.raises(ArgumentError, match="packed in another way"):
        more.take(2).pack(tmp_path, shard_size=5000, append=True, quality=40)


def test_a_dataset_that_is_not_finished_or_lacks_a_shard_says_so(tmp_path: Path) -> None:
    photos().pack(tmp_path, shard_size=5000)
    listing = tmp_path / "packed.json"
    told = json.loads(listing.read_text())
    listing.write_text(json.dumps(told | {"finished": False}))
    with pytest.raises(BadFile, match="was not finished"):
        PackedDataset(tmp_path)
    listing.write_text(json.dumps(told))
    last = max(tmp_path.glob("*.arrow"))
    held = last.read_bytes()
    last.unlink()
    with pytest.raises(BadFile, match=r"as packed\.json says"):
        PackedDataset(tmp_path)
    last.write_bytes(held)
    (tmp_path / "packed-00001.arrow").unlink()
    with pytest.raises(BadFile, match="begins with sample"):
        PackedDataset(tmp_path)


def test_a_full_disk_is_an_error_that_leaves_no_broken_shard(tmp_path: Path) -> None:
    script = """
import resource, sys
import numpy as np
from headrace import ArrayDataset
from headrace.errors import UnreadableFile
resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))
dataset = ArrayDataset(np.zeros((9, 30, 30, 3), np.uint8), np.arange(9))
try:
    dataset.pack(sys.argv[1], store="raw", shard_size="40kB")
except UnreadableFile as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "packed")], capture_output=True, text=True, check=True
    )
    assert "cannot be written: File too large; expected a disk with room for it" in run.stdout
    assert [path.name for path in (tmp_path / "packed").iterdir()] == ["packed.json"]


def test_a_damaged_sample_is_skipped_and_named_by_the_extension_too(tmp_path: Path) -> None:
    packed = photos().pack(tmp_path, store="raw", max_side=64)
    path = Path(packed.shards[0])
    data = bytearray(path.read_bytes())
    data[int(packed._index.spans(packed._layout.fields[0]).offset[4]) + 100] ^= 4
    path.write_bytes(data)
    dataset = PackedDataset(tmp_path).map(RandomResizedCrop(16), ToFloat())
    loader = DataLoader(dataset, 3, seed=0, on_error="skip", num_workers=2)
    labels = np.concatenate([labels for _, labels in loader])
    assert labels.tolist() == [n % 3 for n in range(10) if n != 4]
    with pytest.raises(SampleError, match=r"sample 4 .*packed-00000.arrow: 4\): field 'image': its bytes have another"):
        list(DataLoader(dataset, 3, seed=0))


def test_a_shard_that_is_cut_short_or_written_to_is_an_error_and_no_signal(tmp_path: Path) -> None:
    dataset = photos().pack(tmp_path, store="raw", max_side=64).map(RandomResizedCrop(16))
    batches = DataLoader(dataset, 5, seed=0)
    next(iter(batches))
    path, pickled = tmp_path / "packed-00000.arrow", pickle.dumps(dataset.base)
    os.truncate(path, 4096)
    with pytest.raises(BadFile, match=r"packed-00000\.arrow"):
        pickle.loads(pickled)[0]
    with pytest.raises(BadFile, match="was changed, replaced or removed"):
        list(batches)


def test_reading_ahead_says_how_much_fits(tmp_path: Path) -> None:
    photos().pack(tmp_path)
    packed = PackedDataset(tmp_path, warm=True)
    assert packed.warming is not None
    packed.warming.wait()
    assert packed.warming.read == packed.warming.fits == packed.warming.total
    assert pickle.loads(pickle.dumps(packed)).warming is None


def test_pyarrow_opens_the_shards(tmp_path: Path) -> None:
    import pyarrow as pa

    for store in ("jpeg", "raw"):
        packed = photos(3).pack(tmp_path / store, store=store)
        with pa.memory_map(packed.shards[0]) as file:
            table = pa.ipc.open_file(file).read_all()
        assert table.column_names == ["image", "label", "__key__", "__crc32c__"]
        row = table.to_pylist()[2]
        assert row["label"] == 2
        if store == "raw":
            pixels = np.array(row["image"]["data"], np.uint8).reshape(row["image"]["shape"])
            assert np.array_equal(pixels, packed[2][0])
        else:
            assert np.array_equal(decode(row["image"]["bytes"]), packed[2][0])


def test_polars_and_duckdb_open_the_shards(tmp_path: Path) -> None:
    if not all(map(find_spec, ("polars", "duckdb"))):
        pytest.skip("polars or DuckDB is not installed")
    script = """
import sys, polars, duckdb
for path in sys.argv[1:]:
    frame = polars.read_ipc(path)
    print(frame["label"].to_list(), duckdb.sql("select label, __key__ from frame where label = 1").fetchall())
"""
    paths = [photos(3).pack(tmp_path / store, store=store).shards[0] for store in ("jpeg", "raw")]
    run = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
    assert run.stdout == 2 * "[0, 1, 2] [(1, '1')]\n"


def test_hugging_face_opens_the_shards_as_images(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for store, budget in (("jpeg", None), ("smart", 30_000)):
        packed = photos(3).pack(tmp_path / store, store=store, budget=budget)
        found = datasets.load_dataset(
            "arrow", data_files=packed.shards, split="train", cache_dir=str(tmp_path / "cache" / store)
        )
        assert found["label"][:] == [0, 1, 2]
        for row, (image, _) in enumerate(packed):
            assert np.array_equal(np.asarray(found[row]["image"]), image)


class Broken:
    """Rows of an image and its number; some cannot be read."""

    def __init__(self, count: int, broken: set[int]) -> None:
        self.count, self.broken = count, broken

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        if index in self.broken:
            raise ValueError(f"no {index}")
        return np.full((16, 16, 3), index, np.uint8), index


@pytest.mark.parametrize("broken", [set(), {0}, {0, 1, 2}, {5, 6}, {29}, {28, 29}, {0, 7, 8, 9, 20, 29}])
@pytest.mark.parametrize("workers", [1, 3])
def test_samples_that_cannot_be_read_are_left_out(broken: set[int], workers: int, tmp_path: Path) -> None:
    """Leave them out at the beginning, in between and at the end: all others are there, and those are named."""
    options: dict[str, Any] = {"store": "raw", "shard_size": 3000, "workers": workers}
    done: list[int] = []
    packed = pack(Broken(30, broken), tmp_path, on_error="skip", progress=done.append, **options)
    assert [number for _, number in packed] == [number for number in range(30) if number not in broken]
    assert [(bad.index, bad.error) for bad in packed.skipped] == [(n, f"ValueError: no {n}") for n in sorted(broken)]
    assert sum(done) == 30
    assert len(PackedDataset(tmp_path)) == 30 - len(broken)


def test_packing_continues_behind_samples_that_were_left_out(tmp_path: Path) -> None:
    """Delete shards from the end on and pack again: the same bytes each time."""
    dataset = Broken(30, {0, 4, 11, 12, 13, 29})
    options: dict[str, Any] = {"store": "raw", "shard_size": 3000, "on_error": "skip"}
    shards = pack(dataset, tmp_path / "a", **options).shards
    whole = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    for count in range(len(shards)):
        for path in shards[count:]:
            Path(path).unlink()
        pack(dataset, tmp_path / "a", **options)
        assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == whole
    pack(Broken(20, {1}), tmp_path / "a", append=True, **options)
    assert len(PackedDataset(tmp_path / "a")) == 24 + 19


def test_without_a_readable_sample_the_error_is_raised(tmp_path: Path) -> None:
    """Raise the last one's error, and by default the first one's."""
    with pytest.raises(ValueError, match="no 2"):
        pack(Broken(3, {0, 1, 2}), tmp_path / "a", on_error="skip")
    with pytest.raises(ValueError, match="no 1"):
        pack(Broken(3, {1}), tmp_path / "b")
    with pytest.raises(ArgumentError, match="on_error"):
        pack(Broken(3, {1}), tmp_path / "c", on_error="replace")
