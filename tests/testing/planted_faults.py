"""Datasets that each have one fault, by the check that has to find it."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from headrace import ArrayDataset, DataLoader, IterableDataset

SIZE = 24
LOCK = threading.Lock()


class Sound:
    """A dataset without a fault, which the others inherit."""

    size = SIZE

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self.size:
            raise IndexError(index)
        return self.sample(index)

    def sample(self, index: int) -> Any:
        return np.full(4, index)


class Raises(Sound):
    def sample(self, index: int) -> Any:
        return np.zeros(4) if index < SIZE - 1 else {"found": 0}["missing"]


class Hangs(Sound):
    def sample(self, index: int) -> Any:
        return threading.Event().wait()


class HangsInC(Sound):
    def sample(self, index: int) -> Any:
        return sum(itertools.repeat(0))


class Crashes(Sound):
    def sample(self, index: int) -> Any:
        os.kill(os.getpid(), signal.SIGSEGV)


class Exits(Sound):
    def sample(self, index: int) -> Any:
        os._exit(7)


class TooLong(Sound):
    def __len__(self) -> int:
        return SIZE + 9


class TooShort(Sound):
    def __len__(self) -> int:
        return SIZE - 9


class KeyBeyond(Sound):
    def __getitem__(self, index: int) -> Any:
        return {key: np.full(4, key) for key in range(SIZE)}[index]


class LongStream(IterableDataset[Any]):
    def __len__(self) -> int:
        return SIZE + 1

    def __iter__(self) -> Iterator[Any]:
        yield from range(SIZE)


class ShapesDiffer(Sound):
    def sample(self, index: int) -> Any:
        return np.zeros(4 + index % 3)


class DtypesDiffer(Sound):
    def sample(self, index: int) -> Any:
        return {"label": index if index % 3 else float(index)}


class KeysDiffer(Sound):
    def sample(self, index: int) -> Any:
        return {"image": np.zeros(4)} | ({"mask": np.zeros(4)} if index > 4 else {})


class CannotCollate(Sound):
    def sample(self, index: int) -> Any:
        return {"tree": object()}


def noisy_collate(samples: list[Any]) -> Any:
    return np.stack(samples) + time.perf_counter_ns()


def failing_collate(samples: list[Any]) -> Any:
    return samples[0]["image"]


class Buffered(Sound):
    def __init__(self) -> None:
        self.buffer = np.zeros(4)

    def sample(self, index: int) -> Any:
        self.buffer[:] = index
        return self.buffer


class DrawsFromRandom(Sound):
    def sample(self, index: int) -> Any:
        return random.random()


class DrawsFromNumPy(Sound):
    def sample(self, index: int) -> Any:
        return np.random.rand(4)


def jitter(sample: Any) -> Any:
    return sample + np.random.normal()


class StreamDraws(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        for index in range(SIZE):
            yield index + random.random()


class HoldsGenerator(Sound):
    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def sample(self, index: int) -> Any:
        return self.rng.random(4)


class Counts(Sound):
    def __init__(self) -> None:
        self.reads = 0

    def sample(self, index: int) -> Any:
        self.reads += 1
        return np.full(4, self.reads)


class Clock(Sound):
    def sample(self, index: int) -> Any:
        return time.perf_counter_ns()


class Normalizes(Sound):
    def __init__(self) -> None:
        self.data = np.arange(4.0 * SIZE).reshape(SIZE, 4)

    def sample(self, index: int) -> Any:
        self.data[index] /= 2
        return self.data[index].copy()


class StreamGoesOn(IterableDataset[Any]):
    def __init__(self) -> None:
        self.begun = 0

    def __iter__(self) -> Iterator[Any]:
        self.begun += 1
        yield from range(self.begun, SIZE)


class FollowsOrder(Sound):
    def __init__(self) -> None:
        self.last = -1

    def sample(self, index: int) -> Any:
        jumped = index < self.last
        self.last = index
        return np.full(4, index + 100 * jumped)


class HoldsLambda(Sound):
    def __init__(self) -> None:
        self.transform: Any = lambda sample: sample + 1

    def sample(self, index: int) -> Any:
        return self.transform(np.full(4, index))


class HoldsLock(Sound):
    def __init__(self) -> None:
        self.lock = threading.Lock()

    def sample(self, index: int) -> Any:
        with self.lock:
            return np.full(4, index)


class HoldsIterator(Sound):
    def __init__(self) -> None:
        self.rest = (number for number in range(3))


class LockedLater(Sound):
    def __init__(self) -> None:
        self.lock: Any = None

    def sample(self, index: int) -> Any:
        if self.lock is None:
            self.lock = threading.Lock()
        return np.full(4, index)


def local_collate() -> Any:
    def collate(samples: list[Any]) -> Any:
        return np.stack(samples)

    return collate


class OpenFile(Sound):
    def __init__(self) -> None:
        self.file: Any = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self.file.write(np.arange(4 * SIZE).tobytes())

    def __del__(self) -> None:
        self.file.close()

    def sample(self, index: int) -> Any:
        return np.frombuffer(os.pread(self.file.fileno(), 32, index * 32), np.int64).copy()


class OpensLater(Sound):
    def __init__(self) -> None:
        self.handle: Any = None

    def sample(self, index: int) -> Any:
        if self.handle is None:
            self.handle = Path(__file__).open("rb")  # noqa: SIM115
        return np.frombuffer(os.pread(self.handle.fileno(), 8, index), np.uint8).copy()


class OpenDatabase(Sound):
    def __init__(self) -> None:
        self.database = sqlite3.connect(":memory:", check_same_thread=False)

    def sample(self, index: int) -> Any:
        with LOCK:
            return self.database.execute("select ?", (index,)).fetchone()[0]


class OtherHash(Sound):
    def sample(self, index: int) -> Any:
        return hash(f"sample {index}")


class DiesElsewhere(Sound):
    def __setstate__(self, state: Any) -> None:
        os._exit(7)

    def __getstate__(self) -> Any:
        return {"size": SIZE}


class Races(Sound):
    def sample(self, index: int) -> Any:
        self.current = index
        return np.full(4, self.current)


class RacesOnList(Sound):
    def __init__(self) -> None:
        self.scratch: list[int] = []

    def sample(self, index: int) -> Any:
        self.scratch.clear()
        self.scratch.append(index)
        return np.full(4, self.scratch[0])


class DeadlocksOnThreads(Sound):
    def sample(self, index: int) -> Any:
        if threading.current_thread() is not threading.main_thread():
            threading.Event().wait()
        return np.full(4, index)


class Keeps(Sound):
    kept: list[Any] = []

    def sample(self, index: int) -> Any:
        sample = np.full(64, index)
        self.kept.append(sample)
        return sample.copy()


class CachesAll(Sound):
    size = 10**12

    def __init__(self) -> None:
        self.cache: dict[int, Any] = {}

    def sample(self, index: int) -> Any:
        if index not in self.cache:
            self.cache[index] = np.full(1024, index)
        return self.cache[index].copy()


class LeavesOpen(Sound):
    left: list[int] = []

    def sample(self, index: int) -> Any:
        self.left.append(os.open(os.devnull, os.O_RDONLY))
        return np.full(4, index)


class Large(Sound):
    def sample(self, index: int) -> Any:
        return np.zeros(1 << 20, np.uint8)


class ResumesWrongly(IterableDataset[Any]):
    def __init__(self) -> None:
        self.place = self.first = 0

    def __iter__(self) -> Iterator[Any]:
        first, self.first = self.first, 0
        for self.place in range(first, SIZE):
            yield self.place

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.first = state["place"]


FAULTS: dict[str, tuple[Any, str]] = {
    **{
        kind.__name__: (kind, check)
        for kind, check in [
            (Raises, "reads"),
            (Hangs, "hang"),
            (HangsInC, "hang"),
            (Crashes, "crash"),
            (Exits, "crash"),
            (TooLong, "length"),
            (TooShort, "length"),
            (KeyBeyond, "length"),
            (LongStream, "length"),
            (ShapesDiffer, "structure"),
            (DtypesDiffer, "structure"),
            (KeysDiffer, "structure"),
            (CannotCollate, "collate"),
            (Buffered, "aliasing"),
            (DrawsFromRandom, "randomness"),
            (DrawsFromNumPy, "randomness"),
            (StreamDraws, "randomness"),
            (HoldsGenerator, "repeat"),
            (Counts, "repeat"),
            (Clock, "repeat"),
            (Normalizes, "repeat"),
            (StreamGoesOn, "repeat"),
            (FollowsOrder, "order"),
            (HoldsLambda, "pickle"),
            (HoldsLock, "pickle"),
            (HoldsIterator, "pickle"),
            (LockedLater, "pickle"),
            (OpenFile, "handles"),
            (OpensLater, "handles"),
            (OpenDatabase, "handles"),
            (OtherHash, "spawn"),
            (DiesElsewhere, "spawn"),
            (Races, "threads"),
            (RacesOnList, "threads"),
            (DeadlocksOnThreads, "hang"),
            (Keeps, "memory"),
            (CachesAll, "memory"),
            (LeavesOpen, "descriptors"),
            (ResumesWrongly, "resume"),
        ]
    },
    "transform": (lambda: ArrayDataset(np.zeros((SIZE, 2))).map(jitter), "randomness"),
    "noisy collate": (partial(DataLoader, Sound(), 4, collate_fn=noisy_collate), "collate"),
    "failing collate": (partial(DataLoader, Sound(), 4, collate_fn=failing_collate), "collate"),
    "local collate": (lambda: DataLoader(Sound(), 4, collate_fn=local_collate()), "pickle"),
    "large batches": (lambda: DataLoader(Large(), 10**6, num_workers=0), "projection"),
}
"""What makes each, and the check that finds it."""
