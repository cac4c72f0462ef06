"""A user's own dataset over a memory-mapped file: a file that is cut short is an error that names it, never a crash."""

from __future__ import annotations

import mmap
import os
import pickle
import subprocess
import sys
from collections import OrderedDict, namedtuple
from multiprocessing import forkserver, resource_tracker
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import DataLoader, IterableDataset, Resize, Subset, default_collate
from headrace._native import extension
from headrace.collate import PackedCollate, PaddedCollate
from headrace.datasets.image_sources import Bytes
from headrace.errors import BadFile
from headrace.storage import mapped_samples
from headrace.storage.mapped_samples import in_memory, mapped_file, parts_in_memory, write_row
from headrace.transport.slots import SlotAllocator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "processes": {"num_workers": 2, "backend": "processes"},
    "spawned": {"num_workers": 1, "backend": "processes", "multiprocessing_context": "spawn"},
}
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")

ROWS, SIDE = 300, 32
Pair = namedtuple("Pair", "x y")


class Rows:
    """Rows of a map, returned in many ways."""

    suits_threads = True

    def __init__(self, path: Path, kind: str = "view") -> None:
        self.kind = kind
        self.x = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Any:
        row = self.x[index]
        forms: dict[str, Any] = {
            "view": lambda: row,
            "plain": lambda: np.asarray(row),
            "part": lambda: row[2:9, ::-2],
            "small": lambda: row[0, :3],
            "scalar": lambda: row[0, 0],
            "copied": row.copy,
            "tuple": lambda: (row, index),
            "dict": lambda: {"x": row, "y": index},
            "named": lambda: Pair(row, index),
            "ordered": lambda: OrderedDict(x=row),
            "list": lambda: [row, [row[1]]],
        }
        return forms[self.kind]()


class Hidden(Rows):
    """The same, with the map where it is not looked for."""

    def __init__(self, path: Path, kind: str = "view") -> None:
        super().__init__(path, kind)
        x = self.x
        del self.x
        self.hidden = [[x]]

    def __len__(self) -> int:
        return len(self.hidden[0][0])

    def __getattr__(self, name: str) -> Any:
        if name == "x":
            return vars(self)["hidden"][0][0]
        raise AttributeError(name)


class Many(Rows):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


class Streamed(IterableDataset[Any]):
    def __init__(self, path: Path, kind: str = "view") -> None:
        self.rows = Rows(path, kind)
        self.x = self.rows.x

    def __iter__(self) -> Iterator[Any]:
        for index in range(len(self.rows)):
            yield self.rows[index]


