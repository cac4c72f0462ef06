"""The thread in front of the consumer."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from headrace.errors import ArgumentError, LoaderClosed
from headrace.run.ahead import Ahead


def same(item: Any) -> Any:
    return item


class Probe:
    """Items that can be watched, and a record of what was read of them."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.read = 0
        self.reached: dict[int, threading.Event] = {number: threading.Event() for number in range(count + 1)}

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.read == self.count:
            raise StopIteration
        self.read += 1
        self.reached[self.read].set()
        return self.read - 1


def test_results_come_in_order_from_another_thread() -> None:
    """Apply the function in one thread that is not the consumer's, item by item."""
    results = list(Ahead(iter(range(100)), lambda item: (item, threading.get_ident()), 3))
    assert [item for item, _ in results] == list(range(100))
    threads = {thread for _, thread in results}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_no_more_than_depth_results_wait(depth: int) -> None:
    """Read ``depth`` items before anything is taken, and one more for each that is; never more."""
    probe = Probe(20)
    ahead = Ahead(probe, same, depth)
    for taken in range(20 - depth):
        assert probe.reached[taken + depth].wait(60)
        assert probe.read == taken + depth
        assert next(ahead) == taken
    assert list(ahead) == list(range(20 - depth, 20))


def test_the_end_stays_the_end() -> None:
    """Raise StopIteration as often as asked, with the thread gone."""
    before = threading.active_count()
    ahead = Ahead(iter([1]), same, 2)
    assert list(ahead) == [1]
    assert list(ahead) == []
    assert threading.active_count() == before
    ahead.close()
    assert list(ahead) == []


def test_nothing_at_all_is_an_end() -> None:
    """Deliver nothing of nothing."""
    assert list(Ahead(iter([]), same, 1)) == []


def test_an_error_comes_in_its_place_and_the_rest_after_it() -> None:
    """Raise the function's own error at its item; then continue."""

    def picky(item: int) -> int:
        if item == 2:
            raise KeyError("two")
        return item

    ahead = Ahead(iter(range(5)), picky, 4)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(KeyError, match="two") as caught:
        next(ahead)
    assert "picky" in [entry.name for entry in caught.traceback]
    assert list(ahead) == [3, 4]


def test_an_error_of_the_items_comes_in_its_place() -> None:
    """Raise what a generator raises, which is also its end."""

    def broken() -> Iterator[int]:
        yield 0
        raise OSError("the disk is gone")

    ahead = Ahead(broken(), same, 3)
    assert next(ahead) == 0
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)
    assert list(ahead) == []


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError()], ids=repr)
def test_no_error_ends_the_thread_in_silence(error: BaseException) -> None:
    """Carry over every kind of exception, those that would end a thread too."""

    def fails(item: int) -> int:
        raise error

    ahead = Ahead(iter(range(2)), fails, 1)
    for _ in range(2):
        with pytest.raises(type(error)):
            next(ahead)
    assert list(ahead) == []


def test_a_stop_iteration_of_the_function_does_not_end_the_loop() -> None:
    """Turn it into a RuntimeError that says so, and continue."""

    def stops(item: int) -> int:
        if item == 1:
            raise StopIteration
        return item

    ahead = Ahead(iter(range(3)), stops, 2)
    assert next(ahead) == 0
    with pytest.raises(RuntimeError, match=r"stops.*raised StopIteration"):
        next(ahead)
    assert list(ahead) == [2]


def test_no_reference_is_kept_to_what_was_handed_over() -> None:
    """Let an item go as soon as the consumer does, while the thread waits for its next turn."""
    arrays = (np.zeros(8) for _ in range(5))
    ahead = Ahead(arrays, same, 1)
    for _ in range(4):
        alive = weakref.ref(next(ahead))
        assert alive() is None
    ahead.close()


def test_an_error_keeps_nothing_alive_once_it_is_dealt_with() -> None:
    """Leave no cycle behind through the frames that an error came by."""

    class Item:
        pass

    items = [Item(), Item()]
    alive = [weakref.ref(item) for item in items]

    def fails(item: Item) -> None:
        raise ValueError("no")

    gc.collect()
    gc.disable()
    try:
        ahead = Ahead(iter(items), fails, 1)
        for _ in range(2):
            with pytest.raises(ValueError, match="no"):
                next(ahead)
        ahead.close()
        items.clear()
        del ahead
        assert [each() for each in alive] == [None, None]
    finally:
        gc.enable()


