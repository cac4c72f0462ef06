"""Ranks of ``torch.distributed``, as real processes (gloo)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.adapters.ranks import trained

pytest.importorskip("torch")


def test_processes_of_torch_may_change_in_number_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    """Go from two to three to one, by the state of one rank: nothing lost, nothing twice."""
    trained("torch", tmp_path, lambda world: f"file://{tmp_path}/group-{world}")
