"""What goes wrong around a loader on a cluster: deaths at bad moments, closing, large batches, lost connections."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import DataLoader
from headrace.errors import ArgumentTypeError, LoaderClosed, WorkerDied
from headrace.executors import RayCluster
from tests.ray_cluster.conftest import STORE, left, remove, until

if TYPE_CHECKING:
    from collections.abc import Iterator

HALF = RayCluster(worker_resources={"CPU": 0.5})
WORKERS: dict[str, Any] = {"num_workers": 2, "backend": HALF}


class Numbers:
    """Samples that may kill the process that makes them, once or always."""

    def __init__(self, size: int = 40, deadly: int = -1, once: str = "") -> None:
        self.size, self.deadly, self.once = size, deadly, once

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if index == self.deadly and not (self.once and os.path.exists(self.once)):  # noqa: PTH110
            if self.once:
                open(self.once, "w").close()  # noqa: PTH123
            os.kill(os.getpid(), signal.SIGKILL)
        return index


@contextlib.contextmanager
def deaths() -> Iterator[list[str]]:
    """Collect warnings instead of raising them."""
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield messages
    messages += [str(each.message) for each in said]


def numbers(batches: Any) -> list[int]:
    return [int(number) for batch in batches for number in batch]


def pids(loop: Any) -> list[int]:
    """Wait until both actors take part; return their processes."""
    loop._dispatcher.executor._await_actors(2)
    return [each.opened.pid for each in loop._dispatcher.executor._state.actors if each.opened is not None]


class KillsWhoOpensIt(Numbers):
    """Cannot be unpickled."""

    def __getstate__(self) -> dict[str, Any]:
        return {"size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_dataset_that_kills_whoever_opens_it_is_an_error() -> None:
    """Start a few actors, then say that none reached its first sample."""
    loader = DataLoader(KillsWhoOpensIt(), 4, num_workers=1, backend=HALF)
    with deaths() as said, pytest.raises(WorkerDied, match="died before its first sample"):
        iter(loader)
    assert len(said) == 2


def test_a_death_in_the_last_batch_costs_nothing(tmp_path: Any) -> None:
    """Kill the actor at the last sample, when nothing else is in flight."""
    loader = DataLoader(Numbers(40, deadly=39, once=str(tmp_path / "killed")), 4, **WORKERS)
    with deaths() as said:
        assert numbers(loader) == list(range(40))
    assert any("made again" in each for each in said)


def test_all_actors_die_at_once() -> None:
    """Kill both between two batches."""
    loop = iter(DataLoader(Numbers(), 2, **WORKERS))
    found = numbers([next(loop)])
    with deaths() as said:
        for pid in pids(loop):
            os.kill(pid, signal.SIGKILL)
        found += numbers(loop)
    assert found == list(range(40))
    assert sum("died" in each for each in said) >= 2


def test_closing_wakes_a_thread_that_waits(tmp_path: Any) -> None:
    """Close while another thread waits for a batch that never comes."""

    class Endless(Numbers):
        def __getitem__(self, index: int) -> int:
            if index >= 4:
                (tmp_path / "begun").touch()
                signal.pause()
            return index

    loader = DataLoader(Endless(), 4, **WORKERS)
    loop = iter(loader)
    next(loop)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            next(loop)
        except LoaderClosed as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert until((tmp_path / "begun").exists)
    loader.close()
    thread.join(60)
    assert not thread.is_alive()
    assert "closed" in str(errors[0])


PROGRAM = """
import sys
from headrace import DataLoader
from headrace.executors import RayCluster

loop = iter(DataLoader(range(40), 4, num_workers=2, backend=RayCluster(worker_resources={"CPU": 0.5})))
print(next(loop).tolist(), flush=True)
"""


@pytest.mark.parametrize(
    ("end", "status", "says"),
    [
        ("pass", 0, ""),
        ("raise ValueError('mine')", 1, "ValueError: mine"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, ""),
    ],
    ids=["exit", "error", "killed"],
)
def test_a_program_that_ends_without_closing_leaves_no_actor(cluster: Any, end: str, status: int, says: str) -> None:
    """Leave actors behind in no way to end a program; `nothing_leaks` looks."""
    environment = os.environ | {"RAY_ADDRESS": cluster.address, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + end],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "[0, 1, 2, 3]" in done.stdout
    assert says in done.stderr


class Unpicklable(Exception):
    """Holds a lock."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class Raising(Numbers):
    """Raises what cannot be pickled."""

    def __getitem__(self, index: int) -> int:
        if index == 9:
            raise Unpicklable("sample 9 holds a lock")
        return index


def test_an_exception_that_cannot_be_pickled_says_what_it_said() -> None:
    """Raise it as text, at its step."""
    loop = iter(DataLoader(Raising(), 4, **WORKERS))
    assert numbers([next(loop), next(loop)]) == list(range(8))
    with pytest.raises(RuntimeError, match="sample 9 holds a lock"):
        next(loop)


def test_a_dataset_that_cannot_be_pickled_is_an_error_of_the_loader() -> None:
    """Name what is in the way."""
    dataset: Any = Numbers()
    dataset.lock = threading.Lock()
    with pytest.raises(ArgumentTypeError, match=r"dataset\.lock"):
        iter(DataLoader(dataset, 4, **WORKERS))


