"""Datasets end to end and side by side."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace import ArrayDataset, DataLoader, Dataset, default_collate
from headrace.datasets.combine import ConcatDataset, StackDataset
from headrace.datasets.iterable import IterableDataset
from headrace.datasets.protocol import batch_reader, reads_many
from headrace.datasets.subset import Subset
from headrace.datasets.tensors import TensorDataset
from headrace.errors import ArgumentError, CollateError


class Named(Dataset[str]):
    """Letters with a place each."""

    def __init__(self, letters: str) -> None:
        self.letters = letters

    def __getitem__(self, index: int) -> str:
        return self.letters[index]

    def __len__(self) -> int:
        return len(self.letters)

    def where(self, index: int) -> str | None:
        return f"{self.letters}/{index}"


class Many(Named):
    """Letters read many at once; remembers how it was asked."""

    def __init__(self, letters: str, missing: int = 0) -> None:
        super().__init__(letters)
        self.missing = missing
        self.asked: list[list[int]] = []

    def __getitems__(self, indices: list[int]) -> list[str]:
        self.asked.append(indices)
        return [self.letters[index] for index in indices][: len(indices) - self.missing]


class Stream(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(3))


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return one.dtype == other.dtype and np.array_equal(one, other)


def read(dataset: Any, keys: list[int]) -> Any:
    reader = batch_reader(dataset)
    assert reader is not None
    return reader(keys, empty=np.empty)


@given(parts=st.lists(st.lists(st.integers(), max_size=6), min_size=1, max_size=6), data=st.data())
def test_end_to_end_is_the_lists_joined(parts: list[list[int]], data: st.DataObject) -> None:
    """Index from both ends, iterate, read many; empty parts among them."""
    joined = [item for part in parts for item in part]
    dataset: ConcatDataset[int] = ConcatDataset(parts)
    assert len(dataset) == len(joined)
    assert list(dataset) == joined
    assert dataset.cumulative_sizes == np.cumsum([len(part) for part in parts]).tolist()
    if joined:
        index = data.draw(st.integers(-len(joined), len(joined) - 1))
        assert dataset[index] == joined[index]
        indices = data.draw(st.lists(st.integers(-len(joined), len(joined) - 1), max_size=10))
        assert dataset.__getitems__(indices) == [joined[index] for index in indices]


def test_adding_datasets_puts_them_end_to_end() -> None:
    """Write + between datasets, as often as one likes, and with anything that can be indexed."""
    three = Named("ab") + Named("c") + ["d"]
    assert isinstance(three, ConcatDataset)
    assert list(three) == ["a", "b", "c", "d"]
    assert list(three.map(str.upper)) == ["A", "B", "C", "D"]


def test_an_index_beyond_either_end_is_an_error() -> None:
    """Raise torch's types of errors: IndexError at the end, ValueError before the beginning."""
    dataset: ConcatDataset[int] = ConcatDataset([[0, 1], [2]])
    with pytest.raises(IndexError, match="index 3 is out of range for a ConcatDataset of 3 samples"):
        dataset[3]
    with pytest.raises(ValueError, match="absolute value of index should not exceed dataset length"):
        dataset[-4]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ConcatDataset([]), AssertionError, "datasets should not be an empty iterable"),
        (
            lambda: ConcatDataset([[1], Stream()]),
            AssertionError,
            "does not support IterableDataset; dataset 1 is a Stre",
        ),
        (lambda: ConcatDataset([iter([1])]), AssertionError, "does not support IterableDataset"),
        (lambda: ConcatDataset([[1], 5]), TypeError, "__getitem__ and __len__; dataset 1 is an int"),
        (lambda: Named("a") + 5, TypeError, "dataset 1 is an int"),
        (StackDataset, ValueError, "At least one dataset should be passed"),
        (lambda: StackDataset([1], a=[2]), ValueError, "Supported either"),
        (lambda: StackDataset([1, 2], [3]), ValueError, "Size mismatch between datasets.*0: 2, 1: 1"),
        (lambda: StackDataset(a=[1, 2], b=[3]), ValueError, "Size mismatch between datasets.*a: 2, b: 1"),
        (lambda: StackDataset(a=Stream()), TypeError, "dataset 'a' is a Stream"),
        (lambda: StackDataset(7), TypeError, "dataset 0 is an int"),
    ],
)
def test_parts_are_checked_at_the_door(make: Any, error: type[Exception], words: str) -> None:
    """Name the part that does not fit, with torch's types of errors, which are ours as well."""
    with pytest.raises(error, match=words) as caught:
        make()
    assert isinstance(caught.value, ArgumentError)


