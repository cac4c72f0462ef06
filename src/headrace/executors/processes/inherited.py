"""What multiprocessing hands down to a process as it starts: locks, counters, queues, pipes, tensors in shared memory.

Such things pickle only for a process that is being started, which gets their descriptors with it. We pickle once, for
all workers, before any is started. So a stand-in for the process collects the descriptors, each worker gets them with
the rest, and what is unpickled there finds them by their number.
"""

from __future__ import annotations

import io
import os
from contextvars import ContextVar
from multiprocessing import context, reduction
from typing import TYPE_CHECKING, Any

from headrace.interop import torch_state
from headrace.transport import out_of_band as pickles

if TYPE_CHECKING:
    import pickle
    from collections.abc import Callable, Sequence

handed: ContextVar[Sequence[int]] = ContextVar("headrace_handed")
"""The descriptors that came with what is being unpickled."""


class _Numbered:
    """Represents a descriptor in a pickle; the name of its method is multiprocessing's."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = number

    def detach(self) -> int:
        return handed.get()[self._number]


class Inherited:
    """Collects the descriptors of what is pickled, in the role of multiprocessing's ``Popen``."""

    DupFd = _Numbered

    def __init__(self) -> None:
        self.fds: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        """Keep a descriptor, and return its number."""
        self.fds.append(os.dup(fd))
        return len(self.fds) - 1

    def close(self) -> None:
        """Close those that were kept, once."""
        while self.fds:
            os.close(self.fds.pop())

    def dumps(self, thing: Any, apart: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
        """Pickle something by value (protocol 5), lambdas and what ``__main__`` defines among it.

        ``apart`` is offered each buffer. Raises whatever the parts of the thing raise.
        """
        import cloudpickle

        class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
            # A plain dictionary, for it is asked about every object. What both know, cloudpickle knows better.
            dispatch_table = {**_multiprocessings(), **cloudpickle.Pickler.dispatch_table, **_tensors()}

        file, before = io.BytesIO(), context.get_spawning_popen()
        context.set_spawning_popen(self)  # type: ignore[arg-type]  # in its role
        try:
            Pickler(file, protocol=5, buffer_callback=apart).dump(thing)
        finally:
            context.set_spawning_popen(before)
        return file.getvalue()


def _multiprocessings() -> dict[type, Any]:
    known = reduction.ForkingPickler(io.BytesIO()).dispatch_table
    return {kind: how for kind, how in known.items() if not how.__module__.startswith("torch.")}


def _tensors() -> dict[type, Any]:
    """Return how tensors are pickled: by torch's way for processes only where they lie in shared memory already.

    It would move all others there, and of shared memory there may be little.
    """
    torch = torch_state.loaded()
    known = reduction.ForkingPickler(io.BytesIO()).dispatch_table
    if torch is None or torch.UntypedStorage not in known:  # torch.multiprocessing adds them
        return {**pickles.reducers()}
    typed = torch.storage.TypedStorage
    return {
        **pickles.reducers(),
        torch.Tensor: _either(known[torch.Tensor], pickles.reducers()[torch.Tensor]),
        typed: _either(known[typed], lambda storage: storage.__reduce_ex__(5)),
        torch.UntypedStorage: known[torch.UntypedStorage],
    }


def _either(shared: Any, plain: Any) -> Any:
    return lambda thing: shared(thing) if _is_shared(thing) else plain(thing)


def _is_shared(thing: Any) -> bool:
    try:
        # A typed storage, which tensors pickle through, warns of itself where it is asked by its public method.
        return bool(getattr(thing, "_is_shared", thing.is_shared)())
    except (NotImplementedError, RuntimeError):  # sparse tensors, which have no one storage
        return False
