"""An executor that changes to another one while it works."""

from __future__ import annotations

import multiprocessing
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import LoaderClosed, WorkerTimeout
from headrace.executors.changing import Changing, ReusableChanging
from headrace.executors.inline import Inline
from headrace.executors.processes.pool import Processes
from headrace.executors.threads import Threads
from headrace.plan.work import Done
from headrace.testing import ExecutorTests
from headrace.testing.executors import Noise, Squares, maker_of, work_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.executors.base import Executor
    from headrace.make.maker import Maker

FORK = multiprocessing.get_context("fork")

KINDS: dict[str, Callable[[Maker], Executor]] = {
    "inline": Inline,
    "one thread": lambda maker: Threads(maker, 1),
    "threads": lambda maker: Threads(maker, 3, prefetch=1),
    "processes": lambda maker: Processes(maker, 2, context=FORK),
}


class _Swapping:
    """Changes the executor before every other work."""

    def __init__(self, maker: Maker, kinds: list[str], *, after: bool) -> None:
        self.maker, self.kinds, self.after = maker, kinds, after
        self.inner = Changing(KINDS[kinds[0]](maker))
        self.capacity, self.count = self.inner.capacity, 0

    def submit(self, work: Any) -> None:
        if self.count and self.count % 2 == 0:
            kind = self.kinds[self.count // 2 % len(self.kinds)]
            self.inner.change(lambda: KINDS[kind](self.maker), after=self.after)
        self.count += 1
        self.inner.submit(work)

    def next(self, timeout: float | None = None) -> Any:
        return self.inner.next(timeout)

    def close(self) -> None:
        self.inner.close()


class TestThatChangesAtOnce(ExecutorTests):
    """The suite, with another executor for every other work, while those before are at work."""

    def make(self, maker: Maker) -> Executor:
        """Return an executor that changes."""
        return _Swapping(maker, ["one thread", "inline", "threads"], after=False)


class TestThatWaits(ExecutorTests):
    """The suite, with another executor for every other work, each begun when those before have nothing in hand."""

    def make(self, maker: Maker) -> Executor:
        """Return an executor that changes."""
        return _Swapping(maker, ["threads", "inline", "one thread"], after=True)


@settings(max_examples=15)
@given(
    steps=st.lists(st.sampled_from(["submit", "next", *KINDS]), min_size=5, max_size=40),
    after=st.booleans(),
)
def test_each_work_is_made_once_whatever_is_changed_when(steps: list[str], after: bool) -> None:
    """Submit, take and change at random; each outcome comes once, with the bytes of that work."""
    maker = maker_of(Noise())
    expected = Inline(maker)
    executor = Changing(Threads(maker, 2))
    begun = 0
    outcomes: list[Any] = []
    try:
        for step in steps:
            if step == "submit":
                executor.submit(work_of(begun))
                begun += 1
            elif step in KINDS:
                executor.change(partial(KINDS[step], maker), after=after)
            elif begun > len(outcomes):
                outcomes.append(executor.next())
        outcomes += [executor.next() for _ in range(begun - len(outcomes))]
    finally:
        executor.close()
    assert sorted(outcome.step for outcome in outcomes) == list(range(begun))
    for outcome in outcomes:
        assert isinstance(outcome, Done)
        np.testing.assert_array_equal(outcome.batch, expected.make(work_of(outcome.step)).batch)  # type: ignore[union-attr]


def test_the_old_executor_ends_when_its_last_work_is_taken() -> None:
    """Leave no thread of an executor that has nothing in hand any more."""
    before = threading.active_count()
    maker = maker_of(Squares())
    executor = Changing(Threads(maker, 2))
    executor.submit(work_of(0))
    executor.change(lambda: Inline(maker))
    executor.submit(work_of(1))
    assert executor.next().step == 0
    assert threading.active_count() == before
    assert executor.next().step == 1
    executor.close()


@pytest.mark.parametrize("after", [False, True])
def test_an_executor_that_cannot_be_made_is_reported_and_the_old_one_stays(after: bool) -> None:
    """Lose no work where the next executor raises an error."""

    def broken() -> Executor:
        raise OSError("no more processes")

    errors: list[Exception] = []
    executor = Changing(Threads(maker_of(Squares()), 1))
    executor.submit(work_of(0))
    executor.change(broken, after=after, failed=errors.append)
    executor.submit(work_of(1))
    assert [executor.next().step, executor.next().step] == [0, 1]
    assert [str(error) for error in errors] == ["no more processes"]
    with pytest.raises(OSError, match="no more processes"):
        executor.change(broken)
    executor.close()


def test_closing_ends_both_executors_and_wakes_whoever_waits() -> None:
    """Close while the old executor is at work and the new one waits."""
    maker = maker_of(Squares())
    before = threading.active_count()
    executor = Changing(Threads(maker, 1))
    executor.submit(work_of(0))
    executor.change(lambda: Threads(maker, 2))
    executor.submit(work_of(1))
    executor.close()
    assert threading.active_count() == before
    for call in (executor.next, lambda: executor.submit(work_of(2)), lambda: executor.change(lambda: Inline(maker))):
        with pytest.raises(LoaderClosed):
            call()


def test_a_new_executor_is_closed_where_another_thread_has_closed_meanwhile() -> None:
    """Leave no workers that were started while the loop was being closed."""
    maker = maker_of(Squares())
    before = threading.active_count()
    executor = Changing(Inline(maker))

    def make() -> Executor:
        executor.close()
        return Threads(maker, 2)

    with pytest.raises(LoaderClosed):
        executor.change(make)
    assert threading.active_count() == before


def test_a_timeout_is_that_of_the_executor_at_work() -> None:
    """Pass the timeout on, and forget no work by it."""
    release = threading.Event()

    class Slow(Squares):
        def __getitem__(self, index: int) -> Any:
            release.wait(60)
            return super().__getitem__(index)

    executor = Changing(Threads(maker_of(Slow()), 1))
    executor.submit(work_of(0))
    with pytest.raises(WorkerTimeout):
        executor.next(timeout=0.01)
    release.set()
    assert executor.next().step == 0
    executor.close()


def test_workers_that_stay_forget_what_was_asked_for() -> None:
    """Reset while a change waits: the works in hand are gone, and the newest workers serve the next epoch."""
    maker = maker_of(Squares())
    executor = ReusableChanging(Processes(maker, 1, context=FORK))
    executor.submit(work_of(0))
    executor.change(lambda: Processes(maker, 2, context=FORK), after=True)
    executor.submit(work_of(1))
    executor.reset()
    assert len(executor.processes) == 1
    assert not executor.closed
    executor.submit(work_of(7))
    assert executor.next().step == 7
    executor.close()
    assert executor.closed
