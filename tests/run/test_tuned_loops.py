"""Loops whose workers change at random: the same bytes come, once each, whatever else happens to the loop."""

from __future__ import annotations

import gc
import multiprocessing
import random
import threading
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import headrace
from headrace import DataLoader, Dataset, IterableDataset, Ledger, get_worker_info, verify_epoch
from headrace.run.tuning import auto_workers
from headrace.run.tuning.tuner import Tuner
from headrace.run.tuning.worker_setting import WorkerSetting

SIZE = 61
THREADS = [WorkerSetting("threads", count, prefetch) for count in (1, 2, 4) for prefetch in (1, 3)]
THREADS += [WorkerSetting("threads", 4, 1, together=2), WorkerSetting("threads", 3, 2, together=3)]
PROCESSES = [WorkerSetting("processes", 1, 1), WorkerSetting("processes", 2), WorkerSetting("processes", 1, 1, 2)]
PROCESSES += [WorkerSetting("processes", 1, 1, 3, together=2)]
INLINE = WorkerSetting("inline")


class Rows(Dataset[Any]):
    """Samples that say which they are and what they draw; some are bad."""

    suits_threads = True

    def __init__(self, bad: frozenset[int] = frozenset()) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> Any:
        if index in self.bad:
            raise ValueError(f"{index} is bad")
        return index, headrace.rng().random(3)


class PythonRows(Rows):
    """The same, of a dataset that says nothing of threads, and draws from the global generators."""

    suits_threads = False

    def __getitem__(self, index: int) -> Any:
        info = get_worker_info()
        assert info is not None, "read by something that is no worker"
        return *super().__getitem__(index), random.random(), np.random.random()


class Stream(IterableDataset[Any]):
    """An iterable dataset."""

    def __iter__(self) -> Any:
        yield from range(SIZE)


class RandomTuner(Tuner):
    """Changes the workers at random moments, to random settings."""

    choices: list[WorkerSetting] = []
    chance = 0.4
    draws = random.Random(0)
    most = 8

    def took(self, asked: float, now: float) -> bool:
        super().took(asked, now)
        return self.draws.random() < self.chance

    def tried(self, measured: Any) -> WorkerSetting | None:
        self._space()
        before, self.setting = self.setting, self.draws.choice(self.choices)
        self.changes = getattr(self, "changes", 0) + 1
        self.over = self.changes >= self.most
        return None if before == self.setting else self.setting


@pytest.fixture(autouse=True)
def _random_tuner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_workers, "Tuner", RandomTuner)


def tuned(dataset: Any, choices: list[WorkerSetting], turns: int, chance: float = 0.4, **how: Any) -> DataLoader[Any]:
    """Return a loader whose workers change at random."""
    RandomTuner.choices, RandomTuner.draws, RandomTuner.chance = choices, random.Random(turns), chance
    given = {"batch_size": 3, "shuffle": True, "seed": 5, "num_workers": "auto", **how}
    return DataLoader(dataset, **given)


def plain(dataset: Any, **how: Any) -> list[Any]:
    """Return an epoch of a loader whose workers stay."""
    return list(DataLoader(dataset, **{"batch_size": 3, "shuffle": True, "seed": 5, **how}))


def same(one: Any, other: Any) -> bool:
    """Compare batches to the bit."""
    return len(one) == len(other) and all(
        len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        for a, b in zip(one, other, strict=True)
    )


SLOW = settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 20), chance=st.sampled_from([0.1, 0.5, 1.0]), in_order=st.booleans())
def test_changing_workers_change_no_byte(seed: int, chance: float, in_order: bool) -> None:
    """Deliver what a loader without workers delivers, over two epochs."""
    other: DataLoader[Any] = DataLoader(Rows(), 3, shuffle=True, seed=5)
    expected = [list(other), list(other)]
    with tuned(Rows(), [*THREADS, INLINE], seed, chance, in_order=in_order) as loader:
        for epoch in expected:
            found = list(loader)
            if not in_order:
                key = lambda batch: tuple(batch[0].tolist())  # noqa: E731
                found, epoch = sorted(found, key=key), sorted(epoch, key=key)
            assert same(found, epoch)


@SLOW
@given(seed=st.integers(0, 1 << 20))
def test_threads_and_processes_take_turns(seed: int) -> None:
    """Fork workers in the middle of an epoch, and come back."""
    with tuned(Rows(), [*THREADS[:2], INLINE, *PROCESSES], seed, 0.3) as loader:
        assert same(list(loader), plain(Rows()))
        loader.set_epoch(0)
        assert same(list(loader), plain(Rows()))


@SLOW
@given(seed=st.integers(0, 1 << 20), seeded=st.booleans())
def test_a_dataset_for_processes_sees_what_it_sees_in_a_worker(seed: int, seeded: bool) -> None:
    """Give it the workers' random numbers and `get_worker_info`, wherever it is read."""
    generator = None if seeded else 3
    how: dict[str, Any] = {"seed": 5 if seeded else None, "generator": generator}
    expected = plain(PythonRows(), num_workers=1, **how)
    with tuned(PythonRows(), [INLINE, *PROCESSES[:2]], seed, 0.3, **how) as loader:
        assert same(list(loader), expected)


