"""A seed is a promise: every dataset, sampler and worker gives the recorded bytes, from commit to commit."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.golden.cases import CASES, RECORD, digest

GOLDEN = json.loads(RECORD.read_text(encoding="utf-8"))
WORKERS: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "processes": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
}


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", CASES)
def test_a_seed_gives_the_bytes_that_were_recorded(name: str, workers: str) -> None:
    """Compare two epochs with the record; an intended change updates the record and the changelog."""
    if name == "hdf5":
        pytest.importorskip("h5py")
    assert digest(name, **WORKERS[workers]) == GOLDEN[name]


def test_every_recorded_case_is_tested() -> None:
    """Keep cases and record together."""
    assert GOLDEN.keys() == CASES.keys()