@pytest.fixture(scope="module", autouse=True)
def helpers_of_multiprocessing() -> None:
    """Start the two processes that multiprocessing starts once and leaves running, before leaks are counted."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.ones((ROWS, SIDE, SIDE), np.float32))
    return tmp_path / "x.npy"


def leaves(batch: Any) -> list[Any]:
    if isinstance(batch, dict):
        return [leaf for value in batch.values() for leaf in leaves(value)]
    return [leaf for value in batch for leaf in leaves(value)] if isinstance(batch, list | tuple) else [batch]


def until_cut(loader: DataLoader[Any], path: Path, size: int) -> None:
    with loader:
        for number, batch in enumerate(loader):
            # Labels, where there are any, come last, as integers.
            assert all(np.all(leaf == 1) for leaf in leaves(batch) if np.asarray(leaf).dtype == np.float32)
            if number == 3:
                os.truncate(path, size)


CUT = r"x\.npy: (row|sample) \d+ cannot be read: the file was cut short"


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dataset", [Rows, Many, Streamed, Hidden])
def test_a_cut_is_an_error_for_every_kind_of_dataset(dataset: Any, how: str, path: Path) -> None:
    """Deliver right rows, then raise; the interpreter lives."""
    loader: DataLoader[Any] = DataLoader(dataset(path), 10, **HOW[how])
    if how == "spawned":  # its worker has a copy of what the map holds
        assert all(np.all(batch == 1) for batch in loader)
        loader.close()
        return
    with pytest.raises(BadFile, match=CUT):
        until_cut(loader, path, 5000)


@pytest.mark.parametrize("how", ["inline", "threads", "processes"])
@pytest.mark.parametrize("size", [5000, 128 + ROWS * SIDE * SIDE * 4 - 1], ids=["pages", "last page"])
@pytest.mark.parametrize(
    "kind", ["plain", "part", "small", "scalar", "copied", "tuple", "dict", "named", "ordered", "list"]
)
def test_a_cut_is_an_error_for_every_kind_of_sample(kind: str, size: int, how: str, path: Path) -> None:
    """Look into containers; read nothing but whole files, so that no row of zeros comes."""
    if kind in ("scalar", "copied") and not hasattr(extension, "survive_faults"):
        pytest.skip("the dataset itself reads the map, and nothing answers SIGBUS")
    with pytest.raises(BadFile, match=CUT):
        until_cut(DataLoader(Rows(path, kind), 10, **HOW[how]), path, size)


def kept(samples: list[Any]) -> list[Any]:
    return samples


@pytest.mark.parametrize("how", ["inline", "threads", "processes"])
@pytest.mark.parametrize(
    "options",
    [
        {"collate_fn": PaddedCollate()},
        {"collate_fn": kept},
        {"batch_size": None},
        {"on_error": "replace"},
        {"shuffle": True, "seed": 0},
    ],
    ids=["padded", "own", "single", "replace", "shuffled"],
)
def test_a_cut_is_an_error_whatever_collates(options: dict[str, Any], how: str, path: Path) -> None:
    """Copy rows before others' code holds them."""
    with pytest.raises(Exception, match="cut short"):
        until_cut(DataLoader(Subset(Hidden(path), range(200)), **{"batch_size": 10, **options, **HOW[how]}), path, 5000)


@pytest.mark.parametrize("how", ["inline", "threads", "processes"])
def test_a_transform_of_ours_reads_a_mapped_image_under_guard(how: str, path: Path) -> None:
    """Resize rows of a map until the cut."""
    from headrace.datasets import Mapped

    with pytest.raises(BadFile, match=CUT):
        until_cut(DataLoader(Mapped(Hidden(path), Resize((8, 8))), 10, **HOW[how]), path, 5000)


@pytest.mark.parametrize("function", ["in_memory", "write_row", "parts_in_memory", "collate", "pad", "pack", "pickle"])
@pytest.mark.parametrize("guarded", [True, False], ids=["extension", "python"])
def test_what_touches_a_mapped_row_names_file_and_row(
    function: str, guarded: bool, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give the values while the file is whole, and the row's number once it is cut."""
    if not guarded:
        monkeypatch.setattr(mapped_samples, "extension", None)
    column = np.zeros((2, SIDE, SIDE), np.float32)

    def pickled(row: Any) -> Any:
        message, descriptor = SlotAllocator().begin(0, fresh=False).pack(row)
        assert descriptor is not None
        os.close(descriptor)
        return np.asarray(in_memory(row)) if message else None

    use: dict[str, Any] = {
        "in_memory": in_memory,
        "write_row": lambda row: write_row(column, 1, row) or column[1],
        "parts_in_memory": lambda row: parts_in_memory({"x": (row, 1)})["x"][0],
        "collate": lambda row: default_collate([OrderedDict(x=row)])["x"][0],
        "pad": lambda row: PaddedCollate()([row])[0],
        "pack": lambda row: PackedCollate(SIDE)([[row]]).values[0],
        "pickle": pickled,
    }
    row = np.load(path, mmap_mode="r")[250]
    found = use[function](row)
    assert type(found) is np.ndarray
    assert np.array_equal(found, np.ones((SIDE, SIDE)))
    os.truncate(path, 5000)
    with pytest.raises(BadFile, match=rf"^{path}: row 250 cannot be read: the file was cut short from \d+ to 5000"):
        use[function](row)


def test_a_map_without_a_file_is_read(tmp_path: Path) -> None:
    """Take anonymous maps as memory, and name the file of a map that Python made."""
    anonymous = np.frombuffer(mmap.mmap(-1, 4096), np.uint8)
    assert in_memory(anonymous[5:9]).tolist() == [0] * 4
    (tmp_path / "raw").write_bytes(b"\7" * 20_000)
    with (tmp_path / "raw").open("rb") as file:
        raw = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)
    assert in_memory(raw[10_000:]).tolist() == [7] * 10_000
    os.truncate(tmp_path / "raw", 100)
    with pytest.raises(BadFile, match=r"/raw: an array of 10000 bytes cannot be read: the file was cut short"):
        in_memory(raw[10_000:])


