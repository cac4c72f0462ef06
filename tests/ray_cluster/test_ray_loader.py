"""A loader whose workers are on a cluster: the batches of one without workers, resuming, ledger, statistics, Ctrl-C."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import DataLoader, IterableDataset, Ledger, get_worker_info, rng, verify_epoch
from headrace.errors import SampleError
from headrace.executors import RayCluster
from tests.ray_cluster.killing import survive

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKEND = RayCluster(worker_resources={"CPU": 0.5})
WORKERS: dict[str, Any] = {"num_workers": 2, "backend": BACKEND}


class Noisy:
    """Samples of 4 KB, random by place."""

    def __init__(self, bad: int = -1) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> Any:
        if index == self.bad:
            raise ValueError(f"sample {index} is damaged")
        return index, rng().random(512)


class Sharded(IterableDataset[Any]):
    """By torch's rule: each worker reads its part."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        assert info is not None
        yield from range(info.id, 40, info.num_workers)


class Whole(IterableDataset[Any]):
    """Knows nothing of workers."""

    def __iter__(self) -> Iterator[Any]:
        return iter(range(40))


def drawn(number: int) -> Any:
    return number, rng().random(3)


def equal(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


@pytest.mark.parametrize(
    ("dataset", "how"),
    [
        (Noisy(), {"shuffle": True}),
        (Noisy(), {"threads_per_worker": 2, "in_order": True}),
        (Noisy(bad=5), {"on_error": "skip"}),
        (Whole().map(drawn), {"read_once": True}),
    ],
    ids=["shuffled", "threads", "skip", "read once"],
)
def test_batches_are_those_of_no_workers(dataset: Any, how: dict[str, Any]) -> None:
    """Give the same bytes in the same order."""
    inline = {name: value for name, value in how.items() if name != "threads_per_worker"}
    expected = list(DataLoader(dataset, 5, seed=3, **inline))
    assert equal(list(DataLoader(dataset, 5, seed=3, **WORKERS, **how)), expected)


def test_each_actor_reads_its_part_of_a_stream_in_every_epoch() -> None:
    """Let the dataset ask who it is; the actors stay for the second epoch."""
    loader = DataLoader(Sharded(), 5, seed=3, persistent_workers=True, **WORKERS)
    for _ in range(2):
        batches = [batch.tolist() for batch in loader]
        assert batches[:2] == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
        assert sorted(number for batch in batches for number in batch) == list(range(40))
    loader.close()


def test_a_run_resumes_without_workers_and_on_the_cluster_again() -> None:
    """Save on the cluster, load inline, save there, load on the cluster: the batches are those of one run."""
    whole = list(DataLoader(Noisy(), 4, shuffle=True, seed=1))
    first = DataLoader(Noisy(), 4, shuffle=True, seed=1, **WORKERS)
    loop = iter(first)
    found = [next(loop) for _ in range(4)]
    state = first.state_dict()
    first.close()
    second = DataLoader(Noisy(), 4, shuffle=True, seed=1)
    second.load_state_dict(state)
    loop = iter(second)
    found += [next(loop) for _ in range(4)]
    third = DataLoader(Noisy(), 4, shuffle=True, seed=1, **WORKERS)
    third.load_state_dict(second.state_dict())
    found += list(third)
    assert equal(found, whole)


def test_a_bad_sample_is_named_where_it_belongs() -> None:
    """Raise the user's error at its step, with the sample and the actor in a note; what comes before is delivered."""
    loop = iter(DataLoader(Noisy(bad=21), 5, **WORKERS))
    assert [len(next(loop)[0]) for _ in range(4)] == [5] * 4
    with pytest.raises((ValueError, SampleError), match="sample 21 is damaged") as caught:
        next(loop)
    assert any("sample 21" in note and "headrace-" in note for note in caught.value.__notes__)


def test_statistics_say_what_each_node_made() -> None:
    """Count batches, CPU seconds, bytes and stages by node; show them in the report, nodes of one name apart."""
    loader = DataLoader(Noisy(), 4, seed=1, num_workers=2, backend="ray")
    loop: Any = iter(loader)
    loop._dispatcher.executor._await_actors(2)
    list(loop)
    statistics = loader.statistics()
    first, second = statistics.nodes
    assert first.batches + second.batches == 12
    assert first.nbytes + second.nbytes > 48 * 4096
    assert min(first.cpu_seconds, second.cpu_seconds) > 0
    for stage, seconds in statistics.stage_seconds.items():
        assert first.stage_seconds[stage] + second.stage_seconds[stage] == pytest.approx(seconds)
    assert all(f"{node.node} ({node.node_id[:8]})" in str(statistics) for node in statistics.nodes)
    assert "collating s" in str(statistics)


def test_ctrl_c_ends_the_actors() -> None:
    """Raise KeyboardInterrupt in the loop that waits for a batch; nothing is left of the actors."""

    class Endless(Noisy):
        def __getitem__(self, index: int) -> Any:
            if index:
                signal.pause()
            return index

    loop = iter(DataLoader(Endless(), 4, **WORKERS))
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            next(loop)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_actors_killed_at_random_cost_no_sample(cluster: Any) -> None:
    """Kill a few and remove a node, in epochs that must be whole, in order, and proven by their ledgers."""
    tally = survive(cluster, kills=3, removals=1, seed=1)
    assert (tally.kills >= 3, tally.removals) == (True, 1)


def test_ledger_of_a_run_proves_its_epoch() -> None:
    """Record what came from the cluster."""
    ledger = Ledger()
    list(DataLoader(Noisy(), 4, shuffle=True, seed=1, ledger=ledger, **WORKERS))
    assert verify_epoch(ledger).exact
