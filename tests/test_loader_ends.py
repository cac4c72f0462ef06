"""How loops end, and what errors, threads and copies make of a loader."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader, rng
from headrace.errors import LoaderClosed, MissingDependency, WorkerTimeout
from tests.test_loader import Numbers, flat


def test_the_dataset_may_raise_the_same_error_twice() -> None:
    """Note each place where a shared exception object was raised."""
    error = ValueError("always this one")

    class Shared(Numbers):
        def __getitem__(self, index: int) -> int:
            raise error

    iterator = iter(DataLoader(Shared(4), 2))
    for _ in range(2):
        with pytest.raises(ValueError, match="always this one"):
            next(iterator)
    assert [note.split(", made")[0] for note in error.__notes__] == [
        "headrace: epoch 0, batch 0: sample 0 (numbers/0.txt)",
        "headrace: epoch 0, batch 1: sample 2 (numbers/2.txt)",
    ]


@pytest.fixture
def no_cyclic_collector() -> Any:
    """Let nothing be freed but by its last reference."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("end", ["left", "error", "timeout"])
def test_a_loop_ends_with_its_last_reference(end: str, no_cyclic_collector: Any) -> None:
    """Hold no batch and no thread in a cycle, whether the loop is left, or ends with an error that is caught."""
    before = threading.active_count()
    opened = threading.Event()

    class Big(Numbers):
        def __getitem__(self, index: int) -> Any:
            if end == "error" and index == 7:
                raise ValueError("no")
            if end == "timeout" and index == 7:
                assert opened.wait(60)
            return np.zeros(50_000)

    gone = []
    loader = DataLoader(Big(), 5, num_workers=3, timeout=0.2 if end == "timeout" else None)
    steps: Any = iter(loader)
    batch = None
    while batch is None:
        with suppress(WorkerTimeout):  # before the workers have begun, on a busy machine
            batch = next(steps)
    gone.append(weakref.ref(batch))
    try:
        for batch in steps:
            gone.append(weakref.ref(batch))
            if end == "left":
                break
    except (ValueError, WorkerTimeout):
        opened.set()
    del steps, batch
    assert gone
    assert all(reference() is None for reference in gone)
    assert threading.active_count() == before


FORK = """
import gc, os

gc.disable()
os.register_at_fork(after_in_child=gc.collect)  # as a collection that falls there by chance

import headrace

class Numbers(headrace.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return index

steps = iter(headrace.DataLoader(Numbers(), 4, num_workers=2, backend="processes", multiprocessing_context="fork"))
next(steps)
cycle = [steps]
cycle.append(cycle)
del steps, cycle
child = os.fork()
if not child:
    os._exit(0)
print(os.waitpid(child, 0)[1])
"""


def test_a_loop_that_is_collected_in_the_middle_of_a_fork_is_the_parents() -> None:
    """End no workers in the child, and wait for none."""
    run = [sys.executable, "-c", FORK]
    done = subprocess.run(run, capture_output=True, text=True, check=True, timeout=300)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_threads_that_share_an_iterator_all_come_to_its_end() -> None:
    """Wake every one of them when the loader is closed, not the first only."""
    iterator: Any = iter(DataLoader(Numbers(50), 5, num_workers=2))
    ended: list[type] = []

    def read() -> None:
        try:
            while True:
                next(iterator)
        except (StopIteration, LoaderClosed, RuntimeError) as error:
            ended.append(type(error))

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(ended) == 6


def test_what_collate_draws_depends_on_the_batch_alone() -> None:
    """Give the same numbers in every run, also where batches are refilled."""
    loader = DataLoader(Numbers(20, frozenset({3})), 4, seed=1, on_error="skip", collate_fn=lambda s: rng().random())
    runs = []
    for _ in range(2):
        loader.set_epoch(0)
        runs.append(list(loader))
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 5


def test_an_error_in_collate_is_not_blamed_on_a_sample() -> None:
    """Speak of the batch where no sample is at fault."""
    with pytest.raises(TypeError) as caught:
        next(iter(DataLoader([None, 1, 1, 1], 4)))
    assert "batch 0: its 4 samples put together, made by" in caught.value.__notes__[0]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_an_error_without_a_message_is_reported_anyway(on_error: Any) -> None:
    """Survive an exception whose own methods fail, and one whose attributes are not what ours have."""

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no message")

    class Odd(Numbers):
        def __getitem__(self, index: int) -> int:
            if index == 1:
                raise Mute
            return index

        def where(self, index: int) -> str:
            raise SystemExit

    loader = DataLoader(Odd(4), 2, on_error=on_error, num_workers=1, timeout=250)
    if on_error == "raise":
        with pytest.raises(Mute):
            list(loader)
    else:
        with pytest.raises(SystemExit):
            list(loader)


def test_a_missing_library_is_not_passed_over_as_a_bad_sample() -> None:
    """Raise it at once: every sample that needs it would be left out."""

    class Needs(Numbers):
        def __getitem__(self, index: int) -> int:
            raise MissingDependency("needs Pillow")

    with pytest.raises(MissingDependency):
        list(DataLoader(Needs(4), 2, on_error="skip"))


def test_loaders_and_statistics_can_be_copied() -> None:
    """Pickle, copy and take apart, even while a loop runs; a copy has no part in it."""
    loader = DataLoader(range(10), 4, shuffle=True, seed=1)
    iterator = iter(loader)
    next(iterator)
    for twin in (copy.copy(loader), copy.deepcopy(loader), pickle.loads(pickle.dumps(loader))):
        twin.close()
        twin.set_epoch(0)
        assert len(flat(twin)) == 10
    assert len(flat(iterator)) == 6
    assert dataclasses.asdict(loader.statistics())["samples"] == 10
    assert pickle.loads(pickle.dumps(loader.statistics())) == loader.statistics()
