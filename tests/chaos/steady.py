"""What a program holds after epoch upon epoch: descriptors, memory, threads, processes, files of shared memory."""

from __future__ import annotations

import gc
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace import DataLoader
from tests.chaos.programs import HOW, Arrays
from tests.leaks import named_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

BATCH = 16
BATCH_MIB = BATCH * 200_000 / 2**20


@dataclass(frozen=True, slots=True)
class Held:
    """What a program holds, its workers where they stay included."""

    descriptors: int
    threads: int
    processes: int
    shared: int
    """Files in /dev/shm."""
    mebibytes: float
    """Proportional set size: memory that processes share is counted once."""

    def __str__(self) -> str:
        return f"{self.descriptors} | {self.threads} | {self.processes} | {self.shared} | {self.mebibytes:.1f}"


HEADS = "descriptors | threads | worker processes | files in /dev/shm | memory (PSS) MiB"


def held(loader: DataLoader[Any] | None = None) -> Held:
    """Look at this process, and at the workers that a loader keeps."""
    gc.collect()  # what only a cycle still holds is not held
    kept = None if loader is None else loader._session._kept
    workers = [] if kept is None else kept._workers
    tree = ["self", *(str(each.process.pid) for each in workers)]
    return Held(
        sum(sum(1 for _ in Path("/proc", pid, "fd").iterdir()) for pid in tree),
        threading.active_count(),
        len(workers),
        len(named_memory(tree)),
        sum(map(_pss, tree)),
    )


def _pss(pid: str) -> float:
    lines = Path("/proc", pid, "smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def epochs(how: str, count: int) -> Iterator[Held]:
    """Run epochs, and say after each what is held."""
    with DataLoader(Arrays(), BATCH, shuffle=True, **HOW[how]) as loader:
        for _ in range(count):
            for batch in loader:
                assert len(batch) == BATCH
            del batch
            yield held(loader)
