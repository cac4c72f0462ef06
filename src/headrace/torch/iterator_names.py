"""What torch's iterators are, and have, for those who treat ours as torch's."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from torch.utils.data.dataloader import _BaseDataLoaderIter

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")

CURE = (
    "headrace's iterators have none of the private parts of torch's. The loader has dataset, sampler, batch_sampler "
    "and collate_fn, its statistics() count batches and samples, and close() ends the workers"
)


def like_torchs(iterator: Iterator[T]) -> Iterator[T]:
    """Let an iterator of ours be one of torch's too, for ``isinstance``, and return it."""
    iterator.__class__ = _with_names(type(iterator))
    return iterator


@functools.cache
def _with_names(kind: type) -> type:
    return type(kind.__name__, (kind, _Names), {"__module__": kind.__module__, "__doc__": kind.__doc__})


class _Names(_BaseDataLoaderIter):
    """The names of torch's iterators; the methods that loop are those of the class before it."""

    @property
    def _workers(self) -> list[Any]:
        # Test suites, profilers and ultralytics look at the worker processes by it.
        loop: Any = self
        workers: list[Any] = loop._dispatcher.executor.processes
        return workers

    def _shutdown_workers(self) -> None:
        close = getattr(self, "close", None)
        if close is not None:
            close()

    @property
    def _absent(self) -> NoReturn:
        raise AttributeError  # for `__getattr__` to say more

    # They would read what torch's constructor sets.
    _next_index = _next_data = _reset = _absent

    if not TYPE_CHECKING:  # a checker would take any name to be an attribute

        def __getattr__(self, name: str) -> Any:
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name.startswith("_") and not name.startswith("__"):
                text += f": {CURE}"
            raise AttributeError(text, name=name, obj=self)
