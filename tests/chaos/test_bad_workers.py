"""Workers that misbehave, whichever way they were started; want of memory; loaders in odd places."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import re
import resource
import threading
import warnings
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader, IterableDataset
from headrace.errors import WorkerDied, WorkerTimeout
from headrace.executors import lifecycle

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*")
METHODS = ["fork", "forkserver", "spawn"]


@pytest.fixture(scope="module", autouse=True)
def helpers_of_multiprocessing() -> None:
    """Start the two processes that multiprocessing starts once and leaves running, before leaks are counted."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()


class Bad:
    """Sample 5 goes wrong in the way that was asked for."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Any:
        if index != 5:
            return index
        if self.how == "exit":
            os._exit(0)
        if self.how == "sample":
            return threading.Lock()
        if self.how == "stop":
            raise StopIteration
        if self.how == "hang":
            threading.Event().wait(600)

        class Local(LookupError):
            def __reduce__(self) -> Any:
                raise TypeError("no pickle of this")

        raise Local("out of reach")


class BadStream(Bad, IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        for index in range(16):
            yield self[index]


def as_list(samples: list[Any]) -> list[Any]:
    return samples


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Bad, BadStream])
@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("exit", WorkerDied, r"exit code 0 \(worker process 0, at sample 5 of .*Something in the dataset ended the"),
        ("sample", TypeError, "the batch cannot be sent from a worker process: cannot pickle '_thread.lock' object"),
        ("stop", RuntimeError, "raised StopIteration"),
        ("error", RuntimeError, "Local: out of reach"),
    ],
)
def test_what_a_worker_does_wrong_is_an_error_of_its_batch(
    method: str, kind: Any, how: str, error: type[Exception], words: str
) -> None:
    """Raise it at its step, with its cause; never wait for ever, never end early."""
    loader = DataLoader(
        kind(how), 4, num_workers=1, backend="processes", multiprocessing_context=method, collate_fn=as_list
    )
    loop: Any = iter(loader)
    assert next(loop) == [0, 1, 2, 3]
    with pytest.raises(error, match=words) as caught:
        next(loop)
    assert any("batch 1: sample 5" in note or "batch 1: the finished batch" in note for note in caught.value.__notes__)
    if how == "error":
        assert "in __getitem__" in str(caught.value.__cause__)
    if kind is Bad:
        assert [n for batch in loop for n in batch] == [*range(8, 16)]
    loop.close()


def hung(method: str, **more: Any) -> Any:
    """Return a loop whose worker hangs in sample 5 of batch 1."""
    loader = DataLoader(Bad("hang"), 4, num_workers=1, backend="processes", multiprocessing_context=method, **more)
    loop: Any = iter(loader)
    said = first = None
    while first is None:
        with contextlib.suppress(WorkerTimeout):  # while it starts
            first = next(loop)
    while not (said and re.search("sample 5 of batch 1.* in __getitem__", said, re.DOTALL)):
        with pytest.raises(WorkerTimeout) as caught:
            loop._dispatcher.executor.next(timeout=0.1)
        said = str(caught.value)
    return loop


def kill(loop: Any) -> None:
    for each in loop._dispatcher.executor._workers:
        each.process.kill()


@pytest.mark.parametrize("method", METHODS)
def test_a_hung_worker_is_named_with_its_sample_and_its_stack(method: str) -> None:
    """Say so after ``timeout`` seconds."""
    loop = hung(method, timeout=0.5)
    with pytest.raises(WorkerTimeout, match=r"timed out after 0\.5 seconds") as caught:
        next(loop)
    stack = r"worker process 0 .*sample 5 of batch 1.*Stack.* in __getitem__"
    assert re.search(stack, str(caught.value), re.DOTALL)
    kill(loop)
    loop.close()


def test_without_a_timeout_a_hung_worker_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name it with its stack, after half a minute (here: half a second), and go on waiting: here, until its death."""
    loop = hung("fork", restart_workers=0)
    monkeypatch.setattr(lifecycle, "STUCK", 0.5)

    def killing(message: Any, *_: Any) -> None:
        said.append(str(message))
        kill(loop)

    said: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = killing
        with pytest.raises(WorkerDied, match=r"SIGKILL \(worker process 0, at sample 5 of batch 1\)"):
            next(loop)
    assert len(said) == 1
    assert re.search("no batch came within 0.5 s.*sample 5 of batch 1.* in __getitem__", said[0], re.DOTALL)


