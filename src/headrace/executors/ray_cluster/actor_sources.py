"""Where the actors of an executor come from: actors of its own, or those of a pool that several ranks share."""

from __future__ import annotations

import contextlib
import random
import warnings
from typing import TYPE_CHECKING, Any, Protocol

from headrace.errors import LoaderClosed
from headrace.executors.ray_cluster import connection
from headrace.executors.ray_cluster.remote_worker import RemoteWorker

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ActorSource(Protocol):
    """Starts and ends actors."""

    count: int
    threads: int
    shared: bool
    """Whether others use them too: then Ray restarts them, and nobody but the pool ends them."""

    def connect(self) -> None:
        """Connect to the cluster; called once, before all others."""
        ...

    def start(self, number: int) -> Any:
        """Return the handle of an actor."""
        ...

    def start_apart(self, node: str) -> Any:
        """Return the handle of an actor that no other rank uses, near a node; None where that is no different."""
        ...

    def check(self, why: str) -> None:
        """Raise if no actor can come after one that died, by Ray's words for its death."""
        ...

    def end(self, handle: Any, key: tuple[str, str]) -> None:
        """Let go of an actor, and of the dataset with this key."""
        ...

    def expected(self) -> int:
        """Return for how many actors a loop waits before it begins."""
        ...

    def places(self, rank: int, most: int) -> Sequence[int]:
        """Return the actors' numbers, in the order in which a rank with so many works in flight turns to them."""
        ...


FOR_GOOD = ("ray.kill", "owner has died")
"""Ray's words for the deaths of actors that it does not restart."""


def said(needs: Mapping[str, float]) -> str:
    """Say what an actor takes from its node.

    >>> said({"CPU": 0.5, "memory": 1e9})
    'CPU: 0.5, memory: 1e+09'
    """
    return ", ".join(f"{name}: {each:g}" for name, each in needs.items())


class OwnActors:
    """Actors that one executor starts and ends."""

    shared = False

    def __init__(
        self, count: int, threads: int, address: str | None, how: Mapping[str, Any], needs: Mapping[str, float]
    ) -> None:
        self.count, self.threads = count, threads
        self._address, self._how, self._needs = address, how, needs

    def connect(self) -> None:
        """Connect to the cluster; warn if it has no room for all actors even when nothing else runs."""
        connection.connect(self._address, self.count, self._needs["CPU"])
        self._kind = connection.imported().remote(RemoteWorker).options(**self._how)
        nodes, fit = connection.size(self._needs, self.count)
        if fit < self.count:
            rest = "all" if fit == 0 else f"{self.count - fit} of them"
            warnings.warn(
                f"the Ray cluster has room for {fit} of {self.count} workers that each take {said(self._needs)}, on "
                f"{nodes} nodes: {rest} wait until a node with room joins. Use fewer workers, or let each take less "
                'with RayCluster(worker_resources={"CPU": 0.5})',
                RuntimeWarning,
                stacklevel=2,
            )

    def start(self, number: int) -> Any:  # noqa: ARG002  all are alike
        """Start an actor."""
        return self._kind.remote()

    def start_apart(self, node: str) -> Any:  # noqa: ARG002  none is shared
        """Return None: no other rank uses any of them."""
        return None

    def check(self, why: str) -> None:
        """Do nothing: another can always be started."""

    def end(self, handle: Any, key: tuple[str, str]) -> None:  # noqa: ARG002  the dataset ends with it
        """Kill an actor."""
        _kill(handle)

    def expected(self) -> int:
        """Return how many actors the cluster has room for now."""
        return connection.room(self._needs, self.count)

    def places(self, rank: int, most: int) -> Sequence[int]:  # noqa: ARG002  nobody else has them
        """Return the numbers as they are."""
        return range(self.count)


class SharedActors:
    """The actors of a pool, for one of the ranks that share it; ``how`` are the options that they were started with."""

    shared = True

    def __init__(self, handles: Sequence[Any], threads: int, how: Mapping[str, Any]) -> None:
        self.count, self.threads = len(handles), threads
        self._handles, self._how = list(handles), how

    def connect(self) -> None:
        """Check that this process is connected: the pool's handles mean nothing elsewhere."""
        if not self._handles or not connection.imported().is_initialized():
            raise _pool_closed()

    def start(self, number: int) -> Any:
        """Return the actor, which Ray restarts by itself."""
        return self._handles[number]

    def start_apart(self, node: str) -> Any:
        """Start an actor of this rank's own, beside those of the pool, which may have taken all of the resources."""
        if self._how["num_gpus"]:
            return None  # without a GPU, user code that needs one would fail
        ray = connection.imported()
        near = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=True)
        taken = {"num_cpus": 0, "scheduling_strategy": near, "max_restarts": 0}
        how = {
            name: value for name, value in self._how.items() if name not in ("memory", "resources", "label_selector")
        }
        return ray.remote(RemoteWorker).options(**{**how, **taken}).remote()

    def check(self, why: str) -> None:
        """Raise `LoaderClosed` if an actor died because the pool was closed, or the process that made it ended."""
        if any(words in why for words in FOR_GOOD):
            raise _pool_closed()

    def end(self, handle: Any, key: tuple[str, str]) -> None:
        """Let it go on for others, after the few works that it has; kill one that is this rank's own.

        The works are not withdrawn: after ``ray.cancel`` of a call that is not sent yet, an actor waits 30 s for that
        call, and then refuses all later ones (Ray 2.60).
        """
        if handle not in self._handles:
            _kill(handle)
            return
        with contextlib.suppress(*_gone(connection.imported())):
            handle.forget.remote(*key)

    def expected(self) -> int:
        """Return 1: others may keep the rest busy."""
        return 1

    def places(self, rank: int, most: int) -> Sequence[int]:
        """Return an order on which all ranks agree, from another place on for each.

        So works spread evenly over actors and nodes, although no rank knows what the others send.
        """
        order = list(range(self.count))
        random.Random(0).shuffle(order)  # noqa: S311  it only has to be the same everywhere
        first = rank * most % self.count
        return order[first:] + order[:first]


def _pool_closed() -> LoaderClosed:
    return LoaderClosed(
        "the pool of actors was closed, or this process is not connected to its Ray cluster",
        expected="an open RayPool, in a process of its cluster",
        cure="keep the pool open while ranks read, and make it after ray.init()",
    )


def _kill(handle: Any) -> None:
    ray = connection.imported()
    with contextlib.suppress(*_gone(ray)):
        ray.kill(handle)


def _gone(ray: Any) -> tuple[type[Exception], ...]:
    """Return what Ray raises where an actor, or the connection, is gone already."""
    return ray.exceptions.RayError, OSError, RuntimeError, ValueError
