"""What multiprocessing hands to a process as it starts, in a dataset that is pickled once for all workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import pytest

from headrace import DataLoader
from headrace.errors import ArgumentTypeError

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


@pytest.fixture(scope="module", autouse=True)
def helpers_of_multiprocessing() -> None:
    """Start what multiprocessing starts once and leaves, two processes and a heap, before leaks are counted."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()
    multiprocessing.RawValue("i")


class Counted:
    """Samples that are counted, told of and signalled by what all processes share."""

    def __init__(self, context: Any) -> None:
        self.count = context.Value("i", 0)
        self.told = context.SimpleQueue()
        self.seen = context.Event()
        self.lock = context.Lock()
        self.first, self.last = context.Pipe()

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> int:
        with self.lock:
            self.count.value += 1
            self.told.put(index)
            if index == 5:
                self.last.send("the last")
        self.seen.set()
        return index


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_locks_counters_queues_and_pipes_reach_every_worker(method: str) -> None:
    """Share them with all workers, persistent or not, in every epoch."""
    dataset = Counted(multiprocessing.get_context(method))
    for persistent in (False, True):
        with DataLoader(
            dataset, 2, num_workers=2, multiprocessing_context=method, persistent_workers=persistent
        ) as loader:
            for _ in range(2):
                before = dataset.count.value
                assert [batch.tolist() for batch in loader] == [[0, 1], [2, 3], [4, 5]]
                assert dataset.count.value == before + 6
                assert sorted(dataset.told.get() for _ in range(6)) == list(range(6))
                assert dataset.first.recv() == "the last"
    assert dataset.seen.is_set()
    dataset.told.close()
    dataset.first.close()
    dataset.last.close()


def test_a_worker_that_takes_anothers_place_gets_them_too(tmp_path: Path) -> None:
    """Keep what is handed down for workers that start later."""

    class Deadly(Counted):
        def __getitem__(self, index: int) -> int:
            if index == 3 and not (tmp_path / "died").exists():
                (tmp_path / "died").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(index)

    dataset = Deadly(multiprocessing.get_context("spawn"))
    with pytest.warns(RuntimeWarning, match="a new one makes"):
        batches = list(DataLoader(dataset, 1, num_workers=1, multiprocessing_context="spawn"))
    assert [int(batch[0]) for batch in batches] == list(range(6))
    assert dataset.count.value >= 6
    dataset.told.close()
    dataset.first.close()
    dataset.last.close()


def test_a_lock_made_for_forks_is_named() -> None:
    """Say where it is, and in multiprocessing's words why spawned workers cannot have it."""

    class Locked:
        def __init__(self) -> None:
            self.parts = {"lock": multiprocessing.get_context("fork").Lock()}

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            return index

    with pytest.raises(ArgumentTypeError, match=r"dataset\.parts\['lock'\] .* created in a fork context"):
        iter(DataLoader(Locked(), num_workers=1, multiprocessing_context="spawn"))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_tensors_in_shared_memory_stay_shared_and_others_are_copied(method: str) -> None:
    """Let workers write to the tensors that were put into shared memory, and to no others of ours."""
    torch = pytest.importorskip("torch")

    class Tensors:
        def __init__(self) -> None:
            self.shared = torch.zeros(3).share_memory_()
            self.own = torch.arange(3000.0)
            self.sparse = torch.eye(3).to_sparse()
            self.weights = torch.nn.Parameter(torch.ones(2))

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[float, float, float]:
            self.shared[index % 3] = 7
            self.own[0] = 7
            return self.own[2999].item(), self.sparse.sum().item(), self.weights.sum().item()

    dataset = Tensors()
    batches = list(DataLoader(dataset, 2, num_workers=2, multiprocessing_context=method))
    assert [column.tolist() for column in batches[0]] == [[2999.0] * 2, [3.0] * 2, [2.0] * 2]
    assert dataset.shared.tolist() == [7.0] * 3
    assert dataset.own[0] == 0
    assert not dataset.own.is_shared()
