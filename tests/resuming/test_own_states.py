"""What a dataset, a stream or a caller's generator keeps of itself is saved, and what comes after a resume is the same.

Each loader here runs some epochs, stops in one or between two, and is compared with a new one that loads its state.
"""

from __future__ import annotations

import copy
import json
import random
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import DataLoader, IterableDataset, StateMismatch, get_worker_info
from headrace.samplers import BatchSampler, RandomSampler, WeightedRandomSampler

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
FORK: dict[str, Any] = {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"}
HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "processes": FORK,
    "processes that stay": {**FORK, "persistent_workers": True},
}
SIZE = 12


class Counted:
    """A dataset with an index that counts what it was asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> int:
        self.calls += 1
        return index * 1000 + self.calls

    def state_dict(self) -> dict[str, int]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.calls = state["calls"]


class Epochs(IterableDataset[int]):
    """A stream that counts its epochs, keeps its place, and gives each worker its part."""

    def __init__(self, *, shared: bool = False) -> None:
        self.epoch, self.at, self.told, self.shared = 0, 0, 0, shared

    def __iter__(self) -> Iterator[int]:
        info = None if self.shared else get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        self.at, self.told = self.told, 0
        for number in range(SIZE)[first::step][self.at :]:
            self.at += 1
            yield 1000 * self.epoch + number
        self.epoch, self.at = self.epoch + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.told = state["epoch"], state["at"]


class Stubborn(Epochs):
    """A stream that stays at its end, and gives nothing in the pass after the state of a finished one."""

    def __iter__(self) -> Iterator[int]:
        self.at, self.told = self.told, 0
        for number in range(self.at, SIZE):
            self.at += 1
            yield number


class Two(Epochs):
    """A stream that counts its epochs, and whose iterator keeps the place."""

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return Walk(self.epoch)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        # A state within an epoch is loaded before iter() counts the epoch once more.
        self.epoch = state["epoch"]


class Walk:
    """Its iterator."""

    def __init__(self, epoch: int) -> None:
        self.epoch, self.at = epoch, 0

    def __iter__(self) -> Walk:
        return self

    def __next__(self) -> int:
        if self.at == SIZE:
            raise StopIteration
        self.at += 1
        return 1000 * self.epoch + self.at

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at, self.epoch = state["at"], state["epoch"]


class Drawn:
    """A sampler that draws from Python's and NumPy's global generators, and keeps nothing."""

    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.permutation(random.sample(range(SIZE), SIZE)).tolist())


def numpys() -> np.random.Generator:
    return np.random.default_rng(3)


KINDS: dict[str, Any] = {
    "counted": lambda: {"dataset": Counted()},
    "counted, shuffled": lambda: {"dataset": Counted(), "shuffle": True, "seed": 1},
    "stream": lambda: {"dataset": Epochs()},
    "stream, read once": lambda: {"dataset": Epochs(shared=True), "read_once": True},
    "stubborn, read once": lambda: {"dataset": Stubborn(), "read_once": True},
    "generator": lambda: {"dataset": range(SIZE), "shuffle": True, "generator": numpys()},
    "old generator": lambda: {"dataset": range(SIZE), "shuffle": True, "generator": np.random.RandomState(3)},
    "seed as generator": lambda: {"dataset": range(SIZE), "shuffle": True, "generator": 3},
    "sampler": lambda: {"dataset": range(SIZE), "sampler": RandomSampler(range(SIZE), generator=numpys())},
    "weighted": lambda: {"dataset": range(SIZE), "seed": 5,
                         "sampler": WeightedRandomSampler(np.arange(1.0, 9.0), SIZE, generator=numpys())},
    "batch sampler": lambda: {
        "dataset": range(SIZE),
        "batch_size": 1,
        "batch_sampler": BatchSampler(RandomSampler(range(SIZE), generator=numpys()), 5, drop_last=False),
    },
}  # fmt: skip


def seed_globals(number: int) -> None:
    random.seed(number)
    np.random.seed(number)


def loader(kind: str, how: dict[str, Any], size: int) -> DataLoader[Any]:
    arguments = {"batch_size": size, **KINDS[kind]()}
    return DataLoader(**arguments, **how)


def epoch(loop: Any) -> list[Any]:
    return [batch.tolist() for batch in loop]


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("kind", KINDS)
def test_all_epochs_after_a_resume_are_those_that_would_have_come(kind: str, how: dict[str, Any], size: int) -> None:
    """Save before an epoch, in it at each step, and after it: what is left of it and the next two are the same."""
    if "counted" in kind and how is HOW["threads"]:
        return  # threads share the dataset: what it counts depends on who comes first
    processes = how is FORK or how is HOW["processes that stay"]
    if processes and size == 4:
        return  # inline has shown that
    steps = 2 if kind == "stream" and processes else -(-SIZE // size)
    for passes in [1] if processes else [0, 2]:
        for taken in range(-1, steps + 1):
            seed_globals(1)
            with loader(kind, how, size) as first:
                for _ in range(passes):
                    epoch(first)
                loop = iter(first) if taken >= 0 else iter([])
                for _ in islice(loop, max(taken, 0)):
                    pass
                state = json.loads(json.dumps(first.state_dict()))
                kept = copy.deepcopy(state)
                expected = [epoch(loop)] if taken >= 0 else []
                expected += [epoch(first) for _ in range(2)]
            seed_globals(2)
            with loader(kind, how, size) as second:
                second.load_state_dict(state)
                assert second.state_dict() == kept == state
                assert [epoch(second) for _ in expected] == expected, (passes, taken)


@pytest.mark.parametrize("how", [HOW["inline"], HOW["threads"]], ids=["inline", "threads"])
def test_a_finished_stream_begins_again(how: dict[str, Any]) -> None:
    """Give a whole epoch after the state of a finished one, where the stream would give an empty one first."""
    with DataLoader(Stubborn(), 5, **how) as first:
        whole = epoch(first)
        state = first.state_dict()
        assert epoch(first) == whole
    with DataLoader(Stubborn(), 5, **how) as second:
        second.load_state_dict(state)
        assert epoch(second) == whole == epoch(second)


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("taken", [1, 2])
def test_the_states_of_a_stream_and_of_its_iterator_are_both_kept(taken: int, how: dict[str, Any]) -> None:
    """Save what the iterator says of its place, and what the dataset counts."""
    if how is HOW["processes"] or how is HOW["processes that stay"]:
        how = {**how, "num_workers": 1}
    with DataLoader(Two(), 5, **how) as first:
        epoch(first)
        loop = iter(first)
        for _ in range(taken):
            next(loop)
        state = json.loads(json.dumps(first.state_dict()))
        assert [type(part) for part in state["streams"]["0"]] == [str, dict, dict]
        expected = epoch(loop)
    with DataLoader(Two(), 5, **how) as second:
        second.load_state_dict(state)
        assert epoch(second) == expected


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("workers", [1, 3])
def test_each_worker_is_restored_before_its_first_sample(workers: int, how: dict[str, Any]) -> None:
    """Restore a dataset with an index wherever it is read, with any number of workers: none begins from nothing."""
    with DataLoader(Counted(), 2, **how) as first:
        loop = iter(first)
        for _ in range(4):
            next(loop)
        state = first.state_dict()
        least = min(kept[1]["calls"] for kept in state["streams"].values())
        loop.close()
    with DataLoader(Counted(), 2, **({**how, "num_workers": workers} if how else {})) as second:
        second.load_state_dict(state)
        assert all(value % 1000 > least for batch in second for value in batch.tolist())


def test_a_sampler_without_a_seed_is_settled_before_its_first_key() -> None:
    """Take the state after ``iter()`` and before the first batch, inline, where no key was drawn."""
    seed_globals(1)
    first = DataLoader(range(SIZE), 5, sampler=Drawn())
    loop = iter(first)
    state = json.loads(json.dumps(first.state_dict()))
    seed_globals(7)
    expected = epoch(loop)
    second = DataLoader(range(SIZE), 5, sampler=Drawn())
    second.load_state_dict(state)
    assert epoch(second) == expected


def test_a_sampler_that_draws_from_global_generators_is_saved_between_epochs() -> None:
    """Note where they are: the next epoch is the same, whatever the new program drew before."""
    seed_globals(1)
    first = DataLoader(range(SIZE), 5, sampler=Drawn())
    epoch(first)
    state = json.loads(json.dumps(first.state_dict()))
    expected = epoch(first)
    seed_globals(2)
    before = np.random.get_state()[1].tolist()
    second = DataLoader(range(SIZE), 5, sampler=Drawn())
    second.load_state_dict(state)
    assert epoch(second) == expected
    assert np.random.get_state()[1].tolist() == before  # the program's own numbers were not moved


@pytest.mark.parametrize(
    ("arguments", "entry", "words"),
    [
        ({"dataset": range(4)}, {"dataset": {"calls": 1}}, "a range has no load_state_dict"),
        ({"dataset": range(4), "generator": 1}, {"generator": "AAAA"}, "the state's generator is 'AAAA'"),
        ({"dataset": range(4), "generator": 1}, {"generator": {"bit_generator": "MT19937"}}, "a Generator"),
    ],
)
def test_a_state_of_something_else_is_refused_at_the_call(arguments: Any, entry: Any, words: str) -> None:
    """Refuse a dataset's state for one that keeps none, and a generator's for another kind."""
    first = DataLoader(**arguments, batch_size=2, shuffle=True)
    state = first.state_dict()
    generator = state.get("generator")
    with pytest.raises(StateMismatch, match=words):
        first.load_state_dict({**state, **entry})
    assert first.state_dict().get("generator") == generator


def test_a_loader_without_a_generator_finishes_the_epoch_of_one_that_has_one() -> None:
    """Resume from the seed in the state; the epochs after it are the loader's own."""
    first = DataLoader(range(SIZE), 5, shuffle=True, generator=4)
    batches = iter(first)
    next(batches)
    state = first.state_dict()
    second = DataLoader(range(SIZE), 5, shuffle=True)
    second.load_state_dict(state)
    assert [batch.tolist() for batch in second] == [batch.tolist() for batch in batches]


