"""`headrace.testing.examine`: each planted fault is found, and nothing in sound datasets."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.image_files import encoded, photo, plant
from tests.testing import planted_faults
from tests.testing.planted_faults import FAULTS, SIZE, Sound

import headrace
from headrace import ArrayDataset, DataLoader, ImageFolder, RandomHorizontalFlip, RandomResizedCrop, ToCHW, ToFloat
from headrace.collate import PaddedCollate
from headrace.errors import ArgumentTypeError
from headrace.testing import examination, examine, process_checks, resource_checks
from headrace.testing.examination import CHECKS
from headrace.testing.isolated import Pulse
from headrace.testing.subject import Subject

SECONDS = 90.0
"""More than the checks need on a busy machine: those that search for as long as they may get a part of it, and a read
that takes a third of it hangs."""


@pytest.fixture(autouse=True, scope="module")
def _fork_server() -> Iterator[None]:
    """Fresh processes come from one server, which ends with the last test here."""
    multiprocessing.set_forkserver_preload(["headrace.testing.process_checks"])
    forkserver.ensure_running()
    resource_tracker.ensure_running()
    yield
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # there is no public way


@pytest.fixture(autouse=True)
def _short_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "_PART", 0.002)
    monkeypatch.setattr(process_checks, "_START", "forkserver")  # as fresh, and begun sooner


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_no_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the one fault, with evidence, cure, and a line of the file that has it."""
    make, check = FAULTS[name]
    if check == "hang":
        monkeypatch.setattr(examination, "_HANGS", 0.0)
    found = examine(make(), seconds=SECONDS)
    assert [(one.check, one.what) for one in found.findings] == [(check, found.findings[0].what)], str(found)
    (finding,) = found.findings
    assert finding.evidence
    assert finding.cure
    if check != "projection":
        assert finding.place is not None
        file, _, line = finding.place.rpartition(":")
        assert Path(file).name == "planted_faults.py"
        if inspect.isclass(make) and check != "length":
            source, first = inspect.getsourcelines(make)
            inherited = [
                inspect.getsourcelines(base) for base in make.__mro__[1:-1] if base.__module__ == make.__module__
            ]
            places = [range(first, first + len(source)), *(range(at, at + len(text)) for text, at in inherited)]
            assert any(int(line) in place for place in places), finding


def test_a_fresh_process_that_starts_late_is_waited_for() -> None:
    """On a busy machine a start may take longer than the time that is left to read."""
    data = pickle.dumps((planted_faults.DiesElsewhere(), None))
    report = process_checks.Report()
    while not report.findings:  # it may also die too late to be seen in this time
        report = process_checks.Fresh(data, [0], streams=False).check({0: ""}, "here:1", seconds=0.1)
        assert report.unchecked.get("spawn", "in time").endswith("in time")
    assert [one.what for one in report.findings] == ["a fresh process died while it read"]
    assert not report.unchecked


def _labeled(sample: Any) -> dict[str, Any]:
    return {"image": sample[0], "label": sample[1]}


def _dropout(sample: Any, rng: np.random.Generator) -> Any:
    return sample * (rng.random(sample.shape) > 0.5)


class Opens(Sound):
    """Opens its file in each process, and pickles without it."""

    def __init__(self) -> None:
        self.file: Any = None
        self.pid = 0

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"file": None, "pid": 0}

    def sample(self, index: int) -> Any:
        if self.pid != os.getpid():
            self.file, self.pid = Path(__file__).open("rb"), os.getpid()  # noqa: SIM115
        return np.frombuffer(os.pread(self.file.fileno(), 8, index), np.uint8).copy()


class Cached(Sound):
    """Keeps as many samples as there are: few."""

    def __init__(self) -> None:
        self.cache: dict[int, Any] = {}

    def sample(self, index: int) -> Any:
        return self.cache.setdefault(index, np.full(4, index)).copy()


class Words(headrace.IterableDataset[Any]):
    """A stream that keeps no state."""

    def __iter__(self) -> Iterator[Any]:
        yield from (np.full(3, number) for number in range(SIZE))

    def __len__(self) -> int:
        return SIZE


def _folder(root: Path) -> Any:
    for number in range(4):
        plant(root, [f"cat/{number}.jpg", f"dog/{number}.jpg"], encoded(photo(number)))
    return ImageFolder(root)


def _memory_map(root: Path) -> Any:
    np.save(root / "rows.npy", np.arange(200.0).reshape(50, 4))
    return np.load(root / "rows.npy", mmap_mode="r")


def _training(root: Path) -> Any:
    return _folder(root).map(RandomResizedCrop(16), RandomHorizontalFlip(), ToFloat(), ToCHW())


CLEAN: dict[str, Callable[[Path], Any]] = {
    "a class of its own": lambda _: Sound(),
    "a list": lambda _: list(range(40)),
    "arrays": lambda _: ArrayDataset(np.arange(120.0).reshape(40, 3), np.arange(40)),
    "a memory map": _memory_map,
    "a file opened in each process": lambda _: Opens(),
    "a small cache": lambda _: Cached(),
    "a stream": lambda _: Words(),
    "an image folder": _training,
    "its loader": lambda root: DataLoader(_training(root), 2, shuffle=True, seed=0, num_workers=2),
    "its loader of processes": lambda root: DataLoader(_training(root), 2, num_workers=1, backend="processes"),
    "a subset": lambda root: headrace.Subset(_training(root), [5, 1, 3, 0, 2, 7, 6]),
    "two concatenated": lambda root: headrace.ConcatDataset([ArrayDataset(np.zeros((9, 2)))] * 2),
    "random numbers of the sample": lambda _: ArrayDataset(np.arange(120.0).reshape(40, 3)).map(_dropout),
    "dicts": lambda _: ArrayDataset(np.arange(120.0).reshape(40, 3), np.arange(40)).map(_labeled),
    "single samples": lambda _: DataLoader(planted_faults.ShapesDiffer(), None),
    "padded batches": lambda _: DataLoader(planted_faults.ShapesDiffer(), 4, collate_fn=PaddedCollate()),
}


