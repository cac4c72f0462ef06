"""Iterators that threads share, and iterators that run ahead in a thread."""

from __future__ import annotations

import contextvars
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

import headrace
from headrace import DataLoader, ThreadSafeIterator, prefetch, threadsafe_generator
from headrace.errors import ArgumentError, IterationError

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


class Boom(Exception):
    pass


def counting(log: list[Any], *, until: int = 10, fails_at: int | None = None) -> Iterator[int]:
    """Numbers; writes down which thread closed it."""
    try:
        for number in range(until):
            if number == fails_at:
                raise Boom(f"at {number}")
            yield number
    finally:
        log.append(threading.get_ident())


def on_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """Run the same on many threads that begin together; return their results, or their errors."""
    barrier = threading.Barrier(count)

    def run() -> Any:
        barrier.wait()
        try:
            return work()
        except Boom as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(run) for _ in range(count)]]


def test_many_items_go_to_sixteen_threads_once_each() -> None:
    """Lose none, give none twice, keep each thread's items in order."""
    shared = ThreadSafeIterator(number for number in range(200_000))
    taken = on_threads(16, lambda: np.fromiter(shared, np.int64))
    assert all((np.diff(mine) > 0).all() for mine in taken)
    assert np.array_equal(np.sort(np.concatenate(taken)), np.arange(200_000))
    with pytest.raises(StopIteration):
        next(shared)


def test_many_items_come_through_prefetch_once_each_and_in_order() -> None:
    """Deliver everything, to one thread in order, to sixteen once."""
    taken = on_threads(1, lambda: np.fromiter(prefetch(range(100_000), 100), np.int64))
    assert np.array_equal(taken[0], np.arange(100_000))
    ahead = prefetch(range(200_000), 100)
    taken = on_threads(16, lambda: np.fromiter(ahead, np.int64))
    assert np.array_equal(np.sort(np.concatenate(taken)), np.arange(200_000))


@pytest.mark.parametrize("make", [ThreadSafeIterator, prefetch], ids=["shared", "prefetch"])
class TestWhatBothPromise:
    """One suite for the two."""

    def test_an_error_reaches_every_thread(self, make: Any) -> None:
        """Raise the same object in all threads, after the items before it, and for ever."""
        log: list[int] = []
        shared = make(counting(log, fails_at=5))
        items: list[int] = []

        def work() -> None:
            items.extend(shared)

        errors = on_threads(8, work)
        assert sorted(items) == [0, 1, 2, 3, 4]
        assert all(isinstance(error, Boom) for error in errors)
        assert len(set(map(id, errors))) == 1
        with pytest.raises(Boom, match="at 5") as info:
            next(shared)
        assert info.traceback[-1].name == "counting"
        assert len(log) == 1

    def test_the_traceback_does_not_grow(self, make: Any) -> None:
        """Raise the error again from where it happened."""
        shared = make(counting([], fails_at=0))
        depths = []
        for _ in range(4):
            with pytest.raises(Boom) as info:
                next(shared)
            depths.append(len(info.traceback))
        assert len(set(depths[1:])) == 1

    def test_an_end_is_an_end(self, make: Any) -> None:
        """Do not ask an iterator again that has ended, even if it would continue."""
        answers = iter([1, StopIteration, 2])

        class Wakes:
            def __iter__(self) -> Iterator[int]:
                return self

            def __next__(self) -> int:
                answer = next(answers)
                if answer is StopIteration:
                    raise StopIteration
                return answer

        shared = make(Wakes())
        assert (list(shared), list(shared)) == ([1], [])

    def test_close_ends_it_and_runs_the_generators_end(self, make: Any) -> None:
        """Close once, in the thread that the generator ran in last; then there is nothing left."""
        log: list[int] = []
        shared = make(counting(log))
        assert next(shared) == 0
        shared.close()
        shared.close()
        assert len(log) == 1
        assert list(shared) == []

    def test_leaving_a_with_block_closes(self, make: Any) -> None:
        """Be a context manager."""
        log: list[int] = []
        with make(counting(log)) as shared:
            assert next(shared) == 0
            assert not log
        assert len(log) == 1

    def test_what_a_generator_raises_when_it_is_closed_is_reported(self, make: Any) -> None:
        """Raise it from close, once."""

        def stubborn() -> Iterator[int]:
            try:
                yield 1
                yield 2
            finally:
                raise Boom("while closing")

        shared = make(stubborn())
        assert next(shared) == 1
        with pytest.raises(Boom, match="while closing"):
            shared.close()
        shared.close()
        assert list(shared) == []

    def test_pulling_from_itself_is_an_error(self, make: Any) -> None:
        """Refuse where a lock or a queue would wait for ever, and continue after it if the generator does."""

        def snake() -> Iterator[Any]:
            started.wait()
            try:
                next(shared)
            except IterationError as error:
                yield str(error)
            yield "on"

        started = threading.Event()
        shared = make(snake())
        started.set()
        assert "was reading from it" in next(shared)
        assert list(shared) == ["on"]

    def test_a_generator_may_close_itself(self, make: Any) -> None:
        """End after the item at hand."""

        def brief() -> Iterator[int]:
            started.wait()
            shared.close()
            yield 1
            yield 2

        started = threading.Event()
        shared = make(brief())
        started.set()
        assert len(list(shared)) <= 1
        assert list(shared) == []

    def test_a_forked_process_is_refused(self, make: Any) -> None:
        """Raise in the child, where items would come twice or never; close and drop in silence there."""
        shared = make(counting([]))
        assert next(shared) == 0
        child = os.fork()
        if child == 0:
            status = 1
            try:
                next(shared)
            except IterationError:
                shared.close()
                del shared
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert next(shared) == 1
        shared.close()

    @pytest.mark.parametrize("thing", [7, None, object()])
    def test_what_cannot_be_iterated_over_is_refused_at_once(self, make: Any, thing: Any) -> None:
        """Say so where it is given."""
        with pytest.raises(ArgumentError, match="can be iterated over"):
            make(thing)
        with pytest.raises(TypeError):
            make(thing)

    def test_it_takes_what_a_for_loop_takes(self, make: Any) -> None:
        """Take lists, loaders, and what has only an index."""

        class Old:
            def __getitem__(self, index: int) -> int:
                return [5, 6][index]

        assert list(make([1, 2])) == [1, 2]
        assert list(make(Old())) == [5, 6]
        assert [batch.tolist() for batch in make(DataLoader(range(4), 2, num_workers=1))] == [[0, 1], [2, 3]]


