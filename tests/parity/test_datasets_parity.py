"""The same script with torch's datasets and with ours, each also around the other's."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from headrace import DataLoader  # noqa: E402
from headrace.datasets.protocol import is_iterable, reads_many  # noqa: E402
from headrace.datasets.subset import Subset  # noqa: E402
from tests.parity.both import OURS, same, theirs  # noqa: E402

seeds = st.integers(0, 2**40)


class Many:
    """A list that is read many at once."""

    def __init__(self, items: Any, missing: int = 0) -> None:
        self.items = list(items)
        self.missing = missing

    def __getitem__(self, index: int) -> Any:
        return self.items[index]

    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self.items[index] for index in indices][: len(indices) - self.missing]

    def __len__(self) -> int:
        return len(self.items)


def stream(lib: Any, size: int, *, sized: bool = True) -> Any:
    class Stream(lib.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Any:
            return iter(range(size))

    class Sized(Stream):
        def __len__(self) -> int:
            return size

    return Sized() if sized else Stream()


def squares(lib: Any, size: int) -> Any:
    class Squares(lib.Dataset):  # type: ignore[misc]
        def __getitem__(self, index: int) -> int:
            if not 0 <= index < size:
                raise IndexError(index)
            return index * index

        def __len__(self) -> int:
            return size

    return Squares()


@given(
    size=st.integers(0, 100),
    lengths=st.lists(st.integers(0, 40), max_size=5),
    fractions=st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.33, 0.34, 0.5, 0.67, 0.9, 1.0]), max_size=5),
    how=st.sampled_from(["lengths", "rest", "fractions"]),
    wanted=st.booleans(),
    seed=seeds,
)
def test_splits_are_the_same(
    size: int, lengths: list[int], fractions: list[float], how: str, wanted: bool, seed: int
) -> None:
    """Split by lengths, right or wrong, and by fractions: the same indices, warnings, errors and states."""
    given_lengths: list[Any] = fractions if how == "fractions" else lengths
    if how == "rest" and sum(lengths) <= size:
        given_lengths = [*lengths, size - sum(lengths)]

    def script(lib: Any) -> Any:
        held = torch.Generator().manual_seed(seed) if wanted else None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            if wanted:
                splits = lib.random_split(range(size), given_lengths, generator=held)
            else:
                splits = lib.random_split(range(size), given_lengths)
        said = [(str(warning.message), warning.category.__name__, warning.filename) for warning in caught]
        return [list(s.indices) for s in splits], [list(s) for s in splits], said, held and held.get_state().tolist()

    same(script, seed=seed)


def test_the_split_that_torchs_tests_expect() -> None:
    """Split with a torch generator as torch does, so that no validation sample ends up in training."""
    splits = OURS.random_split(range(10), [3, 7], generator=torch.Generator().manual_seed(1))
    assert [list(split) for split in splits] == [[5, 6, 1], [2, 0, 8, 9, 3, 7, 4]]
    assert all(type(index) is int for split in splits for index in split.indices)


@given(
    parts=st.lists(st.lists(st.integers(0, 99), max_size=5), max_size=5),
    index=st.integers(-30, 30),
    indices=st.lists(st.integers(-3, 8), max_size=6),
)
def test_datasets_end_to_end_are_the_same(parts: list[list[int]], index: int, indices: list[int]) -> None:
    """Concatenate, index and take subsets of subsets: results and errors."""

    def concat(lib: Any) -> Any:
        dataset = lib.ConcatDataset(parts)
        return len(dataset), dataset.cumulative_sizes, dataset.datasets, dataset[index]

    def subset(lib: Any) -> Any:
        dataset = lib.Subset(lib.ConcatDataset(parts), indices)
        inner = lib.Subset(dataset, range(len(dataset)))
        return dataset.__getitems__(list(range(len(indices)))), len(inner), [inner[n] for n in range(len(inner))]

    same(concat)
    same(subset)


@given(sizes=st.lists(st.integers(0, 4), max_size=3), named=st.booleans(), many=st.booleans(), missing=st.booleans())
def test_datasets_side_by_side_are_the_same(sizes: list[int], named: bool, many: bool, missing: bool) -> None:
    """Stack, index and read many at once: results, and errors where lengths differ."""

    def script(lib: Any) -> Any:
        parts = [Many(range(size), int(missing)) if many else list(range(size)) for size in sizes]
        dataset = (
            lib.StackDataset(**{f"p{n}": part for n, part in enumerate(parts)}) if named else lib.StackDataset(*parts)
        )
        return len(dataset), [dataset[n] for n in range(len(dataset))], dataset.__getitems__(list(range(len(dataset))))

    same(script)


@pytest.mark.parametrize(
    "script",
    [
        lambda lib: lib.StackDataset(),
        lambda lib: lib.StackDataset([1], a=[1]),
        lambda lib: lib.StackDataset(a=[1], b=[1, 2]),
        lambda lib: lib.StackDataset(stream(lib, 3, sized=False)),
        lambda lib: lib.StackDataset(Many("abcd"), [1, 2, 3, 4]).__getitems__([0, 4]),
        lambda lib: lib.StackDataset(Many("abcd", 1), [1, 2, 3, 4]).__getitems__([0, 1, 2, 3]),
        lambda lib: lib.ConcatDataset([]),
        lambda lib: lib.ConcatDataset(5),
        lambda lib: lib.ConcatDataset([5]),
        lambda lib: lib.ConcatDataset([[1], stream(lib, 3)]),
        lambda lib: squares(lib, 3) + stream(lib, 3),
        lambda lib: lib.ConcatDataset([[0, 1]])[5],
        lambda lib: lib.ConcatDataset([[0, 1]])[-5],
        lambda lib: list(lib.ChainDataset([stream(lib, 3), squares(lib, 3)])),
        lambda lib: list(stream(lib, 3) + squares(lib, 3)),
        lambda lib: len(lib.ChainDataset([stream(lib, 3), squares(lib, 3)])),
        lambda lib: len(lib.ChainDataset([stream(lib, 3), stream(lib, 3, sized=False)])),
        lambda lib: len(stream(lib, 3, sized=False)),
        lambda lib: stream(lib, 3)[0],
        lambda lib: lib.Subset([1, 2, 3], [0, 1])[[0, 1]],
        lambda lib: lib.Subset([1, 2, 3], [0, 1])[0:1],
        lambda lib: lib.Subset([1, 2, 3], [0, 7])[1],
        lambda lib: lib.Subset([1, 2, 3], [0, 1])[2],
        lambda lib: type("Half", (lib.Subset,), {"__getitem__": lambda self, index: 0})([1], [0]),
        lambda lib: lib.random_split([1, 2, 3, 4], [1, 2]),
        lambda lib: lib.random_split([1, 2, 3, 4], [0.1]),
        lambda lib: lib.random_split([1, 2, 3, 4], [1.1]),
        lambda lib: lib.random_split([1, 2, 3, 4], [1.5, -0.5]),
        lambda lib: lib.Dataset()[0],
        # And what is not refused.
        lambda lib: [x for x in stream(lib, 3) + stream(lib, 2)],  # noqa: C416  list() would ask for the length
        lambda lib: list(stream(lib, 3, sized=False)),
        lambda lib: list(lib.ChainDataset([stream(lib, n) for n in range(4)])),
        lambda lib: len(lib.ChainDataset([stream(lib, 3), stream(lib, 2)])),
        lambda lib: list(squares(lib, 3) + squares(lib, 2) + [7]),
        lambda lib: len(squares(lib, 3) + squares(lib, 2) + [7]),
        lambda lib: isinstance(stream(lib, 1), lib.Dataset),
        lambda lib: [lib.Dataset[int] is not None, lib.IterableDataset[int] is not None],
        lambda lib: lib.Subset(lib.Subset("abcdef", [5, 3, 1]), [2, 0])[1],
        lambda lib: lib.Subset(np.arange(10), [5, 3, 1])[[0, 2]],
        lambda lib: lib.Subset(np.arange(10), [5, 3, 1])[1:],
        lambda lib: lib.Subset({"a": 1}, ["a"])[0],
    ],
)
def test_datasets_take_and_refuse_the_same(script: Any) -> None:
    """Raise an error that torch's own type catches, or give the same result."""
    same(script)


