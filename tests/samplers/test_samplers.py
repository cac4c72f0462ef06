"""Samplers: which indices, how often, in which order, and how many."""

# ruff: noqa: FBT003  called by position, as scripts written for torch do

from __future__ import annotations

import math
import pickle
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import samplers
from headrace.errors import ArgumentError
from headrace.samplers import (
    BalancedBatchSampler,
    BatchSampler,
    BucketBatchSampler,
    MixtureSampler,
    PackingBatchSampler,
    RandomSampler,
    RepeatedSampler,
    ReplacementSampler,
    Sampler,
    SequentialSampler,
    ShardSampler,
    SubsetRandomSampler,
    TokenBatchSampler,
    WeightedRandomSampler,
)

WEIGHTS = [0.1, 0.9, 0.4, 0.7, 3.0, 0.6]

RANDOM: dict[str, Callable[[Any], Sampler[int]]] = {
    "permutation": lambda g: RandomSampler(range(100), generator=g),
    "replacement": lambda g: RandomSampler(range(100), replacement=True, generator=g),
    "more": lambda g: RandomSampler(range(100), num_samples=205, generator=g),
    "subset": lambda g: SubsetRandomSampler(range(50, 150), generator=g),
    "array": lambda g: SubsetRandomSampler(np.arange(100), generator=g),
    "weights": lambda g: WeightedRandomSampler(WEIGHTS, 50, generator=g),
    "weights once": lambda g: WeightedRandomSampler(np.ones(100), 50, replacement=False, generator=g),
}
every_random_one = pytest.mark.parametrize("make", RANDOM.values(), ids=RANDOM)


@given(size=st.integers(1, 100), count=st.none() | st.integers(1, 350), seed=st.integers(0, 2**32))
def test_no_index_comes_again_before_all_have_come(size: int, count: int | None, seed: int) -> None:
    """Give whole permutations and a part of one, of Python ints, as many as the length says."""
    sampler = RandomSampler(range(size), num_samples=count, generator=seed)
    indices = list(sampler)
    assert len(indices) == len(sampler) == sampler.num_samples == (size if count is None else count)
    for start in range(0, len(indices), size):
        part = indices[start : start + size]
        assert len(set(part)) == len(part)
        assert set(part) <= set(range(size))
    assert all(type(index) is int for index in indices)


@given(size=st.integers(1, 100), count=st.integers(1, 350), seed=st.integers(0, 2**32))
def test_with_replacement_indices_are_drawn_independently(size: int, count: int, seed: int) -> None:
    """Give as many as asked for, all within the dataset."""
    indices = list(RandomSampler(range(size), True, count, seed))
    assert len(indices) == count
    assert set(indices) <= set(range(size))
    assert all(type(index) is int for index in indices)


def test_with_replacement_every_index_is_as_likely() -> None:
    """Compare frequencies; a chi-square of 99.99 % allowed."""
    counts = np.bincount(list(RandomSampler(range(10), True, 100_000, generator=0)), minlength=10)
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 35.6


@every_random_one
def test_a_generator_fixes_the_order_of_every_pass(make: Any) -> None:
    """Repeat all passes from the same seed, and no pass within them; from ints and both kinds of NumPy's."""
    for generator in (lambda: 42, lambda: np.random.default_rng(42), lambda: np.random.RandomState(42)):
        one, other = make(generator()), make(generator())
        passes = [list(one), list(one)]
        assert passes == [list(other), list(other)]
        assert passes[0] != passes[1]
        assert all(type(index) is int for index in passes[0])


@every_random_one
def test_two_passes_at_once_do_not_disturb_each_other(make: Any) -> None:
    """Draw what a pass needs when it begins: two that began in one state give one order, however they interleave."""
    generator = np.random.default_rng(7)
    sampler = make(generator)
    state = generator.bit_generator.state
    ones, others = iter(sampler), iter(sampler)
    pairs = []
    for _ in range(len(sampler)):
        if not pairs:
            generator.bit_generator.state = state
            one = next(ones)
            generator.bit_generator.state = state
            pairs.append((one, next(others)))
        else:
            pairs.append((next(ones), next(others)))
    assert all(one == other for one, other in pairs)


@every_random_one
def test_making_a_pass_draws_nothing_before_its_first_index(make: Any) -> None:
    """Leave the generator alone until an index is asked for."""
    generator = np.random.default_rng(7)
    sampler, state = make(generator), generator.bit_generator.state
    iter(sampler)
    assert generator.bit_generator.state == state
    next(iter(sampler))
    assert generator.bit_generator.state != state


@every_random_one
def test_samplers_pickle(make: Any) -> None:
    """Continue in another process as here."""
    sampler = make(3)
    copy = pickle.loads(pickle.dumps(sampler))
    assert list(copy) == list(sampler)


def test_a_growing_dataset_grows_the_pass() -> None:
    """Ask for the length at every pass."""
    data = [0] * 3
    shuffled, sequential = RandomSampler(data), SequentialSampler(data)
    assert (len(shuffled), len(sequential)) == (3, 3)
    data.append(0)
    assert sorted(shuffled) == list(sequential) == [0, 1, 2, 3]
    assert len(shuffled) == 4


