"""Steps that are fetched ahead: in the plan's order, each block once, the first batch alone, and never a hang."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from tests.storage.object_server import ObjectServer, object_server

from headrace import ConcatDataset, DataLoader, Subset
from headrace.datasets import GroupedDataset, StackDataset, WebDataset, protocol
from headrace.errors import HeadraceError
from headrace.run import prefetcher
from headrace.run.prefetched_plan import TOGETHER, PlannedSpans, PrefetchedPlan
from headrace.run.prefetcher import Prefetcher
from headrace.samplers import PackingBatchSampler, ShardSampler
from headrace.storage import blocks, request_limit, request_loop
from headrace.storage.block_cache import BlockCache
from headrace.storage.blocks import Blocks
from headrace.storage.next_use import PlannedEviction
from headrace.storage.object_spans import BlockNumbers, ObjectSpans
from headrace.storage.request_limit import RequestLimit

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("obstore")

BLOCK = 1 << 14
SAMPLES = 240


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK", BLOCK)
    monkeypatch.setattr(request_loop, "HEDGED", 0)  # on a busy machine, some requests would be sent twice
    monkeypatch.setenv(blocks.FOLDER, str(tmp_path / "blocks"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def _tar(first: int, count: int) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for number in range(first, first + count):
            data = np.random.default_rng(number).bytes(4000)
            for ending, content in (("bin", data), ("cls", str(number).encode())):
                member = tarfile.TarInfo(f"{number:04}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


@pytest.fixture(scope="module")
def shards() -> dict[str, bytes]:
    return {f"/{shard}.tar": _tar(shard * SAMPLES // 2, SAMPLES // 2) for shard in range(2)}


@pytest.fixture
def server(shards: dict[str, bytes]) -> Iterator[ObjectServer]:
    with object_server() as found:
        found.objects |= shards
        yield found


def _opened(server: ObjectServer) -> WebDataset:
    """Return the dataset, with an index and an empty cache."""
    dataset = WebDataset(f"{server.url}/{{0..1}}.tar", fields=["bin"])
    _forget()
    server.requests.clear()
    return dataset


def _forget() -> None:
    blocks.blocks().disk.clear()
    blocks._of_process.cache_clear()


def _keys(batches: Any) -> list[str]:
    return list(chain.from_iterable(batch["__key__"] for batch in batches))


def _blocks_of(dataset: Any, keys: list[int]) -> set[tuple[str, int]]:
    numbers = BlockNumbers()
    found = numbers.of(protocol.object_spans(dataset, keys)).tolist()
    return {(block.url.rpartition("/")[2], block.number) for block in map(numbers.block, found)}


def _fetched(server: ObjectServer) -> list[tuple[str, int]]:
    """Return the blocks that were asked for, in order."""
    found = []
    for method, path, said in list(server.requests):
        if method == "GET":
            begin, end = map(int, said.removeprefix("bytes=").split("-"))
            found += [(path[1:], number) for number in range(begin // BLOCK, end // BLOCK + 1)]
    return found


HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "threads": {"num_workers": 2, "backend": "threads"},
    "processes": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
}


class TestLoops:
    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:worker processes are forked:RuntimeWarning")  # the server has threads
    @pytest.mark.parametrize("how", HOW)
    def test_each_block_is_fetched_once_and_the_batches_are_the_same(self, server: ObjectServer, how: str) -> None:
        dataset = _opened(server)
        expected = _keys(DataLoader([{"__key__": f"{n:04}"} for n in range(SAMPLES)], 8, shuffle=True, seed=3))
        with DataLoader(dataset, 8, shuffle=True, seed=3, **HOW[how]) as loader:
            assert _keys(loader) == expected
            remote = loader.statistics().remote
            assert _keys(loader) != expected
        again = loader.statistics().remote
        assert remote is not None
        assert again is not None
        assert sorted(_fetched(server)) == sorted(_blocks_of(dataset, list(range(SAMPLES))))
        assert remote.blocks == sum(
            len(_blocks_of(dataset, [int(key) for key in expected[at : at + 8]])) for at in range(0, SAMPLES, 8)
        )
        assert (again.hit_rate, again.requests) == (1.0, 0)
        assert "remote data: 100 %" in str(loader.statistics())

    @pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:worker processes are forked:RuntimeWarning")
    def test_what_this_process_has_in_memory_is_fetched_for_the_others(self, server: ObjectServer) -> None:
        dataset = _opened(server)
        whole = [dataset[index] for index in range(SAMPLES)]
        blocks.blocks().disk.clear()
        with DataLoader(dataset, 8, collate_fn=list, **HOW["processes"]) as loader:
            assert list(chain.from_iterable(loader)) == whole
            remote = loader.statistics().remote
        assert remote is not None
        assert remote.requests > 0

    @pytest.mark.parametrize("how", ["inline", "threads"])
    def test_a_resumed_loop_fetches_the_blocks_of_its_first_batch_first(self, server: ObjectServer, how: str) -> None:
        dataset = _opened(server)
        loader = DataLoader(dataset, 4, shuffle=True, seed=3)
        batches = iter(loader)
        for _ in range(30):
            next(batches)
        state = loader.state_dict()
        expected = next(batches)["__key__"]
        loader.close()
        _forget()
        server.requests.clear()
        with DataLoader(dataset, 4, shuffle=True, seed=3, **HOW[how]) as resumed:
            resumed.load_state_dict(state)
            batch = next(iter(resumed))
            assert batch["__key__"] == expected
        own = _blocks_of(dataset, [int(key) for key in expected])
        found = _fetched(server)
        if how == "inline":  # other workers read the batches after it at the same time
            assert set(found[: len(own)]) == own

    def test_shards_in_order_are_few_requests(self, server: ObjectServer) -> None:
        dataset = _opened(server)
        with DataLoader(dataset, 4, sampler=ShardSampler.of(dataset, window=1), seed=0) as loader:
            assert len(_keys(loader)) == SAMPLES
        assert sorted(_fetched(server)) == sorted(_blocks_of(dataset, list(range(SAMPLES))))
        assert len(server.gets()) < len(_fetched(server)) // 2

    def test_what_cannot_be_fetched_raises_its_error_in_its_batch(self, server: ObjectServer) -> None:
        dataset = _opened(server)
        server.fault = lambda _method, number: "403" if number == 20 else ""
        with DataLoader(dataset, 4, num_workers=2, backend="threads") as loader:
            assert len(_keys(loader)) == SAMPLES  # who reads it asks again
        _forget()
        server.objects.pop("/1.tar")
        with DataLoader(dataset, 4) as loader, pytest.raises(HeadraceError, match=r"1\.tar.*no such object"):
            list(loader)
        assert loader.statistics().batches == SAMPLES // 2 // 4

    def test_a_sampler_that_plans_by_window_is_fetched_ahead_too(self, server: ObjectServer) -> None:
        dataset = _opened(server)
        sampler = PackingBatchSampler(np.full(SAMPLES, 10), 40, 1, window=50)
        with DataLoader(GroupedDataset(dataset), batch_sampler=sampler, collate_fn=list, seed=1) as loader:
            assert sum(len(group) for batch in loader for group in batch) == SAMPLES
            remote = loader.statistics().remote
        assert remote is not None
        assert remote.blocks > SAMPLES // 4

    def test_a_loop_that_is_dropped_or_left_fetches_no_more(self, server: ObjectServer) -> None:
        dataset = _opened(server)
        loader = DataLoader(dataset, 4, shuffle=True, seed=3)
        next(iter(loader))
        batches = iter(loader)
        next(batches)
        loader.close()
        assert blocks.blocks().disk.eviction._plans == []  # type: ignore[attr-defined]

    def test_a_loop_that_is_closed_keeps_no_thread_and_no_file_of_the_cache(
        self, server: ObjectServer, tmp_path: Path
    ) -> None:
        loader = DataLoader(_opened(server), 4, shuffle=True, seed=3)
        batches = iter(loader)
        next(batches)
        loader.close()
        assert not [each.name for each in threading.enumerate() if each.name.startswith("headrace-prefetch")]
        opened = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]  # noqa: PTH115
        assert not [name for name in opened if name.startswith(str(tmp_path / "blocks"))]

    def test_what_is_not_remote_or_not_planned_is_not_fetched_ahead(self, server: ObjectServer, tmp_path: Path) -> None:
        (tmp_path / "0.tar").write_bytes(server.objects["/0.tar"])
        local = DataLoader(WebDataset(str(tmp_path / "0.tar")), 4)
        sampled = DataLoader(_opened(server), 4, sampler=[3, 1, 2])
        for loader in (local, sampled):
            next(iter(loader))
            assert loader.statistics().remote is None


class TestCost:
    def test_an_exact_shuffle_through_a_small_cache_says_what_it_costs(
        self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = _opened(server)
        monkeypatch.setenv(blocks.MOST, str(20 * BLOCK))
        count = len(_blocks_of(dataset, list(range(SAMPLES))))
        with pytest.warns(UserWarning, match=rf"ShardSampler.*each of the {count} blocks once") as caught:
            list(DataLoader(dataset, 8, shuffle=True, seed=0))
        blocks_said = int(re.findall(r"up to (\d+) blocks", str(caught[0].message))[0])
        fetched = len(_fetched(server))
        assert count < fetched <= blocks_said

    def test_other_orders_and_caches_that_hold_all_say_nothing(
        self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = _opened(server)
        list(DataLoader(dataset, 8, shuffle=True, seed=0))
        monkeypatch.setenv(blocks.MOST, str(20 * BLOCK))
        list(DataLoader(dataset, 8))
        list(DataLoader(dataset, 8, sampler=ShardSampler.of(dataset, window=1), seed=0))


class TestViews:
    def test_views_pass_the_question_on(self, server: ObjectServer) -> None:
        dataset = _opened(server)
        subset = Subset(dataset, list(range(SAMPLES - 1, -1, -1)))
        both = ConcatDataset([Subset(dataset, [0, 1]), subset.map(str)])
        assert _blocks_of(subset, [0]) == _blocks_of(dataset, [SAMPLES - 1])
        assert _blocks_of(both, [1, 2]) == _blocks_of(dataset, [1, SAMPLES - 1])
        assert _blocks_of(StackDataset(subset, dataset), [0]) == _blocks_of(dataset, [0, SAMPLES - 1])
        assert _blocks_of(dataset.tuple("bin"), [5]) == _blocks_of(dataset, [5])
        for view in (subset, both, dataset.tuple("bin")):
            assert protocol.object_spans(view, [])
        assert protocol.object_spans([1, 2], []) == []

    def test_the_ranks_of_a_machine_are_looked_up_together(
        self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LOCAL_RANK", "1")
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        dataset = _opened(server)
        loader = DataLoader(dataset, 4, shuffle=True, seed=3, rank=3, world_size=4)
        session = loader._session
        entry, _ = session.progress.enter()
        spans = PlannedSpans(session.settings, session.order, entry, session._next_entry(entry))
        assert spans._ranks == range(2, 4)
        uses = list(spans.uses(2))
        assert len(uses) == 2 * len(loader) - 2
        ours = [DataLoader(dataset, 4, shuffle=True, seed=3, rank=rank, world_size=4) for rank in (2, 3)]
        keys = [list(map(int, batches[2]["__key__"])) for batches in map(list, ours)]
        numbers = BlockNumbers()
        together = {numbers.block(each).number for each in numbers.of(uses[0]).tolist()}
        assert together == {number for _, number in _blocks_of(dataset, [*keys[0], *keys[1]])}

    def test_the_steps_after_the_first_are_looked_up_together(
        self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ask a dataset for many steps at once: it may have to read a little to know what they need."""
        session = DataLoader(_opened(server), 4, shuffle=True, seed=3)._session
        entry, _ = session.progress.enter()
        spans = PlannedSpans(session.settings, session.order, entry, None)
        asked, answer = list[int](), protocol.object_spans

        def noted(dataset: Any, keys: Any) -> list[ObjectSpans]:
            asked.append(len(keys))
            return answer(dataset, keys)

        monkeypatch.setattr(protocol, "object_spans", noted)
        assert all(spans.at(step) is not None for step in range(SAMPLES // 4))
        assert spans.at(SAMPLES // 4) is None
        groups = [min(4 * TOGETHER, SAMPLES - first) for first in range(4, SAMPLES, 4 * TOGETHER)]
        assert asked == [4, *(count for group in groups for count in [group, *[4] * (group // 4)])]


class _Steps:
    """Steps of one block each, of an object that nobody serves."""

    paths, facts = ["s3://a/b"], np.array([[BLOCK * 100, 7]])

    def __init__(self, steps: list[list[int]]) -> None:
        self.steps = steps

    def at(self, step: int) -> list[ObjectSpans] | None:
        if step >= len(self.steps):
            return None
        offset = np.array(self.steps[step], np.int64) * BLOCK
        return [ObjectSpans(self.paths, self.facts, np.zeros(len(offset), int), offset, np.ones_like(offset))]

    def uses(self, step: int) -> Iterator[list[ObjectSpans]]:
        return (self.at(each) or [] for each in range(step, len(self.steps)))


def _fetching(tmp_path: Path, fetch: Any, cap: int) -> Blocks:
    return Blocks(BlockCache(tmp_path / "cache", cap, PlannedEviction()), fetch)


class TestPrefetcher:
    def test_nothing_is_fetched_before_the_first_step_is_there(self, tmp_path: Path) -> None:
        done: set[int] = set()
        wrong: list[int] = []
        all_there = threading.Event()

        def fetch(_url: str, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
            numbers = range(begin // BLOCK, end // BLOCK)
            wrong.extend(number for number in numbers if number not in (7, 30, 60) and not done >= {7, 30, 60})
            done.update(numbers)
            if len(done) == 12:
                all_there.set()
            return bytes(end - begin), (BLOCK * 100, 7)

        steps = _Steps([[7, 30, 60], *([number * 2] for number in range(5, 14))])
        owner = threading.Event()
        prefetcher = Prefetcher(_fetching(tmp_path, fetch, 1 << 30), steps, 0, 1, owner)
        prefetcher.start()
        assert all_there.wait(60)
        prefetcher.close()
        assert wrong == []

    def test_what_other_workers_read_already_is_fetched_with_the_first_step(self, tmp_path: Path) -> None:
        second, third = threading.Event(), threading.Event()

        def fetch(_url: str, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
            number = begin // BLOCK
            if number == 0:
                assert second.wait(60)
                assert not third.is_set()
            {2: second, 4: third}.get(number, threading.Event()).set()
            return bytes(end - begin), (BLOCK * 100, 7)

        owner = threading.Event()
        prefetcher = Prefetcher(_fetching(tmp_path, fetch, 1 << 30), _Steps([[0], [2], [4]]), 0, 2, owner)
        prefetcher.reached(0)
        prefetcher.reached(1)
        prefetcher.start()
        assert third.wait(60)
        prefetcher.close()

    @pytest.mark.parametrize("more", [-1, 0, 1, prefetcher.GROUP])
    def test_a_first_step_of_many_blocks_holds_nothing_back(self, tmp_path: Path, more: int) -> None:
        """Fetch the first step whole, although the next ones are looked through only when it is there."""
        first = [2 * number for number in range(prefetcher.GROUP + more)]
        all_there, fetched = threading.Event(), set[int]()

        class Steps(_Steps):
            facts = np.array([[BLOCK * 1000, 7]])

        def fetch(_url: str, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
            fetched.add(begin // BLOCK)
            if fetched.issuperset([*first, 999]):
                all_there.set()
            return bytes(end - begin), (BLOCK * 1000, 7)

        owner = threading.Event()
        ahead = Prefetcher(_fetching(tmp_path, fetch, 1 << 30), Steps([first, [999]]), 0, 1, owner)
        ahead.start()
        assert all_there.wait(60)
        ahead.close()

    def test_no_more_is_fetched_ahead_than_a_quarter_of_the_cache(self, tmp_path: Path) -> None:
        fetched: list[int] = []
        some, more = threading.Event(), threading.Event()

        def fetch(_url: str, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
            fetched.append(begin // BLOCK)
            if len(fetched) >= 5:  # the first step, and a quarter of sixteen blocks
                some.set()
            if len(fetched) >= 6:
                more.set()
            return bytes(end - begin), (BLOCK * 100, 7)

        owner = threading.Event()
        steps = _Steps([[number * 2] for number in range(50)])
        prefetcher = Prefetcher(_fetching(tmp_path, fetch, 16 * BLOCK), steps, 0, 1, owner)
        prefetcher.start()
        prefetcher.reached(0)
        assert some.wait(60)
        assert not more.is_set()
        prefetcher.reached(1)
        assert more.wait(60)
        prefetcher.close()
        assert sorted(fetched) == [0, 2, 4, 6, 8, 10]

    def test_neighbors_are_joined_as_long_as_the_plan_goes_on(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Read steps of three neighbors, far more than is fetched ahead; each step waits for its blocks."""
        count = 12 * prefetcher.GROUP
        monkeypatch.setattr(prefetcher, "AHEAD", 4 * prefetcher.GROUP * BLOCK)
        there, requests = set[int](), list[int]()
        change = threading.Condition()

        def fetch(_url: str, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
            with change:
                requests.append(begin // BLOCK)
                there.update(range(begin // BLOCK, end // BLOCK))
                change.notify_all()
            return bytes(end - begin), (BLOCK * count, 7)

        first_is_there = threading.Event()

        class Steps(_Steps):
            facts = np.array([[BLOCK * count, 7]])

            def at(self, step: int) -> list[ObjectSpans] | None:
                if step:
                    first_is_there.set()
                return super().at(step)

        steps = Steps([[*range(at, at + 3)] for at in range(0, count, 3)])
        owner = threading.Event()
        ahead = Prefetcher(_fetching(tmp_path, fetch, 1 << 30), steps, 0, 1, owner)
        ahead.start()
        for step, wanted in enumerate(steps.steps):
            ahead.reached(step)
            with change:
                assert change.wait_for(lambda wanted=wanted: there.issuperset(wanted), 60)
            assert first_is_there.wait(60)
        ahead.close()
        assert len(requests) == 1 + -(-(count - 3) // blocks.JOINED)

    def test_as_many_requests_run_at_once_as_the_latency_asks_for(self, tmp_path: Path) -> None:
        """Answer requests in cohorts that all take one second: only more of them at once bring more."""
        count, now = 400, 0.0
        limit = RequestLimit(first=4, most=32, clock=lambda: now)
        running, sent, cohorts = 0, 0, list[int]()
        change = threading.Condition()

        def fetch(_url: str, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
            nonlocal now, running, sent
            with change:
                running, sent = running + 1, sent + 1
                if running >= limit.now or sent == count:  # nobody comes before these are answered
                    now += 1.0
                    cohorts.append(running)
                    running = 0
                    change.notify_all()
                else:
                    mine = len(cohorts)
                    assert change.wait_for(lambda: len(cohorts) > mine, 60)
            return bytes(end - begin), (BLOCK * 1000, 7)

        class Steps(_Steps):
            facts = np.array([[BLOCK * 1000, 7]])

        steps = Steps([[number * 2] for number in range(count)])
        blocks_of = Blocks(BlockCache(tmp_path / "cache", 1 << 30, PlannedEviction()), fetch, limit=limit)
        steps.steps[:4] = [[0, 2, 4, 6]]
        owner = threading.Event()
        prefetcher = Prefetcher(blocks_of, steps, 0, 1, owner)
        prefetcher.start()
        with change:
            assert change.wait_for(lambda: sent == count, 60)
        prefetcher.close()
        assert max(cohorts) == 32
        assert len(cohorts) < count / 4 / 2

    def test_large_requests_do_not_delay_those_for_the_next_step(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Ask for no more bytes at once than there are places for."""
        monkeypatch.setattr(request_limit, "PLACE", BLOCK)
        limit = RequestLimit(first=16, most=16)
        found = list[int]()
        all_there = threading.Event()

        def fetch(_url: str, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
            found.append(limit.busy)
            if len(found) == 13:
                all_there.set()
            return bytes(end - begin), (BLOCK * 100, 7)

        steps = _Steps([[99], *([*range(at, at + 8)] for at in range(0, 96, 8))])
        blocks_of = Blocks(BlockCache(tmp_path / "cache", 1 << 30, PlannedEviction()), fetch, limit=limit)
        owner = threading.Event()
        prefetcher = Prefetcher(blocks_of, steps, 0, 1, owner)
        prefetcher.start()
        assert all_there.wait(60)
        prefetcher.close()
        assert max(found) <= 16

    def test_steps_that_wait_are_stalls(self, tmp_path: Path) -> None:
        go, second = threading.Event(), threading.Event()

        def fetch(_url: str, begin: int, end: int) -> tuple[bytes, tuple[int, int]]:
            assert go.wait(60)
            if begin == 2 * BLOCK:
                second.set()
            return bytes(end - begin), (BLOCK * 100, 7)

        owner = threading.Event()
        prefetcher = Prefetcher(_fetching(tmp_path, fetch, 1 << 30), _Steps([[1], [2]]), 0, 1, owner)
        prefetcher.start()
        prefetcher.reached(0)
        go.set()
        assert second.wait(60)
        prefetcher.close()
        counts = prefetcher.counts
        assert (counts.stalls, counts.blocks, counts.hits) == (1, 2, 0)
        assert counts.stall_seconds > 0

    def test_an_error_in_the_thread_is_a_warning_and_ends_it(self, tmp_path: Path) -> None:
        class Broken(_Steps):
            def at(self, step: int) -> list[ObjectSpans] | None:
                raise RuntimeError(f"no step {step}")

        owner = threading.Event()
        prefetcher = Prefetcher(_fetching(tmp_path, None, 1 << 30), Broken([]), 0, 1, owner)
        prefetcher.start()
        with pytest.warns(RuntimeWarning, match="fetched ahead from some step on: RuntimeError: no step 0"):
            prefetcher.close()


def test_a_plan_that_is_never_asked_starts_no_thread(server: ObjectServer) -> None:
    loader = DataLoader(_opened(server), 4, seed=0)
    session = loader._session
    entry, _ = session.progress.enter()
    plan, _ = session.order.plan(entry)
    spans = PlannedSpans(session.settings, session.order, entry, None)
    before = threading.active_count()
    PrefetchedPlan(plan, blocks.blocks(), spans, 0, 1).close()
    assert threading.active_count() == before


ENDLESS = """
import json
import sys
from headrace import DataLoader
from headrace.datasets import WebDataset
from headrace.storage import blocks, request_loop

blocks.BLOCK, request_loop.SECONDS, request_loop.QUIET_SECONDS = 1 << 14, 3600, 3600
dataset = WebDataset(sys.argv[1], fields=["bin"])
blocks.blocks().disk.clear()
blocks._of_process.cache_clear()
print("opened", flush=True)
sys.stdin.readline()
list(DataLoader(dataset, 4, **json.loads(sys.argv[2])))
"""
FORKED = {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"}


@pytest.mark.parametrize("how", [{}, {"num_workers": 2}, FORKED], ids=["inline", "threads", "fork"])
def test_a_process_that_is_interrupted_ends_while_the_server_does_not_answer(
    server: ObjectServer, how: dict[str, Any]
) -> None:
    asked = threading.Event()

    def fault(_method: str, _number: int) -> str:
        asked.set()
        return "hang"

    command = [sys.executable, "-c", ENDLESS, f"{server.url}/{{0..1}}.tar", json.dumps(how)]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "opened\n"
            server.fault = fault
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=250)
        finally:
            process.kill()
    assert "KeyboardInterrupt" in said
    assert "did not end" not in said