def test_with_strict_false_the_state_of_a_dataset_that_keeps_none_is_left_out() -> None:
    """Resume at the place, and leave out what another dataset kept."""
    first = DataLoader(Counted(), 4, seed=0)
    batches = iter(first)
    next(batches)
    second = DataLoader(range(SIZE), 4, seed=0)
    second.load_state_dict(first.state_dict(), strict=False)
    assert [batch.tolist() for batch in second] == [[4, 5, 6, 7], [8, 9, 10, 11]]


class Place(IterableDataset[int]):
    """A stream that is its own iterator, and keeps its place."""

    def __init__(self) -> None:
        self.at = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.at == SIZE:
            raise StopIteration
        self.at += 1
        return self.at

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


class DrawnPlace(Place):
    """An iterator that draws from the global generator, whose state it keeps."""

    def __next__(self) -> int:
        return super().__next__() * 100 + random.randrange(100)

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "drawn": random.getstate()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]
        version, words, last = state["drawn"]
        random.setstate((version, tuple(words), last))


class OfIterators(IterableDataset[int]):
    """A stream whose iterators alone keep a state."""

    def __iter__(self) -> Iterator[int]:
        return iter(DrawnPlace())


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("how", ["inline", "threads"])
@pytest.mark.parametrize("kind", [Place, DrawnPlace, OfIterators])
def test_a_stream_of_this_process_is_saved_before_its_first_sample(kind: Any, how: str, seed: int | None) -> None:
    """Take the state after ``iter()`` and before the first batch, and load it when the stream is at its end."""
    if how == "threads" and kind is not Place:
        pytest.skip("threads share the global generators, which a stream cannot restore for them")
    seed_globals(1)
    stream = kind()
    with DataLoader(stream, 5, seed=seed, **HOW[how]) as first:
        loop = iter(first)
        state = json.loads(json.dumps(first.state_dict()))
        expected = epoch(loop)
        assert sum(map(len, expected)) == SIZE
    seed_globals(7)
    with DataLoader(stream, 5, seed=seed, **HOW[how]) as second:
        second.load_state_dict(state)
        assert epoch(second) == expected