def test_a_hundred_million_indices_begin_at_once() -> None:
    """Hold an array of them at most, and make Python objects of a few at a time."""
    huge = range(10**8)
    assert list(islice(SequentialSampler(huge), 2)) == [0, 1]
    assert len(set(islice(RandomSampler(huge, replacement=True, generator=0), 10**4))) > 9990


def test_a_subset_is_given_in_random_order() -> None:
    """Give exactly the indices, whatever they are held in and whatever they are."""
    assert sorted(SubsetRandomSampler([5, 3, 9])) == [3, 5, 9]
    assert sorted(SubsetRandomSampler(range(2, 6))) == [2, 3, 4, 5]
    keys: Any = ["b", "a"]
    assert sorted(SubsetRandomSampler(keys)) == ["a", "b"]
    from_array = list(SubsetRandomSampler(np.array([7, 8], np.uint8)))  # type: ignore[arg-type]
    assert sorted(from_array) == [7, 8]
    assert all(type(index) is int for index in from_array)
    assert list(SubsetRandomSampler([])) == []
    assert len(SubsetRandomSampler([4, 4, 4])) == 3


def test_weights_may_be_changed_between_passes() -> None:
    """Read them when a pass begins: in place, and replaced by others."""
    sampler = WeightedRandomSampler(np.array([1.0, 0.0, 0.0]), 20)
    assert set(sampler) == {0}
    sampler.weights[:2] = 0, 1
    assert set(sampler) == {1}
    sampler.weights = [0, 0, 5]  # type: ignore[assignment]
    assert set(sampler) == {2}


def test_more_weights_than_torch_takes() -> None:
    """Draw from more than 2**24 of them."""
    weights = np.zeros(2**24 + 10, np.float64)
    weights[-3:] = 1
    assert set(WeightedRandomSampler(weights, 100, generator=0)) == set(range(2**24 + 7, 2**24 + 10))


def test_without_replacement_no_index_is_drawn_twice() -> None:
    """Draw all of them, each once."""
    assert sorted(WeightedRandomSampler(WEIGHTS, 6, replacement=False)) == list(range(6))
    assert Counter(WeightedRandomSampler(WEIGHTS, 5, False)).most_common(1)[0][1] == 1


@given(
    size=st.integers(0, 60),
    batch_size=st.integers(1, 20),
    drop_last=st.booleans(),
    kind=st.sampled_from([range, SequentialSampler]),
)
def test_batches_are_the_indices_cut(size: int, batch_size: int, drop_last: bool, kind: Any) -> None:
    """Cut what any sampler gives into lists of one size, but for the last."""
    source = range(size) if kind is range else SequentialSampler(range(size))
    sampler = BatchSampler(source, batch_size, drop_last)
    batches = list(sampler)
    assert len(batches) == len(sampler) == (size // batch_size if drop_last else math.ceil(size / batch_size))
    assert [index for batch in batches for index in batch] == list(range(size))[: len(batches) * batch_size]
    assert all(type(batch) is list and len(batch) == batch_size for batch in batches[:-1])


def test_batches_of_an_iterable_without_length() -> None:
    """Cut a generator of indices, and batches of batches; only the length is missing."""
    assert list(BatchSampler(iter("abcde"), 2, False)) == [["a", "b"], ["c", "d"], ["e"]]  # type: ignore[arg-type]
    assert list(BatchSampler(BatchSampler(range(5), 2, False), 2, True)) == [[[0, 1], [2, 3]]]  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        len(BatchSampler(iter([1]), 2, False))


def test_batches_are_drawn_when_asked_for() -> None:
    """Take no more of the sampler than the batch needs, and nothing after the end of a generator."""
    taken: list[int] = []

    def indices() -> Iterator[int]:
        for index in range(100):
            taken.append(index)
            yield index

    batches = iter(BatchSampler(indices(), 3, drop_last=True))
    next(batches)
    assert taken == [0, 1, 2]


def test_a_sampler_of_ones_own_needs_an_iterator_only() -> None:
    """Name the method that is missing; subscribe to the type."""

    class Mine(Sampler[list[int]]):
        def __iter__(self) -> Iterator[list[int]]:
            return iter([[0], [1]])

    assert list(Mine()) == [[0], [1]]
    assert isinstance(Mine(), Iterable)
    assert not hasattr(Mine(), "__len__")
    with pytest.raises(NotImplementedError, match=r"Sampler must define __iter__\(\)"):
        iter(Sampler())


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: RandomSampler(range(9), replacement=0), TypeError, "replacement should be a boolean value, but got r"),
        (lambda: RandomSampler(range(9), num_samples=0), ValueError, "positive integer value, but got num_samples=0"),
        (lambda: RandomSampler(range(9), num_samples=-2), ValueError, "but got num_samples=-2"),
        (lambda: RandomSampler(range(9), num_samples=2.0), ValueError, "but got num_samples=2.0"),
        (lambda: RandomSampler([]), ValueError, "but got num_samples=0"),
        (lambda: list(RandomSampler([], num_samples=3)), ValueError, "the dataset is empty"),
        (lambda: RandomSampler(5), TypeError, "has no len"),
        (lambda: RandomSampler(range(9), generator="g"), TypeError, "generator must be"),
        (lambda: SubsetRandomSampler([1], generator=1.5), TypeError, "generator must be"),
        (lambda: WeightedRandomSampler(WEIGHTS, True), ValueError, "positive integer value, but got num_samples=True"),
        (lambda: WeightedRandomSampler(WEIGHTS, 0), ValueError, "but got num_samples=0"),
        (lambda: WeightedRandomSampler(WEIGHTS, 2, 1), ValueError, "replacement should be a boolean value"),
        (lambda: WeightedRandomSampler([[1.0, 2.0]], 2), ValueError, r"weights have shape \(1, 2\)"),
        (lambda: WeightedRandomSampler(3.0, 2), ValueError, r"weights have shape \(\)"),
        (lambda: WeightedRandomSampler(["a"], 2), ValueError, "sequence of numbers"),
        (lambda: WeightedRandomSampler([1, -1], 2), ValueError, "weight 1 is -1.0"),
        (lambda: WeightedRandomSampler([1, math.nan], 2), ValueError, "weight 1 is nan"),
        (lambda: WeightedRandomSampler([math.inf], 2), ValueError, "weight 0 is inf"),
        (lambda: WeightedRandomSampler([0, 0], 2), ValueError, "above 0; got 2 weights"),
        (lambda: WeightedRandomSampler([], 2), ValueError, "weights is empty"),
        (lambda: WeightedRandomSampler([1, 1], 3, False), ValueError, "draw 3 samples by 2 weights without repl"),
        (lambda: BatchSampler(range(9), 0, False), ValueError, "positive integer value, but got batch_size=0"),
        (lambda: BatchSampler(range(9), True, False), ValueError, "but got batch_size=True"),
        (lambda: BatchSampler(range(9), 2.5, False), ValueError, "but got batch_size=2.5"),
        (lambda: BatchSampler(range(9), 2, 1), ValueError, "drop_last should be a boolean value, but got drop_last=1"),
    ],
)
def test_arguments_are_checked_at_the_door(make: Any, error: type[Exception], words: str) -> None:
    """Raise torch's types of errors, with its words."""
    with pytest.raises(error, match=words):
        make()


