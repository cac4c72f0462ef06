"""Work that several threads share: a free thread helps one that has many samples to make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from headrace.context.current import Context, current, put, setting


class Job(Protocol):
    """Rows of a batch that any number of threads can make at once, each taking the next that nobody has."""

    @property
    def left(self) -> int:
        """Rows that nobody has begun."""
        ...

    def run(self) -> None:
        """Make rows until none is left."""
        ...

    def wait(self) -> None:
        """Wait for the rows that other threads have begun."""
        ...

    def stop(self) -> None:
        """Let no further row be begun."""
        ...


Share = Callable[["Job", "int | None"], None]
"""Makes all rows of a job, with so many threads at most; None: with all that there are."""


def run(job: Job, threads: int | None = None) -> None:
    """Make all rows of a job, with the help of the loader's other threads, if there are any.

    ``threads``: how many of them are at it together, at most; None: all.
    """
    share: Share | None = current().share
    if share is None:
        job.run()
    else:
        share(job, threads)


def helps() -> bool:
    """Say whether this thread has others beside it that help with a job."""
    return current().share is not None


class sharing(setting):  # noqa: N801  a context manager, named for how it reads
    """Let `run` give jobs to a function, in this thread, for the length of a block."""

    __slots__ = ("_share",)

    def __init__(self, share: Share) -> None:
        self._share = share

    def __enter__(self) -> None:
        now = current()
        self._token = put(Context(now.here, now.seconds, now.recycler, self._share, now.worker, now.generator))
