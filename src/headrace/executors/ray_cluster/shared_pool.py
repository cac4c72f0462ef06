"""A pool of actors that several ranks share; imports nothing of Ray until one is made."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, ClassVar

from headrace.checks import integer
from headrace.errors import ArgumentError
from headrace.executors.ray_cluster.cluster_options import RayCluster
from headrace.interop.interrupt import held_back

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.executors.base import Executor
    from headrace.executors.worker_options import Options
    from headrace.make.maker import Maker

RESTARTS = -1
"""Ray restarts the actors of a pool any number of times."""


class RayPool:
    """Actors on a Ray cluster that several ranks share: each rank passes it as ``backend=``.

    >>> from headrace.executors import RayPool
    >>> pool = RayPool(64)  # doctest: +SKIP
    >>> loader = DataLoader(dataset, 64, num_workers=8, rank=0, world_size=8, backend=pool)  # doctest: +SKIP

    Make it in the process that starts the ranks, and hand it to them: it is pickled as the handles of its actors, which
    live until this process closes the pool or ends. Each batch is made once, for the rank that it belongs to, by any
    actor: so nodes that differ in speed slow down all ranks alike, instead of one that the others wait for. That takes
    ``prefetch_factor=4``: with 2, each actor gets as many batches.
    ``num_workers`` of a rank is its share: how many actors it keeps busy. ``threads_per_worker`` of its loader must be
    that of the pool. ``cluster`` holds the options of the actors. What several ranks have
    in common, an actor opens once. Use it as a context manager, or call `close`.

    Batches have the shapes and dtypes that they have without workers. Datasets that are read as a stream, or keep a
    state of their own, need actors of their rank's own: `ArgumentError`. Raises `ArgumentError` for numbers below 1,
    and `MissingDependency` without Ray.
    """

    kind: ClassVar[str] = "ray"

    def __init__(self, workers: int, cluster: RayCluster | None = None, *, threads_per_worker: int = 1) -> None:
        self.workers = integer("workers", workers, least=1)
        self.threads = integer("threads_per_worker", threads_per_worker, least=1)
        self.cluster = RayCluster() if cluster is None else cluster
        with held_back():
            from headrace.executors.ray_cluster.actor_sources import OwnActors

        options = {**self.cluster._actor_options(self.threads), "max_restarts": RESTARTS}
        source = OwnActors(self.workers, self.threads, self.cluster.address, options, self.cluster._needs(self.threads))
        source.connect()
        self._handles: list[Any] = [source.start(number) for number in range(self.workers)]
        self._finish: Any = weakref.finalize(self, _end, source, self._handles)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.cluster, self.threads, list(self._handles))

    def __call__(self, maker: Maker, options: Options) -> Executor:
        """Make the executor of one rank."""
        with held_back():
            from headrace.executors.ray_cluster.actor_sources import SharedActors
            from headrace.executors.ray_cluster.actors import RayActors

        if options.threads != self.threads:
            raise ArgumentError(
                f"threads_per_worker={options.threads} was given with a pool whose actors have {self.threads}",
                found=options.threads,
                expected=f"threads_per_worker={self.threads}",
                cure="give RayPool and DataLoader the same threads_per_worker",
            )
        source = SharedActors(self._handles, self.threads, self.cluster._actor_options(self.threads))
        return RayActors(maker, options, source, copy=self.cluster.copy, probe=self.cluster.probe)

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors; where the pool was received from another process, do nothing."""
        self._finish()


def _end(source: Any, handles: list[Any]) -> None:
    with held_back():
        from headrace.executors.ray_cluster.connection import imported

    if imported().is_initialized():  # otherwise they ended with it, and asking would start another cluster
        for handle in handles:
            source.end(handle, ("", ""))
    handles.clear()


def _received(cluster: RayCluster, threads: int, handles: Sequence[Any]) -> RayPool:
    pool = RayPool.__new__(RayPool)
    pool.workers, pool.threads, pool.cluster = len(handles), threads, cluster
    pool._handles, pool._finish = list(handles), _nothing
    return pool


def _nothing() -> None:
    """End nothing: the actors belong to the process that made the pool."""
