"""Packed datasets behind URLs: the same samples as from files, by the folder or by the shards."""

from __future__ import annotations

import json
import pickle
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import ArrayDataset, CenterCrop, DataLoader
from headrace.datasets import PackedDataset, protocol
from headrace.errors import ArgumentError, BadFile, HeadraceError, MissingFile, SampleError

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("pyarrow")

if TYPE_CHECKING:
    from pathlib import Path


def packed(folder: Path, store: Any = "raw") -> PackedDataset:
    """Pack 12 images in several shards."""
    images = np.random.default_rng(3).integers(0, 256, (12, 40, 30, 3), dtype=np.uint8)
    dataset = ArrayDataset(images, np.arange(12) * 3)
    return dataset.pack(folder, store=store, shard_size="10kB", budget="40kB" if store == "smart" else None)  # type: ignore[return-value]


def uploaded(folder: Path) -> str:
    """Put a folder behind a URL."""
    url = f"memory://{uuid.uuid4().hex}/photos"
    for path in folder.iterdir():
        fsspec.filesystem("memory").pipe(f"{url}/{path.name}", path.read_bytes())
    return url


def write(url: str, data: bytes) -> None:
    """Put an object behind a URL."""
    fsspec.filesystem("memory").pipe(url, data)


@pytest.mark.parametrize("store", ["raw", "jpeg", "smart"])
def test_samples_are_those_of_the_files(tmp_path: Path, store: Any) -> None:
    """Read by the folder, by its shards in braces, and by a list, in loops and pickled."""
    local = packed(tmp_path, store)
    url = uploaded(tmp_path)
    assert len(local.shards) > 1
    pattern = f"{url}/packed-{{00000..{len(local.shards) - 1:05}}}.arrow"
    for given in (url, f"{url}/", pattern, [f"{url}/{path.rpartition('/')[2]}" for path in local.shards]):
        remote = PackedDataset(given)
        assert len(remote) == len(local)
        assert np.array_equal(remote.labels, local.labels)  # type: ignore[arg-type]
        assert remote.shard_lengths == local.shard_lengths
        assert all(np.array_equal(remote[row][0], local[row][0]) for row in range(12))
    copy = pickle.loads(pickle.dumps(remote))
    options: dict[str, Any] = {"batch_size": 5, "shuffle": True, "seed": 1}
    for workers in (0, 2):
        for ours, theirs in zip(
            DataLoader(copy.map(CenterCrop(16)), num_workers=workers, **options),
            DataLoader(local.map(CenterCrop(16)), **options),
            strict=True,
        ):
            assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_the_ranges_of_samples_are_known_ahead(tmp_path: Path) -> None:
    """Say which bytes of which shard a batch needs; nothing for files."""
    local = packed(tmp_path)
    remote = PackedDataset(uploaded(tmp_path))
    assert protocol.object_spans(local, [1]) == []
    (spans,) = protocol.object_spans(remote.take(8), [7, 1, -1])
    assert spans.length.tolist() == [3600, 3600, 3600]
    assert [remote.shards[number] for number in spans.file] == [remote.where(row).split(": ")[0] for row in (7, 1, 7)]


def test_damage_is_found_by_name(tmp_path: Path) -> None:
    """Flip a bit of the pixels, of the labels and of the list of shards."""
    packed(tmp_path)
    url = uploaded(tmp_path)
    name = f"{url}/packed-00000.arrow"
    data = bytearray((tmp_path / "packed-00000.arrow").read_bytes())
    data[packed_image(tmp_path)] ^= 1
    write(name, bytes(data))
    with pytest.raises(SampleError, match="another checksum"):
        PackedDataset(url)[0]
    for text in (b"{", b"[]", b"{}", json.dumps({"finished": True, "shards": -1}).encode(), b"[" * 100_000):
        write(f"{url}/packed.json", text)
        with pytest.raises(BadFile, match="does not name the shards"):
            PackedDataset(url)
    write(f"{url}/packed.json", json.dumps({"finished": True, "shards": 1, "samples": 12}).encode())
    with pytest.raises(BadFile, match="it has 1 shards"):
        PackedDataset(url)


def packed_image(folder: Path) -> int:
    """Return where the pixels of the first image begin in the first shard."""
    index = PackedDataset(folder / "packed-00000.arrow")._index
    image = next(each for each in index.layout.fields if each.kind == "image")
    return int(index.spans(image).offset[0])


def test_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    """Name the object that is missing; refuse to warm a page cache that holds nothing of it."""
    packed(tmp_path)
    url = uploaded(tmp_path)
    with pytest.raises(MissingFile, match=r"packed\.json"):
        PackedDataset(f"{url}/other")
    fsspec.filesystem("memory").rm(f"{url}/packed-00001.arrow")
    with pytest.raises(HeadraceError, match="packed-00001"):
        PackedDataset(url)
    write(f"{url}/packed-00001.arrow", (tmp_path / "packed-00001.arrow").read_bytes())
    with pytest.raises(ArgumentError, match="warm=True"):
        PackedDataset(url, warm=True)
