"""Processes in bad company: forks, copies of their ends, full sockets, too few descriptors, ignored signals."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader, IterableDataset
from headrace.errors import LoaderClosed, WorkerDied
from headrace.executors.processes import pool
from headrace.executors.processes.pool import Processes
from headrace.make.maker import Maker
from headrace.plan.work import Done, Failed, Outcome
from headrace.testing.executors import Squares, maker_of, work_of

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
FORK: dict[str, Any] = {"backend": "processes", "multiprocessing_context": "fork"}


def forked(dataset: Any, workers: int = 2, **how: Any) -> Processes:
    return Processes(maker_of(dataset), workers, context=multiprocessing.get_context("fork"), **how)


def outcomes(executor: Processes, number: int) -> list[Outcome]:
    return [executor.next(timeout=250) for _ in range(number)]


class LeavesAChild(Squares):
    """Forks a process that holds copies of all that the worker has, and dies."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __getitem__(self, index: int) -> int:
        if index == 4 and not (self.folder / "died").exists():
            (self.folder / "died").touch()
            child = os.fork()
            if child == 0:
                (self.folder / "pipe").open().close()  # until the test ends it
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)
        return index


def test_a_death_is_noticed_while_a_child_of_the_worker_lives(tmp_path: Path) -> None:
    """Wait for the process, not for its end of the channel, which others may hold."""
    os.mkfifo(tmp_path / "pipe")
    executor = forked(LeavesAChild(tmp_path))
    for step in range(4):
        executor.submit(work_of(step))
    with pytest.warns(RuntimeWarning, match=r"SIGKILL \(worker process \d, at sample 4 of batch 1\)"):
        steps = sorted(executor.next(timeout=250).step for _ in range(4))
    executor.close()
    with (tmp_path / "pipe").open("w"):  # opens when the child does: it has lived to see this
        assert steps == [0, 1, 2, 3]


def test_a_process_that_the_user_forks_does_not_end_ours() -> None:
    """Drop, close and collect a loop in a fork of this process; continue here."""
    loop = iter(DataLoader(range(40), 2, num_workers=2, **FORK))
    next(loop)
    child = os.fork()
    if child == 0:
        loop.close()  # type: ignore[attr-defined]
        del loop
        os._exit(0)
    os.waitpid(child, 0)
    assert len(list(loop)) == 19


def test_workers_end_with_us_while_a_fork_of_ours_lives(tmp_path: Path) -> None:
    """SIGKILL a process that has workers and another child, which must not keep the workers alive."""
    os.mkfifo(tmp_path / "pipe")
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        executor = None

        def begin() -> None:  # in a thread: the kernel's notice of the parent's death is not asked for
            nonlocal executor
            executor = forked(Squares(), 1, init=lambda number: None)

        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
        if os.fork() == 0:
            os.close(write)
            (tmp_path / "pipe").open().close()
            os._exit(0)
        assert executor is not None
        os.write(write, b"%d\n" % executor._workers[0].process.pid)
        signal.pause()
    os.close(write)
    with os.fdopen(read) as said:
        watched = os.pidfd_open(int(said.readline()))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert select.select([watched], [], [], 60)[0]
    os.close(watched)
    with (tmp_path / "pipe").open("w"):
        pass


@pytest.mark.parametrize("threads", [1, 2])
def test_any_number_of_orders_and_answers_may_be_under_way(threads: int) -> None:
    """Ask for far more than sockets hold, with answers that fill them too: neither end waits for the other for ever."""
    loader = DataLoader(
        range(3000),
        1,
        num_workers=1,
        prefetch_factor=1500,
        threads_per_worker=threads,
        collate_fn=lambda samples: "x" * 900,
        **FORK,
    )
    assert sum(len(batch) for batch in loader) == 900 * 3000


def test_large_orders_go_beside_the_channel() -> None:
    """Hand over keys of more bytes than the socket holds, many at once."""
    batches = [[f"{number:0100d}" * 500] * 2 for number in range(20)]
    loader = DataLoader(Anything(), batch_sampler=batches, num_workers=1, prefetch_factor=20, collate_fn=len, **FORK)
    assert list(loader) == [2] * 20


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError("not this one")


def test_a_key_that_cannot_be_sent_is_an_error_of_its_batch() -> None:
    """Raise at its step; make the others."""
    loop = iter(DataLoader(Anything(), batch_sampler=[[1], [Unpicklable()], [3]], num_workers=1, **FORK))
    assert next(loop).tolist() == [1]
    with pytest.raises(TypeError, match=r"cannot be sent to a worker process: not this one") as caught:
        next(loop)
    assert "batch 1" in caught.value.__notes__[0]
    assert next(loop).tolist() == [1]
    assert list(loop) == []


class Anything:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, key: Any) -> int:
        return 1