def limit_files(number: int) -> None:
    """Leave no shared memory of any size to be had: what a full machine says, the kernel says for a limit too."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def limit_addresses(number: int, room: int = 130 << 20) -> None:
    """Leave room for a few batches at a time, but not for all slots."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, resource.getrlimit(resource.RLIMIT_AS)[1]))


def limit_memory(number: int) -> None:
    """Leave room for a batch, and not for a second copy of it."""
    limit_addresses(number, room=90 << 20)


class Rows:
    """Of 12 MB each. A batch is above 32 MiB, so that its memory is never what malloc still has from before."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> np.ndarray:
        return np.full(3_000_000, index, np.float32)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("limit", [limit_files, limit_addresses])
def test_batches_come_over_the_socket_where_there_is_no_shared_memory(method: str, limit: Any) -> None:
    """Deliver all of them, of 36 MB each, where a slot cannot be made, or not be mapped; kill nobody."""
    how: dict[str, Any] = {"num_workers": 1, "backend": "processes", "multiprocessing_context": method}
    loader = DataLoader(Rows(), 3, worker_init_fn=limit, restart_workers=0, **how)
    assert [np.unique(batch).tolist() for batch in loader] == [[n, n + 1, n + 2] for n in range(0, 12, 3)]


@pytest.mark.parametrize("method", METHODS)
def test_want_of_memory_is_an_error_of_the_batch_and_kills_nobody(method: str) -> None:
    """Raise MemoryError where not even a copy of the batch can be made, of 48 MB; the worker stays."""
    how: dict[str, Any] = {"num_workers": 1, "backend": "processes", "multiprocessing_context": method}
    loop: Any = iter(DataLoader(Rows(), 4, worker_init_fn=limit_memory, restart_workers=0, **how))
    with pytest.raises(MemoryError):
        for _ in loop:
            pass
    assert loop._dispatcher.executor._workers[0].process.is_alive()
    loop.close()


class Nested:
    """A dataset whose samples are epochs of loaders of their own."""

    def __init__(self, method: str, depth: int) -> None:
        self.method, self.depth = method, depth

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        if not self.depth:
            return 1
        inner = Nested(self.method, self.depth - 1)
        loader = DataLoader(inner, 1, num_workers=2, backend="processes", multiprocessing_context=self.method)
        return sum(int(batch.sum()) for batch in loader)


@pytest.mark.parametrize(("method", "depth"), [("fork", 2), ("forkserver", 1), ("spawn", 1)])
def test_loaders_run_inside_workers_of_loaders(method: str, depth: int) -> None:
    """Start processes from processes, and leave none."""
    loader = DataLoader(Nested(method, depth), 2, num_workers=1, backend="processes", multiprocessing_context=method)
    assert [batch.tolist() for batch in loader] == [[2**depth, 2**depth]]


@pytest.mark.parametrize("method", METHODS)
def test_loaders_run_inside_threads(method: str) -> None:
    """Start, use and end workers from many threads at the same time."""
    found: queue.SimpleQueue[list[int]] = queue.SimpleQueue()

    def run() -> None:
        loader = DataLoader(range(40), 4, num_workers=2, backend="processes", multiprocessing_context=method)
        found.put([n for _ in range(2) for batch in loader for n in batch.tolist()])

    threads = [threading.Thread(target=run, name=f"headrace-test-{n}") for n in range(6 if method == "fork" else 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found.get_nowait() == [*range(40)] * 2 for _ in threads)


def test_forking_with_threads_running_is_warned_of() -> None:
    """Name the thread, and forkserver."""
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="somebody's")
    thread.start()
    context = multiprocessing.get_context("fork")
    try:
        with pytest.warns(RuntimeWarning, match=r"while other threads run \(somebody's\).*'forkserver' has no such"):
            list(DataLoader(range(4), num_workers=1, backend="processes", multiprocessing_context=context))
    finally:
        stop.set()
        thread.join()
