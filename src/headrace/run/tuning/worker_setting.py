"""A setting of the workers, as a value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.executors.worker_options import groups
from headrace.run.arguments import PREFETCH_FACTOR

if TYPE_CHECKING:
    from headrace.run.settings import Settings


@dataclass(frozen=True, slots=True)
class WorkerSetting:
    """How batches are made: by which kind of workers, how many of them, and how far ahead.

    >>> print(WorkerSetting("processes", 3, 4))
    num_workers=3, backend="processes", prefetch_factor=4
    >>> print(WorkerSetting("inline"))
    num_workers=0
    """

    kind: str
    workers: int = 0
    prefetch: int = PREFETCH_FACTOR
    """Batches that each worker runs ahead."""
    threads: int = 1
    """Threads in each worker process."""
    together: int = 1
    """Threads that make each batch together."""

    @classmethod
    def of(cls, settings: Settings) -> WorkerSetting:
        """Return that of a loader."""
        if settings.kind == "inline":
            return cls("inline")
        prefetch = settings.prefetch_factor or PREFETCH_FACTOR
        workers, threads = settings.num_workers, settings.threads_per_worker
        pool = threads if settings.kind == "processes" else workers
        return cls(settings.kind, workers, prefetch, threads, min(settings.threads_per_batch, pool))

    def applied(self, settings: Settings) -> Settings:
        """Return the settings of the same loader with these workers."""
        return dataclasses.replace(
            settings,
            kind=self.kind,
            num_workers=self.workers,
            prefetch_factor=self.prefetch if self.workers else None,
            threads_per_worker=self.threads,
            threads_per_batch=self.together,
        )

    @property
    def ahead(self) -> int:
        """How many batches are under way at most."""
        return self.at_once * self.prefetch if self.workers else 1

    @property
    def at_once(self) -> int:
        """How many batches are made at the same time at most."""
        processes = self.workers if self.kind == "processes" else 1
        return max(1, processes * groups(self.pool, self.together))

    @property
    def hands(self) -> int:
        """How many threads of all workers make samples."""
        return self.workers * self.threads

    @property
    def pool(self) -> int:
        """How many threads there are in one process."""
        return self.threads if self.kind == "processes" else self.workers

    @property
    def cost(self) -> tuple[int, int, int]:
        """What it takes of the machine, to be compared: processes, then threads, then batches in memory."""
        return (self.workers if self.kind == "processes" else 0, self.hands, self.ahead)

    def __str__(self) -> str:
        if self.kind == "inline":
            return "num_workers=0"
        parts = [f"num_workers={self.workers}", f'backend="{self.kind}"']
        parts += [f"threads_per_worker={self.threads}"] if self.threads > 1 else []
        parts += [f"threads_per_batch={self.together}"] if self.together > 1 else []
        parts += [f"prefetch_factor={self.prefetch}"] if self.prefetch != PREFETCH_FACTOR else []
        return ", ".join(parts)
