"""A trace: each batch's life, in a file that keeps to the Trace Event Format."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.image_files import plant

import headrace
from headrace import DataLoader, ImageFolder, RandomResizedCrop
from headrace.context.timing import timed
from headrace.errors import ArgumentError
from headrace.run.timeline import Timeline

FIELDS = {
    "X": {"name", "cat", "ts", "dur", "pid", "tid"},
    "M": {"name", "pid", "tid", "args"},
    "C": {"name", "ts", "pid", "args"},
    "b": {"name", "cat", "id", "ts", "pid", "tid"},
    "e": {"name", "cat", "id", "ts", "pid", "tid"},
    "s": {"name", "cat", "id", "ts", "pid", "tid"},
    "f": {"name", "cat", "id", "ts", "pid", "tid", "bp"},
    "i": {"name", "ts", "pid", "tid", "s"},
}
"""What the format asks of each kind of event."""
BACKENDS = [("inline", 0), ("threads", 2), ("processes", 2)]


class Staged(headrace.Dataset[Any]):
    """Samples whose reading has two stages."""

    def __init__(self, size: int = 12, bad: int = -1) -> None:
        self.size, self.bad = size, bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        with timed("read"):
            if index == self.bad:
                raise ValueError(index)
        with timed("decode"):
            return np.full(3, index)


def events_of(path: Path) -> list[dict[str, Any]]:
    """Read a trace, and check it against the format: fields, nesting, pairs, flows."""
    events: list[dict[str, Any]] = json.loads(path.read_text())
    slices: dict[tuple[int, int], list[tuple[float, float]]] = defaultdict(list)
    opened: dict[tuple[str, str], list[str]] = defaultdict(list)
    flows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        assert FIELDS[event["ph"]] <= event.keys(), event
        assert event.get("dur", 0) >= 0, event
        if event["ph"] == "X":
            slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] == "b":
            opened[event["cat"], event["id"]].append(event["name"])
        elif event["ph"] == "e":
            assert opened[event["cat"], event["id"]].pop() == event["name"]
        elif event["ph"] in "sf":
            assert isinstance(event["id"], int)
            flows[event["id"]].append(event)
    assert not any(opened.values())
    for thread in slices.values():
        stack: list[float] = []
        for began, ended in sorted(thread, key=lambda each: (each[0], -each[1])):
            while stack and began >= stack[-1] - 0.01:
                stack.pop()
            assert not stack or ended <= stack[-1] + 0.01, "slices of a thread overlap and do not nest"
            stack.append(ended)
    for one in flows.values():
        assert [event["ph"] for event in one] == ["s", "f"]
        assert one[0]["ts"] <= one[1]["ts"]
        for event in one:
            inside = slices[event["pid"], event["tid"]]
            assert any(began <= event["ts"] <= ended for began, ended in inside), "an arrow that begins nowhere"
    return events


def counted(events: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """Count events by kind and name."""
    return Counter((event["ph"], event["name"]) for event in events)


@pytest.mark.parametrize(("backend", "workers"), BACKENDS)
def test_each_batch_has_a_life_with_its_stages(tmp_path: Path, backend: str, workers: int) -> None:
    """Read, decode and collate inside of make; wait and deliver in the loop; an arrow between them."""
    loader = DataLoader(Staged(), 4, num_workers=workers, backend=backend)
    with loader, loader.trace(tmp_path / "x.json"):
        batches = [batch.tolist() for batch in loader]
    assert batches == [[[i] * 3 for i in range(first, first + 4)] for first in (0, 4, 8)]
    events = events_of(tmp_path / "x.json")
    found = counted(events)
    expected = {
        ("X", "make"): 3, ("X", "wait"): 3, ("X", "read"): 12, ("X", "decode"): 12, ("s", "batch"): 3,
        ("b", "batch"): 3, ("b", "queued"): 3, ("b", "made"): 3, ("b", "in order"): 3, ("C", "ready"): 3,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert found["X", "train"] == 2
    makers = {(event["pid"], event["tid"]) for event in events if event["name"] == "make"}
    if backend == "processes":
        assert {pid for pid, _ in makers}.isdisjoint({os.getpid()})
        assert found["X", "pack"] == found["X", "open"] == found["b", "transport"] == 3
    else:
        assert {pid for pid, _ in makers} == {os.getpid()}
        assert ((os.getpid(), threading.get_native_id()) in makers) == (backend == "inline")
    names = {event["args"]["name"] for event in events if event["ph"] == "M"}
    assert {"loader", "loop"} <= names


def test_a_trace_changes_no_batch(tmp_path: Path) -> None:
    """The samples' random numbers and the state are the same with and without it."""

    def read(*, traced: bool) -> Any:
        noisy = headrace.ArrayDataset(np.arange(20.0)).map(lambda x, rng: x + rng.random())
        loader = DataLoader(noisy, 4, shuffle=True, seed=3, num_workers=2)
        if not traced:
            return np.concatenate(list(loader)), loader.state_dict()
        with loader.trace(tmp_path / "x.json"):
            return np.concatenate(list(loader)), loader.state_dict()

    (plain, before), (traced, after) = read(traced=False), read(traced=True)
    assert np.array_equal(plain, traced)
    assert before == after


