"""Batches whose samples are made by several threads: the same bytes, errors and counts as those made by one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headrace
from headrace import DataLoader, Dataset, IterableDataset
from headrace.collate import count_tokens
from headrace.context import seeds
from headrace.errors import ArgumentError, CollateError
from headrace.executors import thread_tasks
from headrace.executors.processes.pool import Processes
from headrace.executors.threads import Threads
from headrace.make.maker import Maker
from headrace.make.split_batch import SplitBatch
from headrace.plan.work import Done
from headrace.testing.executors import ExecutorTests, Squares, maker_of, work_of

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def _quick_jobs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share batches of any length: those of tests are made in microseconds."""
    monkeypatch.setattr(thread_tasks, "QUICK", 0.0)


class TestThreadsTogether(ExecutorTests):
    def make(self, maker: Maker) -> Threads:
        return Threads(maker, workers=5, together=3)


class TestThreadsOfAProcess(ExecutorTests):
    def make(self, maker: Maker) -> Processes:
        return Processes(maker, 1, threads=3, together=2, context=multiprocessing.get_context("fork"))


class Rows(Dataset[Any]):
    """Samples of all kinds of fields; some are bad."""

    suits_threads = True

    def __init__(self, bad: frozenset[int] = frozenset(), small: bool = False) -> None:
        self.bad, self.small = bad, small

    def __len__(self) -> int:
        return 61

    def __getitem__(self, index: int) -> Any:
        count_tokens(index, 1)
        noise = headrace.rng().random(3 if self.small else 600)
        if index in self.bad:
            raise ValueError(f"{index} is bad")
        return {"row": noise, "name": f"sample {index}", "pair": (index, noise[:2])}


def drawing(samples: list[Any]) -> Any:
    """Collate, and go on drawing from the generator of the last sample."""
    return [sample["row"].sum() for sample in samples], headrace.rng().random(4)


class Stream(IterableDataset[int]):
    """An iterable dataset."""

    def __iter__(self) -> Any:
        yield from range(61)


def noisy(number: int) -> Any:
    """Make a sample of a number that was read."""
    return np.full(600, number) + headrace.rng().random()


def same(one: Any, other: Any) -> bool:
    """Compare batches to the bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(np.array_equal(one, other))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"collate_fn": drawing},
        {"drop_last": True, "in_order": True, "batch_size": 16},
        {"batch_size": 1},
        {"batch_size": None, "shuffle": False},
        {"on_error": "skip", "dataset": Rows(frozenset({3, 4, 40, 60}))},
        {"on_error": "replace", "dataset": Rows(frozenset({3, 4, 40, 60}))},
        {"dataset": Rows(small=True)},
        {"dataset": Stream().map(noisy), "read_once": True, "shuffle": None},
    ],
    ids=["rows", "collate draws", "large", "one", "single", "skip", "replace", "small", "stream"],
)
@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_bytes_and_counts_are_those_of_one_thread(how: dict[str, Any], backend: str) -> None:
    """Compare two epochs with a loader without workers: batches, tokens, bad samples."""
    given: dict[str, Any] = {"dataset": Rows(), "batch_size": 7, "shuffle": True, "seed": 5, **how}
    workers = {"num_workers": 4} if backend == "threads" else {"num_workers": 1, "threads_per_worker": 4}
    one: DataLoader[Any] = DataLoader(**given)
    other: DataLoader[Any] = DataLoader(**given, **workers, backend=backend, threads_per_batch=3)
    for _ in range(2):
        assert same(list(one), list(other))
        expected, found = one.statistics(), other.statistics()
        assert (found.tokens, found.padding) == (expected.tokens, expected.padding)
        assert found.bad == expected.bad


class Meeting(Squares):
    """Samples that are made only if another one is made at the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = threading.Barrier(2)

    def __getitem__(self, index: int) -> Any:
        self.barrier.wait(60)
        return index