def test_side_by_side_gives_tuples_or_dicts() -> None:
    """Give a tuple for parts by position and a dict for parts by name, one part too."""
    assert StackDataset("ab", [1, 2])[1] == ("b", 2)
    assert StackDataset(x="ab", y=[1, 2])[0] == {"x": "a", "y": 1}
    assert (StackDataset("ab")[-1], StackDataset(x="ab")[0]) == (("b",), {"x": "a"})
    assert list(StackDataset("ab", [1, 2])) == [("a", 1), ("b", 2)]
    assert len(StackDataset(x="abc")) == 3


def test_many_samples_are_read_in_one_call_of_each_part() -> None:
    """Ask each part once, for its own samples in the order asked for."""
    ab, cde = Many("ab"), Many("cde")
    assert ConcatDataset([ab, cde]).__getitems__([4, 0, 2, -4]) == ["e", "a", "c", "b"]
    assert (ab.asked, cde.asked) == ([[0, 1]], [[2, 0]])
    fresh = Many("abc")
    assert StackDataset(fresh, [1, 2, 3]).__getitems__([2, 0]) == [("c", 3), ("a", 1)]
    assert StackDataset(x=fresh, y=[1, 2, 3]).__getitems__([1]) == [{"x": "b", "y": 2}]
    assert fresh.asked == [[2, 0], [1]]


def test_a_part_that_gives_too_few_samples_is_named() -> None:
    """Not shift samples into one another's places."""
    for dataset in (StackDataset(Many("abcd", missing=1), [1, 2, 3, 4]), ConcatDataset([Many("abcd", missing=1)])):
        with pytest.raises(ValueError, match=r"output size mismatch. Expected 4, got 3; .*Many.__getitems__"):
            dataset.__getitems__([0, 1, 2, 3])
    with pytest.raises(IndexError):
        StackDataset(Many("abcd"), [1, 2, 3, 4]).__getitems__([0, 4])


def test_reading_many_is_said_to_be_worth_it_where_all_parts_do_it() -> None:
    """Tell a loader apart: one call for many samples, or a loop that it runs better itself."""
    many, single = Many("ab"), Named("ab")
    for make in (lambda *parts: ConcatDataset(parts), StackDataset):
        assert reads_many(make(many, many))
        assert not reads_many(make(many, single))
    assert reads_many(ConcatDataset([StackDataset(many), Subset(many, [0])]))
    assert not reads_many(Subset(ConcatDataset([single]), [0]))
    assert reads_many(many)
    assert not reads_many(single)


def test_a_sample_comes_from_where_its_part_says() -> None:
    """Delegate the place; say nothing where the part says nothing."""
    dataset: ConcatDataset[Any] = ConcatDataset([Named("ab"), [1], Named("xyz")])
    assert [dataset.where(index) for index in (1, 2, 5, -1)] == ["ab/1", None, "xyz/2", "xyz/2"]
    assert StackDataset([1, 2], Named("ab")).where(1) == "ab/1"
    assert StackDataset(x=[1, 2]).where(1) is None


rows = np.arange(40.0).reshape(10, 4)
labels = np.arange(10)


@pytest.mark.parametrize(
    "dataset",
    [
        ConcatDataset([ArrayDataset(rows), ArrayDataset(rows[:3])]),
        ConcatDataset([ArrayDataset(rows, labels), Subset(ArrayDataset(rows, labels), [9, 1])]),
        ConcatDataset([ArrayDataset(rows), ArrayDataset(rows[:0]), ConcatDataset([ArrayDataset(-rows)])]),
        ConcatDataset([TensorDataset(rows), TensorDataset(rows + 1)]),
        StackDataset(ArrayDataset(rows), ArrayDataset(labels)),
        StackDataset(
            x=ArrayDataset(rows, labels), y=ConcatDataset([ArrayDataset(labels[:4]), ArrayDataset(labels[4:])])
        ),
        StackDataset(TensorDataset(rows)),
    ],
    ids=repr,
)
def test_whole_batches_are_what_collating_the_samples_gives(dataset: Any) -> None:
    """Read a batch at once and sample by sample: the same bytes, dtypes and containers."""
    for keys in ([0, 1, 2], [9, 0, -1, 5, 9], [3], list(range(len(dataset)))[::-1]):
        assert equal(read(dataset, keys), default_collate([dataset[key] for key in keys]))
    for key in (len(dataset), 1000):
        with pytest.raises(IndexError):
            read(dataset, [0, key])


