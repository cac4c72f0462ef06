"""The suite for executors: one outcome for each work, errors and random numbers included, and nothing left behind."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace.collate.default import default_collate
from headrace.context.seeds import key_of, rng
from headrace.errors import LoaderClosed
from headrace.make.maker import Maker
from headrace.make.source import Indexed
from headrace.plan.work import Done, Failed, Work

if TYPE_CHECKING:
    from headrace.executors.base import Executor


class Squares:
    """A dataset of 1,000 squares that raises given errors at given indices.

    >>> Squares()[3]
    9
    """

    def __init__(self, errors: dict[int, BaseException] | None = None) -> None:
        self.errors = errors or {}

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> Any:
        if index in self.errors:
            raise self.errors[index]
        return index * index


class Noise(Squares):
    """A dataset of random numbers, drawn from the generator of each sample."""

    def __getitem__(self, index: int) -> float:
        return float(rng().random())


def maker_of(dataset: Any) -> Maker:
    """Return what makes batches of a dataset, sample by sample, with the default collate.

    >>> maker_of(Squares()).make(work_of(1)).batch
    array([ 9, 16, 25])
    """
    return Maker(Indexed(dataset), default_collate)


def work_of(step: int, size: int = 3) -> Work:
    """Return the work of a step: its batch has ``size`` samples, in the order of the dataset.

    >>> work_of(2).keys
    range(6, 9)
    """
    return Work(key_of(7), epoch=0, step=step, start=step * size, keys=range(step * size, (step + 1) * size))


class ExecutorTests:
    """What every executor must do: inherit it and define ``make``.

    >>> from headrace.executors.inline import Inline
    >>> class TestInline(ExecutorTests):
    ...     def make(self, maker):
    ...         return Inline(maker)
    >>> TestInline().test_every_work_gets_exactly_one_outcome()

    An executor that needs another maker (one for whole batches, say) also overrides ``maker``.
    """

    def make(self, maker: Maker) -> Executor:
        """Return a new executor for this maker."""
        raise NotImplementedError(f"{type(self).__qualname__} must define make(maker), which returns an executor")

    def maker(self, dataset: Any) -> Maker:
        """Return what makes the batches of a dataset."""
        return maker_of(dataset)

    def outcomes(self, dataset: Any, steps: int) -> dict[int, Done | Failed]:
        """Submit the works of so many steps, and return their outcomes by step."""
        executor = self.make(self.maker(dataset))
        try:
            for step in range(steps):
                executor.submit(work_of(step))
            made = [executor.next() for _ in range(steps)]
        finally:
            executor.close()
        return {outcome.step: outcome for outcome in made if isinstance(outcome, Done | Failed)}

    def test_every_work_gets_exactly_one_outcome(self) -> None:
        """Submit many works at once; each comes back once, with its own samples."""
        outcomes = self.outcomes(Squares(), 50)
        assert sorted(outcomes) == list(range(50))
        for step, outcome in outcomes.items():
            assert isinstance(outcome, Done)
            np.testing.assert_array_equal(outcome.batch, [k * k for k in work_of(step).keys])

    @pytest.mark.parametrize(
        "error",
        [ValueError("no"), KeyError("k"), SystemExit(3), GeneratorExit(), MemoryError()],
        ids=lambda error: type(error).__name__,
    )
    def test_an_error_takes_the_place_of_its_batch(self, error: BaseException) -> None:
        """Raise an error in the dataset: it is the outcome of that step, and all other batches are made."""
        self.check_error(error)

    def test_an_interrupt_in_the_dataset_takes_the_place_of_its_batch(self) -> None:
        """Raise KeyboardInterrupt in the dataset: it is the outcome of that step too."""
        self.check_error(KeyboardInterrupt())

    def check_error(self, error: BaseException) -> None:
        """Raise an error in sample 4, in the batch of step 1, and look at all outcomes."""
        outcomes = self.outcomes(Squares({4: error}), 4)
        failed = outcomes.pop(1)
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, type(error))
        assert failed.error.args == error.args
        assert all(isinstance(outcome, Done) for outcome in outcomes.values())

    def test_an_error_says_where_it_happened(self) -> None:
        """Name the sample, and the worker that read it."""
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
        """Draw the same numbers for a position in every run, and others for the next position."""
        runs = []
        for _ in range(2):
            outcomes = sorted(self.outcomes(Noise(), 20).items())
            runs.append([outcome.batch.tolist() for _, outcome in outcomes if isinstance(outcome, Done)])
        assert runs[0] == runs[1]
        assert len({number for batch in runs[0] for number in batch}) == 60

    def test_time_is_reported_by_stage(self) -> None:
        """Report seconds for collating, and for the rest."""
        outcome = self.outcomes(Squares(), 1)[0]
        assert isinstance(outcome, Done)
        assert outcome.seconds.keys() >= {"collate", "other"}
        assert all(seconds >= 0 for seconds in outcome.seconds.values())

    def test_closing_twice_is_allowed(self) -> None:
        """Close an executor twice, with works still waiting."""
        executor = self.make(self.maker(Squares()))
        for step in range(10):
            executor.submit(work_of(step))
        executor.close()
        executor.close()

    def test_a_closed_executor_raises(self) -> None:
        """Raise LoaderClosed for a work or an outcome after closing."""
        executor = self.make(self.maker(Squares()))
        executor.close()
        with pytest.raises(LoaderClosed):
            executor.submit(work_of(0))
        with pytest.raises(LoaderClosed):
            executor.next()

    def test_a_dropped_executor_leaves_nothing(self) -> None:
        """Drop an executor in the middle of its work: its threads end with it."""
        before = threading.active_count()
        executor = self.make(self.maker(Squares()))
        executor.submit(work_of(0))
        executor.submit(work_of(1))
        executor.next()
        del executor
        assert threading.active_count() == before

    def test_capacity_is_at_least_one(self) -> None:
        """Say how many works are worth having in flight."""
        executor = self.make(self.maker(Squares()))
        assert executor.capacity >= 1
        executor.close()
