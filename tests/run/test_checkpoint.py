"""Resuming: what comes after is what would have come, whoever makes it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import ArrayDataset, DataLoader, IterableDataset, StateMismatch, get_worker_info, rng
from headrace.samplers import BatchSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

FORK: dict[str, Any] = {"backend": "processes", "multiprocessing_context": "fork"}
KINDS: list[dict[str, Any]] = [
    {},
    {"num_workers": 1, "backend": "threads"},
    {"num_workers": 3, "backend": "threads"},
    {"num_workers": 2, **FORK},
    {"num_workers": 1, "threads_per_worker": 2, **FORK},
]


class Noisy:
    """Samples that say which they are and what they draw; some are bad."""

    def __init__(self, size: int, bad: frozenset[int] = frozenset()) -> None:
        self.size, self.bad = size, bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, float]:
        if index in self.bad:
            raise ValueError(f"{index} is bad")
        return index, rng().random()


def plain(batch: Any) -> Any:
    return [np.asarray(column).tolist() for column in batch] if isinstance(batch, list) else np.asarray(batch).tolist()


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    text = json.dumps(state)
    assert len(text) < 1024
    again: dict[str, Any] = json.loads(text)
    return again


def stopped_and_resumed(make: Any, stop: int, before: dict[str, Any], after: dict[str, Any]) -> tuple[list[Any], Any]:
    """Return the batches of a run that stops after some, and of its successor up to the end of the epoch."""
    loader = make(**before)
    iterator = iter(loader)
    batches = [plain(next(iterator)) for _ in range(stop)]
    state = through_json(loader.state_dict())
    loader.close()
    successor = make(**after)
    successor.load_state_dict(state)
    assert successor.state_dict() == state
    return batches + [plain(batch) for batch in successor], successor


@settings(max_examples=30)
@given(
    size=st.integers(1, 40),
    batch_size=st.integers(1, 7),
    drop_last=st.booleans(),
    shuffle=st.booleans(),
    seed=st.none() | st.integers(0, 5),
    on_error=st.sampled_from(["skip", "replace"]),
    bad=st.frozensets(st.integers(0, 39), max_size=9),
    stop=st.integers(0, 12),
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
)
def test_what_comes_after_resuming_is_what_would_have_come(
    size: int,
    batch_size: int,
    drop_last: bool,
    shuffle: bool,
    seed: int | None,
    on_error: Any,
    bad: frozenset[int],
    stop: int,
    kinds: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """Stop anywhere, continue with other workers: the epoch is that of an uninterrupted run, and the next one too."""
    bad = frozenset(n for n in bad if n < size - 1)

    def make(**how: Any) -> DataLoader[Any]:
        generator = None if seed is not None else 9
        return DataLoader(
            Noisy(size, bad),
            batch_size,
            shuffle,
            drop_last=drop_last,
            seed=seed,
            generator=generator,
            on_error=on_error if bad else "raise",
            **how,
        )

    whole = make()
    expected = [plain(batch) for batch in whole]
    stop = min(stop, len(expected))
    found, successor = stopped_and_resumed(make, stop, *kinds)
    assert found == expected
    if seed is not None:
        assert [plain(batch) for batch in successor] == [plain(batch) for batch in whole]


SAMPLERS: dict[str, Any] = {
    "random": lambda: {"sampler": RandomSampler(range(30), generator=None)},
    "seeded": lambda: {"sampler": RandomSampler(range(30), generator=3)},
    "subset": lambda: {"sampler": SubsetRandomSampler(range(5, 25), generator=None)},
    "weighted": lambda: {"sampler": WeightedRandomSampler(range(30), 40, generator=np.random.default_rng(1))},
    "batches": lambda: {"batch_sampler": BatchSampler(RandomSampler(range(30)), 4, drop_last=False)},
    "list": lambda: {"sampler": [5, 3, 8, 1, 29, 4, 4]},
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("stop", [0, 1, 2])
def test_a_samplers_order_is_gone_on_with(name: str, stop: int) -> None:
    """Make the same pass again in a process that was seeded otherwise, from the one number it came from."""
    given = SAMPLERS[name]()

    def make(**how: Any) -> DataLoader[Any]:
        size = {} if "batch_sampler" in given else {"batch_size": 3}
        return DataLoader(Noisy(30), **size, **(SAMPLERS[name]() if how else given), seed=4)

    np.random.seed(5)
    loader = make()
    iterator = iter(loader)
    before = [plain(next(iterator)) for _ in range(stop)]
    state = through_json(loader.state_dict())
    rest = [plain(batch) for batch in iterator]
    np.random.seed(6)
    successor = make(again=True)
    successor.load_state_dict(state)
    found = before + [plain(batch) for batch in successor]
    if stop or name in ("list", "seeded", "weighted"):
        assert found == before + rest


def test_a_sampler_that_draws_from_the_global_generator_is_gone_on_with() -> None:
    """Put the generator that it moved where it stood, and give it back as it was."""

    class Own:
        def __len__(self) -> int:
            return 12

        def __iter__(self) -> Iterator[int]:
            return iter(random.sample(range(12), 12))

    loader = DataLoader(Noisy(12), 2, sampler=Own(), seed=1)
    iterator = iter(loader)
    next(iterator)
    state = json.loads(json.dumps(loader.state_dict()))
    rest = [plain(batch) for batch in iterator]
    random.seed(77)
    successor = DataLoader(Noisy(12), 2, sampler=Own(), seed=1)
    successor.load_state_dict(state)
    assert [plain(batch) for batch in successor] == rest
    assert random.random() == random.Random(77).random()


class Stream(IterableDataset[tuple[int, float]]):
    """Shards itself, shuffles in a buffer by what it draws, and keeps no state."""

    def __iter__(self) -> Iterator[tuple[int, float]]:
        info = get_worker_info()
        numbers = list(range(31) if info is None else range(info.id, 31, info.num_workers))
        while numbers:
            yield numbers.pop(int(rng().integers(min(4, len(numbers))))), rng().random()


class Keeper(IterableDataset[int]):
    """Keeps its own place, and would tell if it were read from the beginning."""

    def __init__(self) -> None:
        self.at = 0
        self.loaded = False

    def __iter__(self) -> Iterator[int]:
        if not self.loaded:
            self.at = 0
        self.loaded = False
        while self.at < 20:
            self.at += 1
            yield self.at - 1

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at, self.loaded = state["at"], True


@settings(max_examples=15)
@given(
    stop=st.integers(0, 8),
    kinds=st.tuples(st.sampled_from([*KINDS[:4], {"num_workers": 1, **FORK}]), st.sampled_from(KINDS[:4])),
    drop_last=st.booleans(),
)
def test_a_stream_is_gone_on_with_in_as_many_copies_as_it_began(
    stop: int, kinds: tuple[dict[str, Any], dict[str, Any]], drop_last: bool
) -> None:
    """Serve the copies that a run began with by whatever workers there are now: same batches, same draws."""

    def make(**how: Any) -> DataLoader[Any]:
        return DataLoader(Stream(), 3, seed=2, drop_last=drop_last, **how)

    expected = [plain(batch) for batch in make(**kinds[0])]
    found, successor = stopped_and_resumed(make, min(stop, len(expected)), *kinds)
    assert found == expected
    following = make(**kinds[0])
    following.set_epoch(1)
    assert [plain(batch) for batch in successor] == [plain(batch) for batch in following]


@pytest.mark.parametrize("how", [KINDS[0], {"num_workers": 1, **FORK}], ids=str)
def test_a_stream_that_keeps_its_own_state_is_not_read_again(how: dict[str, Any]) -> None:
    """Give it its state back, which later reading does not change in the saved one."""

    class Strict(Keeper):
        def __iter__(self) -> Iterator[int]:
            assert self.at == 0 or self.loaded
            return super().__iter__()

    loader: DataLoader[Any] = DataLoader(Strict(), 4, **how)
    iterator = iter(loader)
    assert plain(next(iterator)) == [0, 1, 2, 3]
    state = loader.state_dict()
    assert state["streams"] == {"0": ["dataset", {"at": 4}]}
    assert plain(next(iterator)) == [4, 5, 6, 7]
    assert state["streams"] == {"0": ["dataset", {"at": 4}]}
    loader.close()
    successor: DataLoader[Any] = DataLoader(Strict(), 4, **how)
    successor.load_state_dict(json.loads(json.dumps(state)))
    assert [plain(batch) for batch in successor] == [[4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]]


class Counting:
    """A sampler that keeps its own place, and tells how often it was asked."""

    def __init__(self, size: int = 20) -> None:
        self.size, self.at, self.asked, self.loaded = size, 0, 0, False

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        if not self.loaded:
            self.at = 0
        self.loaded = False
        while self.at < self.size:
            self.asked += 1
            self.at += 1
            yield self.at * 7 % self.size

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at, self.loaded = state["at"], True


class Places:
    """A sampler whose iterator keeps the place, as torchdata's do."""

    asked = 0

    def __iter__(self) -> Places:
        self.at = 0
        return self

    def __next__(self) -> int:
        if self.at == 20:
            raise StopIteration
        self.at += 1
        Places.asked += 1
        return self.at - 1

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class Pairs(Counting):
    """A batch sampler that keeps its own place."""

    def __iter__(self) -> Iterator[Any]:
        return ([index, (index + 1) % 20] for index in super().__iter__())


