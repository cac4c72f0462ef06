"""Who am I: what a dataset may ask when it is read in a worker process."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.context.current import Context, current, put, setting
from headrace.interop import torch_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


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
    worker: WorkerInfo | None = current().worker
    return worker or _current


def set_current(info: WorkerInfo) -> None:
    """Say which worker process this is; for the worker itself."""
    global _current  # noqa: PLW0603  see above
    _current = info
    tell_torch()


def outside() -> bool:
    """Say whether this process is no worker."""
    return _current is None


def serving(number: int, count: int, dataset: Any) -> AbstractContextManager[None]:
    """For the length of a block, be worker ``number`` of ``count``: for reading a copy of a stream in another's stead.

    A run may resume with another number of workers; a stream shards itself by the number that it began with.
    """
    same = count == 1 if _current is None else (_current.id, _current.num_workers) == (number, count)
    return _itself if same else _serving(number, count, dataset)


def standing_in(dataset: Any) -> AbstractContextManager[None]:
    """For the length of a block, be the only worker, in the loader's own process.

    >>> with standing_in([1, 2]):
    ...     get_worker_info().num_workers
    1
    """
    return _serving(0, 1, dataset)


_itself = nullcontext()


@contextmanager
def _serving(number: int, count: int, dataset: Any) -> Iterator[None]:
    theirs = torch_state.worker_module()
    told = getattr(theirs, "_worker_info", None)
    info = WorkerInfo(number, count, 0 if _current is None else _current.seed, dataset)
    try:
        if theirs is not None:
            theirs._worker_info = theirs.WorkerInfo(id=number, num_workers=count, seed=info.seed, dataset=dataset)
        with _Serving(info):
            yield
    finally:
        if theirs is not None:
            theirs._worker_info = told


class _Serving(setting):
    __slots__ = ("_info",)

    def __init__(self, info: WorkerInfo) -> None:
        self._info = info

    def __enter__(self) -> None:
        now = current()
        self._token = put(Context(now.here, now.seconds, now.recycler, now.share, self._info, now.generator))


def tell_torch() -> None:
    """Let ``torch.utils.data.get_worker_info`` answer too, once torch is loaded: other people's datasets ask it.

    Where they get no answer, every worker reads every shard, and each sample comes once for each of them, in silence.
    torch has no public way to say it; ``_worker_info`` of its worker module is what its own workers set.
    """
    global _torch_knows  # noqa: PLW0603  as above
    theirs = torch_state.worker_module()
    if _torch_knows or _current is None or theirs is None:
        return
    theirs._worker_info = theirs.WorkerInfo(
        id=_current.id, num_workers=_current.num_workers, seed=_current.seed, dataset=_current.dataset
    )
    _torch_knows = True