def test_close_does_not_wait_for_a_thread_that_is_inside() -> None:
    """Let it have its item; it closes the generator on its way out, and the next pull ends."""
    entered, leave = threading.Event(), threading.Event()
    log: list[int] = []

    def slow() -> Iterator[int]:
        try:
            entered.set()
            leave.wait()
            yield 1
            yield 2
        finally:
            log.append(threading.get_ident())

    shared = ThreadSafeIterator(slow())
    taken: list[int] = []
    thread = threading.Thread(target=lambda: taken.extend(shared))
    thread.start()
    entered.wait()
    shared.close()
    assert log == []
    leave.set()
    thread.join()
    assert taken == [1]
    assert log == [thread.ident]


def test_threads_that_close_while_others_pull_never_leave_it_open() -> None:
    """Close the generator exactly once, whoever comes first."""
    for _ in range(200):
        log: list[int] = []
        shared = ThreadSafeIterator(counting(log, until=1000))
        turns = iter([shared.close, partial(list, shared), partial(list, shared), shared.close])
        on_threads(4, lambda turns=turns: next(turns)())
        assert len(log) <= 1  # a generator that was never begun has nothing to end
        assert list(shared) == []
        assert shared._source is None


def test_the_decorator_makes_one_iterator_a_call() -> None:
    """Keep name and docstring; work on methods; pass arguments and errors on."""

    class Reader:
        @threadsafe_generator
        def lines(self, count: int) -> Iterator[int]:
            """Give lines."""
            yield from range(count)

    assert Reader.lines.__name__ == "lines"
    assert Reader.lines.__doc__ == "Give lines."
    first, second = Reader().lines(3), Reader().lines(count=2)
    assert isinstance(first, ThreadSafeIterator)
    assert (list(first), list(second)) == ([0, 1, 2], [0, 1])
    with pytest.raises(TypeError):
        Reader().lines()  # type: ignore[call-arg]


async def asynchronous() -> Any:
    yield 1


@pytest.mark.parametrize("thing", [7, [1], asynchronous])
def test_only_functions_are_decorated(thing: Any) -> None:
    """Refuse what returns no iterator."""
    with pytest.raises(ArgumentError, match="decorates a function"):
        threadsafe_generator(thing)


def test_prefetch_makes_no_more_than_it_was_asked_for() -> None:
    """Make n items before the first is taken, and one more for each that is."""
    made = threading.Semaphore(0)
    count = 0

    def numbers() -> Iterator[int]:
        nonlocal count
        while True:
            count += 1
            made.release()
            yield count

    with prefetch(numbers(), 3) as ahead:
        for _ in range(3):
            made.acquire()
        assert count == 3
        assert next(ahead) == 1
        made.acquire()
        assert count == 4
        assert not made.acquire(blocking=False)


