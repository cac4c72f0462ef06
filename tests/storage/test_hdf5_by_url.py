"""HDF5 files behind URLs: how they are laid out, what changes, and how a process ends that has one open."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from tests.storage.object_server import ObjectServer, object_server

from headrace import DataLoader
from headrace.datasets import HDF5Dataset
from headrace.errors import BadFile, MissingFile, UnreadableFile
from headrace.storage import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("obstore")
h5py = pytest.importorskip("h5py")

VALUES = np.random.default_rng(5).integers(0, 1 << 16, (200, 4, 60), np.uint16)
LAYOUTS: dict[str, dict[str, Any]] = {
    "contiguous": {},
    "chunks": {"chunks": (7, 2, 60)},
    "compressed": {"chunks": (7, 4, 60), "compression": "gzip", "shuffle": True},
    "appended": {"chunks": (7, 4, 60), "maxshape": (None, 4, 60)},
    "compact": {"data": VALUES[:2]},
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 12)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as found:
        yield found


def hdf5(layout: str, values: Any = VALUES, *, matlab: bool = False, **how: Any) -> bytes:
    """Return the bytes of a file with an array of numbers."""
    held = io.BytesIO()
    with h5py.File(held, "w", **how) as file:
        if layout == "compact":
            plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plan.set_layout(h5py.h5d.COMPACT)
            space, kind = h5py.h5s.create_simple((2, 4, 60)), h5py.h5t.NATIVE_UINT16
            h5py.h5d.create(file.id, b"x", kind, space, plan).write(space, space, np.ascontiguousarray(VALUES[:2]))
            return _closed(file, held)
        stored = file.create_dataset("x", **({"data": values} | LAYOUTS[layout]))
        if matlab:
            stored.attrs["MATLAB_class"] = np.bytes_("uint16")
        return _closed(file, held)


def _closed(file: Any, held: io.BytesIO) -> bytes:
    file.close()
    return held.getvalue()


@pytest.mark.parametrize(
    ("layout", "matlab"), [(name, last) for name in LAYOUTS for last in (False, True)[: 1 if name == "compact" else 2]]
)
def test_rows_of_all_layouts_are_those_of_the_file(server: ObjectServer, layout: str, matlab: bool) -> None:
    """Read rows of a loader's batches, whose blocks were fetched ahead, each once."""
    server.objects["/a.h5"] = hdf5(layout, matlab=matlab, userblock_size=512)
    dataset = HDF5Dataset(f"{server.url}/a.h5")
    values = VALUES.T if matlab else VALUES[: len(dataset)]
    server.requests.clear()
    options: dict[str, Any] = {"shuffle": True, "seed": 2, "num_workers": 2, "backend": "threads"}
    loader: DataLoader[Any]
    with DataLoader(dataset, 5, **options) as loader:
        found = np.concatenate(list(loader))
        assert (loader.statistics().remote is None) == (layout == "compact")
    order = np.concatenate([*DataLoader(range(len(values)), 5, shuffle=True, seed=2)])
    assert_array_equal(found, values[order])
    assert_array_equal(dataset[-1], values[-1])
    ranges = server.gets()
    assert len(ranges) == len(set(ranges))
    dataset.close()


def test_a_file_that_changes_is_an_error(server: ObjectServer) -> None:
    """Give no rows of another version; construct the dataset again to read it."""
    server.objects["/a.h5"] = hdf5("compressed")
    dataset = HDF5Dataset(f"{server.url}/a.h5")
    assert_array_equal(dataset[0], VALUES[0])
    server.objects["/a.h5"] = hdf5("compressed", VALUES + 1)
    with pytest.raises(BadFile, match=r"a\.h5: bytes .*the object has changed"):
        dataset[199]
    dataset.close()
    again = HDF5Dataset(f"{server.url}/a.h5")
    assert_array_equal(again[199], VALUES[199] + 1)
    again.close()


def test_what_is_no_hdf5_file_is_an_error(server: ObjectServer) -> None:
    """Name the URL of an object that is missing, empty, cut short, or something else."""
    data = hdf5("compressed")
    server.objects |= {"/empty": b"", "/text": b"hello" * 99, "/old": b"MATLAB 5.0" + bytes(200), "/cut": data[:3000]}
    with pytest.raises(MissingFile, match="there is no such object"):
        HDF5Dataset(f"{server.url}/none")
    for name, said in (("empty", "not an HDF5"), ("text", "not an HDF5"), ("old", "older than"), ("cut", "damaged")):
        with pytest.raises(UnreadableFile, match=f"http://.*/{name}.*{said}"):
            HDF5Dataset(f"{server.url}/{name}")


def test_a_server_that_fails_is_an_error_of_the_row(server: ObjectServer) -> None:
    """Name URL and status, and read on when the server is back."""
    server.objects["/a.h5"] = hdf5("compressed")
    dataset = HDF5Dataset(f"{server.url}/a.h5")
    server.fault = lambda _method, _number: "403"
    with pytest.raises(UnreadableFile, match=r"http://.*/a\.h5: .*status 403"):
        dataset[150]
    server.fault = lambda _method, _number: ""
    assert_array_equal(dataset[150], VALUES[150])
    dataset.close()


def test_a_process_ends_that_has_a_file_open(tmp_path: Path) -> None:
    """Close what HDF5 reads through Python before the interpreter ends."""
    (tmp_path / "a.h5").write_bytes(hdf5("compressed"))
    script = f"from headrace.datasets import HDF5Dataset; d = HDF5Dataset('file://{tmp_path}/a.h5'); print(d[3].sum())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, str(VALUES[3].sum())), done.stderr