@SLOW
@given(seed=st.integers(0, 1 << 20), stops=st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_a_tuned_run_resumes_at_the_batch_and_counts_each_sample_once(seed: int, stops: list[int]) -> None:
    """Break off, save, load into another loader, go on: nothing is lost, and nothing comes twice."""
    ledger, state, found = Ledger(), None, []
    for stop in [*stops, None]:
        loader = tuned(Rows(), [*THREADS, INLINE], seed, ledger=ledger)
        if state is not None:
            loader.load_state_dict(state)
        if state is None or not state["epoch"]:
            found += list(islice(loader, stop))
        state = loader.state_dict()
        loader.close()
    assert same(found, plain(Rows()))
    assert verify_epoch(ledger, epoch=0).exact


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 20), bad=st.frozensets(st.integers(0, SIZE - 2), max_size=6), skip=st.booleans())
def test_bad_samples_are_dealt_with_as_without_a_search(seed: int, bad: frozenset[int], skip: bool) -> None:
    """Skip or replace the same samples."""
    how: dict[str, Any] = {"on_error": "skip" if skip else "replace"}
    with tuned(Rows(bad), [*THREADS, INLINE], seed, **how) as loader:
        assert same(list(loader), plain(Rows(bad), **how))
        statistics = loader.statistics()
        assert statistics.skipped + statistics.replaced == len(bad)


@pytest.mark.parametrize("order", ["sampler", "batch_sampler", "stream"])
def test_samplers_and_shared_streams_stay_in_order(order: str) -> None:
    """Read a user's sampler, and a stream that is read once, a step at a time in the loop's process."""
    keys = [(7 * number) % SIZE for number in range(SIZE)]
    orders: dict[str, dict[str, Any]] = {
        "sampler": {"sampler": keys},
        "batch_sampler": {"batch_sampler": [keys[:9], keys[9:20], keys[20:21], keys[21:]], "batch_size": 1},
        "stream": {"read_once": True},
    }
    how = orders[order]
    dataset: Any = Stream().map(lambda number: (number, headrace.rng().random())) if order == "stream" else Rows()
    choices = [*THREADS, INLINE] if order != "stream" else [INLINE, *PROCESSES]
    expected = plain(dataset, **{**how, "shuffle": None})
    for seed in range(3):
        with tuned(dataset, choices, seed, **{**how, "shuffle": None}) as loader:
            assert same(list(loader), expected)


@pytest.mark.parametrize("rank", range(3))
def test_ranks_get_their_parts(rank: int) -> None:
    """Let each rank choose its own workers."""
    how: dict[str, Any] = {"rank": rank, "world_size": 3}
    with tuned(Rows(), [*THREADS, INLINE], rank, **how) as loader:
        assert same(list(loader), plain(Rows(), **how))


def test_persistent_workers_change_and_stay() -> None:
    """Keep the newest workers for the next epoch."""
    with tuned(PythonRows(), PROCESSES[:2], 3, 0.5, persistent_workers=True) as loader:
        for epoch in range(3):
            expected: DataLoader[Any] = DataLoader(PythonRows(), 3, shuffle=True, seed=5, num_workers=1)
            expected.set_epoch(epoch)
            assert same(list(loader), list(expected))
    assert not [process for process in multiprocessing.active_children() if process.name.startswith("headrace")]


def test_an_error_comes_at_its_step() -> None:
    """Raise a bad sample's error where a loader without a search raises it, and go on."""
    for seed in range(4):
        with tuned(Rows(frozenset({30})), [*THREADS, INLINE], seed, 0.6, shuffle=False) as loader:
            loop, found, failed = iter(loader), [], []
            while True:
                try:
                    found.append(next(loop)[0].tolist())
                except ValueError as error:
                    failed.append((len(found), str(error)))
                except StopIteration:
                    break
        assert failed == [(10, "30 is bad")]
        assert [index for batch in found for index in batch] == [index for index in range(SIZE) if index // 3 != 10]


def test_breaking_closing_and_dropping_leave_nothing() -> None:
    """End loops at any moment; no thread and no process stays."""
    before = threading.active_count()
    for seed in range(6):
        loader = tuned(Rows(), [*THREADS, INLINE, *PROCESSES[:1]], seed, 1.0)
        for _, batch in zip(range(seed), loader, strict=False):
            del batch
        loop = iter(loader)
        next(loop)
        if seed % 2:
            loader.close()
        else:
            del loop
        gc.collect()
        assert threading.active_count() == before
    assert not [process for process in multiprocessing.active_children() if process.name.startswith("headrace")]


def test_two_loops_at_once_do_not_disturb_each_other() -> None:
    """Measure the first; the second one takes the workers as they are."""
    with tuned(Rows(), [*THREADS, INLINE], 1, 0.5) as loader:
        one = iter(loader)
        first = [next(one) for _ in range(4)]
        loader.set_epoch(0)
        assert same(list(loader), plain(Rows()))
        assert same([*first, *one], plain(Rows()))


def test_a_sample_is_read_once() -> None:
    """Give no sample to two workers: a dataset that counts its calls sees as many as there are samples."""

    class Counted(Rows):
        def __init__(self) -> None:
            super().__init__()
            self.calls = [0] * SIZE

        def __getitem__(self, index: int) -> Any:
            self.calls[index] += 1
            return super().__getitem__(index)

    dataset = Counted()
    with tuned(dataset, [*THREADS, INLINE], 2, 0.5) as loader:
        for _ in loader:
            pass
    assert dataset.calls == [1] * SIZE


def test_workers_that_cannot_be_made_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stay with the workers that there are where a dataset cannot be copied for others."""

    class Locked(Rows):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    refused = []

    class Refusing(RandomTuner):
        def failed(self) -> WorkerSetting | None:
            refused.append(self.setting)
            return self.tried(None)

    monkeypatch.setattr(auto_workers, "Tuner", Refusing)
    with tuned(Locked(), [PROCESSES[0], THREADS[2], INLINE], 0, 0.5) as loader:
        assert same(list(loader), plain(Rows()))
    assert refused
    assert {setting.kind for setting in refused} == {"processes"}