STATEFUL: dict[str, Any] = {
    "sampler": lambda: {"sampler": Counting(), "batch_size": 3},
    "iterator": lambda: {"sampler": Places(), "batch_size": 3},
    "batch sampler": lambda: {"batch_sampler": Pairs()},
    "within a batch sampler": lambda: {"batch_sampler": BatchSampler(Counting(), 3, drop_last=False)},
}


@pytest.mark.parametrize("name", STATEFUL)
@pytest.mark.parametrize("how", KINDS[:4], ids=str)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_sampler_that_keeps_its_own_state_is_not_passed_through_again(
    name: str, how: dict[str, Any], stop: int
) -> None:
    """Save where it stood when the batch was drawn that was received last, whatever was drawn ahead."""
    loader = DataLoader(Noisy(20), seed=1, **STATEFUL[name](), **how)
    iterator = iter(loader)
    for _ in range(stop):
        next(iterator)
    state = through_json(loader.state_dict())
    rest = [plain(batch) for batch in iterator]
    given = STATEFUL[name]()
    sampler = given.get("sampler") or getattr(given["batch_sampler"], "sampler", given["batch_sampler"])
    before = sampler.asked
    successor = DataLoader(Noisy(20), seed=1, **given, **how)
    successor.load_state_dict(state)
    assert successor.state_dict() == state
    iterator = iter(successor)
    assert successor.state_dict()["sampler"] == state["sampler"]
    assert [plain(batch) for batch in iterator] == rest
    assert sampler.asked - before < 20
    assert len([*successor]) == len(rest) + stop


