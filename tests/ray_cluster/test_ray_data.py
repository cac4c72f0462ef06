"""Datasets of Ray Data as streams: order, ranks, resuming."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headrace import DataLoader
from headrace.datasets import from_ray
from headrace.errors import ArgumentError, ArgumentTypeError

pytest.importorskip("ray.data", reason="Ray Data is not installed")


@pytest.fixture(scope="module", name="table")
def numbers(cluster: Any) -> Any:
    """Forty-one rows in four blocks, each with an array."""
    import ray

    data = ray.data.range(41, override_num_blocks=4)
    data.context.execution_options.preserve_order = True
    return data.map_batches(lambda rows: {**rows, "x": np.stack([rows["id"]] * 3, axis=1)}).materialize()


@pytest.fixture(autouse=True)
def nothing_leaks() -> None:
    """Ray Data keeps actors and blocks of its own."""


def test_rows_come_in_order_as_numpy_values(table: Any) -> None:
    """Collate scalars and arrays of the rows; two epochs are alike."""
    loader = DataLoader(from_ray(table, rows=7), 10, num_workers=1)
    for _ in range(2):
        batches = list(loader)
        assert np.concatenate([batch["id"] for batch in batches]).tolist() == list(range(41))
        assert [batch["x"].shape for batch in batches] == [(10, 3)] * 4 + [(1, 3)]


def test_ranks_read_parts_of_one_length_that_share_no_row(table: Any) -> None:
    """Leave out what is too little for all ranks."""
    parts = [[int(row["id"]) for row in from_ray(table, rank=rank, world_size=3)] for rank in range(3)]
    assert [len(part) for part in parts] == [13, 13, 13]
    assert [number for part in parts for number in part] == list(range(39))


def test_a_run_resumes_at_its_row(table: Any) -> None:
    """Save partway through the rows; another loader reads on from there."""
    first = DataLoader(from_ray(table), 4)
    loop = iter(first)
    for _ in range(3):
        next(loop)
    second = DataLoader(from_ray(table), 4)
    second.load_state_dict(first.state_dict())
    assert next(iter(second))["id"].tolist() == [12, 13, 14, 15]


def test_what_is_no_dataset_is_refused(table: Any) -> None:
    """Say what is expected."""
    with pytest.raises(ArgumentTypeError, match="got a list"):
        from_ray([1, 2])
    with pytest.raises(ArgumentError, match="must be given together"):
        from_ray(table, rank=1)
