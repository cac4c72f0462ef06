"""What an epoch on an empty cache asks a server for: hardly more than the data, once for all ranks of a machine."""

from __future__ import annotations

import multiprocessing
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest
from tests.storage.object_server import ObjectServer, object_server
from tests.storage.sources import KINDS, SAMPLES, objects_of

from headrace import DataLoader
from headrace.datasets import protocol
from headrace.storage import blocks, request_loop
from headrace.storage.object_spans import BlockNumbers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("obstore")

BLOCK = 1 << 12


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture(params=["tar", "mds"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def server(kind: str, tmp_path: Path) -> Iterator[ObjectServer]:
    folder = tmp_path / "files"
    folder.mkdir()
    KINDS[kind].write(folder)
    with object_server() as found:
        found.objects |= objects_of(folder)
        yield found


def _cost(server: ObjectServer) -> tuple[int, int]:
    """Return requests, and the bytes that they asked for."""
    ranges = [tuple(map(int, said.removeprefix("bytes=").split("-"))) for said in server.gets()]
    return len(ranges), sum(end + 1 - begin for begin, end in ranges)


def _when_all_is_asked_for(server: ObjectServer, dataset: Any) -> threading.Event:
    """Return an event for the moment when the server has been asked for every block of the shards."""
    numbers, found = BlockNumbers(), threading.Event()
    wanted = len(numbers.of(protocol.object_spans(dataset, list(range(len(dataset))))))

    def fault(_method: str, _number: int) -> str:
        if -(-_cost(server)[1] // BLOCK) >= wanted - len(dataset.shards):
            found.set()
        return ""

    fault("", 0)
    server.fault = fault
    return found


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("indexed", [False, True])
def test_requests_and_bytes_of_an_epoch_are_near_the_ideal(
    server: ObjectServer, kind: str, shuffle: bool, indexed: bool
) -> None:
    dataset = KINDS[kind].open(server.url)
    if indexed:  # on another machine: the index is there, the cache is empty
        blocks.blocks().disk.clear()
        blocks._of_process.cache_clear()
        server.requests.clear()
    all_asked = _when_all_is_asked_for(server, dataset)
    with DataLoader(dataset, 4, shuffle=shuffle, seed=3, collate_fn=list) as loader:
        batches = iter(loader)
        count = len(next(batches))
        assert all_asked.wait(60)  # training is slower than this server: what is ahead is fetched ahead
        assert count + sum(map(len, batches)) == SAMPLES
    shards = [len(server.objects["/" + shard.removeprefix(f"{server.url}/")]) for shard in dataset.shards]
    requests, nbytes = _cost(server)
    assert nbytes <= 1.1 * sum(shards)
    pieces = sum(-(-size // BLOCK) for size in shards)
    joined = sum(-(-size // (blocks.JOINED * BLOCK)) for size in shards)
    # In order, neighbors are one request, but for the first batch, which is fetched alone. A shuffle has few neighbors.
    assert requests <= 1.1 * (pieces if shuffle else joined) + 2


def _rank(url: str, kind: str, rank: int, results: Any) -> None:
    """Read the samples of a rank, and say which they were."""
    blocks.BLOCK, request_loop.HEDGED = BLOCK, 0
    loader: Any = DataLoader(
        KINDS[kind].open(url), 4, shuffle=True, seed=3, collate_fn=list, rank=rank, world_size=3, num_workers=2
    )
    with loader:
        results.put([int(sample["__key__"] if kind == "tar" else sample["n"]) for batch in loader for sample in batch])


def test_the_ranks_of_a_machine_download_each_block_once(server: ObjectServer, kind: str) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    ranks = [context.Process(target=_rank, args=(server.url, kind, rank, results)) for rank in range(3)]
    for rank in ranks:
        rank.start()
    found = [results.get() for _ in ranks]
    for rank in ranks:
        rank.join()
    results.close()
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    assert sorted(number for numbers in found for number in numbers) == list(range(SAMPLES))
    asked = [
        (path, number)
        for method, path, said in server.requests
        if method == "GET"
        for begin, end in [map(int, said.removeprefix("bytes=").split("-"))]
        for number in range(begin // BLOCK, end // BLOCK + 1)
    ]
    assert len(asked) == len(set(asked))
    assert {path for path, _ in asked} >= {path for path in server.objects if not path.endswith(".json")}
    assert os.environ[blocks.FOLDER]
