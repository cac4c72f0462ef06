"""What must hold for every executor; a new one inherits the suite: ``class TestRay(ExecutorTests): make = …``."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from headrace.collate.default import default_collate
from headrace.context.seeds import key_of, rng
from headrace.errors import LoaderClosed
from headrace.executors.base import Executor
from headrace.make.maker import Maker
from headrace.make.source import Indexed
from headrace.plan.work import Done, Failed, Work


class Squares:
    """A dataset that knows how to go wrong."""

    def __init__(self, errors: dict[int, BaseException] | None = None) -> None:
        self.errors = errors or {}

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> int:
        if index in self.errors:
            raise self.errors[index]
        return index * index


class Noise(Squares):
    def __getitem__(self, index: int) -> float:
        return float(rng().random())


def maker_of(dataset: Any) -> Maker:
    return Maker(Indexed(dataset), default_collate)


def work_of(step: int, size: int = 3) -> Work:
    return Work(key_of(7), epoch=0, step=step, start=step * size, keys=range(step * size, (step + 1) * size))


class ExecutorTests:
    """Inherited by the tests of each executor."""

    def make(self, maker: Maker) -> Executor:
        raise NotImplementedError

    def outcomes(self, dataset: Any, steps: int) -> dict[int, Done | Failed]:
        executor = self.make(maker_of(dataset))
        try:
            for step in range(steps):
                executor.submit(work_of(step))
            return {outcome.step: outcome for outcome in (executor.next() for _ in range(steps))}
        finally:
            executor.close()

    def test_every_work_gets_exactly_one_outcome(self) -> None:
        """Submit many works at once; each comes back once, with its own samples."""
        outcomes = self.outcomes(Squares(), 50)
        assert sorted(outcomes) == list(range(50))
        for step, outcome in outcomes.items():
            assert isinstance(outcome, Done)
            np.testing.assert_array_equal(outcome.batch, [k * k for k in work_of(step).keys])

    @pytest.mark.parametrize(
        "error",
        [ValueError("no"), KeyError("k"), SystemExit(3), KeyboardInterrupt(), GeneratorExit(), MemoryError()],
        ids=lambda error: type(error).__name__,
    )
    def test_an_error_takes_the_place_of_its_batch(self, error: BaseException) -> None:
        """Raise anything in a dataset; the outcome of that step is that very error, and all others are made."""
        outcomes = self.outcomes(Squares({4: error}), 4)
        failed = outcomes.pop(1)
        assert isinstance(failed, Failed)
        assert type(failed.error) is type(error)
        assert failed.error.args == error.args
        assert all(isinstance(outcome, Done) for outcome in outcomes.values())

    def test_an_error_says_where_it_happened(self) -> None:
        """Say in words which sample it was, and who made it."""
        failed = self.outcomes(Squares({4: ValueError("no")}), 2)[1]
        assert isinstance(failed, Failed)
        assert failed.place.startswith("sample 4, made by ")

    def test_a_stop_iteration_cannot_end_the_epoch(self) -> None:
        """Turn a StopIteration that escapes the dataset into a RuntimeError that says so."""
        failed = self.outcomes(Squares({0: StopIteration()}), 1)[0]
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, RuntimeError)
        assert "StopIteration" in str(failed.error)

    def test_random_numbers_belong_to_the_sample(self) -> None:
        """Draw the same numbers for a position whoever makes it, and others for the next position."""
        ours = self.outcomes(Noise(), 20)
        again = self.outcomes(Noise(), 20)
        numbers = [outcome.batch.tolist() for _, outcome in sorted(ours.items()) if isinstance(outcome, Done)]
        assert numbers == [outcome.batch.tolist() for _, outcome in sorted(again.items()) if isinstance(outcome, Done)]
        assert len({number for batch in numbers for number in batch}) == 60

    def test_time_is_told_by_stage(self) -> None:
        """Report seconds for collating and for the rest."""
        outcome = self.outcomes(Squares(), 1)[0]
        assert isinstance(outcome, Done)
        assert outcome.seconds.keys() == {"collate", "other"}
        assert all(seconds >= 0 for seconds in outcome.seconds.values())

    def test_closing_twice_is_allowed(self) -> None:
        """Close an executor twice, with works still waiting."""
        executor = self.make(maker_of(Squares()))
        for step in range(10):
            executor.submit(work_of(step))
        executor.close()
        executor.close()

    def test_a_closed_executor_says_so(self) -> None:
        """Refuse to take or give anything after closing."""
        executor = self.make(maker_of(Squares()))
        executor.close()
        with pytest.raises(LoaderClosed):
            executor.submit(work_of(0))
        with pytest.raises(LoaderClosed):
            executor.next()

    def test_a_dropped_executor_leaves_nothing(self) -> None:
        """Drop an executor in the middle of its work: its threads end with it."""
        before = threading.active_count()
        executor = self.make(maker_of(Squares()))
        executor.submit(work_of(0))
        executor.submit(work_of(1))
        executor.next()
        del executor
        assert threading.active_count() == before

    def test_capacity_is_at_least_one(self) -> None:
        """Say how many works are worth having in flight."""
        executor = self.make(maker_of(Squares()))
        assert executor.capacity >= 1
        executor.close()
