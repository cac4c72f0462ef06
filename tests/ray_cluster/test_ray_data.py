"""Datasets of Ray Data as streams: order, ranks, resuming."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader, ImageFolder, default_collate
from headrace.datasets import PackedDataset, from_ray
from headrace.errors import ArgumentError, ArgumentTypeError
from tests.image_files import encoded, photo

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


def test_tasks_of_ray_data_read_a_packed_dataset(cluster: Any, tmp_path: Path) -> None:
    """Read its rows by their numbers, as the guide does: images and labels of the dataset that was packed."""
    import ray

    for number in range(6):
        path = tmp_path / "photos" / f"class {number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(photo(number), "PNG"))
    folder = ImageFolder(tmp_path / "photos")
    folder.pack(tmp_path / "packed", max_side=64, store="raw")
    packed = PackedDataset(tmp_path / "packed")

    def read(rows: dict[str, Any]) -> dict[str, Any]:
        images, labels = default_collate([packed[int(row)] for row in rows["id"]])
        return {"image": images, "label": labels}

    found = ray.data.range(len(packed)).map_batches(read, batch_size=4).take_all()
    seen = sorted((int(row["label"]), row["image"].tobytes()) for row in found)
    assert seen == sorted((int(label), np.asarray(image).tobytes()) for image, label in folder)


def test_what_is_no_dataset_is_refused(table: Any) -> None:
    """Say what is expected."""
    with pytest.raises(ArgumentTypeError, match="got a list"):
        from_ray([1, 2])
    with pytest.raises(ArgumentError, match="must be given together"):
        from_ray(table, rank=1)
