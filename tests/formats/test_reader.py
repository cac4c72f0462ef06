"""Reads of a shard while it is indexed: many small ones at once, and never past the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headrace.errors import BadFile
from headrace.formats import reader as module
from headrace.formats.reader import ShardReader


@pytest.mark.parametrize("step", [0, 1, 7, 400, 30_000])
def test_many_ranges_are_those_of_single_reads(tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read rows near each other by windows, and rows far from each other alone."""
    monkeypatch.setattr(module, "MOST_ROWS", 16)
    data = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8).tobytes()
    (tmp_path / "shard").write_bytes(data)
    offsets = 3 + np.arange(33, dtype=np.int64) * step
    with ShardReader(str(tmp_path / "shard")) as reader:
        for width in (0, 1, 12):
            rows = reader.gather(offsets, width)
            assert [row.tobytes() for row in rows] == [data[at : at + width] for at in offsets.tolist()]
        assert reader.gather(offsets[:0], 4).shape == (0, 4)
        assert reader.gather(np.array([len(data) - 4]), 4)[0].tobytes() == data[-4:]
        with pytest.raises(BadFile, match="it ends before byte"):
            reader.gather(np.array([0, len(data) - 3]), 4)


def test_a_shard_that_shrinks_while_it_is_indexed_is_an_error(tmp_path: Path) -> None:
    """Raise for single reads and for many."""
    (tmp_path / "shard").write_bytes(bytes(100_000))
    with ShardReader(str(tmp_path / "shard")) as reader:
        (tmp_path / "shard").write_bytes(bytes(10))
        with pytest.raises(BadFile, match="it was cut short while it was indexed"):
            reader.read(50_000, 4)
        with pytest.raises(BadFile, match="it was cut short while it was indexed"):
            reader.gather(np.array([50_000]), 4)