class Huge(Numbers):
    """Each sample is larger than the object store."""

    def __getitem__(self, index: int) -> Any:
        return np.full(STORE + (10 << 20), index, np.uint8)


def test_a_batch_larger_than_the_object_store_arrives() -> None:
    """Let Ray put it on disk; nothing hangs."""
    for index, batch in enumerate(DataLoader(Huge(2), 1, num_workers=1, prefetch_factor=1, backend=HALF)):
        assert batch.shape == (1, STORE + (10 << 20))
        assert batch[0, 0] == batch[0, -1] == index


def test_an_empty_dataset_has_no_batches() -> None:
    """End at once."""
    assert list(DataLoader(Numbers(0), 4, **WORKERS)) == []


def test_more_workers_than_the_cluster_has_cpus_are_warned_of() -> None:
    """Say how many have room, and read with those."""
    loader = DataLoader(Numbers(), 4, num_workers=5, backend=RayCluster(worker_resources={"CPU": 1}))
    with pytest.warns(RuntimeWarning, match=r"room for 2 of 5 workers that each take CPU: 1.*3 of them wait"):
        assert numbers(loader) == list(range(40))


def test_two_loaders_at_once_share_the_cluster() -> None:
    """Take a batch of each in turn."""
    first, second = iter(DataLoader(Numbers(), 4, **WORKERS)), iter(DataLoader(Numbers(), 8, **WORKERS))
    a, b = numbers([next(first)]), numbers([next(second)])
    assert a + numbers(first) == b + numbers(second) == list(range(40))


def test_a_loader_reads_inside_a_task_and_an_actor() -> None:
    """Start actors from a worker of Ray; they end with the loop."""
    import ray

    def read() -> list[int]:
        return numbers(DataLoader(Numbers(), 4, num_workers=1, backend=HALF))

    class Reader:
        def read(self) -> list[int]:
            return read()

    assert ray.get(ray.remote(read).remote(), timeout=120) == list(range(40))
    reader = ray.remote(Reader).remote()
    assert ray.get(reader.read.remote(), timeout=120) == list(range(40))
    ray.kill(reader)


def test_a_slow_actor_holds_up_its_own_batches_only(tmp_path: Any) -> None:
    """Let one sample wait until half of the others were made, by the other actor."""

    class Slow(Numbers):
        def __getitem__(self, index: int) -> int:
            made = tmp_path / str(index)
            if index == 0:
                assert until(lambda: len(list(tmp_path.iterdir())) >= self.size // 2)
            made.touch()
            return index

    backend = RayCluster(worker_resources={"CPU": 0.5}, probe=False)
    loader = DataLoader(Slow(12), 1, num_workers=2, prefetch_factor=6, backend=backend)
    assert numbers(loader) == list(range(12))


def test_a_node_leaves_with_finished_batches_in_its_store(cluster: Any) -> None:
    """Make batches on a node that is removed before they were taken: all come, each once."""

    class Large(Numbers):
        def __getitem__(self, index: int) -> Any:
            return np.full(300_000, index, np.uint8)

    node = cluster.add_node(num_cpus=1, resources={"away": 1}, object_store_memory=STORE)
    backend = RayCluster(worker_resources={"CPU": 0.5, "away": 0.5})
    loop: Any = iter(DataLoader(Large(24), 1, num_workers=2, prefetch_factor=6, backend=backend))
    found = [int(next(loop)[0, 0])]
    remove(cluster, node, graceful=False)
    other = cluster.add_node(num_cpus=1, resources={"away": 1}, object_store_memory=STORE)
    with deaths() as said:
        found += [int(batch[0, 0]) for batch in loop]
    assert found == list(range(24))
    assert said
    del loop
    remove(cluster, other)


LOST = """
import ray
from headrace import DataLoader
from headrace.errors import LoaderClosed
from headrace.executors import RayCluster

ray.init({address!r}, logging_level="ERROR", log_to_driver=False)
backend = RayCluster(worker_resources={{"CPU": 0.5}})
loader = DataLoader(range(40), 4, num_workers=1, persistent_workers=True, backend=backend)
loop = iter(loader)
next(loop)
ray.shutdown()
for again in (False, True):
    if again:
        ray.init({address!r}, logging_level="ERROR", log_to_driver=False)
    try:
        for _ in loop:
            pass
    except LoaderClosed as error:
        print(error)
    print("connected" if ray.is_initialized() else "not connected")
print(sum(len(batch) for batch in loader))
"""


def test_a_lost_connection_is_an_error_and_starts_no_other_cluster(cluster: Any) -> None:
    """Shut Ray down in the middle: the loop says so; a new one works once Ray is connected again."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    program = LOST.format(address=cluster.address)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "the connection to the Ray cluster was closed" in lines[0]
    assert [line for line in lines if "connected" in line.split()] == ["not connected", "connected"]
    assert lines[-1] == "40"


def test_ctrl_c_while_actors_start_leaves_nothing() -> None:
    """Interrupt a loop that waits for its first actor."""

    class Endless(Numbers):
        def __getitem__(self, index: int) -> int:
            signal.pause()
            return index

    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            iter(DataLoader(Endless(), 4, **WORKERS))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert until(lambda: not left(float("inf")))