@pytest.mark.parametrize("name", CLEAN)
def test_nothing_is_found_in_a_sound_dataset(name: str, tmp_path: Path) -> None:
    """Find nothing, and make every check that a dataset of this kind allows."""
    found = examine(CLEAN[name](tmp_path), seconds=SECONDS)
    assert not found.findings, str(found)
    assert set(found.unchecked) <= {"threads", "process"}
    assert set(found.checked) | set(found.unchecked) == set(CHECKS)


@pytest.mark.parametrize(("bound", "grows"), [(None, True), (2 * SIZE, False)])
def test_memory_that_stops_growing_is_no_finding(bound: int | None, grows: bool) -> None:
    """A library keeps freed objects for the next ones, up to a bound, which a few reads may not reach."""
    store: deque[Any] = deque(maxlen=bound)
    subject = Subject(_Stores(store), None, Pulse(), 1)
    subject.keys = [*range(SIZE)]
    tracemalloc.start(1)
    try:
        assert resource_checks._goes_on(subject, 500.0, 0.0) == grows
    finally:
        tracemalloc.stop()


class _Stores(Sound):
    def __init__(self, store: deque[Any]) -> None:
        self.store = store

    def sample(self, index: int) -> Any:
        self.store.append(np.full(64, index))
        return np.full(4, index)


def test_torchvision_and_hugging_face_are_sound(tmp_path: Path) -> None:
    """Find nothing in a folder of torchvision with transforms that draw nothing, nor in a table of Hugging Face."""
    pytest.importorskip("torchvision")
    from torchvision import datasets, transforms  # type: ignore[import-not-found, unused-ignore]  # optional

    _folder(tmp_path)
    steps = transforms.Compose([transforms.Resize((16, 16)), transforms.ToTensor()])
    found = examine(datasets.ImageFolder(tmp_path, steps), seconds=SECONDS)
    assert not found.findings, str(found)


def test_hugging_face_is_sound() -> None:
    """Find nothing in a table of Hugging Face."""
    library = pytest.importorskip("datasets")
    table = library.Dataset.from_dict({"text": ["a"] * SIZE, "label": list(range(SIZE))})
    found = examine(table, seconds=SECONDS)
    assert not found.findings, str(found)


def test_a_hang_has_its_stack_and_stops_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the line that waits, and say what was not checked."""
    monkeypatch.setattr(examination, "_HANGS", 0.0)
    found = examine(planted_faults.Hangs(), seconds=SECONDS)
    (finding,) = found.findings
    assert "in sample" in finding.evidence
    assert set(found.checked) == {"reads"}
    assert "not checked" in str(found)


def test_what_a_check_does_stays_in_its_process() -> None:
    """Leave the dataset and the global generators as they were."""
    dataset, before = planted_faults.Counts(), np.random.get_state()
    examine(dataset, seconds=SECONDS)
    assert dataset.reads == 0
    assert headrace.context.seeds.moved({"numpy": before}, {"numpy": np.random.get_state()}) == set()


def test_it_measures_and_projects() -> None:
    """Measure the share of the GIL between 0 and 1, and project memory for the workers that are asked for."""
    facts = examine(ArrayDataset(np.zeros((8, 100))), seconds=SECONDS, workers=6).facts
    assert facts["workers"] == 6
    assert facts["projected_memory"] > facts["projected_shared_memory"] > 0
    assert facts["gil_share"] is None or 0 <= facts["gil_share"] <= 1


def test_an_empty_dataset_is_not_checked() -> None:
    """Say that nothing can be read, and find nothing."""
    found = examine([], seconds=SECONDS)
    assert not found.findings
    assert found.unchecked["reads"] == "the dataset is empty"


def test_what_is_no_dataset_is_refused() -> None:
    """Raise for an object that has no samples."""
    with pytest.raises(ArgumentTypeError, match="a loader or a dataset"):
        examine(object())


def test_a_main_script_that_cannot_be_imported_is_no_finding() -> None:
    """Say that no fresh process was started, as in a program that Python reads from standard input."""
    code = "from headrace.testing import examination, examine\n"
    code += f"examination._PART = 0.002; found = examine([*range(9)], seconds={SECONDS})\n"
    code += "print(found.findings, *found.unchecked)"
    done = subprocess.run([sys.executable], input=code, capture_output=True, text=True, check=True)
    assert done.stdout == "() spawn\n"


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_beat_is_never_seen_half_written() -> None:
    """Let another process note samples without a pause: nobody who looks meanwhile takes one for stuck."""
    pulse = Pulse()
    pulse.beat(0)
    if not (child := os.fork()):
        while True:
            pulse.beat(7)
    try:
        looks = [pulse.stuck(60) for _ in range(200_000)]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert not any(looks)