def test_lent_memory_holds_the_batch() -> None:
    """Ask for memory once for each array of the batch, whichever parts the rows come from."""
    lent: list[np.ndarray] = []

    def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        lent.append(np.empty(shape, dtype))
        return lent[-1]

    dataset: ConcatDataset[Any] = ConcatDataset([ArrayDataset(rows, labels), ArrayDataset(-rows, -labels)])
    reader = batch_reader(dataset)
    assert reader is not None
    for keys in ([0, 15, 3], [1, 2]):
        lent.clear()
        batch = reader(keys, empty=empty)
        assert [array is column for array, column in zip(lent, batch, strict=True)] == [True, True]


@pytest.mark.parametrize(
    "dataset",
    [
        ConcatDataset([ArrayDataset(rows), ArrayDataset(rows.astype("f4"))]),
        ConcatDataset([ArrayDataset(rows), ArrayDataset(rows[:, :2])]),
        ConcatDataset([ArrayDataset(rows), ArrayDataset(rows, labels)]),
        ConcatDataset([ArrayDataset(rows), TensorDataset(rows)]),
        ConcatDataset([ArrayDataset(rows), rows]),
        StackDataset(ArrayDataset(rows), labels),
        StackDataset(x=ArrayDataset(rows).map(np.copy)),
    ],
    ids=repr,
)
def test_parts_that_differ_are_read_sample_by_sample(dataset: Any) -> None:
    """Not read whole batches where the rows would not be one array, or not by themselves."""
    assert batch_reader(dataset) is None


def test_a_subclass_that_changes_a_sample_is_read_sample_by_sample() -> None:
    """Never go past a __getitem__ that somebody wrote."""

    class Doubled(ArrayDataset):
        def __getitem__(self, index: int) -> Any:
            return 2 * super().__getitem__(index)

    class Both(Doubled):
        def read_batch(self, keys: Any, *, empty: Any = np.empty) -> Any:
            return 2 * super().read_batch(keys, empty=empty)

    assert batch_reader(Doubled(rows)) is None
    assert batch_reader(Both(rows)) is not None
    assert batch_reader(ConcatDataset([Doubled(rows)])) is None
    assert batch_reader(StackDataset(Doubled(rows))) is None


def test_combined_datasets_work_in_a_loader_and_pickle() -> None:
    """Load them on threads, and send them to a process."""
    dataset = StackDataset(x=ConcatDataset(["abc", "de"]), y=np.arange(5))
    for copy in (dataset, pickle.loads(pickle.dumps(dataset))):
        batches = list(DataLoader(copy, 2, num_workers=2))
        assert [batch["x"] for batch in batches] == [["a", "b"], ["c", "d"], ["e"]]
        assert [batch["y"].tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


def test_parts_of_different_shapes_are_reported_by_collate() -> None:
    """Leave it to collate to say what does not fit together, and only in the batch that holds both."""
    loader = iter(DataLoader(ConcatDataset([ArrayDataset(rows), ArrayDataset(rows[:, :2])]), 8))
    next(loader)
    with pytest.raises(CollateError, match="differ in shape"):
        next(loader)


def test_a_tensor_dataset_gives_tuples_of_one_too() -> None:
    """Unpack one array as many: samples, slices and batches; under torch's names."""
    dataset = TensorDataset(rows)
    assert [row.tolist() for row in dataset[2]] == [rows[2].tolist()]
    assert [part.shape for part in dataset[1:3]] == [(2, 4)]
    assert dataset.tensors is dataset.arrays
    ((x,),) = list(DataLoader(dataset, 10))
    np.testing.assert_array_equal(x, rows)
    assert isinstance(dataset, ArrayDataset)
