"""Datasets of every kind by URL: the samples of the files, fetched ahead once, and resumed on an empty cache."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from benchmarks.eviction import PARTS, hit_rate
from tests.storage.object_server import ObjectServer, object_server
from tests.storage.sources import KINDS, objects_of

from headrace import DataLoader
from headrace.datasets import MappedColumns, ParquetDataset, protocol
from headrace.storage import blocks
from headrace.storage.object_spans import BlockNumbers, estimated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest.importorskip("obstore")

BLOCK = 1 << 14
SHUFFLED: dict[str, Any] = {"shuffle": True, "seed": 3, "collate_fn": list}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def folder(kind: str, written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the files of a kind."""
    if kind not in written:
        folder = tmp_path_factory.mktemp(kind)
        KINDS[kind].write(folder)
        written[kind] = folder
    return written[kind]


@pytest.fixture
def server(folder: Path) -> Iterator[ObjectServer]:
    with object_server() as found:
        found.objects |= objects_of(folder)
        yield found


@pytest.fixture
def opened(kind: str, server: ObjectServer) -> Callable[[], Any]:
    """What opens the dataset by URL, with its index and an empty cache."""

    def by_url() -> Any:
        found = KINDS[kind].open(server.url)
        _forget()
        server.requests.clear()
        return found

    return by_url


def _forget() -> None:
    blocks.blocks().disk.clear()
    blocks._of_process.cache_clear()


def _blocks_of(dataset: Any, keys: Any) -> set[tuple[str, int]]:
    numbers = BlockNumbers()
    found = numbers.of(protocol.object_spans(dataset, list(keys))).tolist()
    return {("/" + block.url.split("/", 3)[3], block.number) for block in map(numbers.block, found)}


def _fetched(server: ObjectServer) -> list[tuple[str, int]]:
    """Return the blocks that were asked for, in order."""
    found = []
    for method, path, said in list(server.requests):
        if method == "GET":
            begin, end = map(int, said.removeprefix("bytes=").split("-"))
            found += [(path, number) for number in range(begin // BLOCK, end // BLOCK + 1)]
    return found


def test_samples_are_those_of_the_files(kind: str, folder: Path, opened: Callable[[], Any]) -> None:
    local, remote = KINDS[kind].open(str(folder)), opened()
    assert len(remote) == len(local)
    order = np.random.default_rng(3).permutation(len(local)).tolist()
    found = [*map(remote.__getitem__, order[:20]), *protocol.many(remote, order[20:])]
    np.testing.assert_equal(found, [local[index] for index in order])


def test_shards_are_asked_once_for_what_they_are(kind: str, server: ObjectServer) -> None:
    """Send one HEAD request for each shard and each image: for a first index, and when a saved one is loaded."""
    for _ in range(2):
        server.requests.clear()
        KINDS[kind].open(server.url)
        asked = Counter(path for method, path, _ in server.requests if method == "HEAD")
        lists = {path for path in asked if path.endswith((".txt", ".json", ".idx"))}
        assert {asked[path] for path in asked.keys() - lists} == {1}


@pytest.mark.parametrize("how", ["inline", "threads"])
def test_an_epoch_fetches_each_block_once_and_ahead(
    kind: str, folder: Path, server: ObjectServer, opened: Callable[[], Any], how: str
) -> None:
    local, remote = KINDS[kind].open(str(folder)), opened()
    options: dict[str, Any] = {} if how == "inline" else {"num_workers": 2, "backend": "threads"}
    with DataLoader(remote, 8, **SHUFFLED, **options) as loader:
        np.testing.assert_equal(list(loader), list(DataLoader(local, 8, **SHUFFLED)))
        said = loader.statistics().remote
    assert said is not None
    assert said.requests > 0
    fetched = _fetched(server)
    assert len(fetched) == len(set(fetched))
    assert set(fetched) >= _blocks_of(remote, range(len(remote)))


def test_no_kind_has_more_hits_by_the_last_use_than_by_the_plan(opened: Callable[[], Any]) -> None:
    """Shuffle two epochs; the plan knows of some kinds only about where their samples are."""
    dataset, numbers = opened(), BlockNumbers()
    orders = [np.random.default_rng(epoch).permutation(len(dataset)).tolist() for epoch in range(2)]
    batches = [order[begin : begin + 4] for order in orders for begin in range(0, len(order), 4)]
    steps = [numbers.of(protocol.object_spans(dataset, batch)) for batch in batches]
    with estimated():
        plan = [numbers.of(protocol.object_spans(dataset, batch)) for batch in batches]
    for part in PARTS:
        capacity = max(1, int(part * numbers.count))
        planned, recent = (hit_rate(steps, capacity, planned=way, plan=plan) for way in (True, False))
        assert planned >= recent


@pytest.mark.parametrize(("kind", "name", "of"), [("npz", "n-0", MappedColumns), ("parquet", "p", ParquetDataset)])
def test_many_files_are_opened_at_once(folder: Path, kind: str, name: str, of: Callable[[str], Any]) -> None:
    """Ask for all files before any answer comes: one after the other would take the latency of each."""
    data, count = (folder / f"{name}.{kind}").read_bytes(), 8
    with object_server() as server:
        server.objects |= {f"/{number}.{kind}": data for number in range(count)}
        server.gate = threading.Barrier(count)
        dataset = of(f"{server.url}/{{0..{count - 1}}}.{kind}")
        server.gate = None
        assert len(dataset) == count * len(of(str(folder / f"{name}.{kind}")))


@pytest.mark.parametrize("kind", ["arrow"], indirect=True)
def test_where_rows_begin_is_read_for_all_columns_and_record_batches_at_once(
    opened: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, asked, fetch = opened(), list[int](), blocks.Blocks.ensure

    def noted(self: blocks.Blocks, spans: Any) -> None:
        given = list(spans)
        asked.append(len(given))
        fetch(self, given)

    monkeypatch.setattr(blocks.Blocks, "ensure", noted)
    assert protocol.object_spans(remote, range(len(remote)))
    columns, record_batches = ("data", "text", "ids", "words", "words in it", "b of it"), 6
    assert asked == [len(columns) * record_batches]


def test_a_resumed_loop_fetches_the_blocks_of_its_first_batch_alone(
    server: ObjectServer, opened: Callable[[], Any]
) -> None:
    remote = opened()
    with DataLoader(remote, 4, **SHUFFLED) as loader:
        batches = iter(loader)
        for _ in range(10):
            next(batches)
        state = loader.state_dict()
        expected = next(batches)
    keys = _keys(remote)
    _forget()
    server.requests.clear()
    with DataLoader(remote, 4, **SHUFFLED) as resumed:
        resumed.load_state_dict(state)
        np.testing.assert_equal(next(iter(resumed)), expected)
    own, fetched = _blocks_of(remote, keys), _fetched(server)
    assert set(fetched[: len(own)]) == own
    assert len(server.gets()[: len(own)]) <= len(own)


def _keys(dataset: Any) -> list[int]:
    """Return the keys of the eleventh batch."""
    numbers = DataLoader(range(len(dataset)), 4, **SHUFFLED)
    return [int(number) for number in list(numbers)[10]]
