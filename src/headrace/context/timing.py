"""Where the time goes, stage by stage, counted by whoever does the work.

A stage is named where it happens (``with timed("decode"):``) and counted into the ledger of the batch being made,
if one is: outside a loader the same line costs a fraction of a microsecond and counts nothing.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

Seconds = dict[str, float]
"""Seconds by stage: ``read``, ``decode``, ``transform``, ``collate``, and any that a dataset names itself."""

_ledger: ContextVar[Seconds | None] = ContextVar("headrace_ledger", default=None)


class timed:  # noqa: N801  reads as a verb where it is used, like contextlib.suppress
    """Count the seconds of a block under the name of a stage.

    >>> with counting() as seconds:
    ...     with timed("read"):
    ...         data = bytes(10)
    >>> list(seconds)
    ['read']
    """

    __slots__ = ("_stage", "_start")

    def __init__(self, stage: str) -> None:
        self._stage = stage

    def __enter__(self) -> None:
        self._start = perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ledger = _ledger.get()
        if ledger is not None:
            ledger[self._stage] = ledger.get(self._stage, 0.0) + perf_counter() - self._start


class counting:  # noqa: N801  a context manager, named for how it reads
    """Open a ledger for this thread, or go on with one: what `timed` blocks inside measure is added to it."""

    __slots__ = ("_token", "seconds")

    def __init__(self, seconds: Seconds | None = None) -> None:
        self.seconds: Seconds = {} if seconds is None else seconds

    def __enter__(self) -> Seconds:
        self._token = _ledger.set(self.seconds)
        return self.seconds

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _ledger.reset(self._token)


def leave() -> None:
    """Count nothing in this context: a ledger is written by one thread."""
    _ledger.set(None)


class timed_rest(timed):  # noqa: N801  as `timed`
    """Count the seconds of a block under the name of a stage, but for what stages inside it have counted themselves.

    >>> with counting() as seconds:
    ...     with timed_rest("read"):
    ...         add("decode", 0.5)
    >>> list(seconds)
    ['decode', 'read']
    """

    __slots__ = ("_inside",)

    def __enter__(self) -> None:
        self._inside = _counted()
        super().__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        inside = _counted() - self._inside
        super().__exit__(kind, error, trace)
        # Stages that several threads count together may take longer than the block did.
        add(self._stage, -inside)


def add(stage: str, seconds: float) -> None:
    """Count seconds that were measured elsewhere."""
    ledger = _ledger.get()
    if ledger is not None:
        ledger[stage] = max(0.0, ledger.get(stage, 0.0) + seconds)


def _counted() -> float:
    return sum((_ledger.get() or {}).values())