def test_arrays_in_memory_are_left_as_they_are() -> None:
    """Copy nothing that is in no file, and no class of its own."""
    array = np.arange(12).reshape(3, 4)
    sample = (array[1], {"x": [array]}, np.ma.masked_array(array), "text")
    assert parts_in_memory(sample) is sample
    assert mapped_file(array[1]) is None


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_a_dataset_is_sent_to_a_process_under_guard(context: str, path: Path) -> None:
    """Raise in the trainer where the map was cut before the workers start."""
    dataset = Rows(path)
    os.truncate(path, 5000)
    loader: DataLoader[Any] = DataLoader(
        dataset, 10, num_workers=1, backend="processes", multiprocessing_context=context
    )
    with pytest.raises(Exception, match="cut short"), loader:
        next(iter(loader))


def test_bytes_of_images_in_a_map_are_guarded(tmp_path: Path) -> None:
    """Guard a plain view of a map as the map itself."""
    data = np.memmap(tmp_path / "b", np.uint8, "w+", shape=(9000,))
    source = Bytes(np.asarray(data), np.array([0, 9000]))
    assert len(source.read(0)) == 9000
    source.check(np.zeros(1, np.int64))
    os.truncate(tmp_path / "b", 10)
    with pytest.raises(BadFile, match="cut short"):
        source.read(0)
    with pytest.raises(BadFile, match="cut short"):
        source.check(np.zeros(1, np.int64))


def test_a_pickle_of_a_map_is_a_plain_array(path: Path) -> None:
    """Send what the map holds, not the map."""
    from headrace.transport.out_of_band import dumped

    buffers: list[Any] = []
    head = dumped(np.load(path, mmap_mode="r")[:5], buffers.append)
    found = pickle.loads(head, buffers=buffers)
    assert type(found) is np.ndarray
    assert np.array_equal(found, np.ones((5, SIDE, SIDE)))


TENSORS = """
import os, sys, numpy as np, torch
from headrace.errors import BadFile
from headrace.torch import DataLoader
class Rows:
    suits_threads = True
    def __init__(self, path): self.x = np.load(path, mmap_mode="r+")
    def __len__(self): return len(self.x)
    def __getitem__(self, index): return torch.from_numpy(self.x[index]), {"y": torch.from_numpy(self.x[index])[3]}
if __name__ == "__main__":
    workers = int(sys.argv[2])
    for backend in ("threads", "processes") if workers else ("auto",):
        np.save(sys.argv[1], np.ones((2000, 32, 32), np.float32))
        try:
            with DataLoader(Rows(sys.argv[1]), 10, num_workers=workers, backend=backend) as loader:
                for number, (x, rest) in enumerate(loader):
                    assert x.all() and rest["y"].all()
                    if number == 3: os.truncate(sys.argv[1], 5000)
        except BadFile as error:
            assert "x.npy: " in str(error) and "cut short" in str(error), error
        else:
            raise SystemExit("no error")
    print("as expected")
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_tensors_over_a_map_are_guarded(workers: int, tmp_path: Path) -> None:
    """Raise for tensors that share the memory of a map."""
    pytest.importorskip("torch")
    (tmp_path / "run.py").write_text(TENSORS)
    ended = subprocess.run(
        [sys.executable, tmp_path / "run.py", tmp_path / "x.npy", str(workers)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.stdout == "as expected\n", ended.stderr
