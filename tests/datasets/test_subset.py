"""Parts of datasets, chosen and at random."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from headrace import ArrayDataset, DataLoader, Dataset
from headrace.datasets.iterable import IterableDataset
from headrace.datasets.protocol import batch_reader, reads_many
from headrace.datasets.subset import Indices, Subset, random_split
from headrace.errors import ArgumentError


class Letters(Dataset[str]):
    """Letters with a place each, that say what they were asked for."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def __getitem__(self, index: Any) -> Any:
        self.asked.append(index)
        return "abcdef"[index]

    def __len__(self) -> int:
        return 6

    def where(self, index: int) -> str | None:
        return f"place/{index}"


class Many(Letters):
    def __getitems__(self, indices: list[int]) -> list[str]:
        self.asked.append(indices)
        return ["abcdef"[index] for index in indices]


def test_a_subset_reads_the_samples_at_its_indices() -> None:
    """Index from both ends, iterate, and nest."""
    subset: Subset[str] = Subset(Letters(), [4, 0, 4])
    assert (len(subset), subset[1], subset[-1], list(subset)) == (3, "a", "e", ["e", "a", "e"])
    assert list(Subset(subset, [2, 1])) == ["e", "a"]
    assert list(subset.map(str.upper)) == ["E", "A", "E"]
    with pytest.raises(IndexError):
        subset[3]


def test_a_list_or_slice_of_positions_is_asked_of_the_dataset() -> None:
    """Give a dataset of arrays the indices in one list, as torch does."""
    subset: Subset[Any] = Subset(ArrayDataset(np.arange(10) * 10), [5, 6, 7, 8])
    assert subset[[0, 2]].tolist() == [50, 70]
    assert subset[1:3].tolist() == [60, 70]
    assert Subset(subset, [0, 1, 3])[:].tolist() == [50, 60, 80]


def test_indices_need_not_be_numbers() -> None:
    """Ask a mapping for its keys."""
    subset: Subset[int] = Subset({"a": 1, "b": 2}, ["b", "a", "b"])  # type: ignore[arg-type]
    assert list(subset) == [2, 1, 2]


def test_a_dataset_without_length_has_subsets() -> None:
    """Need the length of the indices only."""

    class Endless:
        def __getitem__(self, index: int) -> int:
            return 10 * index

    assert list(Subset(Endless(), [7, 8])) == [70, 80]  # type: ignore[arg-type]


def test_many_are_read_in_one_call() -> None:
    """Use the dataset's __getitems__ where there is one, and read one by one where there is none."""
    many, single = Many(), Letters()
    assert Subset(many, [5, 3, 1]).__getitems__([2, 0]) == ["b", "f"]
    assert many.asked == [[1, 5]]
    assert Subset(single, [5, 3, 1]).__getitems__([2, 0]) == ["b", "f"]
    assert single.asked == [1, 5]
    assert reads_many(Subset(many, [0]))
    assert not reads_many(Subset(single, [0]))


def test_a_subclass_with_its_own_samples_needs_its_own_many() -> None:
    """Refuse one that defines __getitem__ alone, as torch does; go by both where both are there."""

    class Half(Subset[str]):
        def __getitem__(self, index: Any) -> Any:
            return super().__getitem__(index).upper()

    class Whole(Half):
        def __getitems__(self, indices: list[int]) -> list[str]:
            return [self[index] for index in indices]

    with pytest.raises(NotImplementedError, match="Half overrides __getitem__ but not __getitems__"):
        Half(Letters(), [0])
    assert list(Whole(Letters(), [0, 1])) == ["A", "B"]
    assert reads_many(Whole(Letters(), [0]))
    assert batch_reader(Whole(ArrayDataset(np.zeros(3)), [0])) is None


@pytest.mark.parametrize("indices", [[3, 0, -1], np.array([3, 0, -1]), Indices(np.array([3, 0, 9]))], ids=repr)
def test_whole_batches_are_gathered_where_the_dataset_gathers_them(indices: Any) -> None:
    """Read a batch of rows at once, and none where the dataset cannot."""
    base = ArrayDataset(np.arange(20.0).reshape(10, 2))
    subset: Subset[Any] = Subset(base, indices)
    reader = batch_reader(subset)
    assert reader is not None
    assert reader([2, 0], empty=np.empty).tolist() == [[18, 19], [6, 7]]
    assert batch_reader(Subset(Letters(), indices)) is None
    (batch,) = DataLoader(Subset(subset, [0, 2]), 2)
    assert batch.tolist() == [[6, 7], [18, 19]]


def test_a_sample_comes_from_where_the_dataset_says() -> None:
    """Delegate the place, by the dataset's own index."""
    assert Subset(Letters(), [4, 2]).where(1) == "place/2"
    assert Subset([1, 2], [0]).where(0) is None


@pytest.mark.parametrize("wrong", [5, iter([1]), type("Stream", (IterableDataset,), {})()], ids=str)
def test_what_has_no_index_has_no_subset(wrong: Any) -> None:
    """Refuse streams and things that are no dataset, at the door."""
    for make in (lambda: Subset(wrong, [0]), lambda: random_split(wrong, [1.0])):
        with pytest.raises(ArgumentError, match=r"__getitem__|does not support IterableDataset"):
            make()


