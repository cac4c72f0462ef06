"""Arrays as a dataset of their rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import ArgumentError, ArrayDataset, DataLoader


def test_one_array_gives_rows_and_several_give_tuples() -> None:
    """Index, count and iterate."""
    x, y = np.arange(6.0).reshape(3, 2), np.array([7, 8, 9])
    assert [row.tolist() for row in ArrayDataset(x)] == x.tolist()
    row, label = ArrayDataset(x, y)[-1]
    assert (row.tolist(), label, len(ArrayDataset(x, y))) == ([4.0, 5.0], 9, 3)


def test_a_gather_is_what_indexing_gives() -> None:
    """Compare with fancy indexing, negative keys included."""
    x = np.random.default_rng(0).normal(size=(20, 3, 4))
    keys = [3, 0, -1, 19, 3]
    np.testing.assert_array_equal(ArrayDataset(x).read_batch(keys), x[keys])


@pytest.mark.parametrize("keys", [[20], [-21], [0, 5, 1000]])
def test_a_key_out_of_range_is_refused(keys: list[int]) -> None:
    """Never wrap round to another row in silence."""
    with pytest.raises(IndexError, match="out of range for an ArrayDataset of 20 rows"):
        ArrayDataset(np.zeros((20, 2))).read_batch(keys)


def test_a_memory_mapped_file_stays_on_disk(tmp_path: Path) -> None:
    """Batch a .npy file through a memory map, and never load the whole of it."""
    rows = np.arange(3000, dtype=np.int64).reshape(1000, 3)
    np.save(tmp_path / "rows.npy", rows)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    dataset = ArrayDataset(mapped)
    assert dataset.arrays[0] is mapped
    batches = list(DataLoader(dataset, 300, num_workers=2))
    np.testing.assert_array_equal(np.concatenate(batches), rows)
    assert not any(isinstance(batch, np.memmap) for batch in batches)
    mapped._mmap.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ((), "at least one array"),
        ((5,), "array 0 .* has no rows"),
        ((np.zeros(3), np.zeros(4)), "equal lengths; found 3, 4"),
        ((np.zeros(2), np.array([None, 1])), "array 1 .* Python objects"),
    ],
    ids=str,
)
def test_arrays_are_checked_at_the_door(arrays: tuple[Any, ...], words: str) -> None:
    """Name the array that does not do."""
    with pytest.raises(ArgumentError, match=words):
        ArrayDataset(*arrays)
