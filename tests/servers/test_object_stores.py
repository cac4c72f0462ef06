"""Datasets behind URLs of real servers, through a proxy with faults: the same samples as from files, or an error."""

from __future__ import annotations

import io
import tarfile
import time
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import obstore
import pytest
from obstore.store import from_url

from headrace import ArrayDataset, DataLoader, ImageFolder
from headrace.datasets import WebDataset
from headrace.errors import BadFile, MissingFile, UnreadableFile
from headrace.run import prefetcher
from headrace.storage import blocks, object_clients, request_loop
from headrace.storage.shard_folders import UPLOADS, ObjectFolder
from tests.servers.fault_proxy import FaultProxy, fault_proxy
from tests.storage.sources import KINDS, objects_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.servers.object_stores import ObjectStore

SHARDS, EACH = 3, 40
BLOCK = 1 << 16


def content(version: int = 0) -> dict[str, bytes]:
    """Return the shards by name."""
    found = {}
    for shard in range(SHARDS):
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w") as archive:
            for number in range(EACH):
                data = np.random.default_rng([version, shard, number]).bytes(20_000)
                member = tarfile.TarInfo(f"{shard}-{number:03}.bin")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        found[f"{shard}.tar"] = held.getvalue()
    return found


@pytest.fixture
def proxy(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of the server, the shards behind it, and a cache and clients of its own."""
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with fault_proxy(store.port, fake_gcs=store.name == "gcs") as found:
        for name, value in store.environment(found.port).items():
            monkeypatch.setenv(name, value)
        for name, data in content().items():
            store.put(name, data)
        yield found


@pytest.fixture
def dataset(proxy: FaultProxy, store: ObjectStore) -> WebDataset:
    """The dataset, with its index and an empty cache."""
    found = WebDataset(f"{store.root}/{{0..{SHARDS - 1}}}.tar")
    blocks.blocks().disk.clear()
    blocks._of_process.cache_clear()
    proxy.counts.clear()
    return found


def expected(tmp_path: Path, **options: Any) -> list[Any]:
    """Return the samples of the same shards as files."""
    for name, data in content().items():
        (tmp_path / name).write_bytes(data)
    return samples(DataLoader(WebDataset(f"{tmp_path}/{{0..{SHARDS - 1}}}.tar"), 8, collate_fn=list, **options))


def samples(loader: DataLoader[Any]) -> list[Any]:
    with loader:
        return list(chain.from_iterable(loader))


HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "processes": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
}


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:worker processes are forked:RuntimeWarning")  # the proxy has threads
@pytest.mark.parametrize("how", HOW)
def test_samples_are_those_of_the_files(dataset: WebDataset, tmp_path: Path, how: str) -> None:
    options: dict[str, Any] = {"shuffle": True, "seed": 1}
    loader: DataLoader[Any] = DataLoader(dataset, 8, collate_fn=list, **options, **HOW[how])
    assert samples(loader) == expected(tmp_path, **options)


@pytest.mark.parametrize("fault", ["503", "429", "500", "reset", "cut"])
def test_faults_that_pass_are_not_seen(dataset: WebDataset, proxy: FaultProxy, tmp_path: Path, fault: str) -> None:
    proxy.fault = lambda _method, number: fault if number % 3 == 0 else ""
    loader: DataLoader[Any] = DataLoader(dataset, 8, shuffle=True, seed=1, collate_fn=list)
    assert samples(loader) == expected(tmp_path, shuffle=True, seed=1)


def test_an_answer_that_stops_in_the_middle_is_asked_for_again(
    dataset: WebDataset, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_loop, "QUIET_SECONDS", 0.3)
    proxy.fault = lambda method, number: "stall" if method == "GET" and number == 2 else ""
    loader: DataLoader[Any] = DataLoader(dataset, 8, shuffle=True, seed=1, collate_fn=list)
    assert samples(loader) == expected(tmp_path, shuffle=True, seed=1)


def test_an_object_that_changes_is_an_error_and_no_byte_of_it_is_seen(
    dataset: WebDataset, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetcher, "AHEAD", BLOCK)  # else it is there before it changes
    loader: DataLoader[Any] = DataLoader(dataset, 8, collate_fn=list)
    batches = iter(loader)
    found = list(next(batches))
    store.put("2.tar", content(version=1)["2.tar"])
    with pytest.raises(BadFile, match=r"2\.tar.*the object has changed"):
        found.extend(chain.from_iterable(batches))
    loader.close()
    assert found == expected(tmp_path)[: len(found)]


def test_listed_images_and_tokens_are_those_of_the_files(proxy: FaultProxy, store: ObjectStore, tmp_path: Path) -> None:
    for name in ("images", "tokens"):
        (tmp_path / name).mkdir()
        KINDS[name].write(tmp_path / name)
    (tmp_path / "images/cat/001.png").rename(tmp_path / "images/cat/é #1?%20 x.png")
    for path, data in objects_of(tmp_path).items():
        if path.startswith(("/images/", "/tokens/")):
            store.put(path[1:], data)
    proxy.fault = lambda _method, number: "503" if number % 5 == 0 else ""
    remote, local = ImageFolder(f"{store.root}/images"), ImageFolder(tmp_path / "images")
    assert (list(remote.paths), remote.classes) == (list(local.paths), local.classes)
    how: dict[str, Any] = {"shuffle": True, "seed": 1, "collate_fn": list}
    tokens = KINDS["tokens"].open
    pairs: list[tuple[Any, Any]] = [(remote, local), (tokens(f"{store.root}/tokens"), tokens(f"{tmp_path}/tokens"))]
    for ours, theirs in pairs:
        found = samples(DataLoader(ours, 8, num_workers=2, **how))
        np.testing.assert_equal(found, samples(DataLoader(theirs, 8, **how)))


def test_what_is_not_there_or_refused_is_an_error_with_its_url(proxy: FaultProxy, store: ObjectStore) -> None:
    with pytest.raises(MissingFile, match=r"no-such\.tar: there is no such object"):
        WebDataset(f"{store.root}/no-such.tar")
    proxy.fault = lambda _method, _number: "403"
    with pytest.raises(UnreadableFile, match=r"0\.tar: the server refused it \(status 403\)"):
        WebDataset(f"{store.root}/0.tar", index=None)


def read_for(seconds: float, url: str) -> None:
    """Read a shard again and again, until that fails."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        WebDataset(url, index=None)


def test_signed_urls_are_read_without_credentials(
    proxy: FaultProxy, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.name == "gcs":
        pytest.skip("the server for GCS compares no signatures")
    signing: Any = from_url(store.root, client_options={"allow_http": True})
    names = [f"{shard}.tar" for shard in range(SHARDS)]
    signed, again = (obstore.sign(signing, "GET", names, timedelta(seconds=600 + 60 * each)) for each in range(2))
    brief = obstore.sign(signing, "GET", "0.tar", timedelta(seconds=1))
    for name in store.environment(proxy.port):
        monkeypatch.delenv(name)
    loader: DataLoader[Any] = DataLoader(WebDataset(signed), 8, shuffle=True, seed=1, collate_fn=list)
    assert samples(loader) == expected(tmp_path, shuffle=True, seed=1)
    sent = proxy.nbytes
    assert len(WebDataset(again)) == len(loader.dataset)
    assert samples(DataLoader(WebDataset(again), 8, collate_fn=list)) == expected(tmp_path)
    assert proxy.nbytes - sent <= 4 * len(names)  # a byte of each says that it has not changed
    with pytest.raises(UnreadableFile, match=r"0\.tar: the signature of its URL expired at 20"):
        read_for(60, brief)
    with pytest.raises(UnreadableFile, match=r"0\.tar: the server refused the signature of its URL"):
        WebDataset(signed[0].replace("ignature=", "ignature=00").replace("sig=", "sig=00"), index=None)


@pytest.mark.parametrize("fault", ["", "503", "500", "reset"])
def test_what_is_written_reads_back_and_nothing_else_is_there(
    proxy: FaultProxy, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    # The server for GCS has no uploads in parts by XML, which obstore sends; that of tests/storage has.
    monkeypatch.setattr(object_clients, "WRITTEN_PART", (5 if store.name != "gcs" else 16) << 20)
    proxy.fault = lambda method, number: fault if method == "PUT" and number % 3 == 0 else ""
    folder = ObjectFolder(f"{store.root}/written-{fault}")
    data = np.random.default_rng(1).bytes(11 << 20)
    path = tmp_path / "large.bin"
    path.write_bytes(data)
    assert folder.names() == []
    assert folder.put("large.bin", path)
    assert not folder.put("large.bin", path)
    folder.write("small.txt", lambda place: place.write_text("small"))
    assert ObjectFolder(folder.url).is_known("large.bin")
    assert (folder.names(), folder.read("large.bin"), folder.read("small.txt")) == (
        ["large.bin", "small.txt"],
        data,
        b"small",
    )
    folder.remove("small.txt")
    folder.finish()
    assert folder.names() == ["large.bin"]
    assert folder.read(UPLOADS) is None


def test_a_packed_dataset_is_written_and_read(proxy: FaultProxy, store: ObjectStore, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    images = np.random.default_rng(3).integers(0, 256, (12, 40, 30, 3), dtype=np.uint8)
    dataset = ArrayDataset(images, np.arange(12))
    how: dict[str, Any] = {"store": "raw", "shard_size": "10kB"}
    proxy.fault = lambda method, number: "403" if method == "PUT" and number > 4 else ""
    with pytest.raises(UnreadableFile, match="cannot be written"):
        dataset.pack(f"{store.root}/packed", **how)
    proxy.fault = lambda _method, _number: ""
    remote = dataset.pack(f"{store.root}/packed", **how)
    local = dataset.pack(tmp_path / "packed", **how)
    assert all(np.array_equal(ours[0], theirs[0]) for ours, theirs in zip(remote, local, strict=True))
    for path in (tmp_path / "packed").iterdir():
        assert ObjectFolder(f"{store.root}/packed").read(path.name) == path.read_bytes()
