"""Datasets that are read by iterating."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from headrace import Dataset
from headrace.context import seeds
from headrace.context.timing import counting
from headrace.datasets.iterable import ChainDataset, IterableDataset, MappedIterable
from headrace.datasets.protocol import is_iterable
from headrace.errors import ArgumentError


class Counting(IterableDataset[int]):
    """The numbers under n; says when it is asked for its iterator."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.begun = 0

    def __iter__(self) -> Iterator[int]:
        self.begun += 1
        return iter(range(self.n))


class Sized(Counting):
    def __len__(self) -> int:
        return self.n


def ten_times(sample: int) -> int:
    return 10 * sample


def test_a_stream_needs_an_iterator_only() -> None:
    """Iterate, as often as one likes; be a Dataset; and have no length unless one is defined."""
    stream = Counting(3)
    assert (list(stream), list(stream)) == ([0, 1, 2], [0, 1, 2])
    assert isinstance(stream, Dataset)
    with pytest.raises(TypeError, match=r"object of type '.*Counting' has no len\(\)"):
        len(stream)
    assert len(Sized(3)) == 3
    assert IterableDataset[int] is not None
    with pytest.raises(NotImplementedError, match=r"IterableDataset must define __iter__\(\)"):
        iter(IterableDataset())
    with pytest.raises(NotImplementedError, match="has no sample 0"):
        stream[0]


def test_functions_are_applied_as_samples_come() -> None:
    """Map lazily, in order, with the sample's generator where it is wanted; keep the length."""
    mapped = Sized(3).map(ten_times).map(str)
    assert isinstance(mapped, MappedIterable)
    assert (list(mapped), len(mapped)) == (["0", "10", "20"], 3)
    assert list(pickle.loads(pickle.dumps(Counting(2).map(ten_times)))) == [0, 10]
    with pytest.raises(TypeError):
        len(Counting(3).map(str))
    with seeds.at(seeds.Here(seeds.key_of(0), epoch=0)):
        (noise,) = Counting(1).map(lambda sample, rng: rng.random())
        expected = seeds.generator(seeds.key_of(0), seeds.Purpose.SAMPLE, 0, 0).random()
    assert noise == expected
    seen: list[int] = []
    iterator = iter(Counting(100).map(seen.append))
    next(iterator)
    assert seen == [0]


def test_the_time_of_functions_is_counted_and_not_that_of_the_loop() -> None:
    """Count the functions as the transform stage, and nothing while the sample is away."""
    with counting() as seconds:
        for _ in Counting(3).map(ten_times):
            assert seconds.get("transform", 0) >= 0
    assert seconds["transform"] > 0


def test_streams_are_chained_one_after_the_other() -> None:
    """Begin each when its turn comes; write + for it; add the lengths."""
    first, second = Sized(2), Sized(3)
    chained = first + second
    assert isinstance(chained, ChainDataset)
    iterator = iter(chained)
    assert [next(iterator), next(iterator)] == [0, 1]
    assert (first.begun, second.begun) == (1, 0)
    assert list(iterator) == [0, 1, 2]
    assert len(chained) == 5
    assert list(chained + Counting(1)) == [0, 1, 0, 1, 2, 0]
    assert list(chained.map(ten_times)) == [0, 10, 0, 10, 20]
    with pytest.raises(TypeError, match="has no len"):
        len(chained + Counting(1))


def test_chained_datasets_may_come_from_a_generator() -> None:
    """Make each dataset when the one before it has ended."""
    made: list[int] = []

    def streams() -> Iterator[Counting]:
        for n in (1, 2):
            made.append(n)
            yield Counting(n)

    iterator = iter(ChainDataset(streams()))
    assert made == []
    assert next(iterator) == 0
    assert made == [1]
    assert list(iterator) == [0, 1]


def test_only_streams_are_chained() -> None:
    """Refuse what has an index: at once in a list, else when it is reached; a ValueError and torch's AssertionError."""
    words = "ChainDataset only supports IterableDataset; dataset 1 is a list; .*Use ConcatDataset"
    with pytest.raises(AssertionError, match=words) as caught:
        ChainDataset([Counting(1), [1]])
    assert isinstance(caught.value, ArgumentError)
    with pytest.raises(AssertionError, match=words):
        Counting(1) + [1]  # noqa: RUF005  adding is what is tested
    late: ChainDataset[Any] = ChainDataset(iter([Counting(1), [1]]))
    iterator = iter(late)
    assert next(iterator) == 0
    with pytest.raises(AssertionError, match=words):
        next(iterator)


@pytest.mark.parametrize(
    ("dataset", "iterable"),
    [
        (Counting(1), True),
        (Counting(1).map(str), True),
        (ChainDataset([]), True),
        (iter([1]), True),
        ({1}, True),
        ([1], False),
        ({"a": 1}, False),
        (np.zeros(3), False),
        (Dataset(), False),
        (5, False),
    ],
    ids=str,
)
def test_streams_are_distinguished_from_what_has_an_index(dataset: Any, iterable: bool) -> None:
    """Go by the class, and by the methods of what has no class of ours."""
    assert is_iterable(dataset) == iterable


@pytest.mark.parametrize(("base", "words"), [(5, "base must be iterable; got an int"), (None, "a NoneType")])
def test_only_what_can_be_iterated_is_mapped(base: Any, words: str) -> None:
    """Say what was given."""
    with pytest.raises(TypeError, match=words):
        MappedIterable(base, str)
