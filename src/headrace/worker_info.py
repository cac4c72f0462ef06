"""Who am I: what a dataset may ask when it is read in a worker process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker process, as its dataset sees it; torch's fields, under torch's names."""

    id: int
    """0 up to ``num_workers - 1``."""
    num_workers: int
    seed: int
    """The loop's base seed plus ``id``."""
    dataset: Any
    """This worker's own copy."""


# One for the process, whatever thread asks: it is written once, by the worker itself, before any user code runs.
_current: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """Return which worker process this is; None outside one.

    >>> import headrace
    >>> headrace.get_worker_info() is None
    True
    """
    return _current


def set_current(info: WorkerInfo) -> None:
    """Say which worker process this is; for the worker itself."""
    global _current  # noqa: PLW0603  see above
    _current = info
