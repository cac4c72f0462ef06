"""Keys are integers: masks, floats, text and None are refused alike, and a negative one counts from the end."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace import ArrayDataset, ConcatDataset, DataLoader, Subset, TensorDataset
from headrace.datasets import PackedList, PairedDataset, StackDataset
from headrace.samplers import SubsetRandomSampler

ROWS = np.arange(10) * 10
BASE = ArrayDataset(ROWS)
DATASETS: list[Any] = [
    BASE,
    TensorDataset(ROWS),
    Subset(BASE, list(range(10))),
    Subset(BASE, np.arange(10)),
    ConcatDataset([ArrayDataset(ROWS[:5]), ArrayDataset(ROWS[5:])]),
    StackDataset(BASE, BASE),
    PairedDataset(ArrayDataset(ROWS, ROWS), ArrayDataset(ROWS, ROWS)),
    PackedList(list("abcdefghij")),
]
NAMES = ["array", "tensor", "subset", "subset-array", "concat", "stack", "paired", "packed"]
MASK = (ROWS == 30) | (ROWS == 70)


@pytest.mark.parametrize("mask", [MASK, MASK.tolist(), tuple(MASK)], ids=["array", "list", "tuple"])
def test_a_subset_takes_a_mask_for_what_it_selects(mask: Any) -> None:
    """Give rows 3 and 7, whole batches at a time and one by one."""
    subset = Subset(BASE, mask)
    assert next(iter(DataLoader(subset, 10))).tolist() == [30, 70]
    assert [int(row) for row in subset] == [30, 70]
    assert [int(row) for row in Subset(subset, [True, False])] == [30]
    assert Subset("abc", [False, True, True])[1] == "c"


@pytest.mark.parametrize(
    "indices",
    [MASK[:4], [True, 2], np.zeros((2, 2), int), iter([1, 2]), {1, 2}, np.zeros((10, 1), bool)],
    ids=["short", "mixed", "2-D", "iterator", "set", "2-D mask"],
)
def test_indices_that_are_no_row_of_integers_are_refused(indices: Any) -> None:
    """Say so when the subset is made."""
    with pytest.raises(TypeError, match="Subset: indices"):
        Subset(BASE, indices)


@pytest.mark.parametrize("dataset", DATASETS, ids=NAMES)
@pytest.mark.parametrize("key", [True, np.True_, 1.0, "1", None, np.float64(2), 2**70, (1, 2)], ids=repr)
def test_what_is_no_integer_is_no_key(dataset: Any, key: Any) -> None:
    """Refuse it wherever it is given: by itself, in a batch of keys, by a sampler."""
    if not isinstance(key, tuple):  # which indexes an array, as NumPy has it
        with pytest.raises((TypeError, IndexError)):
            dataset[key]
    with pytest.raises((TypeError, IndexError)):
        list(DataLoader(dataset, 2, sampler=[0, key]))


@pytest.mark.parametrize("dataset", DATASETS[:-2], ids=NAMES[:-2])
def test_a_negative_key_counts_from_the_end(dataset: Any) -> None:
    """Mean the same in a batch as by itself."""
    last = next(iter(DataLoader(dataset, 2, sampler=[-1, -10])))
    assert np.asarray(last).ravel()[:2].tolist()[0] == 90
    assert np.asarray(dataset[-1]).ravel()[0] == 90
    with pytest.raises((IndexError, ValueError)):
        list(DataLoader(dataset, 1, sampler=[-11]))


@pytest.mark.parametrize("keys", [MASK, np.array([1.0]), np.array([[1]])], ids=["mask", "floats", "2-D"])
def test_whole_batches_are_not_read_by_arrays_that_are_no_keys(keys: Any) -> None:
    """Check where keys were cast."""
    for dataset in (BASE, TensorDataset(ROWS)):
        with pytest.raises(TypeError, match="indices must be integers"):
            dataset.read_batch(keys)


def test_a_mask_is_no_sampler() -> None:
    """Say what to give instead."""
    with pytest.raises(TypeError, match="flatnonzero"):
        DataLoader(BASE, 2, sampler=MASK)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="flatnonzero"):
        SubsetRandomSampler(MASK)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="indices must be integers"):
        list(DataLoader([1, 2], batch_sampler=[[True, False]]))
