"""Work that several threads share: whoever is free helps whoever has more than one sample to make."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

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


_share: ContextVar[Callable[[Job], None] | None] = ContextVar("headrace_share", default=None)


def run(job: Job) -> None:
    """Make all rows of a job, with the help of the other threads of a loader, where there are any."""
    share = _share.get()
    if share is None:
        job.run()
    else:
        share(job)


class sharing:  # noqa: N801  a context manager, named for how it reads
    """Let `run` share jobs out by a function, in this thread, for the length of a block."""

    __slots__ = ("_share", "_token")

    def __init__(self, share: Callable[[Job], None]) -> None:
        self._share = share

    def __enter__(self) -> None:
        self._token = _share.set(self._share)

    def __exit__(self, *_: Any) -> None:
        _share.reset(self._token)
