"""Images in shards behind URLs, made by the native extension: the pixels of the same shards as files."""

from __future__ import annotations

import io
import tarfile
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from tests.storage.object_server import ObjectServer, object_server

from headrace import ConcatDataset, DataLoader, RandomHorizontalFlip, RandomResizedCrop, ToCHW, ToFloat
from headrace.datasets import WebDataset
from headrace.errors import HeadraceError
from headrace.storage import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("obstore")

SAMPLES, BATCH = 24, 4


@pytest.fixture(scope="module")
def shard() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for number in range(SAMPLES):
            pixels = np.random.default_rng(number).integers(0, 255, (40, 50, 3), np.uint8)
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG")
            for ending, data in (("jpg", file.getvalue()), ("cls", str(number).encode())):
                member = tarfile.TarInfo(f"{number:03}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return held.getvalue()


@pytest.fixture
def server(shard: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectServer]:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 12)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with object_server() as found:
        found.objects["/0.tar"] = shard
        yield found


def mapped(shards: Any) -> Any:
    pairs = WebDataset(shards, index=None).tuple("jpg", "cls")
    return pairs.map(RandomResizedCrop(16), RandomHorizontalFlip(), ToFloat(), ToCHW())


def batches_of(dataset: Any, **options: Any) -> list[Any]:
    with DataLoader(dataset, BATCH, shuffle=True, seed=3, **options) as loader:
        return list(loader)


HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2},
    "processes": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
}


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:worker processes are forked:RuntimeWarning")  # the server has threads
@pytest.mark.parametrize("how", HOW)
def test_batches_are_those_of_the_same_shard_as_a_file(
    server: ObjectServer, shard: bytes, tmp_path: Path, how: str
) -> None:
    (tmp_path / "0.tar").write_bytes(shard)
    remote = mapped(f"{server.url}/0.tar")
    assert remote.explain().startswith("Mapped: all fused")
    found = batches_of(remote, **HOW[how])
    for (images, labels), (expected, numbers) in zip(found, batches_of(mapped(tmp_path / "0.tar")), strict=True):
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(labels, numbers)


def test_a_batch_of_files_and_objects_is_made_together(server: ObjectServer, shard: bytes, tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(shard)
    local = str(tmp_path / "0.tar")
    both = mapped([local, f"{server.url}/0.tar"])
    apart = ConcatDataset([mapped(local), mapped(f"{server.url}/0.tar")])
    expected = batches_of(mapped([local, local]))
    for found in (batches_of(both), batches_of(apart, num_workers=2)):
        for (images, labels), (pixels, numbers) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(images, pixels)
            np.testing.assert_array_equal(labels, numbers)
    assert all(path == "/0.tar" for _, path, _ in server.requests)


def test_the_loop_begins_no_batch_that_waits_for_a_server(server: ObjectServer, tmp_path: Path, shard: bytes) -> None:
    (tmp_path / "0.tar").write_bytes(shard)
    assert mapped(tmp_path / "0.tar").begin_batch is not None
    remote = mapped(f"{server.url}/0.tar")
    assert remote.begin_batch is None
    assert remote.read_batch is not None


@pytest.mark.parametrize("how", ["deleted", "flipped", "cut", "all deleted"])
def test_a_block_that_is_lost_after_it_was_looked_at_is_fetched_again(server: ObjectServer, how: str) -> None:
    """The native extension leaves its images to Python, which fetches the block again."""
    blocks.blocks()._most = 0  # nothing is kept in memory
    dataset = mapped(f"{server.url}/0.tar")
    expected = batches_of(dataset)
    files = sorted(blocks.blocks().disk.folder.glob("*.block"))
    for file in files if how == "all deleted" else files[1:2]:
        data = bytearray(file.read_bytes())
        data[700] ^= 1
        file.unlink()
        if how in ("flipped", "cut"):
            file.write_bytes(data if how == "flipped" else data[:600])
    for (images, labels), (pixels, numbers) in zip(batches_of(dataset, num_workers=2), expected, strict=True):
        np.testing.assert_array_equal(images, pixels)
        np.testing.assert_array_equal(labels, numbers)
    assert files[1].is_file()


@pytest.mark.parametrize("most", ["0", "9000"])
def test_without_room_in_the_cache_images_come_through_memory(
    server: ObjectServer, shard: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str
) -> None:
    monkeypatch.setenv(blocks.MOST, most)
    (tmp_path / "0.tar").write_bytes(shard)
    expected = batches_of(mapped(tmp_path / "0.tar"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "shuffle=True over", UserWarning)
        found = batches_of(mapped(f"{server.url}/0.tar"), num_workers=2)
    for (images, labels), (pixels, numbers) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(images, pixels)
        np.testing.assert_array_equal(labels, numbers)


def test_what_cannot_be_fetched_is_an_error_that_names_its_sample(server: ObjectServer) -> None:
    dataset = mapped(f"{server.url}/0.tar")
    server.objects.clear()
    blocks.blocks().disk.clear()
    blocks._of_process.cache_clear()
    with DataLoader(dataset, BATCH, num_workers=2) as loader, pytest.raises(HeadraceError, match=r"0\.tar.*no such"):
        list(loader)
