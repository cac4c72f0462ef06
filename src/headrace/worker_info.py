"""Who am I: what a dataset may ask when it is read in a worker process."""

from __future__ import annotations

import sys
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
_torch_knows = False


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
    tell_torch()


def tell_torch() -> None:
    """Let ``torch.utils.data.get_worker_info`` answer too, once torch is loaded: other people's datasets ask it.

    Where they get no answer, every worker reads every shard, and each sample comes once for each of them, in silence.
    torch has no public way to say it; ``_worker_info`` of its worker module is what its own workers set.
    """
    global _torch_knows  # noqa: PLW0603  as above
    theirs: Any = sys.modules.get("torch.utils.data._utils.worker")
    if _torch_knows or _current is None or theirs is None or not hasattr(theirs, "WorkerInfo"):
        return
    theirs._worker_info = theirs.WorkerInfo(
        id=_current.id, num_workers=_current.num_workers, seed=_current.seed, dataset=_current.dataset
    )
    _torch_knows = True
