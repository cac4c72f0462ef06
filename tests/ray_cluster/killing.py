"""Actors killed and nodes removed at random moments, epoch after epoch: what became of the samples."""

from __future__ import annotations

import os
import queue
import random
import signal
import threading
import time
import warnings
from dataclasses import dataclass
from typing import Any

from headrace import DataLoader, Ledger, rng, verify_epoch
from headrace.executors import RayCluster
from tests.ray_cluster.conftest import STORE, remove, wait_for_removals

ROWS, BATCH = 192, 4
STEPS = ROWS // BATCH
LARGE = 40_000
"""Numbers in some samples: a batch of them is more than Ray sends without its object store."""
NODE = {"num_cpus": 2, "object_store_memory": STORE}


class Samples:
    """Small and large arrays, random by place: whatever is lost, repeated or torn shows."""

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        time.sleep(0.005)  # so that a batch takes long enough to be hit
        return index, rng().random(LARGE if index % 8 == 0 else 300), f"sample {index}"


def ragged(samples: list[Any]) -> list[Any]:
    """Leave samples as they are: they differ in size."""
    return samples


@dataclass(slots=True)
class Tally:
    """What came of it."""

    epochs: int = 0
    kills: int = 0
    removals: int = 0
    made_again: int = 0
    seconds: float = 0.0


class Killer:
    """A thread that does what it is given, a moment after it is given that."""

    def __init__(self) -> None:
        self._aims: queue.SimpleQueue[tuple[Any, float] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-killer", daemon=True)
        self._thread.start()

    def aim(self, act: Any, delay: float) -> None:
        """Call a function so many seconds from now."""
        self._aims.put((act, delay))

    def end(self) -> None:
        """Wait for what was given."""
        self._aims.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (aim := self._aims.get()) is not None:
            act, delay = aim
            self._idle.wait(delay)
            act()


def loader(**how: Any) -> DataLoader[Any]:
    """Return the loader of one epoch; inline without ``num_workers``."""
    return DataLoader(Samples(), BATCH, shuffle=True, seed=5, collate_fn=ragged, **how)


def flattened(batches: list[Any]) -> list[bytes]:
    """Return each sample as bytes."""
    return [repr(row[::2]).encode() + row[1].tobytes() for batch in batches for row in batch]


def survive(cluster: Any, kills: int, removals: int, seed: int, workers: int = 3) -> Tally:
    """Run epochs until so many actors were killed and so many nodes removed; each epoch must be whole, and in order."""
    whole, tally, draws = flattened(list(loader())), Tally(), random.Random(seed)
    nodes: list[Any] = []
    began = time.monotonic()
    while tally.kills < kills or tally.removals < removals:
        while removals and len(nodes) < 2:  # here, because Ray does it in no other thread
            nodes.append(cluster.add_node(**NODE))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            _epoch(cluster, nodes, tally, draws, whole, removals, workers)
        tally.made_again += sum("made again" in str(each.message) for each in said)
        tally.epochs += 1
    for node in nodes:
        remove(cluster, node)
    wait_for_removals(cluster)
    tally.seconds = time.monotonic() - began
    return tally


def _epoch(
    cluster: Any,
    nodes: list[Any],
    tally: Tally,
    draws: random.Random,
    whole: list[bytes],
    removals: int,
    workers: int,
) -> None:
    ledger, killer = Ledger(), Killer()
    backend = RayCluster(worker_resources={"CPU": 0.5})
    run = loader(num_workers=workers, backend=backend, ledger=ledger)
    loop: Any = iter(run)
    at = set(draws.sample(range(2, STEPS - 4), 4))
    remove = draws.choice(sorted(at)) if tally.removals < removals else -1
    batches = []

    def kill() -> None:
        actors = [each for each in loop._dispatcher.executor._state.actors if each.opened is not None]
        if not actors:
            return
        try:
            os.kill(draws.choice(actors).opened.pid, signal.SIGKILL)
            tally.kills += 1
        except ProcessLookupError:  # it had ended
            pass

    def take_away() -> None:
        cluster.remove_node(nodes.pop(draws.randrange(len(nodes))), allow_graceful=draws.random() < 0.2)
        tally.removals += 1

    try:
        for step in range(STEPS + 1):
            if step in at:
                killer.aim(take_away if step == remove else kill, draws.uniform(0, 0.02))
            batch = next(loop, None)
            if batch is None:
                break
            batches.append(batch)
    finally:
        killer.end()
        run.close()
    assert flattened(batches) == whole, f"lost, repeated, torn or out of order: {sorted(at)}"
    proof = verify_epoch(ledger)
    assert proof.exact, str(proof)