def test_samples_that_are_left_out_come_once_whatever_the_order() -> None:
    """Fill batches up from one order, so that a state can name a place in it."""
    bad = frozenset({1, 7, 8, 20})
    how: dict[str, Any] = {"on_error": "skip", "in_order": False, "num_workers": 3, "backend": "threads", "seed": 2}
    for stop in range(10):
        loader = DataLoader(Noisy(40, bad), 4, shuffle=True, **how)
        first = [plain(batch)[0] for batch in islice(loader, stop)]
        state = through_json(loader.state_dict())
        loader.close()
        successor = DataLoader(Noisy(40, bad), 4, shuffle=True, **how)
        successor.load_state_dict(state)
        found = first + [plain(batch)[0] for batch in successor]
        assert sorted(index for batch in found for index in batch) == sorted(set(range(40)) - bad)


def test_a_samplers_order_is_gone_on_with_out_of_order() -> None:
    """Draw what was received out of its turn, and pass it over."""
    how: dict[str, Any] = {"in_order": False, "num_workers": 3, "backend": "threads", "seed": 2}
    state = {**DataLoader(Noisy(20), 2, sampler=range(20)).state_dict(), "step": 2, "batches": 4, "beyond": [3, 5]}
    successor = DataLoader(Noisy(20), 2, sampler=range(20), **how)
    successor.load_state_dict(state, strict=False)
    assert sorted(index for batch in successor for index in plain(batch)[0]) == list(range(4, 20))
    successor.load_state_dict({**state, "plan": successor.state_dict()["plan"]})
    found = sorted(index for batch in successor for index in plain(batch)[0])
    assert found == [4, 5, 8, 9, *range(12, 20)]


def test_steps_beyond_the_place_are_refused_where_they_would_be_cut_otherwise() -> None:
    """Refuse another world for a state that was saved out of order; or let those steps come again."""
    loader = DataLoader(range(40), 2, seed=1, in_order=False, num_workers=2, backend="threads")
    state = {**loader.state_dict(), "step": 2, "samples": 4, "batches": 3, "beyond": [4]}
    for how, words, step in (
        ({"batch_size": 1, "rank": 0, "world_size": 2}, "world_size=1, but this loader has", 2),
        ({"batch_size": 3}, "batch_size=2, but this loader has", 1),
    ):
        other = DataLoader(range(40), seed=1, **how)  # type: ignore[arg-type]
        with pytest.raises(StateMismatch, match=words):
            other.load_state_dict(state)
        other.load_state_dict(state, strict=False)
        assert [index for batch in other for index in batch.tolist()] == list(range(4, 40, step))


