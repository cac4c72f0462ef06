"""Arrays of `.npz`, safetensors and `.npy` files: rows as the libraries read them, and damage is an error."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from tests.formats.damage import damaged
from tests.formats.fixtures import HERE, plain

from headrace import DataLoader
from headrace.datasets import MappedColumns
from headrace.errors import ArgumentError, BadFile, HeadraceError, MissingFile
from headrace.testing import DatasetTests, FormatTests

SAVED = HERE / "safetensors" / "a.safetensors"


def rows(part: int) -> dict[str, Any]:
    """Return arrays of five rows: images, vectors whose columns come first, and labels."""
    rng = np.random.default_rng(part)
    images = rng.integers(0, 256, (5, 30, 40, 3), dtype=np.uint8)
    vectors = np.asfortranarray(rng.normal(size=(5, 3)).astype(np.float32))
    return {"image": images, "vector": vectors, "label": np.arange(5) + 5 * part}


def tensors(path: Path, arrays: dict[str, Any]) -> Path:
    """Write a file of safetensors."""
    names = {"uint8": "U8", "float32": "F32", "int64": "I64"}
    header, data = {}, b""
    for name, array in arrays.items():
        place = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": place}
        data += np.ascontiguousarray(array).tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def write(kind: str, folder: Path) -> None:
    for part in range(2):
        if kind == "npz":
            np.savez(folder / f"{part}.npz", **rows(part))
        elif kind == "safetensors":
            tensors(folder / f"{part}.safetensors", rows(part))
    if kind == "npy":
        for name in rows(0):
            np.save(folder / f"{name}.npy", np.concatenate([rows(part)[name] for part in range(2)]))


class Files:
    """Files of each kind, in a folder."""

    @pytest.fixture(autouse=True, params=["npz", "safetensors", "npy"])
    def files(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        write(request.param, tmp_path)
        self.folder, self.kind = tmp_path, request.param


class TestRows(Files, DatasetTests):
    """Samples as dicts, in whole batches."""

    def make(self) -> Any:
        return MappedColumns(self.folder)

    def test_rows_are_those_of_the_arrays(self) -> None:
        """Join the rows of both files, and know their lengths, labels and places."""
        dataset = self.make()
        for name in dataset.fields:
            expected = np.concatenate([rows(part)[name] for part in range(2)])
            assert_array_equal(np.stack([sample[name] for sample in dataset]), expected)
        assert sorted(dataset.fields) == ["image", "label", "vector"]
        assert dataset.labels.tolist() == list(range(10))
        assert list(dataset.shard_lengths) == ([10] if self.kind == "npy" else [5, 5])
        assert dataset.where(7) == f"{dataset.shards[-1]}: row {7 if self.kind == 'npy' else 2}"

    def test_worker_processes_get_paths(self) -> None:
        """Pickle no contents; the copy reads the same rows."""
        sent = pickle.dumps(self.make())
        assert len(sent) < 6000
        assert [sample["label"] for sample in pickle.loads(sent)] == list(range(10))
        loader = DataLoader(self.make(), 4, num_workers=1, backend="processes", multiprocessing_context="fork")
        assert np.concatenate([batch["label"] for batch in loader]).tolist() == list(range(10))

    def test_a_file_that_changes_is_an_error(self) -> None:
        """Name the file, when it is cut short while it is mapped."""
        dataset = self.make()
        path = min(self.folder.iterdir())
        os.truncate(path, 300)
        with pytest.raises(BadFile, match=path.name):
            list(DataLoader(dataset, 4))


class TestImages(Files, FormatTests):
    """Pairs of images and labels, which the native extension reads."""

    @pytest.fixture(autouse=True, params=["npy"])
    def files(self, request: pytest.FixtureRequest, tmp_path: Path) -> None:
        write(request.param, tmp_path)
        self.folder, self.kind = tmp_path, request.param

    def make(self) -> Any:
        return MappedColumns(self.folder).tuple("image", "label")


class TestPairs(Files, DatasetTests):
    """Pairs of several files."""

    def make(self) -> Any:
        return MappedColumns(self.folder).tuple("vector", "label")


def test_tensors_are_those_that_the_formats_own_library_gives() -> None:
    """Read each dtype of a file of safetensors."""
    pytest.importorskip("ml_dtypes")
    dataset = MappedColumns(SAVED)
    found = {name: plain(np.stack([sample[name] for sample in dataset])) for name in dataset.fields}
    assert found == json.loads((SAVED.parent / "expected.json").read_text())[0]


def test_compressed_arrays_and_objects_are_refused(tmp_path: Path) -> None:
    """Say how to write the file."""
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(9))
    with pytest.raises(BadFile, match=r"array 'x' is compressed.*numpy\.savez"):
        MappedColumns(tmp_path)
    np.savez(tmp_path / "a.npz", x=np.array([{}, None], object))
    with pytest.raises(BadFile, match="'x'"):
        MappedColumns(tmp_path)
    np.save(tmp_path / "b.npy", np.array([{}, None], object))
    with pytest.raises(BadFile, match=r"b\.npy"):
        MappedColumns(tmp_path / "b.npy")


def test_arrays_must_have_as_many_rows(tmp_path: Path) -> None:
    """Choose arrays of equal lengths, or name them all."""
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2)), y=np.zeros(3), z=np.zeros(4), scalar=np.float64(1))
    with pytest.raises(ArgumentError, match="x: 3, y: 3, z: 4, scalar: no axis"):
        MappedColumns(tmp_path / "a.npz")
    assert MappedColumns(tmp_path / "a.npz", fields=["x", "y"]).fields == ["x", "y"]
    assert MappedColumns(tmp_path / "a.npz", fields="z").labels is None
    with pytest.raises(ArgumentError, match="'w'"):
        MappedColumns(tmp_path / "a.npz", fields=["w"])
    with pytest.raises(ArgumentError, match="no array was named"):
        MappedColumns(tmp_path / "a.npz", fields=["x"]).tuple()
    np.savez(tmp_path / "b.npz", x=np.zeros((3, 3)))
    with pytest.raises(BadFile, match=r"b\.npz: array 'x' has rows of float64 \(3,\), and float64 \(2,\)"):
        MappedColumns(tmp_path, fields=["x"])


def test_other_files_are_refused(tmp_path: Path) -> None:
    """Tell kinds by their first bytes, and say what is there instead."""
    (tmp_path / "a.npz").write_bytes(b"hello, arrays")
    with pytest.raises(BadFile, match="begins with b'hello, a'"):
        MappedColumns(tmp_path)
    with pytest.raises(MissingFile):
        MappedColumns(tmp_path / "b.npz")
    np.save(tmp_path / "alone.npy", np.arange(3))
    assert MappedColumns(tmp_path / "alone.npy")[1] == {"alone": 1}
    (tmp_path / "alone.npy").unlink()
    (tmp_path / "a.npz").unlink()
    with pytest.raises(MissingFile, match=r"\.npz"):
        MappedColumns(tmp_path)


def header(**tensors: Any) -> bytes:
    text = json.dumps({name: dict(zip(("dtype", "shape", "data_offsets"), each)) for name, each in tensors.items()})  # noqa: B905
    return struct.pack("<Q", len(text)) + text.encode()


@pytest.mark.parametrize(
    "data",
    [
        header(x=("U8", [4], [0, 4])) + b"abc",
        header(x=("U8", [4], [0, 4])) + b"abcde",
        header(x=("U8", [4], [1, 5])) + b"abcde",
        header(x=("U8", [4], [0, 4]), y=("U8", [4], [2, 6])) + b"abcdef",
        header(x=("U8", [5], [0, 4])) + b"abcd",
        header(x=("U8", [-4], [0, 4])) + b"abcd",
        header(x=("U8", [2.0, 2], [0, 4])) + b"abcd",
        header(x=("U8", [True, 4], [0, 4])) + b"abcd",
        header(x=("U8", [1] * 70, [0, 1])) + b"a",
        header(x=("O", [4], [0, 4])) + b"abcd",
        header(x=("U8", [4])) + b"abcd",
        header(x=()) + b"abcd",
        struct.pack("<Q", 10**9) + b"{}",
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 16) + b'{"x":{},"x": {}}',
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 9) + b"{" * 9,
    ],
)
def test_damaged_headers_are_refused(data: bytes, tmp_path: Path) -> None:
    """Refuse tensors that overlap, leave holes, or lie about their sizes."""
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(BadFile):
        MappedColumns(tmp_path)


def test_members_of_an_archive_that_are_no_arrays_are_passed_over(tmp_path: Path) -> None:
    """Read the arrays only; a name may have folders and dots, and be there once."""
    np.savez(tmp_path / "a.npz", **{"a/b.c": np.arange(3), "self": np.arange(3)})
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("notes.txt", "hello")
    assert MappedColumns(tmp_path / "a.npz")[2] == {"a/b.c": 2, "self": 2}
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("self.npy", b"")
    with pytest.raises(BadFile, match="'self' is there twice"):
        MappedColumns(tmp_path / "a.npz")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data(), st.sampled_from(["npz", "safetensors", "npy"]))
def test_damage_is_an_error_and_never_a_crash(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    """Read files with flipped bytes and false sizes: other values, or an error of ours."""
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez(path, x=np.arange(6).reshape(3, 2), y=np.arange(3))
    elif kind == "npy":
        np.save(path, np.arange(6))
    else:
        tensors(path, {"x": np.arange(6).reshape(3, 2), "y": np.arange(3)})
    path.write_bytes(damaged(data, path.read_bytes()))
    with contextlib.suppress(HeadraceError):
        dataset = MappedColumns(path)
        for row in range(min(len(dataset), 9)):
            dataset[row]