def test_a_sample_of_a_stream_that_cannot_be_sent_is_an_error_of_its_batch() -> None:
    """Say so where samples are read here and finished by the workers."""

    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter([1, threading.Lock(), 3])

    loop = iter(DataLoader(Stream(), 1, num_workers=2, read_once=True, **FORK))
    assert next(loop).tolist() == [1]
    with pytest.raises(TypeError, match="cannot be sent to a worker process"):
        next(loop)
    assert next(loop).tolist() == [3]
    loop.close()  # type: ignore[attr-defined]


def filled(room: int) -> Iterator[int]:
    """Leave no more than ``room`` descriptors to this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    holes = [os.open(os.devnull, os.O_RDONLY)]
    while holes[-1] < max(used):
        holes.append(os.dup(holes[0]))
    resource.setrlimit(resource.RLIMIT_NOFILE, (holes[-1] + 1 + room, limits[1]))
    yield room
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for hole in holes:
        os.close(hole)


few = pytest.fixture(filled)


@pytest.mark.parametrize("room", range(10))  # with a little more, it is multiprocessing that leaves a pipe
def test_too_few_descriptors_are_an_error_and_nothing_is_left(few: int) -> None:
    """Raise OSError wherever a start fails, and leave no process and no descriptor."""
    loader = DataLoader(range(20), 2, num_workers=2, **FORK)
    with pytest.raises(OSError, match="Too many open files"):
        iter(loader)


def test_a_worker_that_cannot_be_replaced_is_an_error_and_no_hang() -> None:
    """Raise WorkerDied where no descriptor is left to start another; the executor is closed."""
    executor = forked(Squares(), 1, init=lambda number: None)
    for step in range(2):
        executor.submit(work_of(step))
    process = executor._workers[0].process
    process.kill()
    process.join()
    room = filled(1)
    next(room)
    try:
        with pytest.raises(WorkerDied, match=r"SIGKILL.*and no other could be started: .*Too many open files"):
            outcomes(executor, 3)
    finally:
        list(room)
    assert executor.closed


def test_an_answer_that_has_no_descriptor_left_to_arrive_by_is_an_error_of_its_batch() -> None:
    """Fail that batch, and continue when there is room again."""
    executor = Processes(
        Maker(maker_of(Squares()).source, lambda samples, *, empty: np.full(50_000, samples[0])),
        1,
        context=multiprocessing.get_context("fork"),
        init=lambda number: None,
    )
    room = filled(0)
    next(room)
    try:
        executor.submit(work_of(0))
        failed = executor.next(timeout=250)
    finally:
        list(room)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, OSError)
    assert failed.error.errno == errno.EMFILE
    executor.submit(work_of(1))
    done = executor.next(timeout=250)
    executor.close()
    assert isinstance(done, Done)
    assert set(done.batch.tolist()) == {9}


def test_ignored_children_do_no_harm() -> None:
    """Work, and close, where nobody can know how a process ended: SIGCHLD is ignored, as some launchers have it."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert len(list(DataLoader(range(20), 2, num_workers=2, **FORK))) == 10
        executor = forked(Squares(), 1, restarts=0)
        executor.submit(work_of(0))
        os.kill(executor._workers[0].process.pid, signal.SIGKILL)
        with pytest.raises(WorkerDied):
            outcomes(executor, 2)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_many_workers_at_once() -> None:
    """Start 64, more than there are batches for some of them."""
    loader = DataLoader(range(100), 2, num_workers=64, **FORK)
    assert [batch.tolist() for batch in loader] == [[n, n + 1] for n in range(0, 100, 2)]


def test_workers_that_die_before_their_first_sample_blame_no_batch() -> None:
    """Raise after three of them in a row, with the exit code, and what was in hand."""

    def init(number: int) -> None:
        os._exit(7)

    with (
        pytest.warns(RuntimeWarning, match=r"7 \(worker process \d, at starting\); a new one makes its 0 batches"),
        pytest.raises(WorkerDied, match=r"7 \(worker process \d, at starting\)"),
    ):
        forked(Squares(), 2, init=init)


def test_a_dataset_that_closes_all_descriptors_is_an_error() -> None:
    """Notice, and name, a worker that can no longer be spoken to but lives."""

    class Closes(Squares):
        def __getitem__(self, index: int) -> int:
            os.closerange(3, 100)
            threading.Event().wait(600)
            return index

    executor = forked(Closes(), 1)
    executor.submit(work_of(0))
    patience, pool.PATIENCE = pool.PATIENCE, 0.1
    try:
        with pytest.warns(RuntimeWarning, match=r"closed its channel \(worker process \d, at sample 0 of batch 0\)"):
            failed = executor.next(timeout=250)
    finally:
        pool.PATIENCE = patience
    executor.close()
    assert isinstance(failed, Failed)
    assert "batch 0 has ended 3 workers" in str(failed.error)