def test_weights_are_checked_again_when_they_have_changed() -> None:
    """Not draw from weights that were spoilt between passes."""
    sampler = WeightedRandomSampler(np.ones(3), 5)
    sampler.weights[1] = -1
    with pytest.raises(ArgumentError, match="weight 1 is -1"):
        list(sampler)


@pytest.mark.parametrize(
    "call",
    [
        "SequentialSampler(range(0, 6))",
        "RandomSampler(range(0, 6), num_samples=6)",
        "RandomSampler([1, 2], replacement=True, num_samples=3)",
        "SubsetRandomSampler([2, 3, 5])",
        "WeightedRandomSampler([0.5, 1.0], num_samples=2, replacement=False)",
        "BatchSampler(SequentialSampler(range(0, 6)), batch_size=4, drop_last=True)",
        "DistributedSampler(range(0, 6), num_replicas=2, rank=1, shuffle=False)",
        "ShardSampler([3, 3, 3], window=2, seed=0)",
    ],
)
def test_a_sampler_is_written_as_the_call_that_makes_it(call: str) -> None:
    """Leave out the arguments that are the default ones."""
    assert repr(eval(call, vars(samplers))) == call


def test_a_samplers_repr_is_short_and_never_fails() -> None:
    """Name the kind and the length of a dataset, and write what a subclass lacks as Python does."""

    class Own(Sampler[int]):
        def __init__(self, size: int) -> None:
            self.length = size

    assert repr(RandomSampler([0] * 10**6, num_samples=5)) == "RandomSampler(<list of 1000000>, num_samples=5)"
    assert repr(SubsetRandomSampler(np.arange(99), generator=np.random.default_rng(0))) == (
        "SubsetRandomSampler(<ndarray of 99>, generator=<Generator>)"
    )
    own = Own(3)
    assert repr(own) == object.__repr__(own)
    assert repr(ShardSampler(np.arange(99))) == "ShardSampler(<ndarray of 99>)"


@pytest.mark.parametrize(
    "sampler",
    [
        BalancedBatchSampler([0, 1, 0, 1]),
        BucketBatchSampler([4, 2, 9], 2, seed=1),
        MixtureSampler([4, 2], [0.5, 0.5]),
        PackingBatchSampler([4, 2, 9], 16, 2),
        RepeatedSampler(3, seed=2),
        ReplacementSampler(3),
        TokenBatchSampler([4, 2, 9], 16),
    ],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_sampler_that_does_not_keep_its_arguments_is_written_in_angle_brackets(sampler: Any) -> None:
    """Name what its order is made of, and look like no call."""
    text = repr(sampler)
    assert text.startswith(f"<{type(sampler).__name__}: ")
    assert text.endswith(f"seed={sampler.seed}>")