def test_prefetch_closes_the_generator_in_its_own_thread() -> None:
    """Run all of the generator in one thread that is not ours: abandoned, dropped or at its end."""
    for end in ("drop", "close", "exhaust"):
        log: list[int] = []
        ahead: Any = prefetch(counting(log), 2)
        thread = ahead._thread
        assert next(ahead) == 0
        if end == "close":
            ahead.close()
        elif end == "exhaust":
            list(ahead)
        del ahead
        gc.collect()
        assert not thread.is_alive()
        assert log == [thread.ident]


def test_prefetch_leaves_what_others_use_open(tmp_path: Any) -> None:
    """Close what it made itself, but no file and no shared iterator that the caller gave it."""
    (tmp_path / "lines").write_text("a\nb\nc\n")
    with (tmp_path / "lines").open() as file:
        with prefetch(file, 1) as lines:
            assert next(lines) == "a\n"
        assert not file.closed
    shared = ThreadSafeIterator(range(10))
    with prefetch(shared, 1) as ahead:
        assert next(ahead) == 0
    assert next(shared) in (1, 2)
    log: list[int] = []
    with prefetch(prefetch(counting(log), 1), 1) as twice:
        assert next(twice) == 0
    del twice
    gc.collect()
    assert len(log) == 1


def test_a_consumer_that_waits_is_woken_by_close() -> None:
    """End its loop when another thread closes."""
    entered, leave, waits = threading.Event(), threading.Event(), threading.Event()

    def stuck() -> Iterator[int]:
        entered.set()
        leave.wait()
        return
        yield

    ahead = prefetch(stuck(), 1)
    taken: list[Any] = []

    def consume() -> None:
        waits.set()
        taken.append(list(ahead))

    consumer = threading.Thread(target=consume)
    consumer.start()
    entered.wait()
    waits.wait()
    closer = threading.Thread(target=ahead.close)
    closer.start()
    leave.set()
    closer.join()
    consumer.join()
    assert taken == [[]]


def test_prefetch_warns_of_a_thread_that_it_leaves_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close within the time, and say what is still running."""
    monkeypatch.setattr("headrace.executors.lifecycle.PATIENCE", 0.01)
    leave = threading.Event()
    ahead = prefetch(iter(leave.wait, None), 1)
    with pytest.warns(RuntimeWarning, match="still making an item"):
        ahead.close()
    leave.set()
    ahead._thread.join()


def test_the_source_sees_the_context_but_not_the_loader() -> None:
    """Copy the context variables of the caller; stand at no sample, and count into no ledger."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    def source() -> Iterator[Any]:
        with headrace.timed("strange"):
            yield variable.get(), np.geterr()["over"], headrace.rng()
        variable.set("changed there")

    class Stream(headrace.IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            ours = headrace.rng()
            for name, over, theirs in prefetch(source()):
                yield name, over, theirs is ours

    variable.set("set")
    with np.errstate(over="raise"):
        loader = DataLoader(Stream(), 1, seed=0)
        assert list(loader) == [[["set"], ["raise"], np.array([False])]]
    assert "strange" not in loader.statistics().stage_seconds
    assert variable.get() == "set"


@pytest.mark.parametrize("n", [0, -1, True, 1.5, "2", None])
def test_prefetch_needs_a_number_of_items(n: Any) -> None:
    """Refuse anything but an integer from 1 up; NumPy's are integers."""
    with pytest.raises(ArgumentError, match="integer from 1 up"):
        prefetch([1], n)
    assert list(prefetch([1], np.int64(1))) == [1]  # type: ignore[arg-type]


def test_the_interpreter_ends_with_iterators_open() -> None:
    """End at once, with the generator closed, while items are still being made ahead."""
    script = (
        "import headrace, itertools\n"
        "def numbers():\n"
        "    try: yield from itertools.count()\n"
        "    finally: print('closed', flush=True)\n"
        "ahead = headrace.prefetch(numbers(), 3)\n"
        "shared = headrace.ThreadSafeIterator(iter([1]))\n"
        "print(next(ahead), next(shared))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("0 1\nclosed\n", "")


def test_an_interrupt_is_no_end() -> None:
    """Tell the other threads of it, rather than that all went well."""

    def interrupted() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    for make in (ThreadSafeIterator, prefetch):
        shared: Any = make(interrupted())
        assert next(shared) == 1
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                next(shared)
