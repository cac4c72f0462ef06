"""A small sample of `python -m tests.chaos.packing_kills`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.packing_kills import try_kills

pytest.importorskip("pyarrow")


def test_packing_that_was_killed_ends_with_the_same_bytes(tmp_path: Path) -> None:
    kills, finished = try_kills(3, 1, tmp_path)
    assert kills == 3
    assert finished >= 1
