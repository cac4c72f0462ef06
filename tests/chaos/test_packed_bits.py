"""A small sample of `python -m tests.chaos.packed_bits`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.packed_bits import ALL, ONE, OPENED, STORES, flip

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("store", STORES)
def test_a_flipped_bit_is_named_and_skipped_or_changes_nothing(store: str, tmp_path: Path) -> None:
    found = flip(30, 1, tmp_path / "packed", store)
    assert sum(found.values()) == 30
    assert found[OPENED] + found[ALL] + found[ONE] > 8
