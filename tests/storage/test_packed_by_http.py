"""Packed datasets behind a real HTTP server: the samples of the files, resumed loops, and damage that is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.storage.object_server import ObjectServer, object_server

from headrace import ArrayDataset, CenterCrop, DataLoader
from headrace.datasets import PackedDataset
from headrace.errors import SampleError
from headrace.storage import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("obstore")
pytest.importorskip("pyarrow")

SAMPLES = 24
OPTIONS: dict[str, Any] = {"batch_size": 5, "shuffle": True, "seed": 1}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 14)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ObjectServer]:
    """Return a server of a packed dataset of several shards, at ``/photos``."""
    images = np.random.default_rng(3).integers(0, 256, (SAMPLES, 40, 30, 3), dtype=np.uint8)
    ArrayDataset(images, np.arange(SAMPLES)).pack(tmp_path / "photos", store="raw", shard_size="20kB")
    with object_server() as found:
        found.objects.update((f"/photos/{path.name}", path.read_bytes()) for path in (tmp_path / "photos").iterdir())
        yield found


def batches_of(dataset: Any, **options: Any) -> list[Any]:
    """Return the batches of an epoch."""
    return list(DataLoader(dataset.map(CenterCrop(16)), **OPTIONS, **options))


def assert_same(found: Any, expected: Any) -> None:
    """Compare batches to the bit."""
    for ours, theirs in zip(found, expected, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_batches_are_those_of_the_files(server: ObjectServer, tmp_path: Path) -> None:
    """Read in the loop's thread and on threads, with requests that fail now and then."""
    local = PackedDataset(tmp_path / "photos")
    assert len(local.shards) > 2
    server.fault = lambda _method, number: ("503", "", "cut", "", "", "reset", "", "")[number % 8]
    remote = PackedDataset(f"{server.url}/photos")
    for workers in (0, 2):
        assert_same(batches_of(remote, num_workers=workers), batches_of(local))
    assert any(said for said in server.gets())  # by ranges


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_resumes(server: ObjectServer, tmp_path: Path, workers: int) -> None:
    """Go on in a dataset that is opened again, from a state partway through an epoch."""
    expected = batches_of(PackedDataset(tmp_path / "photos"))
    loader = DataLoader(PackedDataset(f"{server.url}/photos").map(CenterCrop(16)), num_workers=workers, **OPTIONS)
    steps = iter(loader)
    for _ in range(2):
        next(steps)
    state = loader.state_dict()
    loader.close()
    again = DataLoader(PackedDataset(f"{server.url}/photos").map(CenterCrop(16)), num_workers=workers, **OPTIONS)
    again.load_state_dict(state)
    assert_same(list(again), expected[2:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_flipped_bit_is_named_and_skipped(server: ObjectServer, tmp_path: Path, workers: int) -> None:
    """Flip a bit of the pixels of one sample in the object: an error names its shard, and the rest is read."""
    local = PackedDataset(tmp_path / "photos")
    name = f"/photos/{local.shards[1].rpartition('/')[2]}"
    data = bytearray(server.objects[name])
    first = local.shard_lengths[0]
    at = bytes(data).index(local[first][0].tobytes())  # the first sample of the second shard
    data[at + 1000] ^= 8
    server.objects[name] = bytes(data)
    remote = PackedDataset(f"{server.url}/photos")
    with pytest.raises(SampleError, match=rf"{server.url}{name}.*another checksum"):
        batches_of(remote, num_workers=workers)
    kept = batches_of(remote, num_workers=workers, on_error="skip")
    labels = np.concatenate([labels for _, labels in kept])
    assert sorted(labels.tolist()) == [n for n in range(SAMPLES) if n != first]
    images = {int(label): image for images, labels in kept for image, label in zip(images, labels, strict=True)}
    assert all(np.array_equal(images[row], CenterCrop(16)(local[row][0])) for row in images)
