"""The executor of actors: what holds for every executor, deaths, errors, memory."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace.errors import ArgumentTypeError, LoaderClosed, MissingFile, WorkerDied, WorkerTimeout
from headrace.executors.ray_cluster.cluster_options import RayCluster
from headrace.executors.registry import Options
from headrace.plan.work import Done, Failed
from headrace.testing.executors import ExecutorTests, Squares, maker_of, work_of
from tests.ray_cluster.conftest import STORE, remove

if TYPE_CHECKING:
    from headrace.executors.base import Executor
    from headrace.make.maker import Maker

SMALL = {"CPU": 0.5}


def actors(dataset: Any, workers: int = 2, copy: bool = True, resources: Any = SMALL, **how: Any) -> Any:
    cluster = RayCluster(worker_resources=resources, copy=copy)
    return cluster(maker_of(dataset), Options(workers, **how))


class TestActors(ExecutorTests):
    def make(self, maker: Maker) -> Executor:
        return RayCluster(worker_resources=SMALL)(maker, Options(1, prefetch=4))


class Arrays(Squares):
    """Large samples; some of them kill."""

    def __init__(self, deadly: int = -1, marker: str = "") -> None:
        super().__init__()
        self.deadly, self.marker = deadly, marker

    def __getitem__(self, index: int) -> np.ndarray:
        if index == self.deadly and not (self.marker and Path(self.marker).exists()):
            if self.marker:
                Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return np.full(50_000, index, np.float32)


def outcomes(executor: Executor, steps: int) -> dict[int, Any]:
    for step in range(steps):
        executor.submit(work_of(step))
    return {outcome.step: outcome for outcome in (executor.next(timeout=120) for _ in range(steps))}


@pytest.mark.parametrize("copy", [True, False])
def test_batches_are_copied_or_read_only_views_and_stay_as_they_are(copy: bool) -> None:
    """Keep every batch: none is overwritten; a copy can be written to, a view of the store cannot."""
    executor = actors(Arrays(), copy=copy)
    found = outcomes(executor, 12)
    executor.close()
    for step, outcome in found.items():
        assert outcome.batch.flags.writeable == copy
        np.testing.assert_array_equal(outcome.batch[:, -1], work_of(step).keys)


def test_a_killed_actors_batches_are_made_again_once_each(tmp_path: Path) -> None:
    """Kill an actor in the middle of a batch: a new one makes what it had in hand, and a warning says so.

    It names the batch before, if the answer to that was lost with the actor.
    """
    executor = actors(Arrays(13, str(tmp_path / "killed")))
    with pytest.warns(
        RuntimeWarning, match=r"Ray worker \d \(pid \d+ on .*\) died at sample \d+ to sample \d+ of batch \d"
    ):
        found = outcomes(executor, 8)
    executor.close()
    assert sorted(found) == list(range(8))
    assert all(isinstance(o, Done) and o.batch[0, 0] == 3 * o.step for o in found.values())


def test_a_batch_that_kills_every_actor_is_named() -> None:
    """Give up on it after three, with its samples; make all the others."""
    executor = actors(Arrays(4), workers=1)
    with warnings.catch_warnings(record=True) as said:  # of batch 0 too, if its answer was lost with the actor
        warnings.simplefilter("always")
        found = outcomes(executor, 3)
    executor.close()
    assert any("died at sample 3 to sample 5 of batch 1" in str(each.message) for each in said)
    failed = found.pop(1)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, WorkerDied)
    assert "batch 1 has ended 3 workers" in str(failed.error)
    assert all(isinstance(outcome, Done) for outcome in found.values())


def test_no_more_actors_are_replaced_than_allowed() -> None:
    """Raise the death itself with restarts=0."""
    executor = actors(Arrays(1), restarts=0)
    executor.submit(work_of(0))
    with pytest.raises(WorkerDied, match="died at sample 0 to sample 2 of batch 0"):
        executor.next(timeout=120)
    executor.close()


class OnOneMachine(Squares):
    """Opens only where it was made."""

    def __init__(self) -> None:
        super().__init__()
        self.pid = os.getpid()

    def __getitem__(self, index: int) -> int:
        if os.getpid() != self.pid:
            raise MissingFile("/data/7.jpg: there is no such file")
        return index


def test_a_node_that_cannot_open_the_dataset_is_an_error_at_the_start() -> None:
    """Raise it where the executor is made, with a note that names the worker."""
    with pytest.raises(MissingFile, match="no such file") as caught:
        actors(OnOneMachine())
    assert "before its first sample" in caught.value.__notes__[0]


class OpenedInTime(Squares):
    """Opens in no process that comes after a file is there."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self.marker, self.opened = marker, False

    def __getitem__(self, index: int) -> int:
        if not self.opened and self.marker.exists():
            raise MissingFile("/data/7.jpg: there is no such file")
        self.opened = True
        return index


