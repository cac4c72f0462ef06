"""Arrays as a dataset of their rows."""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import subprocess
import sys
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import ArrayDataset, DataLoader, RandomHorizontalFlip, TensorDataset
from headrace.errors import ArgumentError, BadFile, MissingFile, UnreadableFile

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def helpers_of_multiprocessing() -> None:
    """Start the two processes that multiprocessing starts once and leaves running, before leaks are counted."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()


def test_one_array_gives_rows_and_several_give_tuples() -> None:
    """Index, count and iterate."""
    x, y = np.arange(6.0).reshape(3, 2), np.array([7, 8, 9])
    assert [row.tolist() for row in ArrayDataset(x)] == x.tolist()
    row, label = ArrayDataset(x, y)[-1]
    assert (row.tolist(), label, len(ArrayDataset(x, y))) == ([4.0, 5.0], 9, 3)


def test_a_gather_is_what_indexing_gives() -> None:
    """Compare with fancy indexing, negative keys included."""
    x = np.random.default_rng(0).normal(size=(20, 3, 4))
    keys = [3, 0, -1, 19, 3]
    np.testing.assert_array_equal(ArrayDataset(x).read_batch(keys), x[keys])


@pytest.mark.parametrize("keys", [[20], [-21], [0, 5, 1000]])
def test_a_key_out_of_range_is_refused(keys: list[int]) -> None:
    """Never wrap round to another row in silence."""
    with pytest.raises(IndexError, match="out of range for an ArrayDataset of 20 rows"):
        ArrayDataset(np.zeros((20, 2))).read_batch(keys)


def test_a_memory_mapped_file_stays_on_disk(tmp_path: Path) -> None:
    """Batch a .npy file through a memory map, and never load the whole of it."""
    rows = np.arange(3000, dtype=np.int64).reshape(1000, 3)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    dataset = ArrayDataset(mapped)
    assert dataset.arrays[0] is mapped
    batches = list(DataLoader(dataset, 300, num_workers=2))
    np.testing.assert_array_equal(np.concatenate(batches), rows)
    assert not any(isinstance(batch, np.memmap) for batch in batches)
    mapped._mmap.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ((), "at least one array"),
        ((5,), "array 0 .* has no rows"),
        ((np.zeros(3), np.zeros(4)), "array 1 of ArrayDataset has 4 rows, and array 0 has 3"),
        ((np.zeros(2), np.array([None, 1])), "array 1 .* Python objects"),
    ],
    ids=str,
)
def test_arrays_are_checked_at_the_door(arrays: tuple[Any, ...], words: str) -> None:
    """Name the array that does not do."""
    with pytest.raises(ArgumentError, match=words):
        ArrayDataset(*arrays)


def npy(path: Path, array: np.ndarray[Any, Any]) -> Path:
    np.save(path, array)
    return path


def test_memory_that_processes_share_is_an_array_like_any_other() -> None:
    """Read an anonymous map, which has no file that could change."""
    shared = np.frombuffer(mmap.mmap(-1, 96), np.int64).reshape(6, 2)
    shared[:] = np.arange(12).reshape(6, 2)
    batches = list(DataLoader(ArrayDataset(shared), 4))
    np.testing.assert_array_equal(np.concatenate(batches), shared)


def test_slices_and_lists_of_indices_give_minibatches() -> None:
    """Index a dataset of features and labels as its arrays are indexed."""
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6)
    dataset = ArrayDataset(x, y)
    order = np.random.default_rng(0).permutation(6)
    for index in (slice(1, 4), [4, 0, 4], order, y % 2 == 0):
        features, labels = dataset[index]
        np.testing.assert_array_equal(features, x[index])
        np.testing.assert_array_equal(labels, y[index])


def test_a_path_is_the_array_in_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Map a .npy file, beside an array in memory, and find it again from another folder."""
    x, y = np.arange(12.0).reshape(6, 2), np.arange(6)
    monkeypatch.chdir(tmp_path)
    npy(tmp_path / "x.npy", x)
    dataset = ArrayDataset("x.npy", y)
    assert isinstance(dataset.arrays[0], np.memmap)
    features, labels = next(iter(DataLoader(dataset, 6, shuffle=True, seed=0)))
    np.testing.assert_array_equal(features, x[labels])
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(again.arrays[0], x)
    np.testing.assert_array_equal(again.arrays[1], y)
    assert len(ArrayDataset(npy(tmp_path / "none.npy", np.zeros((0, 2))))) == 0


def test_a_file_is_sent_to_another_process_as_its_path(tmp_path: Path) -> None:
    """Pickle to less than a thousandth of what is in the file."""
    dataset = ArrayDataset(npy(tmp_path / "x.npy", np.zeros((1000, 1000))))
    assert len(pickle.dumps(dataset)) < 8000


