"""Which settings of the workers may be tried: within the CPUs, the memory and the files that this process may use."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from headrace.interop.machine import cpus, free_memory
from headrace.interop.ranks import on_this_machine
from headrace.run.arguments import MOST_THREADS

if TYPE_CHECKING:
    from headrace.run.tuning.worker_setting import WorkerSetting

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MOST_THREADS)
"""Numbers of workers that are tried: each at least a third more than the one before."""
OF_MEMORY = 0.25
"""The part of the free memory that batches under way may take, and the workers' own memory."""
OF_A_PROCESS = 128 << 20
"""Bytes that a worker process may need beside its batches: interpreter, libraries, its copy of the dataset."""
OF_OBJECTS = 32
"""Batches under way of Python objects, whose size nobody knows."""
DESCRIPTORS = 16
"""Open files that a worker process costs this one: its channel, its pipes and its slots."""
PROCESSES_A_CPU = 4
"""More worker processes than this for each CPU are never tried."""


@dataclass(frozen=True, slots=True)
class Space:
    """What may be tried, and what there is of the machine."""

    kinds: tuple[str, ...]
    """Kinds of executors whose batches are the same bytes here."""
    cpus: int
    most_threads: int = MOST_THREADS
    most_processes: int = MOST_THREADS
    most_at_once: int = 1 << 16
    """Batches of an epoch."""
    most_ahead: int = 1 << 16
    """Batches under way that fit in memory."""
    most_together: int = 1
    """Threads that may make one batch together."""
    together: int = 1
    """How many the user has asked for, at least."""
    prefetch: int | None = None
    """What the user has set; None: anything."""
    threads: int | None = 1
    """Threads in each worker process; None: any number."""

    def has(self, setting: WorkerSetting) -> bool:
        """Say whether a setting may be tried."""
        if setting.kind not in self.kinds or setting.ahead > self.most_ahead:
            return False
        if self.prefetch is not None and setting.kind != "inline" and setting.prefetch != self.prefetch:
            return False
        if setting.kind == "processes" and self.threads not in (None, setting.threads):
            return False
        most = self.most_processes if setting.kind == "processes" else self.most_threads
        if setting.together > max(self.most_together, self.together) or setting.at_once > self.most_at_once:
            return False
        return setting.workers <= most and setting.hands <= self.most_threads

    def fitted(self, setting: WorkerSetting) -> WorkerSetting:
        """Return a setting that runs ahead only as far as there is memory, where the user leaves that open.

        More threads than there may be batches make them together.
        """
        if setting.kind == "inline":
            return setting
        processes = setting.hands // setting.pool
        batches = min(self.most_at_once, self.most_ahead // (self.prefetch or 1)) // processes
        needed = -(-setting.pool // max(1, batches))
        together = max(setting.together, self.together, min(needed, self.most_together))
        setting = replace(setting, together=min(together, setting.pool))
        if self.prefetch is not None or setting.ahead <= self.most_ahead:
            return setting
        return replace(setting, prefetch=max(1, self.most_ahead // setting.at_once))

    def counts(self, kind: str) -> list[int]:
        """Return the numbers of workers of a kind that may be tried."""
        most = self.most_processes if kind == "processes" else self.most_threads
        found = [count for count in COUNTS if count <= most]
        return found if most in found or most < 1 else [*found, most]


@dataclass(frozen=True, slots=True)
class Room:
    """What this process may use of its machine: its part, where several ranks share it."""

    cpus: int
    memory: int | None
    """Bytes; None where nobody says."""
    files: int | None
    """Files that may be opened beside those that are open."""

    @classmethod
    def here(cls, rank: int, world_size: int) -> Room:
        """Return what there is now."""
        ranks = len(on_this_machine(rank, world_size))
        free = free_memory()
        return cls(max(1, cpus() // ranks), None if free is None else free // ranks, _files_left())

    def space(
        self,
        kinds: tuple[str, ...],
        *,
        batch_bytes: int | None,
        batches: int | None,
        prefetch: int | None,
        threads: int | None,
        under_way: int,
        rows: int = 1,
        together: int = 1,
    ) -> Space:
        """Return what may be tried, with batches of so many bytes, so many of them in an epoch; None: not known.

        ``rows``: how many threads can make one batch together; ``together``: how many are to, at least.
        ``under_way``: batches that are in memory already, and do not count as free memory.
        """
        batches = 1 << 16 if batches is None else max(1, batches)
        processes = min(batches, PROCESSES_A_CPU * self.cpus, MOST_THREADS)
        ahead = 1 << 16
        if self.memory is not None:
            room = int(self.memory * OF_MEMORY)
            processes = min(processes, room // OF_A_PROCESS)
            if batch_bytes:
                ahead = max(1, under_way // 2 + room // batch_bytes)
        if batch_bytes == 0:
            ahead = max(OF_OBJECTS, under_way)
        if self.files is not None:
            processes = min(processes, self.files // DESCRIPTORS)
        return Space(
            kinds,
            self.cpus,
            most_threads=min(MOST_THREADS, batches * max(rows, together)),
            most_processes=max(1, processes),
            most_at_once=batches,
            most_ahead=ahead,
            prefetch=prefetch,
            threads=threads,
            most_together=rows,
            together=together,
        )


def _files_left() -> int | None:
    """Return how many files this process may still open."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit != resource.RLIM_INFINITY:
            return max(0, limit - len(os.listdir("/proc/self/fd")))  # noqa: PTH208  names are enough
    return None
