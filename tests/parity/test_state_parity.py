"""What torchdata's StatefulDataLoader promises of its state: one script on it and on ours.

What differs by design: the state of ours is read by another number of workers too, where torchdata's raises an
AssertionError; and torch's samplers without a generator continue with their own draws, where torchdata makes new ones.
"""

from __future__ import annotations

import copy
import gc
import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest

torch = pytest.importorskip("torch")
torchdata = pytest.importorskip("torchdata.stateful_dataloader")
from torch.utils.data import IterableDataset, RandomSampler, get_worker_info  # noqa: E402

from headrace.torch import StatefulDataLoader  # noqa: E402
from tests.parity.loads import Numbers, Shared  # noqa: E402

libraries = pytest.mark.parametrize(
    "library", [torchdata.StatefulDataLoader, StatefulDataLoader], ids=["torchdata", "headrace"]
)
pytestmark = pytest.mark.filterwarnings("ignore")  # of forking beside torch's threads


class Keeper(IterableDataset[Any]):
    """Gives each worker its part, knows where it stands, and refuses to be read from the beginning once told."""

    def __init__(self, size: int) -> None:
        self.size, self.at, self.told = size, 0, False

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        if not self.told:
            self.at = 0
        self.told = False
        for number in list(range(self.size))[first::step][self.at :]:
            self.at += 1
            yield number
        self.at = 0

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at, self.told = state["at"], True


class Walker(Iterator[int]):
    """An iterator with a state: the dataset itself has none."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers, self.at = numbers, 0

    def __next__(self) -> int:
        if self.at >= len(self.numbers):
            raise StopIteration
        self.at += 1
        return self.numbers[self.at - 1]

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class Walked(Shared):
    def __iter__(self) -> Iterator[int]:
        return Walker(list(super().__iter__()))


MAKERS: dict[str, Any] = {
    "indexed": lambda: {"dataset": Numbers(14), "batch_size": 3},
    "shuffled": lambda: {"dataset": Numbers(14), "batch_size": 3, "shuffle": True, "drop_last": True},
    "sampled": lambda: {
        "dataset": Numbers(14),
        "batch_size": 3,
        "sampler": RandomSampler(range(14), replacement=True, num_samples=9),
    },
    "one by one": lambda: {"dataset": Numbers(5), "batch_size": None},
    "stream": lambda: {"dataset": Shared(14), "batch_size": 3},
    "keeper": lambda: {"dataset": Keeper(14), "batch_size": 3},
    "walker": lambda: {"dataset": Walked(14), "batch_size": 3},
}


@pytest.fixture(autouse=True)
def workers_end() -> Any:
    """Let what torchdata's iterators hold go before leaks are counted."""
    yield
    gc.collect()


def plain(batch: Any) -> Any:
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


def rest(loader: Any) -> list[Any]:
    return [plain(batch) for batch in loader]


@libraries
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(("workers", "stop"), [(0, 1), (0, 3), (2, 2)])
def test_a_resumed_loader_gives_what_was_left(library: Any, name: str, workers: int, stop: int) -> None:
    """Save in the middle of the second epoch: a new loader gives the rest of it, and then a whole one."""
    if name == "sampled" and library is not StatefulDataLoader:
        pytest.skip("torchdata's draws anew")
    loader = library(**MAKERS[name](), num_workers=workers)
    whole = rest(loader)
    iterator = iter(loader)
    for _ in islice(iterator, stop):
        pass
    state = loader.state_dict()
    kept = copy.deepcopy(state)
    expected = rest(iterator)
    assert len(expected) == len(whole) - stop
    torch.manual_seed(99)
    resumed = library(**MAKERS[name](), num_workers=workers)
    resumed.load_state_dict(state)
    assert rest(resumed) == expected
    assert len(rest(resumed)) == len(whole)
    assert repr(state) == repr(kept)  # what is read later does not change it


@libraries
@pytest.mark.parametrize("name", MAKERS)
def test_at_the_last_step_nothing_is_left_and_after_the_end_all(library: Any, name: str) -> None:
    """Tell the last batch handed out from the end that was noticed."""
    loader = library(**MAKERS[name](), snapshot_every_n_steps=2)
    iterator = iter(loader)
    count = len(rest(islice(iterator, len(rest(library(**MAKERS[name]()))))))
    inside = loader.state_dict()
    assert next(iterator, None) is None
    after = loader.state_dict()
    for state, left in ((inside, 0), (after, count)):
        resumed = library(**MAKERS[name]())
        resumed.load_state_dict(state)
        assert len(rest(resumed)) == left


@libraries
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_can_be_had_before_the_loop_and_is_the_one_that_was_loaded(library: Any, workers: int) -> None:
    """Give the state before iter(), and the loaded one between load_state_dict() and iter()."""
    loader = library(Numbers(8), batch_size=2, num_workers=workers)
    begun = loader.state_dict()
    assert rest(loader) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    resumed = library(Numbers(8), batch_size=2, num_workers=workers)
    resumed.load_state_dict(begun)
    assert rest(resumed) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    del iterator
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    assert rest(resumed) == [[2, 3], [4, 5], [6, 7]]


def test_a_state_is_json_and_other_workers_read_it() -> None:
    """Continue with another number of workers, from a text of a few hundred bytes."""
    loader = StatefulDataLoader(Numbers(14), batch_size=3, shuffle=True)
    iterator = iter(loader)
    next(iterator)
    text = json.dumps(loader.state_dict())
    assert len(text) < 1000
    resumed = StatefulDataLoader(Numbers(14), batch_size=3, shuffle=True, num_workers=2)
    resumed.load_state_dict(json.loads(text))
    assert rest(resumed) == rest(iterator)
