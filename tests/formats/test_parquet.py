"""Parquet files: rows as pyarrow reads them, row groups read once, and damage is an error."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.formats.damage import damaged, read_all
from tests.formats.test_arrow import python

from headrace import DataLoader
from headrace.datasets import ParquetDataset
from headrace.errors import ArgumentError, BadFile, HeadraceError
from headrace.formats import parquet
from headrace.samplers import ShardSampler
from headrace.storage.row_cache import RowCache

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def table(rows: int = 20) -> Any:
    numbers = range(rows)
    return pa.table({
        "n": list(numbers), "null": [None if row % 3 else row for row in numbers],
        "text": ["é" * row for row in numbers], "lists": [[float(row)] * (row % 3) for row in numbers],
        "words": pa.array(["a", "b"] * (rows // 2)).dictionary_encode(), "flag": [row % 2 == 0 for row in numbers],
        "struct": [{"a": row, "b": [str(row)]} if row % 4 else None for row in numbers],
        "view": pa.array([str(row) for row in numbers], pa.string_view()),
    })  # fmt: skip


def write(path: Path, rows: int = 20, group: int = 6, **options: Any) -> Path:
    pq.write_table(table(rows), path, row_group_size=group, **options)
    return path


@pytest.mark.parametrize("packed", ["none", "snappy", "zstd"])
def test_rows_are_those_that_pyarrow_gives(tmp_path: Path, packed: str) -> None:
    """Read all types, words in a dictionary too; rows are numbered in their file."""
    write(tmp_path / "a.parquet", compression=packed)
    write(tmp_path / "b.parquet", 4, compression=packed)
    dataset = ParquetDataset(tmp_path)
    expected = [*table(20).to_pylist(), *table(4).to_pylist()]
    assert [python(sample) for sample in dataset] == [
        {"__key__": str(row if row < 20 else row - 20), **each} for row, each in enumerate(expected)
    ]
    assert dataset.shard_lengths == [6, 6, 6, 2, 4]
    assert dataset.where(21) == f"{tmp_path / 'b.parquet'}: 1"
    assert ParquetDataset(tmp_path, fields=["n", "text"]).labels.tolist() == [*range(20), *range(4)]  # type: ignore[union-attr]


def test_labels_are_the_only_integers_and_have_no_null(tmp_path: Path) -> None:
    """Decode one column of integers for labels, with or without statistics of nulls."""
    path = write(tmp_path / "a.parquet", write_statistics=False)
    assert ParquetDataset(path, fields=["n", "text"]).labels.tolist() == list(range(20))  # type: ignore[union-attr]
    assert ParquetDataset(path, fields=["null", "text"]).labels is None
    assert ParquetDataset(path, fields=["n", "null"]).labels is None
    assert ParquetDataset(path, fields=["null"])[7]["null"] is None


def test_a_window_of_row_groups_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode each column of each row group once in an epoch, and only the columns that are asked for."""
    dataset = ParquetDataset(write(tmp_path / "a.parquet", 60))
    decoded: list[tuple[int, str]] = []
    decode = parquet.decoded
    monkeypatch.setattr(
        parquet, "decoded", lambda file, group, name: decoded.append((group, name)) or decode(file, group, name)
    )
    pairs = dataset.tuple("text", "n")
    sampler = ShardSampler.of(pairs, window=2)
    found = [row for _, rows in DataLoader(pairs, 4, sampler=sampler, seed=3) for row in rows.tolist()]
    assert sorted(found) == list(range(60))
    assert sorted(decoded) == sorted((group, name) for group in range(10) for name in ("n", "text"))


def test_the_cache_is_bounded_and_shared_by_threads() -> None:
    """Keep what was used last; two threads that want one value wait for one call."""
    held: RowCache[str] = RowCache(10)
    made = []

    def make(key: str, size: int) -> tuple[str, int]:
        made.append(key)
        return key, size

    for key in ("a", "b", "a", "c", "a", "b"):
        assert held.get(key, lambda key=key: make(key, 4)) == key  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]
    assert held.get("large", lambda: make("large", 1000)) == "large"
    assert list(held._held) == ["large"]
    started, go = threading.Event(), threading.Event()
    calls = []

    def slow() -> tuple[str, int]:
        calls.append(1)
        started.set()
        go.wait(60)
        return "slow", 1

    threads = [threading.Thread(target=held.get, args=("slow", slow)) for _ in range(4)]
    for thread in threads:
        thread.start()
    started.wait(60)
    go.set()
    for thread in threads:
        thread.join()
    assert calls == [1]


def test_samplers_of_what_has_no_shards_are_refused() -> None:
    """Say what to pass."""
    with pytest.raises(ArgumentError, match="shard_lengths"):
        ShardSampler.of([1, 2])


@pytest.mark.parametrize("change", ["cut", "touch", "remove"])
def test_a_file_that_changes_is_an_error(change: str, tmp_path: Path) -> None:
    """Raise an error with the path, for row groups that are not decoded yet."""
    path = write(tmp_path / "a.parquet")
    dataset = ParquetDataset(path)
    assert dataset[0]["n"] == 0
    if change == "cut":
        os.truncate(path, 500)
    elif change == "touch":
        os.utime(path, ns=(1, 1))
    else:
        path.unlink()
    with pytest.raises(HeadraceError, match=r"a\.parquet"):
        dataset[19]


def test_what_is_no_parquet_file_is_refused(tmp_path: Path) -> None:
    """Refuse other bytes, files without their end, and files of other columns."""
    whole = write(tmp_path / "a.parquet").read_bytes()
    other = tmp_path / "b.parquet"
    for data in (b"", b"PAR1PAR1", b"no Parquet file at all", whole[:-1], whole[: len(whole) // 2], whole[9:]):
        other.write_bytes(data)
        with pytest.raises(BadFile):
            list(ParquetDataset(other))
    pq.write_table(pa.table({"n": ["text"]}), other)
    with pytest.raises(BadFile, match=r"b.parquet: column 'n' holds string, and int64"):
        ParquetDataset(tmp_path)
    pq.write_table(pa.table({"d": pa.array([1], pa.decimal128(9, 2))}), other)
    with pytest.raises(ArgumentError, match="decimal"):
        ParquetDataset(other)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_is_an_error_and_never_a_crash(tmp_path: Path, data: st.DataObject) -> None:
    """Read files with flipped bytes and false sizes: other values, or an error of ours."""
    path = write(tmp_path / "a.parquet", 8, 4)
    path.write_bytes(damaged(data, path.read_bytes()))
    read_all(lambda: ParquetDataset(path))


def test_images_are_decoded_as_declared(tmp_path: Path) -> None:
    """Read a column of bytes as images."""
    pytest.importorskip("PIL")
    from tests.image_files import encoded, photo

    pq.write_table(
        pa.table({"png": [encoded(photo(row), "PNG") for row in range(3)], "n": [0, 1, 2]}), tmp_path / "a.pq"
    )
    image, label = ParquetDataset(tmp_path / "a.pq", decoders={"png": "png"}).tuple("png", "n")[2]
    np.testing.assert_array_equal(image, photo(2))
    assert label == 2
