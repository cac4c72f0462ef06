"""A pool of actors that several ranks share: each batch once, any actor, deaths, ranks that leave."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from headrace import DataLoader, IterableDataset, Ledger, rng, verify_epoch
from headrace.errors import ArgumentError, LoaderClosed, WorkerDied
from headrace.executors import RayCluster, RayPool
from headrace.executors.registry import Options
from headrace.testing.executors import maker_of, work_of
from tests.ray_cluster.conftest import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HALF = RayCluster(worker_resources={"CPU": 0.5}, probe=False)


@pytest.fixture(name="pool")
def two_actors(cluster: Any) -> Iterator[RayPool]:
    """A pool of two actors."""
    with RayPool(2, HALF) as pool:
        yield pool


class Numbers:
    """Writes down which process made each sample; one sample may kill it."""

    def __init__(self, folder: Path, deadly: int = -1) -> None:
        self.folder, self.deadly = folder, deadly

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> Any:
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        with (self.folder / "made").open("a") as file:
            file.write(f"{index} {os.getpid()}\n")
        return index, rng().random(3)


def made(folder: Path) -> tuple[Counter[int], set[int]]:
    """Return how often each sample was made, and by which processes."""
    rows = [line.split() for line in (folder / "made").read_text().splitlines()]
    return Counter(int(row[0]) for row in rows), {int(row[1]) for row in rows}


def rank_of(pool: Any, dataset: Any, rank: int, **how: Any) -> DataLoader[Any]:
    return DataLoader(dataset, 4, shuffle=True, seed=3, num_workers=1, rank=rank, world_size=2, backend=pool, **how)


def in_turn(loops: list[Any]) -> list[list[Any]]:
    """Take a batch of each loop, in turn, to their ends."""
    found: list[list[Any]] = [[] for _ in loops]
    for batches in zip(*loops, strict=True):
        for taken, batch in zip(found, batches, strict=True):
            taken.append(batch)
    return found


def test_ranks_share_the_actors_and_each_batch_is_made_once(pool: RayPool, tmp_path: Path) -> None:
    """Read two ranks at once: the bytes of loaders without workers, every sample once, both actors at work for both."""
    ledgers = [Ledger(), Ledger()]
    loops: list[Any] = [iter(rank_of(pool, Numbers(tmp_path), rank, ledger=ledgers[rank])) for rank in range(2)]
    for loop in loops:
        loop._dispatcher.executor._await_actors(2)
    found = in_turn(loops)
    times, pids = made(tmp_path)
    assert times == dict.fromkeys(range(48), 1)
    assert len(pids) == 2
    assert verify_epoch(*ledgers).exact
    for rank in range(2):
        inline = DataLoader(Numbers(tmp_path), 4, shuffle=True, seed=3, rank=rank, world_size=2)
        for batch, same in zip(found[rank], inline, strict=True):
            assert all((one == other).all() for one, other in zip(batch, same, strict=True))


def test_a_rank_that_ends_leaves_the_actors_to_the_others(pool: RayPool, tmp_path: Path) -> None:
    """Close one rank in the middle; the other reads on, and another epoch after that."""
    first, second = (rank_of(pool, Numbers(tmp_path), rank) for rank in range(2))
    loop, other = iter(first), iter(second)
    next(loop), next(other)
    first.close()
    assert len(list(other)) == 5
    assert len(list(second)) == 6


def test_a_killed_actor_comes_back_for_all_ranks(pool: RayPool, tmp_path: Path) -> None:
    """Kill both actors between two batches: Ray restarts them, and each rank sends its dataset again."""
    inline = [DataLoader(Numbers(tmp_path), 4, shuffle=True, seed=3, rank=rank, world_size=2) for rank in range(2)]
    expected = [[batch[0].tolist() for batch in loader] for loader in inline]
    loops: list[Any] = [iter(rank_of(pool, Numbers(tmp_path), rank)) for rank in range(2)]
    found = [[next(loop)[0].tolist()] for loop in loops]
    executors = [loop._dispatcher.executor for loop in loops]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for pid in {each.opened.pid for executor in executors for each in executor._state.actors if each.opened}:
            os.kill(pid, signal.SIGKILL)
        for taken, rest in zip(found, in_turn(loops), strict=True):
            taken.extend(batch[0].tolist() for batch in rest)
    assert found == expected


def test_a_batch_that_kills_actors_is_an_error_of_its_rank(pool: RayPool, tmp_path: Path) -> None:
    """Name it after three deaths; the other rank has all its batches."""
    loaders = [rank_of(pool, Numbers(tmp_path, deadly=-1), rank) for rank in range(2)]
    keys = [next(iter(loader))[0].tolist() for loader in loaders]
    deadly = rank_of(pool, Numbers(tmp_path, deadly=keys[0][0]), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(WorkerDied, match="has ended 3 workers"):
            list(deadly)
        assert len(list(loaders[1])) == 6


def test_an_actor_opens_a_dataset_again_that_it_let_go_of(pool: RayPool, tmp_path: Path) -> None:
    """Let a rank forget a dataset in the middle of another's loop, as an actor does that was asked for many."""
    import ray

    loop: Any = iter(rank_of(pool, Numbers(tmp_path), 0))
    found = [next(loop)[0].tolist()]
    key = loop._dispatcher.executor._state.key
    ray.get([handle.forget.remote(*key) for handle in pool._handles])
    found += [batch[0].tolist() for batch in loop]
    assert len(found) == 6


