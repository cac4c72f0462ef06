"""The executor of threads."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from headrace.errors import LoaderClosed, WorkerTimeout
from headrace.executors.thread_tasks import ThreadTasks
from headrace.executors.threads import Threads
from headrace.make.maker import Maker, Stop
from headrace.testing.executors import ExecutorTests, Squares, maker_of, work_of

if TYPE_CHECKING:
    from collections.abc import Callable


class TestOneThread(ExecutorTests):
    def make(self, maker: Maker) -> Threads:
        return Threads(maker, workers=1)


class TestSevenThreads(ExecutorTests):
    def make(self, maker: Maker) -> Threads:
        return Threads(maker, workers=7)


class Gate(Squares):
    """A dataset whose sample 0 waits until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.opened = threading.Event(), threading.Event()

    def __getitem__(self, index: int) -> int:
        if index == 0:
            self.reached.set()
            assert self.opened.wait(60)
        return index


def test_outcomes_come_in_the_order_they_are_ready() -> None:
    """Deliver a quick batch before a slow one that was submitted first."""
    gate = Gate()
    executor = Threads(maker_of(gate), workers=2)
    executor.submit(work_of(0))
    executor.submit(work_of(1))
    assert executor.next(timeout=250).step == 1
    gate.opened.set()
    assert executor.next(timeout=250).step == 0
    executor.close()


def test_a_timeout_names_the_worker_the_sample_and_its_stack() -> None:
    """Say which thread is in which sample, and where in the user's code."""
    gate = Gate()
    executor = Threads(maker_of(gate), workers=1)
    executor.submit(work_of(0))
    assert gate.reached.wait(60)
    said = ""
    while "assert self.opened.wait(60)" not in said:  # until the thread is at that line
        with pytest.raises(WorkerTimeout) as caught:
            executor.next(timeout=0.01)
        said = str(caught.value)
    assert "headrace-0: sample 0 of batch 0" in said
    gate.opened.set()
    assert executor.next(timeout=250).step == 0
    executor.close()


def test_closing_ends_a_batch_between_two_samples() -> None:
    """Stop after the sample at hand, not after the batch: the rest of it is never read."""
    read: list[int] = []

    class Counted(Gate):
        def __getitem__(self, index: int) -> int:
            read.append(index)
            return super().__getitem__(index)

    gate = Counted()
    executor = Threads(maker_of(gate), workers=1)
    executor.submit(work_of(0, size=500))
    assert gate.reached.wait(60)
    closing = threading.Thread(target=executor.close)
    closing.start()
    while executor._finish.alive:  # closing has begun once the finalizer is spent
        pass
    gate.opened.set()
    closing.join()
    assert read == [0]


def test_closing_wakes_a_consumer_that_waits() -> None:
    """Raise LoaderClosed in a thread that stands in next while another closes."""
    executor = Threads(maker_of(Squares()), workers=1)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            executor.next()
        except LoaderClosed as error:
            caught.append(error)

    consumer = threading.Thread(target=wait)
    consumer.start()
    executor.close()
    consumer.join(60)
    assert len(caught) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Python 3.12 warns of forking with threads: the very case
def test_a_forked_child_gets_an_error_instead_of_waiting_for_ever() -> None:
    """Raise in a child process that continues with its parent's loop: the threads are not there."""
    executor = Threads(maker_of(Squares()), workers=1)
    pid = os.fork()
    if pid == 0:
        try:
            executor.next()
        except LoaderClosed:
            executor.close()
            os._exit(17)
        os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 17
    executor.close()


def test_a_stuck_worker_is_left_behind_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for ever for a sample that does not end; say which one it is."""
    monkeypatch.setattr("headrace.executors.lifecycle.PATIENCE", 0.05)
    gate = Gate()
    executor = Threads(maker_of(gate), workers=1)
    executor.submit(work_of(0))
    assert gate.reached.wait(60)
    with pytest.warns(RuntimeWarning, match=r"headrace-0 .* sample 0 of batch 0"):
        executor.close()
    gate.opened.set()


SCRIPT = """
import headrace
loader = headrace.DataLoader(range(1_000_000), batch_size=10, num_workers=4)
iterator = iter(loader)
next(iterator)
{end}
"""


@pytest.mark.parametrize(
    ("end", "code"),
    [("", 0), ("raise SystemExit(5)", 5), ("raise ValueError('x')", 1), ("keep = [iterator]; keep.append(keep)", 0)],
    ids=["running off the end", "sys.exit", "an error", "held in a cycle"],
)
def test_the_interpreter_ends_with_a_loop_still_running(end: str, code: int) -> None:
    """Leave a script in the middle of a loop: it ends at once, without a message of ours."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=end)], capture_output=True, text=True, timeout=250, check=False
    )
    assert run.returncode == code
    assert run.stderr.count("Traceback") == (1 if code == 1 else 0)
    assert "headrace" not in run.stderr


def test_a_thread_helps_with_an_older_batch_before_it_makes_its_own() -> None:
    """The next batch is ready as early as can be, though each thread has begun one."""
    order = list[str]()
    tasks: ThreadTasks[None] = ThreadTasks(2, Stop())

    class Rows:
        def __init__(self, name: str, meanwhile: Callable[[], None] = int) -> None:
            self.name, self.left, self.meanwhile = name, 10**9, meanwhile

        def run(self) -> None:
            meanwhile, self.meanwhile = self.meanwhile, int
            meanwhile()
            if self.left:
                order.append(self.name)
                self.left = 0

        def wait(self) -> None: ...

        def stop(self) -> None: ...

    def begin_the_next() -> None:
        thread = threading.Thread(target=tasks.share, args=(Rows("second"),))
        thread.start()
        thread.join()

    tasks.share(Rows("first", begin_the_next))
    assert order == ["first", "second"]
