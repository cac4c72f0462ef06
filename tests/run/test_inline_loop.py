"""The short way of small batches: what it gives is what any other executor gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import headrace
from headrace import ConcatDataset, DataLoader, IterableDataset
from headrace.context.timing import timed
from headrace.run.inline_loop import InlineLoop


class Drawn:
    """Draws for each sample, and has a bad one."""

    def __init__(self, bad: int = -1) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int) -> Any:
        if index == self.bad:
            raise ValueError(f"no {index}")
        return {"x": np.full(300, index), "noise": headrace.rng().random(), "name": str(index)}


class Counted(IterableDataset[Any]):
    """A stream that draws."""

    def __iter__(self) -> Any:
        for number in range(7):
            yield number, headrace.rng().random()


def drawn(batch: list[Any]) -> Any:
    return len(batch), headrace.rng().random()


def told(loader: DataLoader[Any], states: list[Any]) -> list[Any]:
    found: list[Any] = []
    loop = iter(loader)
    while True:
        try:
            found.append(repr(next(loop)))
        except StopIteration:
            return found
        except ValueError as error:
            found.append((str(error), [note.partition(", made by")[0] for note in error.__notes__]))
        states.append(loader.state_dict())


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "a dataset": (Drawn(), {}),
    "a bad sample": (Drawn(bad=3), {"shuffle": True}),
    "a collate function": (Drawn(), {"collate_fn": drawn}),
    "samples": (Drawn(), {"batch_size": None}),
    "a list": ([1.5, 2, 3, 4, 5, 6, 7], {}),
    "a list of pairs": ([(number, str(number)) for number in range(7)], {"drop_last": True}),
    "an array": (headrace.ArrayDataset(np.arange(7.0)), {"shuffle": True}),
    "a sampler": (Drawn(), {"sampler": [4, 1, 6]}),
    "a stream": (Counted(), {}),
    "a stream of samples": (Counted(), {"batch_size": None}),
}


@pytest.mark.parametrize("case", CASES)
def test_batches_errors_and_states_are_those_of_a_thread(case: str) -> None:
    """Give the same batches, errors at the same steps, and the same states after each, with draws of one seed."""
    dataset, how = CASES[case]
    states: list[list[Any]] = [[], []]
    loaders: list[DataLoader[Any]] = [
        DataLoader(dataset, **{"batch_size": 2, **how}, generator=5, num_workers=workers, backend="auto")
        for workers in (0, 1)
    ]
    first, second = (told(loader, each) for loader, each in zip(loaders, states, strict=True))
    assert first == second
    assert states[0] == states[1]
    counts = [loader.statistics() for loader in loaders]
    assert len({(one.batches, one.samples, one.nbytes) for one in counts}) == 1


def test_it_is_taken_where_nothing_else_is_asked() -> None:
    """Take it for a plain loader; not with a seed that global generators follow, nor where bad samples are replaced."""
    assert isinstance(iter(DataLoader(Drawn(), 2)), InlineLoop)
    assert isinstance(iter(DataLoader(headrace.ArrayDataset(np.arange(4)), 2, seed=0)), InlineLoop)
    for how in ({"seed": 0}, {"on_error": "skip"}, {"on_error": "replace"}, {"num_workers": 1}):
        loop: Any = iter(DataLoader(Drawn(), 2, **how))
        assert not isinstance(loop, InlineLoop)
        loop.close()


def test_stages_are_counted_beside_those_of_the_dataset() -> None:
    """Count what a dataset times under its own names, and the rest."""

    class Timed(Drawn):
        def __getitem__(self, index: int) -> Any:
            with timed("tokenize"):
                return super().__getitem__(index)

    # Many batches: of the later ones, most are not noted one by one.
    loader: DataLoader[Any] = DataLoader(ConcatDataset([Timed()] * 40), 2)
    assert len(list(loader)) == 140
    statistics = loader.statistics()
    assert statistics.stage_seconds.keys() == {"tokenize", "collate", "other"}
    assert all(seconds > 0 for seconds in statistics.stage_seconds.values())
    assert sum(statistics.stage_seconds.values()) <= statistics.wait_seconds + 1e-6


def test_memory_is_free_when_a_batch_is_dropped() -> None:
    """Hold no batch that was delivered."""
    import weakref

    loop: Any = iter(DataLoader(Drawn(), 2, collate_fn=lambda samples: np.array([len(samples)])))
    batch = next(loop)
    dead = weakref.ref(batch)
    del batch
    assert dead() is None
