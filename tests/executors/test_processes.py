"""The executor of processes: fork, forkserver and spawn; deaths, errors, memory."""

from __future__ import annotations

import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import threading
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.errors import LoaderClosed, WorkerDied, WorkerTimeout
from headrace.executors.processes.pool import Processes
from headrace.make.maker import Maker
from headrace.plan.work import Done, Failed
from headrace.testing.executors import ExecutorTests, Squares, maker_of, work_of

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
METHODS = ["fork", "forkserver", "spawn"]


@pytest.fixture(scope="module", autouse=True)
def helpers_of_multiprocessing() -> None:
    """Start the two processes that multiprocessing starts once and leaves running, before leaks are counted."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()


def processes(dataset: Any, workers: int = 2, method: str = "fork", **how: Any) -> Processes:
    return Processes(maker_of(dataset), workers, context=multiprocessing.get_context(method), **how)


class TestForked(ExecutorTests):
    def make(self, maker: Maker) -> Processes:
        return Processes(maker, workers=2, context=multiprocessing.get_context("fork"))


class TestSpawned(ExecutorTests):
    def make(self, maker: Maker) -> Processes:
        return Processes(maker, workers=1, context=multiprocessing.get_context("spawn"))


class Arrays(Squares):
    """Large samples; some of them wait, some kill."""

    def __init__(self, rows: int = 100_000, deadly: dict[int, int] | None = None, marker: str = "") -> None:
        super().__init__()
        self.rows, self.deadly, self.marker = rows, deadly or {}, marker

    def __getitem__(self, index: int) -> np.ndarray:
        if index in self.deadly and not (self.marker and Path(self.marker).exists()):
            if self.marker:
                Path(self.marker).touch()
            os.kill(os.getpid(), self.deadly[index])
        return np.full(self.rows, index, np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_batches_lie_in_shared_memory_and_stay_as_they_are(method: str) -> None:
    """Keep every batch: none is overwritten, none blocks a worker, and descriptors do not grow with them."""
    executor = processes(Arrays(), method=method)
    kept: dict[int, np.ndarray] = {}
    counts = []
    for step in range(30):
        executor.submit(work_of(step))
        outcome = executor.next(timeout=250)
        assert isinstance(outcome, Done), outcome
        kept[outcome.step] = outcome.batch
        counts.append(sum(1 for _ in Path("/proc/self/fd").glob("*")))
    executor.close()
    for step, batch in kept.items():
        np.testing.assert_array_equal(batch[:, 0], work_of(step).keys)
        assert (batch == batch[:, :1]).all()
        assert batch.flags.writeable
    assert len(set(counts[3:])) == 1


def test_slots_are_reused() -> None:
    """Run many batches in a few pieces of memory, when each is dropped before the next is asked for."""
    executor = processes(Arrays(), workers=1)
    places = set()
    for step in range(20):
        executor.submit(work_of(step))
        outcome = executor.next(timeout=250)
        assert isinstance(outcome, Done)
        places.add(outcome.batch.ctypes.data)
        del outcome
    executor.close()
    assert len(places) <= 4


def test_batches_of_growing_size_grow_the_slots() -> None:
    """Make a larger piece where the batch does not fit, and continue."""

    class Growing(Squares):
        def __getitem__(self, index: int) -> tuple[np.ndarray, str]:
            return np.full((index + 1) * 1000, index, np.int64), "x" * index * 100

    executor = processes(Growing(), workers=1)
    for step in range(20):
        executor.submit(work_of(step, size=1))
        outcome = executor.next(timeout=250)
        assert isinstance(outcome, Done)
        array, text = outcome.batch
        assert (array.shape, array[0, 0], len(text[0])) == ((1, (step + 1) * 1000), step, step * 100)
        del outcome, array
    executor.close()


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_workers_batches_are_made_again_once_each(method: str, tmp_path: Path) -> None:
    """Kill a worker in the middle of a batch: a new one makes what it had in hand, and a warning says so."""
    dataset = Arrays(deadly={13: signal.SIGKILL}, marker=str(tmp_path / "killed"))
    executor = processes(dataset, method=method)
    for step in range(8):
        executor.submit(work_of(step))
    with pytest.warns(
        RuntimeWarning,
        match=r"is killed by signal: SIGKILL \(worker process \d, at sample 13 of batch 4\); a new one makes",
    ):
        outcomes = [executor.next(timeout=250) for _ in range(8)]
    executor.close()
    assert sorted(outcome.step for outcome in outcomes) == list(range(8))
    assert all(isinstance(o, Done) and o.batch[0, 0] == 3 * o.step for o in outcomes)


def test_a_batch_that_kills_every_worker_is_named() -> None:
    """Give up on it after three, with the signal and the sample; make all the others."""
    executor = processes(Arrays(deadly={4: signal.SIGTERM}), workers=1)
    for step in range(3):
        executor.submit(work_of(step))
    with pytest.warns(RuntimeWarning, match="SIGTERM"):
        outcomes = {o.step: o for o in (executor.next(timeout=250) for _ in range(3))}
    executor.close()
    failed = outcomes.pop(1)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, WorkerDied)
    assert "batch 1 has ended 3 workers" in str(failed.error)
    assert "sample 4 of batch 1" in str(failed.error)
    assert all(isinstance(outcome, Done) for outcome in outcomes.values())


def test_a_worker_that_leaves_in_silence_is_an_error_at_once() -> None:
    """Do not take exit code 0 for an end of the data."""

    class Leaving(Squares):
        def __getitem__(self, index: int) -> int:
            os._exit(0)

    executor = processes(Leaving())
    executor.submit(work_of(0))
    outcome = executor.next(timeout=250)
    executor.close()
    assert isinstance(outcome, Failed)
    assert "exited unexpectedly with exit code 0" in str(outcome.error)


class Unpicklable(Exception):
    def __reduce__(self) -> Any:
        raise RuntimeError("cannot be pickled")


@pytest.mark.parametrize("error", [Unpicklable("why"), ValueError(threading.Lock())], ids=["reduce", "lock"])
def test_an_error_that_cannot_travel_arrives_as_text(error: Exception) -> None:
    """Say the type, the message and the traceback of an exception that pickle cannot carry."""
    executor = processes(Squares({0: error}))
    executor.submit(work_of(0))
    outcome = executor.next(timeout=250)
    executor.close()
    assert isinstance(outcome, Failed)
    assert isinstance(outcome.error, RuntimeError)
    assert type(error).__name__ in str(outcome.error)
    assert "__getitem__" in str(outcome.error.__cause__)


class TwoArguments(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")
        self.one = one


class NoSuchRecord(OSError):
    __slots__ = ("record",)

    def __init__(self, path: str, *, record: int) -> None:
        super().__init__(2, f"no record {record}", path)
        self.record = record


class Coded(Exception):
    def __new__(cls, code: int) -> Coded:
        return super().__new__(cls, code)

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code

    def __str__(self) -> str:
        return f"code {self.code}"


@pytest.mark.parametrize(
    ("error", "attribute"),
    [(TwoArguments("a", "b"), "one"), (NoSuchRecord("x.rec", record=7), "record"), (Coded(5), "code")],
    ids=lambda value: type(value).__name__,
)
def test_an_error_whose_constructor_needs_arguments_keeps_its_type(error: Exception, attribute: str) -> None:
    """Rebuild it without its constructor: type, message and attributes arrive as they were."""
    executor = processes(Squares({0: error}))
    executor.submit(work_of(0))
    outcome = executor.next(timeout=250)
    executor.close()
    assert isinstance(outcome, Failed)
    assert type(outcome.error) is type(error)
    assert str(outcome.error) == str(error)
    assert getattr(outcome.error, attribute) == getattr(error, attribute)
    assert "__getitem__" in str(outcome.error.__cause__)


def test_a_batch_that_cannot_be_pickled_is_an_error() -> None:
    """Name the cause and the cure, within the batch's own step."""

    class Locks(Squares):
        def __getitem__(self, index: int) -> Any:
            return threading.Lock()

    maker = Maker(maker_of(Locks()).source, lambda samples, *, empty: samples)  # type: ignore[arg-type]
    executor = Processes(maker, 1, context=multiprocessing.get_context("fork"))
    executor.submit(work_of(0))
    outcome = executor.next(timeout=250)
    executor.close()
    assert isinstance(outcome, Failed)
    assert "cannot be sent from a worker process" in str(outcome.error)


