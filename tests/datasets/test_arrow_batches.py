"""Rows of Arrow files by whole batches: what collating the rows gives, and the same errors."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader
from headrace.collate import default_collate
from headrace.datasets import ArrowDataset
from headrace.datasets.protocol import batch_reader
from headrace.errors import BadFile
from headrace.testing.datasets import assert_same

pa = pytest.importorskip("pyarrow")

ROWS = 23
NUMBERS = {
    **{
        name: np.arange(ROWS).astype(name) - (3 if name[0] == "i" else 0)
        for name in ("int8", "int32", "int64", "uint16")
    },
    **{name: (np.arange(ROWS) / 7).astype(name) for name in ("float16", "float32", "float64")},
}


def table(**columns: Any) -> Any:
    lists = [[row, row + 1, -row] for row in range(ROWS)]
    given = {name: pa.array(values) for name, values in NUMBERS.items()} | {
        "fixed": pa.array(lists, pa.list_(pa.float32(), 3)),
        "listed": pa.array(lists, pa.list_(pa.int16())),
        "large": pa.array(lists, pa.large_list(pa.float64())),
        "text": pa.array(["é" * (row % 4) for row in range(ROWS)]),
        "long": pa.array([b"\0" * (row % 3) for row in range(ROWS)], pa.large_binary()),
    }
    return pa.table(given | columns)


def write(path: Path, rows: Any, chunk: int = 5) -> Path:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, rows.schema) as writer:
        writer.write_table(rows, max_chunksize=chunk)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Write two files, one of batches of a sliced table."""
    whole = table()
    return [write(tmp_path / "0.arrow", whole.slice(4, 9), 2), write(tmp_path / "1.arrow", whole)]


def read(dataset: Any, keys: list[int]) -> Any:
    reader = batch_reader(dataset)
    assert reader is not None
    return reader(keys, empty=np.empty)


@pytest.mark.parametrize("keys", [[], [31], [0, -1, 8, 9, 8], list(range(32)), list(range(31, 0, -3))])
def test_a_batch_is_what_collating_its_rows_gives(keys: list[int], files: list[Path]) -> None:
    """Read numbers, lists of equal lengths and text of rows in any order, twice or not, across files."""
    dataset = ArrowDataset(files)
    found = read(dataset, keys)
    if keys:
        assert_same(found, default_collate([dataset[key] for key in keys]))
    pairs = dataset.tuple("listed", "int32")
    assert [array.dtype for array in read(pairs, keys)] == [np.dtype("i2"), np.dtype("i8")]
    with pytest.raises(IndexError):
        read(pairs, [0, 32])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([None, *range(1, ROWS)]),
        pa.array([[1] * (row % 2) for row in range(ROWS)]),
        pa.array([[None, 1]] * ROWS),
        pa.array([True, False] * (ROWS // 2) + [True]),
        pa.array([2**64 - 1] * ROWS, pa.uint64()),
        pa.array(np.arange(ROWS), pa.timestamp("s")),
        pa.array([{"a": 1}] * ROWS),
    ],
    ids=["null", "lengths", "null inside", "bool", "uint64", "time", "struct"],
)
def test_other_columns_are_read_row_by_row(column: Any, tmp_path: Path) -> None:
    """Read no batch of a column whose values differ in type or shape, or are none that lie side by side."""
    dataset = ArrowDataset(write(tmp_path / "0.arrow", table(other=column)))
    assert batch_reader(dataset) is None
    assert batch_reader(dataset.tuple("other")) is None
    assert batch_reader(dataset.tuple("text", "fixed")) is not None


def test_a_loader_gives_the_same_batches_with_and_without_it(files: list[Path]) -> None:
    """Deliver the same rows as a dataset that is read row by row, also from a pickled copy."""
    dataset = ArrowDataset(files)

    class OneByOne(ArrowDataset):
        def __getitem__(self, index: int) -> dict[str, Any]:
            return super().__getitem__(index)

    assert batch_reader(OneByOne(files)) is None
    how: dict[str, Any] = {"shuffle": True, "seed": 0}
    assert_same(list(DataLoader(dataset, 6, **how)), list(DataLoader(OneByOne(files), 6, **how)))
    copy = pickle.loads(pickle.dumps(dataset.tuple("fixed", "int8")))
    assert_same(read(copy, [3, 20]), read(dataset.tuple("fixed", "int8"), [3, 20]))


@pytest.mark.parametrize("damage", ["cut short", "removed", "written to"])
def test_a_file_that_changes_is_an_error(damage: str, tmp_path: Path) -> None:
    """Raise an error with the file's path where it is no longer what it was, and give no wrong row."""
    path = write(tmp_path / "0.arrow", table(), 2)
    pairs = ArrowDataset(path).tuple("fixed", "int32")
    before = read(pairs, [0, 22])
    if damage == "cut short":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "removed":
        path.unlink()
    else:
        os.utime(path, ns=(1, 1))
    with pytest.raises((BadFile, FileNotFoundError)) as caught:
        read(pairs, [0, 22])
    assert str(path) in str(caught.value)
    assert len(before[0]) == 2


def test_offsets_that_do_not_ascend_are_an_error(tmp_path: Path) -> None:
    """Name the row whose text has false offsets, as reading the row does."""
    path = write(tmp_path / "0.arrow", pa.table({"text": ["abc", "de", "f"]}))
    data = bytearray(path.read_bytes())
    at = data.index(np.array([0, 3, 5, 6], "<i4").tobytes())
    data[at + 8 : at + 12] = np.int32(99).tobytes()
    path.write_bytes(data)
    with pytest.raises(BadFile, match=r"0\.arrow: 1"):
        read(ArrowDataset(path), [0, 1])
