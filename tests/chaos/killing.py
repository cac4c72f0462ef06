"""Workers killed at random moments, epoch after epoch: what became of the samples, and of everything else."""

from __future__ import annotations

import os
import queue
import random
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import DataLoader, IterableDataset, get_worker_info, rng
from headrace.errors import WorkerDied

if TYPE_CHECKING:
    from collections.abc import Sequence

ROWS, BATCH = 96, 4
STEPS = ROWS // BATCH
LARGE = 40_000
"""Numbers in some samples: a batch of them is half a megabyte in shared memory."""


def sample(number: int) -> tuple[int, np.ndarray, str]:
    """Small and large arrays and text, random by place: whatever is lost, repeated or torn shows."""
    return number, rng().random(LARGE if number % 8 == 0 else 300), f"sample {number}"


def ragged(samples: list[Any]) -> list[Any]:
    """Leave samples as they are: they differ in size."""
    return samples


class Indexed:
    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> Any:
        return sample(index)


class Sharded(IterableDataset[Any]):
    """By torch's rule: each worker reads its part."""

    def __iter__(self) -> Iterator[Any]:
        info = get_worker_info()
        return map(sample, range(0 if info is None else info.id, ROWS, 1 if info is None else info.num_workers))


class Whole(IterableDataset[Any]):
    """Knows nothing of workers."""

    def __iter__(self) -> Iterator[Any]:
        return iter(range(ROWS))


@dataclass(frozen=True, slots=True)
class Case:
    """One way to run workers, and its share of all the kills."""

    name: str
    share: int
    dataset: Any
    how: dict[str, Any]
    in_thread: bool = False

    def loader(self, **more: Any) -> DataLoader[Any]:
        return DataLoader(
            self.dataset, BATCH, num_workers=2, backend="processes", collate_fn=ragged, seed=5, **self.how, **more
        )


def _case(name: str, share: int, dataset: Any, method: str, *, in_thread: bool = False, **how: Any) -> Case:
    return Case(f"{method}, {name}", share, dataset, {"multiprocessing_context": method, **how}, in_thread)


CASES = [
    _case("indexed", 20, Indexed(), "fork", shuffle=True),
    _case("indexed, in a thread", 8, Indexed(), "fork", shuffle=True, in_thread=True),
    _case("indexed, persistent", 12, Indexed(), "fork", shuffle=True, persistent_workers=True),
    _case("indexed, 2 threads each", 10, Indexed(), "fork", threads_per_worker=2),
    _case("indexed, any order, persistent", 8, Indexed(), "fork", in_order=False, persistent_workers=True),
    _case("iterable", 10, Sharded(), "fork"),
    _case("iterable read once", 6, Whole().map(sample), "fork", read_once=True),
    _case("indexed", 5, Indexed(), "forkserver", shuffle=True),
    _case("iterable, persistent", 6, Sharded(), "forkserver", persistent_workers=True),
    _case("indexed", 4, Indexed(), "spawn", shuffle=True),
    _case("indexed, persistent, 2 threads each", 6, Indexed(), "spawn", persistent_workers=True, threads_per_worker=2),
    _case("iterable, persistent, in a thread", 5, Sharded(), "spawn", persistent_workers=True, in_thread=True),
]


@dataclass(slots=True)
class Tally:
    """What came of it."""

    epochs: int = 0
    kills: int = 0
    replaced: int = 0
    raised: int = 0
    lost: int = 0
    repeated: int = 0
    late: list[float] = field(default_factory=list)
    """Seconds from each kill to the error, where errors were asked for."""


class Killer:
    """A thread that kills the processes it is given, a moment after it is given them."""

    def __init__(self) -> None:
        self.kills: list[tuple[int, float]] = []
        """The pids, and when."""
        self._aims: queue.SimpleQueue[tuple[int, int, float] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._run, name="headrace-killer")  # not one to warn of at a fork
        self._thread.start()

    def aim(self, workers: Sequence[Any], draws: random.Random) -> None:
        """Kill one of them in the next milliseconds: while it starts, reads, makes, writes, sends, or waits."""
        worker = draws.choice(workers)
        # A copy of the descriptor: by number, another process might be hit by the time it comes to that.
        self._aims.put((worker.process.pid, os.dup(worker.ended.fd), draws.choice((0, draws.uniform(0, 0.01)))))

    def end(self) -> None:
        self._aims.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (aim := self._aims.get()) is not None:
            pid, descriptor, delay = aim
            self._idle.wait(delay)
            try:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                self.kills.append((pid, time.monotonic()))
            except ProcessLookupError:  # it had ended
                pass
            finally:
                os.close(descriptor)


