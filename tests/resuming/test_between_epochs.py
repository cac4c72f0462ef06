"""A state taken between two epochs, or before the first batch, says what comes next, with a seed or without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import DataLoader
from headrace.samplers import BatchSampler, DistributedSampler

if TYPE_CHECKING:
    from collections.abc import Iterator


class Turning:
    """Begins one further in each epoch, and counts its epochs itself."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[int]:
        order = [(index + self.epoch) % 4 for index in range(4)]
        self.epoch += 1
        return iter(order)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch = state["epoch"]


class Place:
    """Keeps how many it has given, as torchdata's samplers do, and gives none after the state of a finished pass."""

    def __init__(self) -> None:
        self.given, self.resume = 0, 0

    def __len__(self) -> int:
        return 4

    def __iter__(self) -> Iterator[int]:
        self.given, self.resume = self.resume, 0
        for index in range(self.given, 4):
            self.given += 1
            yield index

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.resume = state["given"]


def resumed(make: Any, state: Any) -> list[Any]:
    """Return the next two epochs of a new loader that has loaded a state, and starts with other global generators."""
    np.random.seed(99)
    with make() as loader:
        loader.load_state_dict(state)
        return [batch.tolist() for _ in range(2) for batch in loader]


SAMPLERS = {
    "sampler": lambda: {"sampler": Turning(), "batch_size": 2},
    "batch sampler": lambda: {"batch_sampler": BatchSampler(Turning(), 2, drop_last=False)},
    "place": lambda: {"sampler": Place(), "batch_size": 2},
    "distributed": lambda: {"sampler": DistributedSampler(range(4), 1, 0, seed=3), "batch_size": 2},
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_samplers_own_state_is_kept_at_the_end_of_an_epoch(kind: str, seed: int | None, workers: int) -> None:
    """Continue with the epoch that this loader itself continues with."""

    def make() -> DataLoader[Any]:
        return DataLoader([10, 11, 12, 13], seed=seed, num_workers=workers, **SAMPLERS[kind]())

    with make() as loader:
        for _ in range(2):
            list(loader)
        state = loader.state_dict()
        expected = [batch.tolist() for _ in range(2) for batch in loader]
    assert resumed(make, state) == expected


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("finished", [0, 1, 3])
def test_a_state_between_epochs_says_the_next_order_without_a_seed(finished: int, workers: int) -> None:
    """Give the order that this loader goes on with; it is not the one before."""

    def make() -> DataLoader[Any]:
        return DataLoader(range(20), 5, shuffle=True, num_workers=workers)

    with make() as loader:
        before = [[batch.tolist() for batch in loader] for _ in range(finished)]
        state = loader.state_dict()
        assert loader.state_dict() == state
        expected = [batch.tolist() for batch in loader]
    assert resumed(make, state)[: len(expected)] == expected
    assert expected not in before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_before_the_first_batch_says_the_order_without_a_seed(workers: int) -> None:
    """Take it after ``iter()``: the order is drawn by then."""

    def make() -> DataLoader[Any]:
        return DataLoader(range(20), 5, shuffle=True, num_workers=workers)

    with make() as loader:
        batches = iter(loader)
        state = loader.state_dict()
        expected = [batch.tolist() for batch in batches]
    assert resumed(make, state)[: len(expected)] == expected


def test_a_state_moves_no_generator_that_the_next_loop_does_not() -> None:
    """Draw the next seed once, whether a state was taken or not."""

    def run(*, asked: bool) -> tuple[Any, float]:
        np.random.seed(4)
        loader = DataLoader(range(20), 5, shuffle=True)
        first = [batch.tolist() for batch in loader]
        if asked:
            loader.state_dict()
        return [first, [batch.tolist() for batch in loader]], np.random.random()

    assert run(asked=True) == run(asked=False)
