"""Where the time goes, stage by stage, counted by whoever does the work.

A stage is named where it happens (``with timed("decode"):``) and counted for the batch that is being made. Outside a
loader the same line costs a fraction of a microsecond and counts nothing.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from headrace.context.current import Context, current, put, setting

if TYPE_CHECKING:
    from types import TracebackType

Seconds = dict[str, float]
"""Seconds by stage: ``read``, ``decode``, ``transform``, ``collate``, and any that a dataset names itself."""


MOST_SPANS = 2000
"""How many blocks of a batch are noted one by one; all are counted."""


class Spans(Seconds):
    """Seconds by stage, and when each block began and ended: of a batch that is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.spans: list[tuple[str, float, float]] = []

    def note(self, stage: str, began: float, ended: float) -> None:
        """Note a block of a stage."""
        if len(self.spans) < MOST_SPANS:
            self.spans.append((stage, began, ended))


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
        seconds = current().seconds
        if seconds is not None:
            now = perf_counter()
            seconds[self._stage] = seconds.get(self._stage, 0.0) + now - self._start
            if isinstance(seconds, Spans):
                seconds.note(self._stage, self._start, now)


class counting(setting):  # noqa: N801  a context manager, named for how it reads
    """Collect the seconds that `timed` blocks measure in this thread, in a new dictionary or one that is given."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: Seconds | None = None) -> None:
        self.seconds: Seconds = {} if seconds is None else seconds

    def __enter__(self) -> Seconds:
        now = current()
        self._token = put(Context(now.here, self.seconds, now.recycler, now.share, now.worker, now.generator))
        return self.seconds


def add(stage: str, seconds: float) -> None:
    """Count seconds that were measured elsewhere."""
    total = current().seconds
    if total is not None:
        total[stage] = max(0.0, total.get(stage, 0.0) + seconds)