def test_native_batches_are_shown_without_a_thread(tmp_path: Path) -> None:
    """The extension's threads make a batch together: it has a life, and no slice."""
    plant(tmp_path / "photos", [f"{name}/{number}.jpg" for name in "ab" for number in range(4)])
    dataset = ImageFolder(str(tmp_path / "photos")).map(RandomResizedCrop(16))
    loader = DataLoader(dataset, 4, num_workers=2)
    with loader, loader.trace(tmp_path / "x.json"):
        assert len(list(loader)) == 2
    found = counted(events_of(tmp_path / "x.json"))
    assert found["b", "made"] == found["X", "wait"] == 2
    assert found["X", "make"] == 0


def test_errors_refills_and_streams_are_traced(tmp_path: Path) -> None:
    """A step without a batch has no life; a refilled batch has that of its last step."""
    with DataLoader(Staged(bad=5), 4, num_workers=2) as loader, loader.trace(tmp_path / "x.json"):
        batches = iter(loader)
        next(batches)
        with pytest.raises(ValueError, match="5"):
            next(batches)
        assert next(batches).tolist()[0] == [8] * 3
    assert counted(events_of(tmp_path / "x.json"))["X", "wait"] == 2
    with (
        DataLoader(Staged(bad=5), 4, num_workers=2, on_error="skip") as loader,
        loader.trace(tmp_path / "y.json"),
    ):
        assert [len(batch) for batch in loader] == [4, 4, 3]
    assert counted(events_of(tmp_path / "y.json"))["X", "wait"] == 3

    class Stream(headrace.IterableDataset[Any]):
        def __iter__(self) -> Any:
            return iter(range(10))

    for workers in (0, 2):
        with (
            DataLoader(Stream(), 4, num_workers=workers, backend="threads") as loader,
            loader.trace(tmp_path / "z.json"),
        ):
            assert sum(map(len, loader)) == 10
        assert counted(events_of(tmp_path / "z.json"))["X", "make"] == 3


def test_it_ends_where_it_is_full(tmp_path: Path) -> None:
    """The last event says so, the file is whole, and the loop continues."""
    loader = DataLoader(Staged(4000), 8, num_workers=2)
    with loader, loader.trace(tmp_path / "x.json", max_bytes=1 << 16) as trace:
        assert sum(map(len, loader)) == 4000
        assert not trace.is_open
    assert (tmp_path / "x.json").stat().st_size <= 1 << 16
    assert "full" in events_of(tmp_path / "x.json")[-1]["name"]


def test_a_disk_without_room_ends_the_trace_and_not_the_training() -> None:
    """`/dev/full` takes no byte."""
    loader = DataLoader(Staged(4000), 8, num_workers=2)
    with loader, pytest.warns(RuntimeWarning, match="the trace ends here"), loader.trace("/dev/full"):
        assert sum(map(len, loader)) == 4000


def test_the_times_of_a_trace_are_kept_in_the_file_alone(tmp_path: Path) -> None:
    """However many samples a batch has, its life in memory is small."""
    loader = DataLoader(Staged(200), 100, num_workers=1, backend="threads")
    with loader, loader.trace(tmp_path / "x.json"):
        list(loader)
    assert counted(events_of(tmp_path / "x.json"))["X", "decode"] == 200
    lives = loader._session._lives.recent
    assert [life.making.spans for life in lives if life.making is not None] == [(), ()]


def test_a_closed_trace_is_as_it_was(tmp_path: Path) -> None:
    """Loops continue without it; the next `trace` closes the one before; a copy of the loader has none."""
    loader = DataLoader(Staged(), 4)
    trace = loader.trace(tmp_path / "x.json")
    batches = iter(loader)
    next(batches)
    trace.close()
    trace.close()
    assert len(list(batches)) == 2
    assert counted(events_of(tmp_path / "x.json"))["X", "wait"] == 1
    second = loader.trace(tmp_path / "y.json")
    third = loader.trace(tmp_path / "z.json")
    assert not second.is_open
    assert third.is_open
    assert events_of(tmp_path / "y.json") == []
    third.close()


def test_a_forked_process_writes_nothing(tmp_path: Path) -> None:
    """What waits to be written is written once, by the process that began the trace."""
    loader = DataLoader(Staged(), 4)
    with loader.trace(tmp_path / "x.json") as trace:
        list(loader)
        child = os.fork()
        if not child:
            trace.close()
            os._exit(0)
        os.waitpid(child, 0)
    assert counted(events_of(tmp_path / "x.json"))["X", "wait"] == 3


@pytest.mark.parametrize("path", ["missing/x.json", 3, ""])
def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names it, and what to do."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ArgumentError):
        Timeline(path)


def test_several_threads_share_a_loop_and_its_trace(tmp_path: Path) -> None:
    """Each batch goes to one of them, and into the file once."""
    loader = DataLoader(Staged(200), 4, num_workers=2)
    with loader, loader.trace(tmp_path / "x.json"):
        batches = iter(loader)
        threads = [threading.Thread(target=lambda: list(batches)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counted(events_of(tmp_path / "x.json"))["b", "batch"] == 50
