"""Code that reads a memory map after its file was cut short: an error in the loop, and the interpreter lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import DataLoader, IterableDataset, Resize
from headrace._native import extension
from headrace.datasets import ImageFiles
from headrace.errors import BadFile, BadImage, TooManyErrors
from headrace.storage.page_faults import check_faults, surviving

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's mremap"),
    pytest.mark.skipif(not hasattr(extension, "survive_faults"), reason="needs the native extension"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning"),
]

ROWS, LENGTH = 200, 30_000
HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 3, "backend": "threads"},
    "processes": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
}
CUT = r"x\.npy: (sample \d+|a sample|the batch|row \d+|.* bytes) cannot be read: the file was cut short"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.ones((ROWS, LENGTH), np.uint8))
    return tmp_path / "x.npy"


class Sums:
    """Reads rows of a map that is found nowhere in its attributes."""

    suits_threads = True

    def __init__(self, path: Path, mode: Any = "r") -> None:
        mapped = np.load(path, mmap_mode=mode)
        self.read = lambda index: mapped[index].sum(dtype=np.int64)

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        return self.read(index)


class Reciprocals(Sums):
    def __getitem__(self, index: int) -> Any:
        return 1 // int(self.read(index) // LENGTH)


class SumStream(IterableDataset[Any]):
    def __init__(self, path: Path) -> None:
        self.rows = Sums(path)

    def __iter__(self) -> Iterator[Any]:
        return map(self.rows.__getitem__, range(ROWS))


class Raw:
    """A file mapped as it was before it was cut."""

    def __init__(self, path: Path) -> None:
        os.truncate(path, ROWS * LENGTH)
        self.array = np.memmap(path, np.uint8, "r")
        os.truncate(path, 4096)


class Views:
    suits_threads = True

    def __init__(self, path: Path) -> None:
        self.mapped = [[np.load(path, mmap_mode="r")]]

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        return self.mapped[0][0], index


def summed(samples: list[Any]) -> Any:
    return np.array([array[index].sum(dtype=np.int64) for array, index in samples])


def until_cut(loader: DataLoader[Any], path: Path, expected: int = LENGTH) -> None:
    with loader:
        for number, batch in enumerate(loader):
            assert (batch == expected).all()
            if number == 2:
                os.truncate(path, 5000)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_dataset_may_read_what_was_cut(how: str, mode: str, path: Path) -> None:
    """Raise what names the file, on every executor."""
    with pytest.raises(BadFile, match=CUT):
        until_cut(DataLoader(Sums(path, mode), 5, **HOW[how]), path)


@pytest.mark.parametrize("how", HOW)
def test_an_error_that_follows_from_the_zeros_is_not_what_is_raised(how: str, path: Path) -> None:
    """Name the file in place of a division by zero, its consequence, which is the cause in the traceback."""
    with pytest.raises(BadFile, match=CUT):
        until_cut(DataLoader(Reciprocals(path), 5, **HOW[how]), path, 1)


@pytest.mark.parametrize("read_once", [False, True])
@pytest.mark.parametrize("how", HOW)
def test_a_stream_may_read_what_was_cut(how: str, read_once: bool, path: Path) -> None:
    """Raise it where the stream is read, in the loader's process too."""
    with pytest.raises(BadFile, match=CUT):
        until_cut(DataLoader(SumStream(path), 5, read_once=read_once, **HOW[how]), path)


@pytest.mark.parametrize("how", HOW)
def test_a_collate_function_may_read_what_was_cut(how: str, path: Path) -> None:
    """Raise it for the batch."""
    with pytest.raises(BadFile, match=CUT):
        until_cut(DataLoader(Views(path), 5, collate_fn=summed, **HOW[how]), path)


@pytest.mark.parametrize("on_error", ["skip", "replace"])
def test_samples_that_were_cut_are_bad_samples(on_error: Any, path: Path) -> None:
    """Count them, and give no zeros."""
    loader: DataLoader[Any] = DataLoader(Sums(path), 5, on_error=on_error, max_errors=3)
    with pytest.raises((TooManyErrors, BadFile), match="cut short"):
        until_cut(loader, path)


def test_a_file_that_is_restored_is_read_again(path: Path) -> None:
    """Leave no page of zeros behind."""
    whole = path.read_bytes()
    rows = Sums(path)
    os.truncate(path, 5000)
    loader: DataLoader[Any] = DataLoader(rows, 5)
    for _ in range(3):
        with pytest.raises(BadFile, match=CUT):
            next(iter(loader))
    with path.open("r+b") as file:
        file.write(whole)
    assert all((batch == LENGTH).all() for batch in loader)


def test_a_map_that_is_closed_meanwhile_is_not_put_back(path: Path) -> None:
    """Leave memory alone that has become somebody else's."""
    os.truncate(path, 4096)
    with surviving():
        for _ in range(20):
            mapped = Raw(path).array
            assert mapped[5 * LENGTH :].sum() == 0
            del mapped
            others = [np.full(ROWS * LENGTH, 7, np.uint8) for _ in range(3)]
            with pytest.raises(BadFile):
                check_faults("row ", 1)
            assert all((other == 7).all() for other in others)


@pytest.mark.parametrize("how", ["inline", "native"])
def test_a_later_error_of_another_kind_stays_what_it_is(how: str, path: Path, tmp_path: Path) -> None:
    """Blame no file that was cut before, in threads that have met no cut either."""
    with pytest.raises(BadFile, match=CUT):
        until_cut(DataLoader(Sums(path), 5), path)
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    dataset = ImageFiles([str(tmp_path / "bad.jpg")] * 4).map(Resize((8, 8)))
    options: dict[str, Any] = {} if how == "inline" else {"num_workers": 2}
    with DataLoader(dataset, 2, **options) as loader, pytest.raises(BadImage, match=r"bad\.jpg"):
        list(loader)


def test_threads_that_meet_the_same_cut_all_raise(path: Path) -> None:
    """Let threads read the same few pages at once: not one gets zeros, of another's making, without an error."""
    rows = Sums(path)
    os.truncate(path, 4096)
    silent, ready = [], threading.Barrier(4)

    def read() -> None:
        ready.wait()
        for number in range(60):
            with surviving():
                found = rows[1 + number % 3]
                try:
                    check_faults("row ", 1)
                except BadFile:
                    continue
                silent.append(found)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not silent


@pytest.mark.parametrize("mode", ["in a loop", "copy on write"])
def test_what_is_not_protected_still_ends_the_process(mode: str, path: Path) -> None:
    """Leave SIGBUS as it is outside of a loop, and where no second mapping of the page can be made."""
    program = f"""
import os, numpy as np, headrace
mapped = np.load({str(path)!r}, mmap_mode={"c" if mode == "copy on write" else "r"!r})
class Rows:
    def __len__(self): return len(mapped)
    def __getitem__(self, index): return mapped[index].sum()
os.truncate({str(path)!r}, 10)
if {mode!r} == "in a loop":
    try: list(headrace.DataLoader(Rows(), 5))
    except headrace.errors.BadFile: mapped.sum()
else: list(headrace.DataLoader(Rows(), 5))
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=250, check=False)
    assert ended.returncode == -signal.SIGBUS, ended.stderr