def test_a_dropped_iterator_ends_its_thread() -> None:
    """End the thread with the last reference, whether it waits for a turn or not, and let the items go."""
    before = threading.active_count()
    for taken in range(3):
        probe = Probe(100)
        ahead = Ahead(probe, same, 2)
        for _ in range(taken):
            next(ahead)
        alive = weakref.ref(probe)
        del ahead, probe
        assert threading.active_count() == before
        assert alive() is None


def test_closing_lets_waiting_results_go_and_a_later_next_says_so() -> None:
    """Free what was made and not taken; then say that the loader was closed, as often as asked."""
    array = np.zeros(4)
    alive = weakref.ref(array)
    probe = Probe(3)
    ahead = Ahead(probe, lambda _, of=array: of[:], 2)
    assert probe.reached[2].wait(60)
    del array
    ahead.close()
    ahead.close()
    for _ in range(2):
        with pytest.raises(LoaderClosed):
            next(ahead)
    assert alive() is None


def test_closing_wakes_the_items_that_the_thread_waits_for() -> None:
    """Call ``close`` first, so that a wait which would never end does, and the consumer that waits too."""
    reached, gone = threading.Event(), threading.Event()

    def never() -> Iterator[int]:
        reached.set()
        gone.wait()
        return
        yield

    ahead = Ahead(never(), same, 1, close=gone.set)
    said: list[type[BaseException]] = []

    def consume() -> None:
        try:
            next(ahead)
        except (LoaderClosed, StopIteration) as error:
            said.append(type(error))

    consumer = threading.Thread(target=consume)
    consumer.start()
    assert reached.wait(60)
    ahead.close()
    consumer.join(60)
    assert said in ([LoaderClosed], [StopIteration])  # the items may be first to say that they have ended


def test_what_comes_then_comes_when_the_thread_has_ended() -> None:
    """Call ``then`` once, with nobody at the items any more, when closed, dropped or at the end."""
    for way in ("close", "drop", "end"):
        threads: list[int] = []
        probe = Probe(3)
        before = threading.active_count()
        ahead = Ahead(probe, same, 1, then=lambda threads=threads: threads.append(threading.active_count()))
        assert probe.reached[1].wait(60)
        assert threads == []
        if way == "end":
            assert list(ahead) == [0, 1, 2]
        if way == "drop":
            del ahead
        else:
            ahead.close()
            ahead.close()
        assert threads == [before]


def test_a_generator_is_closed_with_the_iterator() -> None:
    """Run the generator's own clean-up when the loop is left early."""
    cleaned = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            cleaned.set()

    ahead = Ahead(numbers(), same, 1)
    next(ahead)
    ahead.close()
    assert cleaned.is_set()


def test_a_fork_gets_an_error_not_a_hang() -> None:
    """Say in a forked child that the thread stayed behind; the parent's loop continues undisturbed."""
    ahead = Ahead(iter(range(3)), same, 1, close=lambda: os.write(2, b"closed in the child"))
    assert next(ahead) == 0
    reader, writer = os.pipe()
    with pytest.warns(DeprecationWarning, match="fork") if sys.version_info >= (3, 12) else contextlib.nullcontext():
        pid = os.fork()
    if pid == 0:
        answer = b"none"
        try:
            next(ahead)
        except LoaderClosed:
            ahead.close()
            answer = b"closed"
        finally:
            os.write(writer, answer)
            os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(reader, 100) == b"closed"
    os.close(reader)
    os.close(writer)
    assert list(ahead) == [1, 2]


def test_the_interpreter_exits_with_a_loop_still_running() -> None:
    """Exit quietly, in the middle of a loop, with the thread waiting or at work."""
    script = """
import itertools, threading
from headrace.run.ahead import Ahead
waiting = Ahead(itertools.count(), str, 2)
gone = threading.Event()
def never():
    gone.wait()
    yield
working = Ahead(never(), str, 2, close=gone.set)
print(next(waiting))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=250, check=True)
    assert (run.stdout, run.stderr) == ("0\n", "")


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_below_one_is_refused(depth: int) -> None:
    """Say what depth must be."""
    with pytest.raises(ArgumentError, match="from 1 up"):
        Ahead(iter([]), same, depth)