class Stream(IterableDataset[Any]):
    """Is read in order."""

    def __iter__(self) -> Iterator[Any]:
        return iter(range(12))


def test_what_a_pool_cannot_read_is_refused(pool: RayPool, tmp_path: Path) -> None:
    """Refuse streams, other numbers of threads, numbers below 1, and a pool that was closed."""
    with pytest.raises(ArgumentError, match="read as a stream"):
        list(DataLoader(Stream(), 4, num_workers=2, backend=pool))
    assert len(list(DataLoader(Stream(), 4, num_workers=2, read_once=True, backend=pool))) == 3
    with pytest.raises(ArgumentError, match="threads_per_worker=2 was given with a pool"):
        iter(rank_of(pool, Numbers(tmp_path), 0, threads_per_worker=2))
    with pytest.raises(ArgumentError, match="workers must be"):
        RayPool(0)
    pool.close()
    with pytest.raises(LoaderClosed, match="the pool of actors was closed"):
        iter(rank_of(pool, Numbers(tmp_path), 0))


def test_a_pool_that_is_closed_in_the_middle_is_an_error_of_every_rank(pool: RayPool, tmp_path: Path) -> None:
    """End the loop instead of waiting for actors that never come."""
    loop: Any = iter(rank_of(pool, Numbers(tmp_path), 0))
    next(loop)
    pool.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(LoaderClosed, match="the pool of actors was closed"):
            list(loop)


class Together(Numbers):
    """Sample 0 kills its process while sample 3 is made there too, which never ends; elsewhere sample 3 is good."""

    def __getitem__(self, index: int) -> Any:
        attempt = len(list(self.folder.glob("killed-*")))
        process, beside, killed = (self.folder / f"{name}-{attempt}" for name in ("pid", "beside", "killed"))
        if index == 0:
            process.write_text(str(os.getpid()))
            assert until(beside.exists)
            killed.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if index == 3:
            assert until(lambda: process.exists() and process.read_text())
            beside.touch()
            if process.read_text() == str(os.getpid()):
                threading.Event().wait(60)
        return index


def test_a_batch_that_shares_an_actor_with_one_that_kills_is_not_blamed(cluster: Any, tmp_path: Path) -> None:
    """Let a batch of another rank die beside the one that kills, as often as they share an actor: it is made then."""
    backend = RayCluster(worker_resources={"CPU": 1}, probe=False)
    outcomes: list[Any] = [None, None]
    with RayPool(1, backend, threads_per_worker=2) as pool:
        ranks = [pool(maker_of(Together(tmp_path)), Options(1, threads=2, rank=rank)) for rank in range(2)]

        def read(rank: int) -> None:
            ranks[rank].submit(work_of(rank))
            outcomes[rank] = ranks[rank].next(timeout=90)

        threads = [threading.Thread(target=read, args=(rank,)) for rank in range(2)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        for rank in ranks:
            rank.close()
    assert "batch 0 has ended 3 workers" in str(outcomes[0].error)
    assert outcomes[1].batch.tolist() == [3, 4, 5]