@pytest.mark.parametrize("context", ["fork", "spawn", "forkserver"])
def test_worker_processes_read_a_file_of_their_own(context: str, tmp_path: Path) -> None:
    """Give the rows of a file that is mapped by the loader's process and its workers."""
    rows = np.arange(3000, dtype=np.int64).reshape(1000, 3)
    loader: DataLoader[Any] = DataLoader(
        ArrayDataset(npy(tmp_path / "x.npy", rows)),
        300,
        num_workers=2,
        backend="processes",
        multiprocessing_context=context,
    )
    with loader:
        np.testing.assert_array_equal(np.concatenate(list(loader)), rows)


def test_a_file_that_has_changed_is_checked_again(tmp_path: Path) -> None:
    """Refuse, on the other side, arrays that are no longer of one length."""
    path = npy(tmp_path / "x.npy", np.zeros(5))
    sent = pickle.dumps(ArrayDataset(np.zeros(5), path))
    path.unlink()
    npy(path, np.zeros(4))
    with pytest.raises(ArgumentError, match="array 1 of ArrayDataset has 4 rows, and array 0 has 5"):
        pickle.loads(sent)
    path.unlink()
    with pytest.raises(MissingFile, match=f"^{path}: cannot be opened"):
        pickle.loads(sent)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "EOF"),
        (b"no such thing", "magic string"),
        (b"\x93NUMPY\x01\x00\x76\x00{'descr': __import__('os').abort()}".ljust(128), "malformed|Cannot parse"),
        (
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (9999,), }".ljust(128),
            "file size",
        ),
        (b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (9,), }".ljust(128), "objects"),
    ],
)
def test_files_that_are_no_arrays_are_refused(data: bytes, words: str, tmp_path: Path) -> None:
    """Name the file, and run nothing that is in it."""
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    with pytest.raises(BadFile, match=rf"^{path}: cannot be memory-mapped: .*({words}).*; expected a .npy file"):
        ArrayDataset(path)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """Refuse what is no file at all."""
    os.mkfifo(tmp_path / "x.npy")
    for path in (tmp_path / "x.npy", tmp_path):
        with pytest.raises(UnreadableFile):
            ArrayDataset(path)


def test_what_does_not_turn_into_an_array_is_reported() -> None:
    """Pass on what NumPy or a framework says."""
    with pytest.raises(ArgumentError, match=r"array 1 of ArrayDataset cannot be converted .*inhomogeneous"):
        ArrayDataset(np.zeros(2), [[1], [2, 3]])


def test_torch_tensors_are_read_without_a_copy() -> None:
    """Share their memory; say what torch says of those in a graph."""
    torch = pytest.importorskip("torch")
    features, labels = torch.arange(12.0).reshape(6, 2), torch.arange(6)
    dataset = ArrayDataset(features, labels)
    features += 1
    x, y = next(iter(DataLoader(dataset, 4, shuffle=True, seed=0)))
    np.testing.assert_array_equal(x, features.numpy()[y])
    with pytest.raises(ArgumentError, match=r"array 0 .* requires grad"):
        ArrayDataset(features.requires_grad_())


def test_jax_arrays_are_read() -> None:
    """Batch arrays that JAX made, bfloat16 included."""
    jnp = pytest.importorskip("jax.numpy")
    features, labels = jnp.arange(12.0).reshape(6, 2), jnp.arange(6, dtype=jnp.bfloat16)
    x, y = next(iter(DataLoader(ArrayDataset(features, labels), 4, shuffle=True, seed=0)))
    assert y.dtype == labels.dtype
    np.testing.assert_array_equal(x, np.asarray(features)[y.astype(int)])


HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "processes": {"num_workers": 2, "backend": "processes"},
}


def cut(path: Path) -> None:
    os.truncate(path, 5000)