@given(columns=st.integers(1, 3), size=st.integers(0, 6))
def test_tensor_datasets_give_the_same_tuples(columns: int, size: int) -> None:
    """Hold the same numbers: tuples of rows, of slices and of lists, one array or more."""
    arrays = [np.arange(size * (n + 1), dtype=np.float32).reshape(size, n + 1) for n in range(columns)]

    def script(lib: Any) -> Any:
        given = arrays if lib is OURS else list(map(torch.as_tensor, arrays))
        dataset = lib.TensorDataset(*given)
        return (
            len(dataset),
            [dataset[n] for n in range(size)],
            dataset[1:3],
            dataset[[0] * min(size, 1)],
            dataset.tensors,
        )

    same(script)
    with pytest.raises(ValueError, match="equal lengths"):
        OURS.TensorDataset(arrays[0], np.zeros(size + 1))


def test_torchs_datasets_go_into_ours_and_ours_into_theirs() -> None:
    """Nest either way, streams too; and load the whole with either loader."""
    lib = theirs()
    tensors = lib.TensorDataset(torch.arange(6).reshape(3, 2))
    mixed = OURS.ConcatDataset([tensors, OURS.TensorDataset(np.arange(4).reshape(2, 2))])
    assert [np.asarray(row).tolist() for (row,) in mixed] == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]
    assert [batch[0].tolist() for batch in DataLoader(mixed, 3)] == [[[0, 1], [2, 3], [4, 5]], [[0, 1], [2, 3]]]
    assert len(lib.ConcatDataset([OURS.Subset("abc", [0]), "de"])) == 3
    assert list(OURS.Subset(lib.Subset("abc", [2, 1]), [1, 0])) == ["b", "c"]
    assert OURS.StackDataset(x=tensors, y="abc")[1]["y"] == "b"
    assert list(OURS.ChainDataset([stream(lib, 2), stream(OURS, 2)])) == [0, 1, 0, 1]
    assert list(stream(OURS, 2) + stream(lib, 1)) == [0, 1, 0]
    with pytest.raises(AssertionError, match="does not support IterableDataset"):
        OURS.ConcatDataset([stream(lib, 2)])
    assert is_iterable(stream(lib, 2))
    assert not is_iterable(tensors)
    batches = torch.utils.data.DataLoader(OURS.Subset(range(10, 20), [1, 3, 5]), 2)
    assert [batch.tolist() for batch in batches] == [[11, 13], [15]]


def test_torchs_fetcher_reads_many_from_ours() -> None:
    """Give torch's loader whole lists where the parts have them."""
    for dataset in (OURS.ConcatDataset([Many("abc"), Many("de")]), OURS.Subset(Many("abcde"), range(5))):
        assert reads_many(dataset)
        assert list(torch.utils.data.DataLoader(dataset, 3)) == [["a", "b", "c"], ["d", "e"]]


def test_indices_of_a_split_index_tensors() -> None:
    """Use them as torch's lists of indices are used."""
    (split,) = OURS.random_split(range(6), [6], generator=torch.Generator().manual_seed(0))
    data = torch.arange(60, 66)
    assert data[list(split.indices)].tolist() == [60 + index for index in split.indices]
    assert data[split.indices[1:3]].tolist() == [60 + index for index in split.indices[1:3]]
    assert torch.as_tensor(split.indices).tolist() == list(split.indices)
    assert torch.tensor(split.indices).tolist() == list(split.indices)
    assert data[torch.as_tensor(split.indices)].tolist() == data[list(split.indices)].tolist()
    tensors = theirs().TensorDataset(data)
    assert Subset(tensors, split.indices)[:][0].tolist() == data[split.indices[:]].tolist()
