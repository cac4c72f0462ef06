"""Requests that are sent a second time because the first is slow: one of them counts, and the other is stopped."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING

import pytest
from tests.storage.object_server import ObjectServer, object_server

from headrace.errors import UnreadableFile
from headrace.storage import objects, request_loop
from headrace.storage.block_cache import BlockCache
from headrace.storage.blocks import Blocks
from headrace.storage.request_loop import ENOUGH, Tail, hedged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NBYTES = 1000


@pytest.fixture
def tail(monkeypatch: pytest.MonkeyPatch) -> Tail:
    """Requests that took no time: the next one is slow at once."""
    monkeypatch.setattr(request_loop, "HEDGED", 0.05)
    monkeypatch.setattr(request_loop, "LEAST_WAIT", 0.0)
    found = Tail()
    for _ in range(ENOUGH):
        found.took(NBYTES, 0.0)
    return found


class Sender:
    """Sends requests that wait for an event each, which a test sets."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[str]] = []
        self.stopped: list[int] = []
        self.sent = asyncio.Event()

    async def __call__(self) -> str:
        number = len(self.answers)
        self.answers.append(asyncio.get_running_loop().create_future())
        if number == 1:
            self.sent.set()
        try:
            return await self.answers[number]
        except asyncio.CancelledError:
            self.stopped.append(number)
            raise


class TestTwice:
    @pytest.mark.parametrize("winner", [0, 1])
    def test_the_first_answer_counts_and_the_other_request_is_stopped(self, tail: Tail, winner: int) -> None:
        async def run() -> tuple[str, Sender]:
            send = Sender()
            running = asyncio.ensure_future(hedged(send, NBYTES, tail))
            await send.sent.wait()
            send.answers[winner].set_result(f"answer {winner}")
            found = await running
            await asyncio.sleep(0)  # the other one is told here
            return found, send

        found, send = asyncio.run(run())
        assert found == f"answer {winner}"
        assert send.stopped == [1 - winner]
        assert (tail.requests, tail.hedged) == (ENOUGH + 1, 1)

    @pytest.mark.parametrize("failing", [0, 1])
    def test_a_failure_leaves_it_to_the_other_request(self, tail: Tail, failing: int) -> None:
        async def run() -> str:
            send = Sender()
            running = asyncio.ensure_future(hedged(send, NBYTES, tail))
            await send.sent.wait()
            send.answers[failing].set_exception(ConnectionError("reset"))
            await asyncio.sleep(0)
            send.answers[1 - failing].set_result("whole")
            return await running

        assert asyncio.run(run()) == "whole"

    def test_two_failures_are_one(self, tail: Tail) -> None:
        async def run() -> str:
            send = Sender()
            running = asyncio.ensure_future(hedged(send, NBYTES, tail))
            await send.sent.wait()
            for answer in send.answers:
                answer.set_exception(ConnectionError("reset"))
            return await running

        with pytest.raises(ConnectionError, match="reset"):
            asyncio.run(run())
        assert tail.requests == ENOUGH

    def test_who_gives_up_stops_both(self, tail: Tail) -> None:
        async def run() -> Sender:
            send = Sender()
            running = asyncio.ensure_future(hedged(send, NBYTES, tail))
            await send.sent.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await asyncio.sleep(0)
            return send

        assert sorted(asyncio.run(run()).stopped) == [0, 1]


class TestWhen:
    def test_a_request_is_slow_after_twice_the_time_of_nearly_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(request_loop, "HEDGED", 0.05)
        tail = Tail()
        for number in range(20):
            assert tail.slow_after(NBYTES) is None
            tail.took(NBYTES, 1.0 + number)
        assert tail.slow_after(NBYTES) == 2 * 19.0
        assert tail.slow_after(100 * NBYTES) is None  # of this size nothing is known

    def test_at_most_one_in_twenty_is_sent_twice(self, tail: Tail) -> None:
        tail.hedged += 1
        for _ in range(19):
            assert tail.slow_after(NBYTES) is None
            tail.took(NBYTES, 0.0)
        tail.took(NBYTES, 0.0)
        assert tail.slow_after(NBYTES) == 0.0


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as found:
        yield found


class TestServers:
    def test_the_second_request_brings_what_the_first_withholds(
        self, server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("obstore")
        data = bytes(range(256)) * 100
        server.objects["/a"] = data
        facts = objects.facts(f"{server.url}/a")
        stalled: list[int] = []

        def fault(method: str, number: int) -> str:
            if method == "GET" and not stalled:
                stalled.append(number)
                return "stall"
            return ""

        server.fault = fault
        monkeypatch.setattr(Tail, "slow_after", lambda _self, _nbytes: 0.0)
        reader = Blocks(BlockCache(tmp_path / "blocks", 1 << 30))
        assert reader.read(f"{server.url}/a", 0, len(data), facts) == data
        assert server.left.wait(60)  # the first is stopped
        assert len(server.gets()) == 2
        assert (reader.counts.requests, reader.counts.fetched_bytes, reader.counts.misses) == (1, len(data), 1)
        assert reader.disk.status()[:3] == (1, len(data) + 4, 0)

    def test_a_request_that_is_given_up_keeps_no_connection(
        self, server: ObjectServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("obstore")
        server.objects["/a"] = bytes(1 << 20)
        server.fault = lambda method, _number: "stall" if method == "GET" else ""
        monkeypatch.setattr(request_loop, "QUIET_SECONDS", 0.2)
        monkeypatch.setattr(request_loop, "RETRIES", 0)
        gc.disable()  # a connection must not wait for it
        try:
            while not server.gets():  # on a busy machine, a request may be given up before the server has it
                with pytest.raises(UnreadableFile, match="no answer") as error:
                    objects.read_range(f"{server.url}/a", 0, 1 << 20)
            assert server.left.wait(60)
        finally:
            gc.enable()
        assert error.value.__cause__ is not None  # it is held all the time


class TestStop:
    def test_a_call_that_nothing_ends_is_left_behind(self) -> None:
        stop, begun, go = request_loop.Stop(), threading.Event(), threading.Event()

        def end() -> None:
            assert begun.wait(60)
            stop.set()

        def call() -> None:
            begun.set()
            go.wait()

        ending = threading.Thread(target=end)
        ending.start()
        with request_loop.stoppable(stop), pytest.raises(CancelledError):
            request_loop.left_behind(call)
        go.set()
        ending.join()

    def test_a_call_that_is_left_behind_gives_its_result_or_its_error(self) -> None:
        with request_loop.stoppable(request_loop.Stop()):
            assert request_loop.left_behind(lambda: 3) == 3
            with pytest.raises(ZeroDivisionError):
                request_loop.left_behind(lambda: 1 // 0)