def test_out_of_order_nothing_is_lost_and_nothing_comes_twice() -> None:
    """Remember which later batches have come already, for a successor in order or not."""
    for in_order in (False, True):
        make = {"seed": 3, "shuffle": True, "num_workers": 3, "backend": "threads"}
        loader = DataLoader(ArrayDataset(np.arange(50)), 1, in_order=False, **make)
        iterator = iter(loader)
        first = [next(iterator).item() for _ in range(17)]
        state = through_json(loader.state_dict())
        loader.close()
        successor = DataLoader(ArrayDataset(np.arange(50)), 1, in_order=in_order, **make)
        successor.load_state_dict(state)
        assert sorted(first + [batch.item() for batch in successor]) == list(range(50))


def test_a_state_stays_what_it_was_and_can_be_had_before_the_first_loop() -> None:
    """Give the same state again and again while nothing moves; a new loop begins where it says."""
    loader = DataLoader(range(10), 4, shuffle=True, seed=1)
    assert loader.state_dict()["step"] == 0
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    assert loader.state_dict() == state
    next(iterator)
    assert state["step"] == 1
    list(iterator)
    after = loader.state_dict()
    assert (after["epoch"], after["step"], after["plan"]) == (1, 0, state["plan"])


def test_a_state_in_the_last_step_leaves_nothing_and_then_the_next_epoch() -> None:
    """Give no batch where all have been received, and then the epoch after it."""
    loader = DataLoader(range(8), 4, shuffle=True, seed=1)
    iterator = iter(loader)
    next(iterator), next(iterator)
    state = loader.state_dict()
    following = [batch.tolist() for batch in loader]
    successor = DataLoader(range(8), 4, shuffle=True, seed=1)
    successor.load_state_dict(state)
    assert list(successor) == []
    assert [batch.tolist() for batch in successor] == following


def test_an_epoch_that_is_set_keeps_the_place_within_it() -> None:
    """Let a script call set_epoch before every epoch, the resumed one too."""
    loader = DataLoader(range(12), 4, seed=1)
    loader.set_epoch(5)
    next(iter(loader))
    state = loader.state_dict()
    for epoch, left in ((5, 2), (6, 3)):
        successor = DataLoader(range(12), 4, seed=1)
        successor.load_state_dict(state)
        successor.set_epoch(epoch)
        assert sum(1 for _ in successor) == left


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": range(13)}, "samples=12, but this loader has samples=13"),
        ({"batch_size": 5}, "batch_size=4, but this loader has batch_size=5"),
        ({"seed": 2}, "seed=1, but this loader has seed=2"),
        ({"shuffle": True}, "order='sequential', but this loader has order='shuffled'"),
        ({"drop_last": True}, "drop_last=False, but"),
        ({"dataset": list(range(12))}, "dataset='range', but this loader has dataset='list'"),
    ],
    ids=str,
)
def test_a_state_of_another_run_is_refused_with_what_differs(change: dict[str, Any], words: str) -> None:
    """Name it; continue from the sample where the other stood if that is wanted."""
    how: dict[str, Any] = {"dataset": range(12), "batch_size": 4, "seed": 1}
    loader = DataLoader(**how)
    iterator = iter(loader)
    next(iterator)
    state = loader.state_dict()
    other = DataLoader(**{**how, **change})
    with pytest.raises(StateMismatch, match=words):
        other.load_state_dict(state)
    other.load_state_dict(state, strict=False)
    if not {"shuffle", "seed"} & set(change):
        assert next(iter(other))[0] == 4


NO_STATES: list[Any] = [
    None,
    {},
    {"version": 2},
    {"version": 1, "plan": {}, "step": -1},
    {"version": 1, "plan": {}, "beyond": 3},
    {"version": 1, "plan": {}, "beyond": ["x"]},
    {"version": 1, "plan": {}, "streams": [1]},
    {"version": 1, "plan": {}, "streams": {"x": 1}},
]


def test_a_samplers_keys_are_cut_again_from_where_the_other_stood() -> None:
    """Continue with another batch size where that is wanted: nothing lost, nothing twice."""
    loader = DataLoader(Noisy(20), 4, sampler=range(20), seed=1)
    iterator = iter(loader)
    next(iterator), next(iterator)
    other = DataLoader(Noisy(20), 5, sampler=range(20), seed=1)
    other.load_state_dict(loader.state_dict(), strict=False)
    assert [plain(batch)[0] for batch in other] == [[8, 9, 10, 11, 12], [13, 14, 15, 16, 17], [18, 19]]


