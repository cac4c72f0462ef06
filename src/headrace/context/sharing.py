"""Work that several threads share: a free thread helps one that has many samples to make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from headrace.context.current import Context, current, put, setting

if TYPE_CHECKING:
    from collections.abc import Callable


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


def run(job: Job) -> None:
    """Make all rows of a job, with the help of the loader's other threads, if there are any."""
    share = current().share
    if share is None:
        job.run()
    else:
        share(job)


class sharing(setting):  # noqa: N801  a context manager, named for how it reads
    """Let `run` give jobs to a function, in this thread, for the length of a block."""

    __slots__ = ("_share",)

    def __init__(self, share: Callable[[Job], None]) -> None:
        self._share = share

    def __enter__(self) -> None:
        now = current()
        self._token = put(Context(now.here, now.seconds, now.recycler, self._share, now.worker, now.generator))
