"""Compressed shards behind URLs: downloaded once, decompressed into a folder, and checked."""

from __future__ import annotations

import gzip
import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.storage.object_server import ObjectServer, object_server
from tests.storage.sources import KINDS, objects_of, zipped_litdata, zipped_mds

from headrace import DataLoader
from headrace.datasets import LitDataset, MDSDataset
from headrace.errors import BadFile, MissingFile
from headrace.storage import blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("obstore")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", 1 << 14)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as found:
        yield found


def _mds(folder: Path, server: ObjectServer, *, packed: bool = True) -> None:
    """Write MDS shards, and serve them compressed, with the hashes of what is decompressed."""
    KINDS["mds"].write(folder)
    about = json.loads((folder / "index.json").read_text())
    for shard in about["shards"]:
        data = (folder / shard["raw_data"]["basename"]).read_bytes()
        shard["raw_data"]["hashes"] = {"sha1": hashlib.sha1(data).hexdigest()}
    (folder / "index.json").write_text(json.dumps(about))
    served = zipped_mds(folder) if packed else {"index.json": (folder / "index.json").read_bytes()}
    server.objects |= {f"/{name}": data for name, data in served.items()}


def _lit(folder: Path, server: ObjectServer) -> None:
    """Write LitData chunks, and serve them compressed."""
    KINDS["litdata"].write(folder)
    server.objects |= {f"/{name}": data for name, data in zipped_litdata(folder).items()}


@pytest.mark.parametrize(("write", "kind"), [(_mds, MDSDataset), (_lit, LitDataset)])
def test_compressed_shards_are_downloaded_once(server: ObjectServer, tmp_path: Path, write: Any, kind: Any) -> None:
    """Give the samples of the files; fetch each block once; a second dataset fetches no shard."""
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder, server)
    local, remote = kind(folder), kind(server.url)
    np.testing.assert_equal([remote[index] for index in range(len(remote))], list(local))
    ranges = [(path, said) for method, path, said in server.requests if method == "GET" and path != "/index.json"]
    assert len(ranges) == len(set(ranges))
    server.requests.clear()
    again = kind(server.url)
    batches = list(DataLoader(again, 8, shuffle=True, seed=3, collate_fn=list, num_workers=2, backend="threads"))
    np.testing.assert_equal(batches, list(DataLoader(local, 8, shuffle=True, seed=3, collate_fn=list)))
    assert {path for method, path, _ in server.requests if method == "GET"} <= {"/index.json"}


def test_a_decompressed_shard_beside_it_is_read_by_ranges(server: ObjectServer, tmp_path: Path) -> None:
    """Take the shard that is not compressed where the server has both."""
    _mds(tmp_path, server)
    server.objects["/0.mds"] = (tmp_path / "0.mds").read_bytes()
    dataset = MDSDataset(server.url)
    assert dataset.shards[0] == f"{server.url}/0.mds"
    np.testing.assert_equal([dataset[0], dataset[95]], [MDSDataset(tmp_path)[index] for index in (0, 95)])


def test_a_shard_that_changes_is_downloaded_again(server: ObjectServer, tmp_path: Path) -> None:
    """Decompress the new version of a shard, not the old copy; refuse one with another hash."""
    _mds(tmp_path, server)
    first = MDSDataset(server.url)
    data = bytearray(gzip.decompress(server.objects["/0.mds.gz"]))
    data[-1] ^= 1
    server.objects["/0.mds.gz"] = gzip.compress(bytes(data))
    with pytest.raises(BadFile, match=r"0\.mds\.gz: its sha1 is"):
        MDSDataset(server.url)
    about = json.loads(server.objects["/index.json"])
    about["shards"][0]["raw_data"]["hashes"] = {}
    server.objects["/index.json"] = json.dumps(about).encode()
    second = MDSDataset(server.url)
    assert second.shards[0] != first.shards[0]
    assert second[47]["data"][-1] == first[47]["data"][-1] ^ 1


@pytest.mark.parametrize("fault", ["missing", "cut", "other"])
def test_damaged_and_missing_shards_are_errors(server: ObjectServer, tmp_path: Path, fault: str) -> None:
    """Name the URL of a shard that is missing, cut short, or no gzip file."""
    _mds(tmp_path, server)
    data = server.objects.pop("/1.mds.gz")
    if fault != "missing":
        server.objects["/1.mds.gz"] = data[: len(data) // 2] if fault == "cut" else b"no gzip at all"
    with pytest.raises(MissingFile if fault == "missing" else BadFile, match=r"http://.*/1\.mds\.gz"):
        MDSDataset(server.url)
    assert not list((tmp_path / "home").rglob("*.mds*.*.*"))


def test_hashes_of_remote_shards_are_checked(server: ObjectServer, tmp_path: Path) -> None:
    """Read whole shards with ``verify=True``."""
    _mds(tmp_path, server, packed=False)
    server.objects |= {path: data for path, data in objects_of(tmp_path).items() if path.endswith(".mds")}
    assert len(MDSDataset(server.url, verify=True)) == 96
    data = server.objects["/1.mds"]
    server.objects["/1.mds"] = data[:-1] + b"?"
    with pytest.raises(BadFile, match=r"1\.mds: its sha1 is"):
        MDSDataset(server.url, verify=True)