_whole: dict[str, list[bytes]] = {}
"""By the name of a case, an epoch in which nobody was killed."""


def flattened(batches: list[Any], *, in_order: bool) -> list[bytes]:
    found = [repr(row[::2]).encode() + row[1].tobytes() for batch in batches for row in batch]
    return found if in_order else sorted(found)


def survive(case: Case, kills: int, seed: int, tally: Tally) -> None:
    """Run epochs in which workers are killed and replaced, until so many are; every epoch must be whole."""
    _run(case, _survive, kills, seed, tally)


def end(case: Case, kills: int, seed: int, tally: Tally) -> None:
    """Run epochs in which no worker may be replaced, until so many were killed; each must raise, or be whole."""
    _run(case, _raise, kills, seed, tally)


def _run(case: Case, function: Any, kills: int, seed: int, tally: Tally) -> None:
    failures: list[BaseException] = []
    kills += tally.kills
    whole = _whole.get(case.name) or flattened(list(case.loader()), in_order=case.how.get("in_order", True))
    _whole[case.name] = whole
    assert len(whole) == len(set(whole)) == ROWS

    def run() -> None:
        try:
            function(case, whole, kills, random.Random(f"{case.name} {seed}"), tally)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    if case.in_thread:
        thread = threading.Thread(target=run, name="headrace-test")
        thread.start()
        thread.join()
    else:
        run()
    if failures:
        failures[0].add_note(f"chaos: {case.name}, seed {seed}, epoch {tally.epochs}, {tally.kills} kills before")
        raise failures[0]


def _survive(case: Case, whole: list[bytes], kills: int, draws: random.Random, tally: Tally) -> None:
    loader = case.loader()
    # From batch 2 on, both workers have begun: three that die before that, one after the other, are rightly given up.
    earliest = 2 if loader.persistent_workers else 0
    while tally.kills < kills or not tally.replaced:  # a kill is not noticed when all of the batches were here
        loader.set_epoch(0)
        killer, got = Killer(), []
        at = draws.sample(range(earliest, STEPS), draws.choice((1, 2)))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            loop: Any = iter(loader)
            try:
                for step in range(STEPS + 1):
                    if step in at:
                        killer.aim(loop._dispatcher.executor._workers, draws)
                    batch = next(loop, None)
                    if batch is None:
                        break
                    got.append(batch)
            finally:
                killer.end()
        found = flattened(got, in_order=loader.in_order)
        tally.lost += (Counter(whole) - Counter(found)).total()
        tally.repeated += (Counter(found) - Counter(whole)).total()
        assert found == whole, f"lost, repeated, torn or out of order: kills at {at}"
        restarts = [str(each.message) for each in said if "a new one makes" in str(each.message)]
        assert all("SIGKILL" in message for message in restarts), restarts
        tally.epochs += 1
        tally.kills += len(killer.kills)
        tally.replaced += len(restarts)
    loader.close()


def _raise(case: Case, whole: list[bytes], kills: int, draws: random.Random, tally: Tally) -> None:
    loader = case.loader(restart_workers=0)
    when: dict[int, float] = {}
    while tally.kills < kills or not tally.raised:
        loader.set_epoch(0)
        killer, got = Killer(), []
        at = draws.randrange(STEPS // 2)
        loop: Any = iter(loader)
        try:
            for step in range(STEPS + 1):
                if step == at:
                    killer.aim(loop._dispatcher.executor._workers, draws)
                batch = next(loop, None)
                if batch is None:
                    break
                got.append(batch)
        except WorkerDied as error:
            now = time.monotonic()
            killer.end()
            when.update(killer.kills)
            text = str(error)
            # Workers that stay may have been killed when the epoch before was over.
            died = [pid for pid in when if f"worker (pid {pid}) is killed by signal: SIGKILL" in text]
            assert len(died) == 1, text
            assert "batch" in text or "starting" in text or "idle" in text, text
            tally.raised += 1
            tally.late.append(now - when[died[0]])
        else:
            killer.end()
            when.update(killer.kills)
            assert flattened(got, in_order=loader.in_order) == whole, f"ended in silence, kill at {at}"
        tally.epochs += 1
        tally.kills += len(killer.kills)
        loop.close()
    loader.close()