@pytest.mark.parametrize("kind", ["threads", "threads of a process"])
def test_two_threads_make_one_batch(kind: str) -> None:
    """Make both samples of a batch at once; one batch is enough for two threads."""
    maker = maker_of(Meeting())
    executor: Threads | Processes = (
        Threads(maker, 2, 1, together=2)
        if kind == "threads"
        else Processes(maker, 1, 1, threads=2, together=2, context=multiprocessing.get_context("fork"))
    )
    assert executor.capacity == 1
    executor.submit(work_of(0, size=2))
    outcome = executor.next(timeout=60)
    assert isinstance(outcome, Done), outcome
    assert outcome.batch.tolist() == [0, 1]
    executor.close()


def test_the_first_sample_that_failed_is_told() -> None:
    """Let a helper's sample fail first: the error is that of the sample before it, which fails later."""
    begun, failed = threading.Event(), threading.Event()

    def make(row: int, here: seeds.Here) -> Any:
        if row == 0:
            begun.set()
            assert failed.wait(60)
        else:
            failed.set()
        raise ValueError(f"row {row} of position {here.position}")

    here = seeds.Here()
    job = SplitBatch(work_of(2, size=5), here, 2, make)

    def help_it() -> None:
        assert begun.wait(60)
        with seeds.at(seeds.Here()):
            job.run()

    helper = threading.Thread(target=help_it)
    helper.start()
    with seeds.at(here):
        job.run()
    with pytest.raises(ValueError, match="row 0 of position 10"):
        job.finish({})
    helper.join()
    assert here.position == 10


def test_no_more_threads_help_than_were_asked_for() -> None:
    """Turn away a third thread, and whoever comes after the end."""
    here, turned_away = seeds.Here(), []

    def make(row: int, here: seeds.Here) -> int:
        assert job.left == 0
        with seeds.at(seeds.Here()):
            job.run()
        turned_away.append(row)
        return row

    job = SplitBatch(work_of(0), here, 2, make)
    assert job.left == 3
    with seeds.at(seeds.Here()):  # a helper that comes before the batch's own thread
        job.run()
    with seeds.at(here):
        job.run()
    assert job.finish({}) == [0, 1, 2]
    with seeds.at(seeds.Here()):
        job.run()
    assert turned_away == [0, 1, 2]


class Uneven(Rows):
    """Samples of other shapes."""

    def __getitem__(self, index: int) -> Any:
        return np.zeros(600 + index // 5)


@pytest.mark.parametrize("together", [1, 3])
def test_an_error_of_collate_names_its_samples(together: int) -> None:
    """Say which samples do not fit together, as one thread does."""
    loader: DataLoader[Any] = DataLoader(Uneven(), 4, num_workers=3, threads_per_batch=together)
    with pytest.raises(CollateError) as caught:
        list(loader)
    assert "batch 1: sample 4 and sample 5, made by headrace-" in caught.value.__notes__[0]


class Deadly(Squares):
    """A sample that kills its worker once."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker = marker

    def __getitem__(self, index: int) -> Any:
        if index == 4 and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_death_counts_once_for_a_batch_of_several_threads(tmp_path: Path) -> None:
    """Make the batch again: one death is no proof that it is the cause, however many threads were at it."""
    context = multiprocessing.get_context("fork")
    executor = Processes(maker_of(Deadly(tmp_path / "killed")), 1, threads=3, together=3, context=context)
    executor.submit(work_of(0, size=12))
    with pytest.warns(RuntimeWarning, match="a new one makes its 1 batches again"):
        outcome = executor.next(timeout=60)
    assert isinstance(outcome, Done), outcome
    executor.close()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"num_workers": 0}, "there are no workers"),
        ({"num_workers": 2, "backend": "threads"}, "there are num_workers=2 threads"),
        ({"num_workers": 8, "backend": "processes"}, "threads_per_worker=1"),
        ({"num_workers": 8, "backend": "ray"}, "backend='ray'"),
    ],
)
def test_too_few_threads_are_refused(how: dict[str, Any], said: str) -> None:
    """Name what there is."""
    with pytest.raises(ArgumentError, match=f"threads_per_batch=3 was given, but .*{said}"):
        DataLoader(range(10), 2, threads_per_batch=3, **how)


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, 65])
def test_what_is_no_count_is_refused(value: Any) -> None:
    """Accept integers from 1 to 64."""
    with pytest.raises(ArgumentError, match="threads_per_batch"):
        DataLoader(range(10), 2, num_workers=64, backend="threads", threads_per_batch=value)
