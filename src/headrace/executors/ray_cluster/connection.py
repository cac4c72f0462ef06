"""The way to a Ray cluster: finding it or starting one, how many actors it has room for, which nodes live."""

from __future__ import annotations

import sys
from math import ceil, floor
from typing import TYPE_CHECKING, Any

from headrace.errors import ArgumentError, LoaderClosed, missing
from headrace.interop.machine import cpus

if TYPE_CHECKING:
    from collections.abc import Mapping


def imported() -> Any:
    """Return Ray; raises `MissingDependency` where it is not installed."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise missing("Ray", extra="ray", purpose='backend="ray"') from error
    return ray


def connect(address: str | None, workers: int, cpus_each: float) -> None:
    """Connect this process to a cluster, unless it is connected; start one here if there is none and none is named."""
    ray = imported()
    if ray.is_initialized():
        return
    try:
        ray.init(address="auto" if address is None else address, log_to_driver=True)
    except ConnectionError as error:
        if address is not None:
            raise ArgumentError(
                f"no Ray cluster answers at address={address!r}: {error}",
                found=address,
                expected="the address of a cluster that runs",
                cure="start one (ray start --head), or leave address out to start one in this machine",
            ) from error
        count = max(cpus(), ceil(workers * cpus_each))
        ray.init(address="local", num_cpus=count, include_dashboard=False)
        sys.stderr.write(f"headrace: no Ray cluster was found; a local one with {count} CPUs was started\n")


class Connection:
    """This process's connection to its cluster, as it is now: after ``ray.shutdown`` it is lost for good.

    Whoever used Ray then would start another cluster without knowing.
    """

    __slots__ = ("_worker",)

    def __init__(self) -> None:
        self._worker = imported().get_runtime_context().get_worker_id()

    @property
    def lost(self) -> bool:
        """Whether this process has no connection any more, or another one."""
        ray = imported()
        return not ray.is_initialized() or ray.get_runtime_context().get_worker_id() != self._worker

    def error(self) -> LoaderClosed:
        """Return the error for whoever still waits for a batch."""
        return LoaderClosed(
            "the connection to the Ray cluster was closed (ray.shutdown) while a loop was still reading from it",
            expected="a connection that stays until the loop ends",
            cure="close the loader before ray.shutdown(), or begin a new loop",
        )


def room(needs: Mapping[str, float], most: int) -> int:
    """Return how many actors the cluster has room for now, ``most`` at most."""
    return min(most, _times(imported().available_resources(), needs, most))


def size(needs: Mapping[str, float], most: int) -> tuple[int, int]:
    """Return how many nodes the cluster has, and how many actors fit on them if nothing else runs, ``most`` at most."""
    alive = [each["Resources"] for each in imported().nodes() if each["Alive"]]
    return len(alive), min(most, sum(_times(each, needs, most) for each in alive))


def is_alive(node: str) -> bool:
    """Return whether a node, by its id, is part of the cluster."""
    return any(each["NodeID"] == node and each["Alive"] for each in imported().nodes())


def _times(has: Mapping[str, float], needs: Mapping[str, float], most: int) -> int:
    return min([most, *(floor(has.get(name, 0) / each + 1e-9) for name, each in needs.items() if each > 0)])
