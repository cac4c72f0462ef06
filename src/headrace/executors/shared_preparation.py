"""What a user passes to share batches between processes: a name."""

from __future__ import annotations

import dataclasses
import os
import re
import warnings
from typing import TYPE_CHECKING, Any

from headrace.checks import nbytes, one_of, shown
from headrace.errors import ArgumentError
from headrace.executors import registry
from headrace.executors.base import Reusable
from headrace.executors.sharing_executor import Agreement, ReusableSharingExecutor, SharingExecutor, not_shared
from headrace.interop.user_line import user_line
from headrace.make.publishing_maker import PublishingMaker
from headrace.make.source import SharedStream, Streamed
from headrace.transport.batch_store import BatchStore, room, store_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.executors.base import Executor
    from headrace.executors.worker_options import Options
    from headrace.make.maker import Maker
    from headrace.transport.batch_store import Peer

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")

ROOM = 0.5
"""The part of the free memory for files that batches may take."""


class SharedPreparation:
    """What `share` returns: each batch is made by one of the processes that use its name."""

    def __init__(self, name: str, *, backend: str | Callable[..., Any], memory: int | str) -> None:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            expected = "a name of 1 to 64 letters, digits, '_', '-' and '.', that does not begin with '-' or '.'"
            what = f"name must be {expected}; got {shown(name)}"
            raise ArgumentError(what, found=name, expected=expected, cure='give a short name, such as "sweep-1"')
        if not callable(backend):
            one_of("backend", backend, ("auto", *registry.names()))
        if backend == "ray" or isinstance(backend, SharedPreparation) or getattr(backend, "kind", None) == "ray":
            raise ArgumentError(
                f"backend={shown(backend)} cannot share its batches by name",
                found=backend,
                expected="workers of this machine",
                cure="use headrace.executors.RayPool, whose actors several ranks share",
            )
        self.name, self.backend = name, backend
        self.memory = nbytes("memory", memory)
        self._peer: Peer | None = None
        self._store: BatchStore | None = None
        self._agreement = Agreement()

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (self.name, self.backend, self.memory)

    def __deepcopy__(self, _: Any) -> SharedPreparation:
        return _made(self.name, self.backend, self.memory)

    def __repr__(self) -> str:
        return f"share({self.name!r})"

    def __call__(self, maker: Maker, options: Options) -> Executor:
        """Make the executor of one loop."""
        _check(maker, options)
        inner = dataclasses.replace(options, in_turns=False)
        try:
            store, peer = self._joined(options)
        except OSError as error:
            said = (
                f"batches cannot be shared as {self.name!r} ({error.strerror or error}): this process makes all itself"
            )
            warnings.warn(said, RuntimeWarning, stacklevel=user_line())
            return registry.made(options.workers_by, maker, options)
        workers = registry.made(options.workers_by, PublishingMaker.of(maker, store), inner)
        last = len(maker.source.dataset) - 1
        trial = sorted({0, last // 2, last}) if last >= 0 else []
        kind = ReusableSharingExecutor if isinstance(workers, Reusable) else SharingExecutor
        return kind(workers, store, peer, trial, self._agreement)

    def close(self) -> None:
        """Take no part any longer; it happens by itself when the loader is dropped, or the process ends."""
        peer, self._peer = self._peer, None
        if peer is not None:
            peer.leave()

    def _joined(self, options: Options) -> tuple[BatchStore, Peer]:
        if self._store is None:
            folder = store_folder(self.name)
            self._store = BatchStore(folder, min(self.memory, int(room(folder) * ROOM)))
        if self._peer is not None and self._peer.process != os.getpid():  # this process was forked since
            self._peer, self._agreement = None, Agreement()
        self._peer = self._store.join(options.facts, self._peer)
        return self._store, self._peer


def share(name: str, *, backend: str | Callable[..., Any] = "auto", memory: int | str = "1GiB") -> SharedPreparation:
    """Let the processes of this machine that use one name make each batch once: ``backend=headrace.share("sweep")``.

    >>> import os
    >>> import headrace
    >>> backend = headrace.share(f"sweep-{os.getpid()}")  # a name that no other process has; else "sweep-1" would do
    >>> loader = headrace.DataLoader(range(6), batch_size=4, seed=0, backend=backend)
    >>> [batch.tolist() for batch in loader]
    [[0, 1, 2, 3], [4, 5]]
    >>> backend.close()

    The processes need nothing but the name: runs of a sweep, say, or ranks that want the same batches. They must have
    the same dataset, order and ``seed``. Each delivers each batch once, in order, with the bytes that it would have
    made itself. They may start late, stop early, and run at different speeds: a process makes what it cannot take from
    others. What a killed process was making, another one makes. ``backend`` says what the workers of this process are,
    as in `DataLoader`. ``memory`` is the most that batches take in shared memory (bytes, or text such as "1GiB"), and
    never more than half of what is free there; batches without room are not shared. `Statistics.taken` counts the
    batches that others made.

    Only processes of one user share batches. Raises `ArgumentError` for a name that cannot be that of a file. When a
    loop begins, it is also raised without a ``seed``, for an iterable dataset, and where another process uses the name
    for other batches.
    """
    return SharedPreparation(name, backend=backend, memory=memory)


def _made(name: str, backend: Any, memory: int) -> SharedPreparation:
    return SharedPreparation(name, backend=backend, memory=memory)


def _check(maker: Maker, options: Options) -> None:
    if isinstance(maker.source, Streamed | SharedStream):
        raise not_shared()
    if options.facts.get("seed") is None:
        raise ArgumentError(
            "batches can be shared only with a seed, so that all processes have one order; got seed=None",
            found=None,
            expected="a seed, the same in all processes",
            cure="pass seed=0, or any other integer",
        )
