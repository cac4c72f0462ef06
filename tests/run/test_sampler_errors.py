"""A sampler, a planned order or a shared stream that raises: at the same step on every executor."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import ArrayDataset, DataLoader, IterableDataset
from headrace.plan.planned import PlannedSampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headrace.context.seeds import Key

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "many ahead": {"num_workers": 2, "backend": "threads", "prefetch_factor": 5},
    "processes": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
    "any order": {"num_workers": 2, "backend": "threads", "in_order": False},
}
executors = pytest.mark.parametrize("how", HOW.values(), ids=HOW)
SIZE, BATCH = 20, 3


class Torn(Exception):
    """What the fault raises: no class of ours."""


class Raising:
    """Raises instead of its key number ``at``; with ``again``, only the first time that it is asked for it."""

    def __init__(self, at: int, *, again: bool = False) -> None:
        self.at, self.again, self.given = at, again, 0

    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Iterator[int]:
        self.given = 0
        return RaisingKeys(self)


class RaisingKeys:
    """Its iterator, which can be asked again after it raised."""

    def __init__(self, sampler: Raising) -> None:
        self.sampler, self.raised = sampler, False

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.sampler.given == self.sampler.at and not (self.raised and self.sampler.again):
            self.raised = True
            raise Torn(f"at key {self.sampler.at}")
        if self.sampler.given == SIZE:
            raise StopIteration
        self.sampler.given += 1
        return self.sampler.given - 1


class RaisingBatches(Raising):
    """The same as a batch sampler: its batch number ``at // BATCH`` raises."""

    def __iter__(self) -> Iterator[Any]:
        for first in range(0, SIZE, BATCH):
            if first // BATCH == self.at // BATCH:
                raise Torn(f"at key {self.at}")
            yield list(range(first, min(first + BATCH, SIZE)))


class Masked:
    """Gives a boolean where an index is expected."""

    def __iter__(self) -> Iterator[Any]:
        return iter([0, 1, 2, 3, 4, True])


class PlannedOrder:
    """An order that cannot say its key number ``at``."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __len__(self) -> int:
        return SIZE

    def keys(self, epoch: int, start: int, stop: int) -> Sequence[int]:
        if start <= self.at < stop:
            raise Torn(f"at key {self.at}")
        return range(start, min(stop, SIZE))


class RaisingPlan(PlannedSampler[int]):
    """A planned sampler with that order."""

    def __init__(self, at: int) -> None:
        super().__init__(0)
        self.at = at

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {}

    def order(self, key: Key) -> Any:
        return PlannedOrder(self.at)

    def __len__(self) -> int:
        return SIZE


class RaisingStream(IterableDataset[int]):
    """A stream whose sample number ``at`` cannot be read."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __iter__(self) -> Iterator[int]:
        yield from range(self.at)
        raise Torn(f"at key {self.at}")


NUMBERS = ArrayDataset(np.arange(SIZE))
FAULTS: dict[str, Any] = {
    "sampler": lambda at: {"dataset": range(SIZE), "batch_size": BATCH, "sampler": Raising(at)},
    "batch sampler": lambda at: {"dataset": range(SIZE), "batch_sampler": RaisingBatches(at)},
    "whole batches": lambda at: {"dataset": NUMBERS, "batch_size": BATCH, "sampler": Raising(at)},
    "planned": lambda at: {"dataset": range(SIZE), "batch_size": BATCH, "sampler": RaisingPlan(at)},
    "skip": lambda at: {"dataset": range(SIZE), "batch_size": BATCH, "sampler": Raising(at), "on_error": "skip"},
    "stream": lambda at: {"dataset": RaisingStream(at), "batch_size": BATCH, "read_once": True},
}


def delivered(loop: Any, error: type[Exception] = Torn) -> list[Any]:
    """Return what a loop gives before it raises."""
    found: list[Any] = []
    with pytest.raises(error, match=r"at key|True"):
        read(loop, found)
    return found


def read(loop: Any, found: list[Any]) -> None:
    for batch in loop:
        found.append(batch.tolist() if isinstance(batch, np.ndarray) else batch)  # noqa: PERF401  it may end in an error


@executors
@pytest.mark.parametrize("at", [0, 1, 3, 7, 15, 19])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_batches_before_the_fault_are_delivered(fault: str, at: int, how: dict[str, Any]) -> None:
    """Raise at the step that has the key, after every batch before it."""
    with DataLoader(**FAULTS[fault](at), **how) as loader:
        batches = delivered(iter(loader))
        assert sorted(batches) == [list(range(first, first + BATCH)) for first in range(0, at - at % BATCH, BATCH)]
        assert loader.state_dict()["step"] == at // BATCH


@executors
def test_a_key_that_is_none_raises_at_its_step(how: dict[str, Any]) -> None:
    """Check keys where they are asked for, and say so where they belong."""
    with DataLoader(range(SIZE), BATCH, sampler=Masked(), **how) as loader:
        assert delivered(loader, TypeError) == [[0, 1, 2]]


@executors
def test_single_samples_before_the_fault_are_delivered(how: dict[str, Any]) -> None:
    """Count steps in samples where there are no batches."""
    with DataLoader(range(SIZE), None, sampler=Raising(7), **how) as loader:
        assert sorted(delivered(loader)) == list(range(7))


@executors
def test_what_can_be_asked_again_is_asked_again(how: dict[str, Any]) -> None:
    """Continue after the error where the sampler does: with single samples no generator of ours is in between."""

    class Once(Raising):
        def __iter__(self) -> Iterator[Any]:
            return Batched(self)

    class Batched(RaisingKeys):
        def __next__(self) -> Any:
            return [super().__next__()]

    with DataLoader(range(SIZE), batch_sampler=Once(7, again=True), **how) as loader:
        loop = iter(loader)
        before = delivered(loop)
        assert sorted(before + [batch.tolist() for batch in loop]) == [[index] for index in range(SIZE)]


@pytest.mark.parametrize("how", [HOW["threads"], HOW["processes"]], ids=["threads", "processes"])
def test_a_loop_left_before_the_fault_leaves_nothing(how: dict[str, Any]) -> None:
    """Drop a loop that holds an error which nobody has come to."""
    with DataLoader(range(SIZE), BATCH, sampler=Raising(7), **how) as loader:
        loop = iter(loader)
        assert next(loop).tolist() == [0, 1, 2]
        gone = weakref.ref(loop)
        loop.close()
        del loop
        gc.collect()
        assert gone() is None
