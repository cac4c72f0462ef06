"""What several threads of one process have to do: tasks that one of them makes, and jobs that they share."""

from __future__ import annotations

import queue
from time import perf_counter
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from headrace.context.sharing import Job
    from headrace.make.maker import Stop

T = TypeVar("T")

QUICK = 0.002
"""Seconds; a job that takes less is not shared."""


class ThreadTasks(Generic[T]):
    """Gives threads what there is to do: jobs to help with, then tasks to begin, both the oldest first.

    It uses no Python lock: Ctrl-C may come when one is held already but nobody knows it yet.
    """

    def __init__(self, workers: int, stop: Stop) -> None:
        self._workers = workers
        self._stop = stop
        self._queue: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        """None wakes a thread, to look for jobs or for the end."""
        self._jobs: list[Job] = []
        self._pace = QUICK
        """Seconds that a row took lately, in one thread."""

    def put(self, task: T) -> None:
        """Hand a task to whichever thread is free first."""
        self._queue.put(task)

    def next(self) -> T | Job | None:
        """Return what to do next, as soon as there is something; None at the end."""
        while not self._stop.is_set:
            for job in list(self._jobs):
                if job.left:
                    return job
            task = self._queue.get()
            if task is not None and not self._stop.is_set:
                return task
        return None

    def share(self, job: Job, threads: int | None = None) -> None:
        """Make the rows of a job, here and wherever a thread is free; on so many threads at most.

        Without ``threads``, the rows of older jobs come first: the next batch is ready as early as can be.
        """
        rows = job.left
        most = min(self._workers, rows, threads or rows)
        if rows * self._pace < QUICK:  # it is made before a second thread is awake
            began = perf_counter()
            job.run()
            self._pace = (perf_counter() - began) / max(rows, 1)
            return
        self._jobs.append(job)
        self._wake(most - 1)
        try:
            if self._stop.is_set:
                job.stop()
            for each in list(self._jobs) if threads is None else [job]:
                began = perf_counter()
                each.run()
                if each is job:
                    break
            job.wait()
        finally:
            self._jobs.remove(job)
        # Of a job that all help with, shorter by what the others did: that decides whether they are asked next time.
        self._pace = (perf_counter() - began) / max(rows, 1) * (1 if threads is None else most)
        self._stop.check()

    def close(self) -> None:
        """Wake every thread after the stop flag is set; nobody begins another row of a job."""
        for job in list(self._jobs):
            job.stop()
        self._wake(self._workers)

    def _wake(self, threads: int) -> None:
        for _ in range(threads):
            self._queue.put(None)