def until_one_is_left(executor: Any) -> None:
    while len(executor._state.actors) == 2:
        assert all(isinstance(outcome, Done) for outcome in outcomes(executor, 4).values())


def test_a_node_that_comes_later_and_cannot_open_the_dataset_takes_no_part(tmp_path: Path) -> None:
    """Warn of it, and let the others make all batches."""
    executor = actors(OpenedInTime(tmp_path / "gone"))
    executor._await_actors(2)
    (tmp_path / "gone").touch()
    os.kill(executor._state.actors[0].opened.pid, signal.SIGKILL)
    left_out = "cannot open the dataset and takes no part: MissingFile"
    with pytest.warns(RuntimeWarning, match=left_out), pytest.warns(RuntimeWarning, match="died at"):
        until_one_is_left(executor)
    executor.close()


def test_an_error_in_worker_init_fn_is_raised_at_the_start() -> None:
    """Raise it where the executor is made."""

    def init(number: int) -> None:
        raise ValueError(f"worker {number} has no license")

    with pytest.raises(ValueError, match="has no license"):
        actors(Squares(), init=init)


def test_a_dataset_that_cannot_be_pickled_is_named() -> None:
    """Say which part of it cannot be sent, before anything is started."""

    class Open(Squares):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    with pytest.raises(ArgumentTypeError, match=r"dataset\.lock"):
        actors(Open())


def test_a_wait_without_room_times_out_and_says_why() -> None:
    """Start no actor where no node has room: the error says what each waits for."""
    with pytest.warns(RuntimeWarning, match="room for 0 of 1 workers that each take CPU: 1, no-such-thing: 1"):
        executor = actors(Squares(), workers=1, resources={"CPU": 1, "no-such-thing": 1})
    executor.submit(work_of(0))
    with pytest.raises(WorkerTimeout, match="waiting for a node with room"):
        executor.next(timeout=0.3)
    executor.close()
    with pytest.raises(LoaderClosed):
        executor.next()


def test_actors_wait_for_a_node_and_leave_with_it(cluster: Any) -> None:
    """Add the only node with room, and remove it with batches in flight: those left are made on the next one."""
    with pytest.warns(RuntimeWarning, match="wait until a node with room joins"):
        executor = actors(Arrays(), workers=1, resources={"CPU": 0.5, "spot": 1})
    for step in range(2):
        executor.submit(work_of(step))
    node = cluster.add_node(num_cpus=1, resources={"spot": 1}, object_store_memory=STORE)
    first = executor.next(timeout=120)
    for step in range(2, 6):
        executor.submit(work_of(step))
    cluster.remove_node(node, allow_graceful=False)
    other = cluster.add_node(num_cpus=1, resources={"spot": 1}, object_store_memory=STORE)
    with pytest.warns(RuntimeWarning, match=r"died|lost"):
        rest = [executor.next(timeout=120) for _ in range(5)]
    executor.close()
    remove(cluster, other)
    assert sorted(o.step for o in (first, *rest)) == list(range(6))
    assert all(isinstance(o, Done) and o.batch[0, 0] == 3 * o.step for o in (first, *rest))
