"""Arrays behind URLs: rows as NumPy reads them, of a folder too; what cannot be read row by row is refused."""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from tests.storage.object_server import ObjectServer

from headrace import ArrayDataset, DataLoader
from headrace.datasets import MappedColumns, object_rows
from headrace.datasets.object_rows import ObjectRows
from headrace.errors import ArgumentError, BadFile, MissingFile
from headrace.formats.npy import ArraySpan
from headrace.storage import blocks, objects

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("obstore")

VALUES = np.arange(3000, dtype="<i4").reshape(1000, 3)
LABELS = np.arange(1000) % 7


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 12)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))


@pytest.fixture
def server(server: ObjectServer) -> ObjectServer:
    """Serve two arrays."""
    server.objects |= {"/bucket/a/x.npy": npy(VALUES), "/bucket/a/y.npy": npy(LABELS)}
    return server


def npy(array: Any) -> bytes:
    """Return the bytes of a `.npy` file."""
    held = io.BytesIO()
    np.save(held, array)
    return held.getvalue()


def test_a_folder_of_npy_files_is_one_dataset(server: ObjectServer) -> None:
    """List the folder; name the arrays by its files; know labels; read whole batches."""
    dataset = MappedColumns("s3://bucket/a/")
    assert (dataset.fields, len(dataset), dataset.shards) == (["x", "y"], 1000, ["s3://bucket/a"])
    assert_array_equal(dataset.labels, LABELS)
    assert dataset.where(-1) == "s3://bucket/a: row 999"
    expected: list[Any] = list(DataLoader(ArrayDataset(VALUES, LABELS), 64, shuffle=True, seed=1))
    found: list[Any] = list(DataLoader(dataset.tuple("x", "y"), 64, shuffle=True, seed=1))
    np.testing.assert_equal(found, expected)
    assert len(pickle.dumps(dataset)) < 4000


def test_worker_processes_read_arrays_behind_urls(server: ObjectServer) -> None:
    """Send a process the URL and the place of the array, and no rows."""
    rows = MappedColumns(f"{server.url}/bucket/a/x.npy").tuple("x")
    loader: DataLoader[Any]
    with DataLoader(rows, 250, num_workers=1, multiprocessing_context="forkserver") as loader:
        assert_array_equal(np.concatenate(list(loader)), VALUES)


def test_one_array_gives_bare_rows(server: ObjectServer) -> None:
    """Take negative indices, slices, NumPy's integers and several at once, as an array does."""
    rows = MappedColumns(f"{server.url}/bucket/a/x.npy").tuple("x")
    assert isinstance(rows, ObjectRows)
    assert_array_equal([rows[-1], rows[np.int64(3)]], VALUES[[-1, 3]])
    assert_array_equal(rows[10:2:-3], VALUES[10:2:-3])
    assert_array_equal(rows.__getitems__([5, 999, 5, 0, -2]), VALUES[[5, 999, 5, 0, -2]])
    assert rows.read_batch([]).shape == (0, 3)
    for wrong in (1000, -1001):
        with pytest.raises(IndexError):
            rows[wrong]
    with pytest.raises(TypeError):
        rows["x"]


def test_rows_that_lie_near_each_other_are_read_at_once(server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read neighbors by one range; far rows do not bring what is between them."""
    rows: Any = MappedColumns(f"{server.url}/bucket/a/x.npy").tuple("x")
    read = list[int]()

    def noted(url: str, at: int, size: int, facts: Any) -> bytes:
        read.append(size)
        return blocks.read_url(url, at, size, facts)

    monkeypatch.setattr(object_rows, "read_url", noted)
    monkeypatch.setattr(object_rows, "NEAR", 100)
    assert_array_equal(rows.__getitems__([999, 1, 3, 2]), VALUES[[999, 1, 3, 2]])
    assert sorted(read) == [12, 36]


def test_columns_first_compressed_and_objects_are_refused(server: ObjectServer) -> None:
    """Say which array cannot be read row by row, and what to do."""
    server.objects["/f.npy"] = npy(np.asfortranarray(VALUES))
    with pytest.raises(BadFile, match=r"f\.npy: array 'f' is stored column by column.*ascontiguousarray"):
        MappedColumns(f"{server.url}/f.npy")
    server.objects["/one.npy"] = npy(np.asfortranarray(VALUES[:1]))
    assert_array_equal(MappedColumns(f"{server.url}/one.npy")[0]["one"], VALUES[0])
    held = io.BytesIO()
    np.savez_compressed(held, x=VALUES)
    server.objects["/c.npz"] = held.getvalue()
    with pytest.raises(BadFile, match=r"c\.npz: array 'x' is compressed"):
        MappedColumns(f"{server.url}/c.npz")
    server.objects["/o.npy"] = npy(np.array(["a", 1], "O"))
    with pytest.raises(BadFile, match=r"o\.npy: cannot be read"):
        MappedColumns(f"{server.url}/o.npy")
    with pytest.raises(MissingFile, match=r"none\.npy: there is no such object"):
        MappedColumns(f"{server.url}/none.npy")
    with pytest.raises(ArgumentError, match="read its rows by URL with MappedColumns"):
        ArrayDataset(f"{server.url}/bucket/a/x.npy")


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", npy(VALUES)[:-1], npy(VALUES) + b"x"])
def test_damaged_files_are_errors(server: ObjectServer, data: bytes) -> None:
    """Refuse an empty object, half a header, and more or less data than the header says."""
    server.objects["/d.npy"] = data
    with pytest.raises(BadFile, match=r"http://.*/d\.npy: "):
        MappedColumns(f"{server.url}/d.npy")


def test_an_array_that_changes_is_an_error(server: ObjectServer) -> None:
    """Name the bytes that have another version; construct the dataset again to read them."""
    numbers = np.arange(40_000)
    server.objects["/n.npy"] = npy(numbers)
    dataset = MappedColumns(f"{server.url}/n.npy")
    server.objects["/n.npy"] = npy(numbers[::-1])
    with pytest.raises(BadFile, match=r"n\.npy: bytes 319488 to 320128 .*the object has changed"):
        dataset[39_999]
    assert MappedColumns(f"{server.url}/n.npy")[39_999]["n"] == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 40), st.lists(st.integers(0, 3), max_size=3), st.sampled_from(["u1", ">f4", "<i8", "?", "S3"]),
    st.lists(st.integers(-1000, 1000), max_size=30), st.integers(1, 200),
)  # fmt: skip
def test_any_rows_of_any_array_are_those_of_numpy(
    length: int, sides: list[int], dtype: str, keys: list[int], near: int
) -> None:
    """Read rows of all shapes, none of bytes among them, in any order and several times."""
    fsspec = pytest.importorskip("fsspec")
    array = np.random.default_rng(length).integers(0, 100, (length, *sides)).astype(dtype)
    fsspec.filesystem("memory").pipe("/any/a.bin", b"head" + array.tobytes())
    before, object_rows.NEAR = object_rows.NEAR, near
    try:
        facts = (4 + array.nbytes, objects.facts("memory://any/a.bin")[1])
        rows = ObjectRows("memory://any/a.bin", facts, "a", ArraySpan(4, array.dtype, array.shape))
        wanted = [key % length for key in keys]
        found = rows.read_batch(wanted)
    finally:
        object_rows.NEAR = before
    assert found.dtype == array.dtype
    assert_array_equal(found, array[wanted])
