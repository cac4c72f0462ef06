"""How what runs in the background ends: errors after closing, copies in forked processes, threads that do not end."""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Protocol

from headrace.errors import LoaderClosed, WorkerTimeout
from headrace.interop.user_line import user_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PATIENCE = 10.0
"""Seconds that closing waits for the work at hand before it leaves a thread running, with a warning."""

STUCK = 30.0
"""Seconds without any batch after which a warning says what the workers are doing."""


def closed_while_reading() -> LoaderClosed:
    """Return the error for whoever still waits for a batch, or asks for one, after closing."""
    return LoaderClosed("the loader was closed while a loop was still reading from it", cure="Begin a new loop.")


def submitted_after_closing() -> LoaderClosed:
    """Return the error for a work that comes after closing."""
    return LoaderClosed("a work was submitted to a closed executor", cure="Make a new executor.")


def made_before_the_fork() -> LoaderClosed:
    """Return the error for a forked child that uses its parent's loop."""
    return LoaderClosed(
        "this loop was begun before the process forked, and its workers belong to the parent process",
        expected="a loop that was begun in this process",
        cure="begin a new loop in the child process",
    )


def timed_out(timeout: float, workers: str) -> WorkerTimeout:
    """Return the error for whoever waited too long for a batch; ``workers`` says what the workers are doing.

    >>> print(timed_out(2, "worker 0: at sample 3"))
    DataLoader timed out after 2 seconds; increase timeout, or fix what is slow. What the workers are doing:
    worker 0: at sample 3
    """
    cure = "increase timeout, or fix what is slow"
    # torch's words to begin with: people search for them, and test suites match them.
    what = f"DataLoader timed out after {timeout:g} seconds; {cure}. What the workers are doing:\n{workers}"
    return WorkerTimeout(what, workers, found=timeout, cure=cure)


def warn_of_wait(workers: str) -> None:
    """Warn that no batch came within `STUCK` seconds; ``workers`` says what the workers are doing."""
    said = f"no batch came within {STUCK:g} s. What the workers are doing:\n{workers}"
    warnings.warn(said, RuntimeWarning, stacklevel=user_line())


class ForkGuard:
    """Tells the process that made something from its forked children, which hold a copy that must not be used.

    >>> guard = ForkGuard()
    >>> guard.in_child
    False
    >>> guard.check()
    """

    __slots__ = ("_forks", "_process")

    _count = 0
    """How many forks lie between this process and the first."""

    def __init__(self) -> None:
        self._forks = ForkGuard._count
        self._process = os.getpid()

    @property
    def in_child(self) -> bool:
        """Whether this process was forked since: also in the middle of the fork, where the collector may end things."""
        return self._forks != ForkGuard._count or self._process != os.getpid()

    def check(self, error: Callable[[], Exception] = made_before_the_fork) -> None:
        """Raise `LoaderClosed`, or another error, in a forked child."""
        if self._forks != ForkGuard._count:
            raise error()

    @classmethod
    def _forked(cls) -> None:
        cls._count += 1


os.register_at_fork(after_in_child=ForkGuard._forked)


class Pausable(Protocol):
    """A thread of ours that can stop for the moment of a fork, and go on after it."""

    def pause(self) -> None:
        """End the thread; what it has stays."""
        ...

    def resume(self) -> None:
        """Start a thread in its place."""
        ...


PAUSABLE: list[Pausable] = []
"""Those that are at work in this process."""


@contextmanager
def paused() -> Iterator[None]:
    """Stop threads of ours for a block that forks: Python warns of a fork beside threads, whatever these do.

    >>> with paused():
    ...     pass
    """
    found = list(PAUSABLE)
    for each in found:
        each.pause()
    try:
        yield
    finally:
        for each in found:
            each.resume()


def join(threads: Iterable[tuple[threading.Thread, Callable[[], str]]], patience: float | None = None) -> list[str]:
    """Wait for threads to end, `PATIENCE` seconds in all; return a warning for each that does not.

    Each thread comes with a function that says what it is doing.
    """
    patience = PATIENCE if patience is None else patience
    deadline = monotonic() + patience
    late = []
    for thread, doing in threads:
        # The last reference may be dropped by one of the threads itself, which cannot wait for its own end.
        if thread is threading.current_thread():
            continue
        if thread.is_alive():
            thread.join(max(0.0, deadline - monotonic()))
        if thread.is_alive():
            late.append(still_running(thread.name, doing(), patience))
        else:
            threading._dangling.discard(thread)  # type: ignore[attr-defined]  # a WeakSet: see context/dropped.py
    return late


def still_running(name: str, doing: str, patience: float) -> str:
    """Return the warning for a thread that closing could not wait for."""
    return (
        f"{name} did not end within {patience:g} s of closing: it was still {doing}. It keeps running in the "
        "background, and ends with that or with the process"
    )


def warn(late: Iterable[str]) -> None:
    """Give warnings; the last thing to do, because each may be an error."""
    for each in late:
        warnings.warn(each, RuntimeWarning, stacklevel=user_line())