class Waiting(Squares):
    def __getitem__(self, index: int) -> int:
        threading.Event().wait(600)
        return index


def test_a_hung_worker_is_named_with_its_stack() -> None:
    """Say which process is at which sample and where in the user's code."""
    executor = processes(Waiting(), workers=1)
    executor.submit(work_of(0))
    said = ""
    while not re.search("sample 0 of batch 0.* in __getitem__", said, re.DOTALL):  # until the worker has begun
        with pytest.raises(WorkerTimeout) as caught:
            executor.next(timeout=0.3)
        said = str(caught.value)
    for each in executor._workers:
        each.process.kill()
    executor.close()


def wait_until_closed(executor: Processes, seen: list[str]) -> None:
    with pytest.raises(LoaderClosed):
        executor.next()
    seen.append("closed")


def test_closing_wakes_a_consumer_that_waits() -> None:
    """Raise LoaderClosed in a thread that stands in next, or is about to, while another closes."""
    for _ in range(20):
        executor, seen = processes(Squares()), []
        consumer = threading.Thread(target=wait_until_closed, args=(executor, seen))
        consumer.start()
        executor.close()
        consumer.join(60)
        assert seen == ["closed"]


def test_an_init_function_that_fails_is_reported_at_the_start() -> None:
    """Raise its own error from the constructor, and leave no process."""

    def init(number: int) -> None:
        raise LookupError(f"no licence for {number}")

    with pytest.raises(LookupError, match="no licence") as caught:
        processes(Squares(), init=init)
    assert "before its first sample" in caught.value.__notes__[0]