def cut_within_the_last_page(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def replaced(path: Path) -> None:
    other = path.with_name("other.npy")
    np.save(other, np.full((4000, 100), 7, np.uint8))
    other.replace(path)


def written_over(path: Path) -> None:
    np.save(path, np.full((4000, 100), 7, np.uint8))
    os.utime(path, ns=(1, 1))  # as of another time, however quick this was


SPOILED: list[tuple[Any, str]] = [
    (cut, "cut short from 400128 to 5000 bytes"),
    (cut_within_the_last_page, "cut short from 400128 to 400127 bytes"),
    (replaced, "another file was put in its place"),
    (written_over, "written to"),
    (Path.unlink, "removed"),
]


def given_as(kind: str, path: Path) -> Any:
    if kind == "path":
        return path
    mapped = np.load(path, mmap_mode="r")
    return {"map": mapped, "part": mapped[10:3990], "strided": mapped[::2, ::-3], "flat": np.asarray(mapped)}[kind]


@pytest.mark.parametrize("kind", ["path", "map", "part", "strided", "flat"])
@pytest.mark.parametrize("dataset", [ArrayDataset, TensorDataset])
@pytest.mark.parametrize(("spoil", "words"), SPOILED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mapped_file_that_changes_is_an_error_that_names_it(
    spoil: Any, words: str, dataset: Any, kind: str, tmp_path: Path
) -> None:
    """Raise for whole batches, single rows, slices and lists; the rows read before are right."""
    path = npy(tmp_path / "x.npy", np.ones((4000, 100), np.uint8))
    rows = dataset(given_as(kind, path))
    assert np.all(np.asarray(rows[5]) == 1)
    spoil(path)
    last = len(rows) - 1
    for read in (lambda: rows.read_batch([3, last]), lambda: rows[last], lambda: rows[3:], lambda: rows[[3, last]]):
        with pytest.raises(BadFile, match=rf"^{path}: row \d+ cannot be read: .*{words}"):
            read()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(
    "transforms", [(), (RandomHorizontalFlip(),), (np.negative,)], ids=["rows", "native", "python"]
)
def test_a_file_cut_short_ends_an_epoch_with_an_error_on_every_executor(
    how: str, transforms: Any, tmp_path: Path
) -> None:
    """Deliver right rows until the cut, then raise; the interpreter lives."""
    rows = np.ones((2000, 30, 30, 3), np.uint8)
    dataset: Any = ArrayDataset(npy(tmp_path / "x.npy", rows))
    loader: DataLoader[Any] = DataLoader(dataset.map(*transforms) if transforms else dataset, 10, **HOW[how])
    value = 255 if transforms == (np.negative,) else 1

    def epoch() -> None:
        for number, batch in enumerate(loader):
            assert np.all(batch == value)
            if number == 5:
                os.truncate(tmp_path / "x.npy", 5000)

    with loader, pytest.raises(BadFile, match=r"x\.npy: row \d+ cannot be read: the file was cut short"):
        epoch()


@pytest.mark.parametrize("kind", ["path", "part", "strided", "flat"])
@pytest.mark.parametrize(("spoil", "words"), SPOILED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_mapped_file_that_changes_is_an_error_without_the_extension(
    spoil: Any, words: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read from the file, or look at it first, and raise the same error."""
    monkeypatch.setattr("headrace.datasets.memory_maps.extension", None)
    path = npy(tmp_path / "x.npy", np.arange(400_000, dtype=np.uint8).reshape(4000, 100))
    rows = ArrayDataset(given_as(kind, path))
    np.testing.assert_array_equal(rows.read_batch([7, -1]), rows.arrays[0][[7, -1]])
    spoil(path)
    with pytest.raises(BadFile, match=rf"^{path}: row \d+ cannot be read: .*{words}"):
        rows.read_batch([3, -1])


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f4", ">i2", "M8[s]", "S5", "?", "i4,f8"])
def test_rows_of_a_map_are_what_indexing_gives(mode: Any, order: Any, kind: str, tmp_path: Path) -> None:
    """Compare rows, slices, lists, masks and batches of mapped arrays with those in memory."""
    values = np.arange(60).reshape(5, 4, 3).astype(kind)
    npy(tmp_path / "x.npy", np.asarray(values, order=order))
    mapped = np.load(tmp_path / "x.npy", mmap_mode=mode)
    if mode != "r":
        mapped[2] = values[2] = values[0]
    for array, expected in ((mapped, values), (mapped[:, 1, 1], values[:, 1, 1]), (mapped[::-2], values[::-2])):
        rows = ArrayDataset(array)
        for index in (0, -1, np.int64(1), slice(None, None, 2), [1, 0, 1], np.arange(3) % 2, ..., (1, ...)):
            np.testing.assert_array_equal(rows[index], expected[index])
        np.testing.assert_array_equal(rows[np.arange(len(rows)) > 0], expected[1:])
        np.testing.assert_array_equal(rows.read_batch([-1, 0, 1]), expected[[-1, 0, 1]])
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(rows)).arrays[0], expected)
        assert type(rows[0]) is type(expected[0])
        with pytest.raises(IndexError):
            rows[len(rows)]


@pytest.mark.skipif(os.name != "posix", reason="needs SIGBUS")
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_crash_of_somebody_else_still_ends_the_process(late: bool, tmp_path: Path) -> None:
    """Leave SIGBUS to faulthandler and to the default where no batch is being read."""
    program = f"""
import faulthandler, mmap, os, numpy as np, headrace
if not {late}: faulthandler.enable()
rows = headrace.ArrayDataset({str(npy(tmp_path / "x.npy", np.ones((9999, 9))))!r})
rows.read_batch([1])
if {late}: faulthandler.enable()
rows.read_batch([1])
os.truncate({str(tmp_path / "x.npy")!r}, 10)
rows.arrays[0].sum()
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250, check=False)
    assert ended.returncode == -signal.SIGBUS
    assert ended.stderr.count("Bus error") == 1
