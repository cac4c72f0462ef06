"""The state of a sampler by itself: what comes next is what would have come, and so are all passes after it."""

from __future__ import annotations

import copy
import json
import pickle
import random
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace.errors import StateMismatch
from headrace.samplers import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    StatefulDistributedSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE = 10


class Shuffling(Sampler[int]):
    """Draws from Python's global generator, and keeps no state."""

    def __iter__(self) -> Iterator[int]:
        return iter(random.sample(range(SIZE), SIZE))


class Counting(Sampler[int]):
    """Begins one further in each pass, and keeps its place, which is 0 again at a pass's end."""

    def __init__(self) -> None:
        self.passes, self.given, self.skip = 0, 0, 0

    def __iter__(self) -> Iterator[int]:
        self.given, self.skip = self.skip, 0
        for index in range(self.given, SIZE):
            self.given += 1
            yield (index + self.passes) % SIZE
        self.passes, self.given = self.passes + 1, 0

    def state_dict(self) -> dict[str, int]:
        return {"passes": self.passes, "given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.passes, self.skip = state["passes"], state["given"]


def generators() -> dict[str, Any]:
    return {
        "a seed": lambda: 5,
        "NumPy's": lambda: np.random.default_rng(5),
        "NumPy's old": lambda: np.random.RandomState(5),
        "none": lambda: None,
    }


def batched(inner: Any, size: int = 4, *, drop_last: bool = False) -> BatchSampler:
    return BatchSampler(inner, size, drop_last)


def numpys() -> np.random.Generator:
    return np.random.default_rng(5)


KINDS: dict[str, Any] = {
    **{f"random, {name}": (lambda make=make: RandomSampler(range(SIZE), generator=make()))
       for name, make in generators().items()},
    "replacement": lambda: RandomSampler(range(SIZE), replacement=True, num_samples=25, generator=5),
    "several orders": lambda: RandomSampler(range(4), num_samples=SIZE, generator=numpys()),
    "distributed": lambda: DistributedSampler(range(SIZE * 2), 2, 1, seed=3),
    "torchdata's name": lambda: StatefulDistributedSampler(range(SIZE * 2), 2, 0, shuffle=False),
    "batches of random": lambda: batched(RandomSampler(range(SIZE), generator=numpys())),
    "batches, no generator": lambda: batched(RandomSampler(range(SIZE))),
    "batches of indices": lambda: batched([3, 1, 4, 1, 5, 9, 2, 6]),
    "batches of a subset": lambda: batched(SubsetRandomSampler(range(SIZE), generator=numpys())),
    "batches by weight": lambda: batched(WeightedRandomSampler(np.arange(SIZE), SIZE, generator=numpys())),
    "batches of a keeper": lambda: batched(Counting(), drop_last=True),
    "whole batches of a keeper": lambda: batched(Counting(), 5),
    "short batches of a keeper": lambda: batched(Counting()),
    "batches of global draws": lambda: batched(Shuffling()),
    "batches of batches": lambda: batched(batched(RandomSampler(range(SIZE), generator=numpys()), 2), 2),
}  # fmt: skip
GLOBAL = {"random, none", "batches, no generator", "batches of global draws"}
"""What the passes after the next draw from depends on the program's global generators."""


def seed_globals(number: int) -> None:
    random.seed(number)
    np.random.seed(number)


@pytest.mark.parametrize("taken", [0, 1, 2, 3, 99])
@pytest.mark.parametrize("passes", [0, 2])
@pytest.mark.parametrize("name", KINDS)
def test_what_comes_next_is_what_would_have_come(name: str, passes: int, taken: int) -> None:
    """Save in a pass, or before it: another sampler gives the rest of it, and whole passes after it."""
    seed_globals(1)
    sampler = KINDS[name]()
    for _ in range(passes):
        list(sampler)
    indices = iter(sampler)
    got = list(islice(indices, taken))
    state = json.loads(json.dumps(sampler.state_dict()))
    kept = copy.deepcopy(state)
    expected = [] if len(got) < taken else [list(indices) if taken else list(sampler)]
    if name not in GLOBAL:
        expected += [list(sampler) for _ in range(2)]
    seed_globals(2)
    other = KINDS[name]()
    if isinstance(getattr(other, "generator", None), np.random.Generator):
        other.generator.random(9)  # it has drawn something else before
    other.load_state_dict(state)
    assert other.state_dict() == kept
    assert [list(other) for _ in expected] == expected


@pytest.mark.parametrize("name", KINDS)
def test_asking_for_a_state_changes_no_order(name: str) -> None:
    """Draw the same passes whether a state was asked for between two indices or not, and move what they move."""

    def run(*, asked: bool) -> Any:
        seed_globals(1)
        sampler = KINDS[name]()
        passes = []
        for _ in range(3):
            given = []
            for index in sampler:
                given.append(index)
                if asked:
                    sampler.state_dict()
            passes.append(given)
        return passes, random.random(), np.random.random()

    assert run(asked=True) == run(asked=False)


def test_a_pass_started_later_is_the_one_that_a_state_is_about() -> None:
    """Let an older iterator run on, and count the newest."""
    sampler = RandomSampler(range(SIZE), generator=3)
    old, new = iter(sampler), iter(sampler)
    next(old)
    given = [next(new), next(new)]
    list(old)
    other = RandomSampler(range(SIZE), generator=4)
    other.load_state_dict(sampler.state_dict())
    assert given + list(other) == given + list(new)


def test_a_copy_begins_its_own_passes() -> None:
    """Copy and pickle a sampler in the middle of a pass."""
    sampler = batched(RandomSampler(range(SIZE), generator=3))
    next(iter(sampler))
    for other in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        assert len(list(other)) == 3


def test_an_epoch_that_was_chosen_stays_chosen() -> None:
    """Take the state's epoch only where nobody has said which one it is."""
    saved = DistributedSampler(range(SIZE), 1, 0)
    saved.set_epoch(3)
    state = saved.state_dict()
    assert state == {"epoch": 3, "yielded": 0}
    unset, chosen = DistributedSampler(range(SIZE), 1, 0), DistributedSampler(range(SIZE), 1, 0)
    chosen.set_epoch(4)
    for sampler, epoch in ((unset, 3), (chosen, 4)):
        sampler.load_state_dict(state)
        assert sampler.epoch == epoch
    unset.load_state_dict({"yielded": 2})  # as torchdata writes it
    assert list(unset) == list(saved)[2:]


@pytest.mark.parametrize("junk", [None, 3, {}, {"yielded": -1}, {"yielded": True}, {"yielded": "3"}, {"batches": 1.5},
                                  {"yielded": 0, "batches": 0, "seeds": ["x"], "sampler": 3, "epoch": -1},
                                  {"yielded": 2, "generators": {"generator": {"bit_generator": "MT19937"}}},
                                  {"yielded": 2, "generators": {"generator": "!"}}], ids=repr)  # fmt: skip
@pytest.mark.parametrize("name", ["random, none", "random, NumPy's", "distributed", "batches of random"])
def test_what_is_no_state_of_it_is_refused(name: str, junk: Any) -> None:
    """Say what was found and what was expected, at the call, and leave the sampler as it was."""
    seed_globals(1)
    sampler = KINDS[name]()
    if name == "distributed" and isinstance(junk, dict) and junk.get("yielded") == 2:
        return  # it has all that this sampler needs
    with pytest.raises(StateMismatch, match=r"expected.*Load a state"):
        sampler.load_state_dict(junk)
    expected = KINDS[name]()
    seed_globals(1)
    found = list(sampler)
    seed_globals(1)
    assert found == list(expected)