SCRIPT = """
import multiprocessing, os, sys, time
from headrace.executors.processes.pool import Processes
from headrace.testing.executors import Squares, maker_of, work_of

class Busy(Squares):
    def __getitem__(self, index):
        sum(range(10**12))  # in C, with the GIL

if __name__ == "__main__":
    executor = Processes(maker_of(Busy()), 2, context=multiprocessing.get_context(sys.argv[1]))
    executor.submit(work_of(0))
    executor.submit(work_of(1))
    while not all(each.ready for each in executor._workers):
        for key, _ in executor._selector.select():
            executor._receive(key.data)
    print(*[each.process.pid for each in executor._workers], flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")
def test_workers_die_with_a_killed_parent_while_busy_in_c(method: str, tmp_path: Path) -> None:
    """SIGKILL the loader's process: its workers are gone within a second, wherever they were."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, str(script), method],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    watched = [os.pidfd_open(pid) for pid in pids]
    parent.kill()
    parent.communicate()
    for fd in watched:
        assert select.select([fd], [], [], 60)[0], "a worker outlived its parent"
        os.close(fd)


class Unopenable:
    def __reduce__(self) -> Any:
        return int, ("no number",)


def test_a_batch_that_cannot_be_opened_is_an_error_of_its_step() -> None:
    """Give an outcome, too, where unpickling fails in the loader's own process; make the next batch."""

    class Mixed(Squares):
        def __getitem__(self, index: int) -> Any:
            return Unopenable() if index == 0 else index

    maker = Maker(maker_of(Mixed()).source, lambda samples, *, empty: samples)  # type: ignore[arg-type]
    executor = Processes(maker, 1, context=multiprocessing.get_context("fork"))
    executor.submit(work_of(0))
    executor.submit(work_of(1))
    first, second = executor.next(timeout=250), executor.next(timeout=250)
    executor.close()
    assert isinstance(first, Failed)
    assert isinstance(first.error, ValueError)
    assert isinstance(second, Done)


def test_nothing_is_lost_where_the_warning_of_a_death_is_an_error(tmp_path: Path) -> None:
    """Raise the warning, and continue with every batch after it."""
    executor = processes(Arrays(deadly={4: signal.SIGKILL}, marker=str(tmp_path / "killed")), workers=1)
    for step in range(3):
        executor.submit(work_of(step))
    outcomes, warned = [], 0
    while len(outcomes) < 3:
        try:
            outcomes.append(executor.next(timeout=250).step)
        except RuntimeWarning:
            warned += 1
    executor.close()
    assert (sorted(outcomes), warned) == ([0, 1, 2], 1)
