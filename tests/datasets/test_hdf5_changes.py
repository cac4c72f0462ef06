"""An HDF5 file that is cut short, replaced, removed or written over while it is read: an error, and never zeros."""

from __future__ import annotations

import os
import pickle
from multiprocessing import forkserver, resource_tracker
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import ConcatDataset, DataLoader
from headrace.datasets import HDF5Dataset
from headrace.errors import ArgumentError, BadFile, MissingFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

h5py = pytest.importorskip("h5py")
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

ROWS, WIDTH = 400, 500
DATA = np.ones((ROWS, WIDTH), "f4")


@pytest.fixture(scope="module", autouse=True)
def helpers_of_multiprocessing() -> None:
    """Start the two processes that multiprocessing starts once and leaves running, before leaks are counted."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()


def created(**how: Any) -> Callable[[Any], None]:
    return lambda file: file.create_dataset("x", data=DATA, **how)


def early(file: Any) -> None:
    """Allocate all chunks at first, as parallel writers do."""
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_chunk((8, WIDTH))
    space = h5py.h5s.create_simple(DATA.shape)
    h5py.h5d.create(file.id, b"x", h5py.h5t.NATIVE_FLOAT, space, plan).write(h5py.h5s.ALL, h5py.h5s.ALL, DATA)


def matlab(file: Any) -> None:
    file.create_dataset("x", data=DATA.T, chunks=(WIDTH, 8)).attrs["MATLAB_class"] = np.bytes_("single")


def grouped(file: Any) -> None:
    file.create_dataset("g/y", data=DATA, chunks=(10, 100))
    file["x"] = h5py.SoftLink("/g/y")


LAYOUTS: dict[str, Callable[[Any], None]] = {
    "contiguous": created(),
    "chunked": created(chunks=(7, WIDTH)),
    "chunks of columns": created(chunks=(10, 100)),
    "growing": created(chunks=(10, WIDTH), maxshape=(None, WIDTH)),
    "gzip": created(chunks=(10, WIDTH), compression="gzip", shuffle=True, fletcher32=True),
    "lzf": created(chunks=(10, WIDTH), compression="lzf"),
    "early": early,
    "matlab": matlab,
    "linked": grouped,
}
HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "processes": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
}


def write(path: Path, layout: str) -> Path:
    with h5py.File(path, "w", libver="latest" if layout == "growing" else None) as file:
        LAYOUTS[layout](file)
    return path


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_by_a_byte(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def replaced(path: Path) -> None:
    other = path.with_name("other.h5")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def rewritten(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(bytes(len(data)))
    os.utime(path, ns=(1, 1))  # as of another time, however quick this was


def removed(path: Path) -> None:
    path.unlink()


CHANGES = [cut, cut_by_a_byte, replaced, rewritten, removed]


def until(loader: DataLoader[Any], change: Callable[[Path], None], path: Path) -> None:
    with loader:
        for number, batch in enumerate(loader):
            assert (np.asarray(batch) == 1).all()
            if number == 2:
                change(path)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_that_changes_is_an_error(layout: str, change: Any, how: str, tmp_path: Path) -> None:
    """Name the file and the row, on every executor and for every layout."""
    path = write(tmp_path / "t.h5", layout)
    dataset = HDF5Dataset(path, "x", cache_bytes=0)
    with pytest.raises((BadFile, MissingFile), match=r"t\.h5:x\[\d+\]: .* while it was read"):
        until(DataLoader(dataset, 10, **HOW[how]), change, path)
    dataset.close()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("change", CHANGES)
def test_one_file_of_several_is_named(change: Any, how: str, tmp_path: Path) -> None:
    """Read the other files right up to the one that has changed."""
    parts = [HDF5Dataset(write(tmp_path / f"{name}.h5", "gzip"), "x", cache_bytes=0) for name in "abc"]
    with pytest.raises((BadFile, MissingFile), match=r"c\.h5:x(\[\d+\])?: .* while it was read"):
        until(DataLoader(ConcatDataset(parts), 100, **HOW[how]), change, tmp_path / "c.h5")
    for part in parts:
        part.close()


@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_worker_reads_the_file_that_its_loader_began_with(change: Any, context: str, tmp_path: Path) -> None:
    """Raise where the file changes between the dataset and the start of the workers."""
    path = write(tmp_path / "t.h5", "chunked")
    dataset = HDF5Dataset(path, "x")
    change(path)
    how = {"num_workers": 1, "backend": "processes", "multiprocessing_context": context}
    with pytest.raises((BadFile, MissingFile), match=r"t\.h5"), DataLoader(dataset, 10, **how) as loader:  # type: ignore[arg-type]
        list(loader)


def test_a_dataset_of_another_program_takes_the_file_as_it_is(tmp_path: Path) -> None:
    """Compare a file with what it was for the workers of one loader alone."""
    path = write(tmp_path / "t.h5", "chunked")
    sent = pickle.dumps(HDF5Dataset(path, "x"))
    replaced(path)
    dataset = pickle.loads(sent)
    assert (dataset[5] == 1).all()
    dataset.close()


def test_rows_that_were_read_stay_right(tmp_path: Path) -> None:
    """Give rows of a chunk that is kept, however the file changes, and no row of a chunk that is not."""
    path = write(tmp_path / "t.h5", "gzip")
    dataset = HDF5Dataset(path, "x")
    assert (dataset[5] == 1).all()
    cut(path)
    assert (dataset[6] == 1).all()
    with pytest.raises(BadFile, match=r"t\.h5:x\[300\]: it was cut short"):
        dataset[300]
    dataset.close()


def test_labels_are_those_of_a_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise when the file is cut while the labels are read."""
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = DATA, np.arange(ROWS)
    read = h5py.Dataset.__getitem__

    def cutting(self: Any, *given: Any) -> Any:
        os.truncate(path, 5000)
        return read(self, *given)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", cutting)
    with pytest.raises(BadFile, match=r"t\.h5: it was cut short"):
        HDF5Dataset(path, "x", "y")


def test_what_is_stored_otherwise_is_refused(tmp_path: Path) -> None:
    """Refuse variable-length rows, and rows in other files, when the dataset is constructed."""
    path = tmp_path / "t.h5"
    with h5py.File(path, "w") as file:
        ragged = file.create_dataset("ragged", (3,), h5py.vlen_dtype(np.float32))
        ragged[0] = [1, 2]
        file.create_dataset("text", data=["a", "b"], dtype=h5py.string_dtype())
        (tmp_path / "raw").write_bytes(DATA.tobytes())
        file.create_dataset("outside", DATA.shape, "f4", external=[(str(tmp_path / "raw"), 0, DATA.nbytes)])
    for name, words in (("ragged", "numbers"), ("text", "numbers"), ("outside", "other files")):
        with pytest.raises(ArgumentError, match=words):
            HDF5Dataset(path, name)