class ClosesThenAnswers(Squares):
    def __getitem__(self, index: int) -> int:
        if index == 4:
            os.closerange(3, 100)
        return index


@pytest.mark.parametrize("threads", [1, 2])
def test_a_worker_without_its_descriptors_dies_and_is_named(threads: int) -> None:
    """Blame the batch whose code closed them; a new worker makes all others, whatever the other thread waits for."""
    executor = forked(ClosesThenAnswers(), 1, threads=threads)
    for step in range(4):
        executor.submit(work_of(step))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of two batches at once, either may be the cause
        made = {outcome.step: outcome for outcome in outcomes(executor, 4)}
    executor.close()
    failed = made.pop(1)
    assert isinstance(failed, Failed)
    assert "file descriptors that belong to the worker" in str(failed.error)
    assert all(isinstance(outcome, Done) for outcome in made.values())


def test_a_forked_child_cannot_use_its_parents_workers() -> None:
    """Refuse everything in the child, closing excepted; the parent's batches come as if nothing had happened."""
    executor = forked(Squares())
    executor.submit(work_of(0))
    child = os.fork()
    if child == 0:
        refused = 0
        for call in (lambda: executor.submit(work_of(1)), executor.next):
            try:
                call()
            except LoaderClosed:
                refused += 1
        executor.reset()
        executor.close()
        os._exit(refused + 10 * executor.closed)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 12
    executor.submit(work_of(2))
    assert sorted(outcome.step for outcome in outcomes(executor, 2)) == [0, 2]
    executor.close()


FORKING = """
import os, sys, warnings
import headrace
warnings.simplefilter("ignore", DeprecationWarning)
loader = headrace.DataLoader(
    range(40), 2, num_workers=2, backend="processes", multiprocessing_context="fork", persistent_workers={persistent},
    restart_workers=0,
)
loop = iter(loader)
batches = [next(loop).tolist()]
child = os.fork()
if child == 0:
    try:
        next(loop)
    except headrace.errors.LoaderClosed:
        loop.close()
        assert [n for batch in loader for n in batch.tolist()] == list(range(40))
        loader.close()
        sys.exit(7)  # through all that multiprocessing does at exit
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
batches += [batch.tolist() for batch in loop]
assert sum(batches, []) == list(range(40)), batches
"""


@pytest.mark.parametrize("persistent", [False, True])
def test_a_forked_child_leaves_the_parents_loop_alone(persistent: bool) -> None:
    """Raise LoaderClosed in the child, give it workers of its own, and end none of the parent's when it exits."""
    script = FORKING.format(persistent=persistent)
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=250, check=False)
    assert (run.returncode, run.stderr) == (0, "")


def test_old_answers_are_not_taken_for_new_ones() -> None:
    """Leave an epoch in the middle, many times; workers stay, and the next one gets its own batches."""
    loader = DataLoader(
        range(200), 2, num_workers=3, persistent_workers=True, in_order=False, threads_per_worker=2, seed=0, **FORK
    )
    pids = set()
    for left_after in (1, 5, 0, 30, 7, 100):
        loop, seen = iter(loader), []
        for _ in range(left_after):
            batch = next(loop, None)
            if batch is None:
                break
            seen += batch.tolist()
        loop.close()  # type: ignore[attr-defined]
        pids.add(tuple(each.process.pid for each in loader._session._kept._workers))  # type: ignore[union-attr]
        assert len(seen) == len(set(seen)) == min(2 * left_after, 200)
    assert sorted(n for batch in loader for n in batch.tolist()) == list(range(200))
    assert len(pids) == 1
    loader.close()


def test_fanned_streams_on_threads_of_persistent_processes_in_any_order() -> None:
    """Give every sample once in each of several epochs."""

    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter(range(101))

    loader: DataLoader[Any] = DataLoader(
        Stream(),
        4,
        num_workers=2,
        read_once=True,
        persistent_workers=True,
        in_order=False,
        threads_per_worker=2,
        **FORK,
    )
    for _ in range(3):
        assert sorted(n for batch in loader for n in batch.tolist()) == list(range(101))
    loader.close()


def test_ctrl_c_while_waiting_closes_the_loop_and_says_so_after() -> None:
    """Leave nothing half done that the next call would wait for; the loader can be looped over again."""
    loader = DataLoader(Slow(), 2, num_workers=2, persistent_workers=True, **FORK)
    loop: Any = iter(loader)
    selector = loop._dispatcher.executor._selector

    def interrupted(timeout: float | None = None) -> Any:
        del selector.select  # what waits from now on is the selector's own
        signal.raise_signal(signal.SIGINT)

    selector.select = interrupted
    with pytest.raises(KeyboardInterrupt):
        next(loop)
    with pytest.raises(LoaderClosed):
        next(loop)
    loader.close()


class Slow(Squares):
    def __getitem__(self, index: int) -> int:
        threading.Event().wait(600)
        return index