@pytest.mark.parametrize("state", NO_STATES, ids=str)
def test_what_is_no_state_is_refused(state: Any) -> None:
    """Say what was expected."""
    with pytest.raises(StateMismatch):
        DataLoader([1]).load_state_dict(state)


def test_a_far_place_is_reached_at_once() -> None:
    """Begin in the middle of a billion samples without passing those before."""

    class Billion:
        asked: list[int] = []

        def __len__(self) -> int:
            return 10**9

        def __getitem__(self, index: int) -> int:
            self.asked.append(index)
            return index

    loader = DataLoader(Billion(), 10, seed=1)
    state = {**loader.state_dict(), "step": 10**7, "samples": 10**8}
    loader.load_state_dict(state)
    assert next(iter(loader)).tolist() == list(range(10**8, 10**8 + 10))
    assert len(Billion.asked) == 10


@settings(max_examples=30)
@given(
    size=st.integers(1, 60),
    batch_size=st.integers(1, 5),
    worlds=st.lists(st.integers(1, 4), min_size=2, max_size=4),
    uneven=st.sampled_from(["pad", "drop", "repeat"]),
    drop_last=st.booleans(),
    stops=st.lists(st.integers(0, 4), min_size=3, max_size=3),
)
def test_ranks_may_change_in_the_middle_of_an_epoch(
    size: int, batch_size: int, worlds: list[int], uneven: Any, drop_last: bool, stops: list[int]
) -> None:
    """Share out one order among as many ranks as there are at each time: nothing lost, nothing twice, steps alike."""

    def make(rank: int, world: int) -> DataLoader[Any]:
        return DataLoader(
            Noisy(size),
            batch_size,
            shuffle=True,
            seed=3,
            rank=rank,
            world_size=world,
            uneven=uneven,
            drop_last=drop_last,
        )

    single = DataLoader(Noisy(size), 1, shuffle=True, seed=3)
    alone = {index.item(): draw.item() for index, draw in single}
    order = list(alone)
    received: list[tuple[int, float]] = []
    state: dict[str, Any] | None = None
    position = 0
    for world, stop in zip(worlds, [*stops, None], strict=False):
        loaders = [make(rank, world) for rank in range(world)]
        if state is not None:
            for loader in loaders:
                loader.load_state_dict(state)
        runs = [list(islice(loader, stop)) for loader in loaders]
        assert len({len(run) for run in runs}) == 1
        for step in zip(*runs, strict=True):
            assert len({len(batch[0]) for batch in step}) == 1
            here = [pair for batch in step for pair in zip(*plain(batch), strict=True)]
            fresh = here[: max(0, size - position)]
            assert [index for index, _ in fresh] == order[position : position + len(fresh)]
            received += fresh
            position += len(fresh)
        states = [loader.state_dict() for loader in loaders]
        assert all(other == states[0] for other in states)
        state = states[0]
        if state["epoch"]:
            break
    assert all(alone[index] == draw for index, draw in received if order.index(index) < size)
    assert len({index for index, _ in received}) == len(received)


def test_ranks_are_found_where_the_environment_says_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take torchrun's variables, and refuse nonsense."""
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    loader = DataLoader(range(12), 2, seed=0, rank="auto")
    assert (loader.rank, loader.world_size) == (2, 3)
    assert [batch.tolist() for batch in loader] == [[4, 5], [10, 11]]
    assert len(loader) == 2
    monkeypatch.setenv("RANK", "3")
    with pytest.raises(ValueError, match="RANK='3' and WORLD_SIZE='3'"):
        DataLoader(range(12), rank="auto")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"rank": 0}, "must be given together"),
        ({"rank": 2, "world_size": 2, "seed": 0}, "rank must be from 0 to world_size - 1"),
        ({"rank": 0, "world_size": 2}, "needs a seed"),
        ({"rank": 0, "world_size": 2, "seed": 0, "on_error": "skip"}, "different numbers of batches"),
        ({"rank": 0, "world_size": 2, "seed": 0, "sampler": [1]}, "use DistributedSampler without"),
        ({"rank": "auto", "world_size": 2}, "leave world_size out"),
        ({"uneven": "x"}, "uneven must be one of"),
    ],
    ids=str,
)
def test_ranks_are_checked_at_the_door(arguments: dict[str, Any], words: str) -> None:
    """Refuse what would let ranks disagree."""
    with pytest.raises(ValueError, match=words):
        DataLoader([1, 2], **arguments)