@given(lengths=st.lists(st.integers(0, 20), max_size=6), seed=st.integers(0, 2**32))
def test_a_split_has_every_sample_once(lengths: list[int], seed: int) -> None:
    """Give parts of the lengths asked for, no sample in two of them, all of them ints."""
    assume(sum(lengths) != 1)  # that is a fraction, as in torch
    splits = random_split(range(100, 100 + sum(lengths)), lengths, generator=seed)
    assert [len(split) for split in splits] == lengths
    assert sorted(sample for split in splits for sample in split) == list(range(100, 100 + sum(lengths)))
    assert all(type(index) is int for split in splits for index in split.indices)


@given(size=st.integers(1, 1000), weights=st.lists(st.integers(1, 20), min_size=1, max_size=6))
@pytest.mark.filterwarnings("ignore:Length of split")
def test_fractions_are_rounded_down_and_the_rest_dealt_out(size: int, weights: list[int]) -> None:
    """Give each its share rounded down, and what is left to the first, one each."""
    fractions = [weight / sum(weights) for weight in weights]
    assume(sum(fractions) <= 1)
    lengths = [len(split) for split in random_split(range(size), fractions)]
    shares = [math.floor(size * fraction) for fraction in fractions]
    more = [length - share for length, share in zip(lengths, shares, strict=True)]
    assert sum(lengths) == size
    assert more == sorted(more, reverse=True)
    assert max(more) - min(more) <= 1


def test_odd_fractions_split_as_in_torch() -> None:
    """Split 106 by tenths into 11, 22, 31 and 42."""
    assert [len(split) for split in random_split(range(106), [0.1, 0.2, 0.3, 0.4])] == [11, 22, 31, 42]
    assert [len(split) for split in random_split(range(3), [0.5, 0.5])] == [2, 1]


def test_an_empty_part_of_fractions_is_warned_of() -> None:
    """Name the part that has nothing."""
    with pytest.warns(UserWarning, match="Length of split at index 1 is 0"):
        splits = random_split(range(2), [0.9, 0.1])
    assert [len(split) for split in splits] == [2, 0]


def test_a_generator_fixes_the_split() -> None:
    """Split the same from one seed, another from another, and move NumPy's global state only without one."""
    splits = [[list(s) for s in random_split(range(50), [20, 30], generator=seed)] for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]
    numpy = np.random.default_rng(5)
    assert list(random_split(range(50), [50], numpy)[0]) != list(random_split(range(50), [50], numpy)[0])


@pytest.mark.parametrize(
    ("lengths", "words"),
    [
        ([1, 2], "Sum of input lengths does not equal the length of the input dataset!"),
        ([0.1], "lengths must be an integer from 0 up"),
        ([1.1], "lengths must be an integer from 0 up"),
        ([1.5, -0.5], "Fraction at index 0 is not between 0 and 1"),
        ([2.0, 2.0], "got 2.0. Pass numbers of samples"),
        ([-1, 5], "from 0 up; got -1"),
        ([], "Sum of input lengths"),
    ],
)
def test_lengths_that_do_not_divide_the_dataset_are_refused(lengths: list[Any], words: str) -> None:
    """Raise a ValueError that names what does not fit."""
    with pytest.raises(ValueError, match=words):
        random_split([1, 2, 3, 4], lengths)


@pytest.mark.parametrize("lengths", [[0.8, 0.2], [70, 20, 10], [0.5, 0.25, 0.25]])
def test_a_stratified_split_gives_each_part_its_share_of_each_class(lengths: list[float]) -> None:
    """Have every sample once, each class by its share to within two samples, and the same split for the same seed."""
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    dataset = ArrayDataset(np.arange(100), labels)
    parts = random_split(dataset, lengths, seed=3, stratify=True)
    assert sorted(int(x) for part in parts for x, _ in part) == list(range(100))
    for part in parts:
        assert np.abs(np.bincount(part.labels, minlength=3) - np.bincount(labels) * len(part) / 100).max() < 2
    again = random_split(range(100), lengths, 3, stratify=labels)
    assert [list(part.indices) for part in parts] == [list(part.indices) for part in again]
    assert [list(part.indices) for part in random_split(dataset, lengths, seed=4, stratify=True)] != [
        list(part.indices) for part in parts
    ]


def test_a_split_refuses_what_it_cannot_stratify() -> None:
    """Name the labels that are missing, and a seed beside a generator."""
    with pytest.raises(ArgumentError, match="one label for each of 4 samples; got none"):
        random_split(range(4), [0.5, 0.5], stratify=True)
    with pytest.raises(ArgumentError, match="a seed and a generator"):
        random_split(range(4), [0.5, 0.5], 1, seed=1)


def test_split_indices_are_like_a_list() -> None:
    """Compare, join, slice, sort and search them; hold no more than an array; go through a pickle."""
    one, other = (split.indices for split in random_split(range(10), [6, 4], generator=0))
    assert isinstance(one, Indices)
    assert sorted(one + other) == sorted(other + one) == list(range(10))
    assert [0, *one] == [0] + one  # noqa: RUF005  adding is what is tested
    assert one == list(one)
    assert list(one) == one
    assert one != other
    assert one[1:3] == [one[1], one[2]]
    assert one.index(one[4]) == 4
    assert (one[-1] in one, other[0] in one, one.count(one[0])) == (True, False, 1)
    copy = pickle.loads(pickle.dumps(one))
    assert (copy == one, type(copy)) == (True, Indices)
    assert np.asarray(one).tolist() == list(one)
    assert np.array(one, dtype=np.float32).dtype == np.float32
    with pytest.raises(IndexError):
        one[6]
    with pytest.raises(TypeError):
        hash(one)
    assert repr(other) == f"Indices({list(other)})"
    assert repr(random_split(range(9), [9])[0].indices).endswith("9 of them)")
