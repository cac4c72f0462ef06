"""The way to a Ray cluster: finding it or starting one, how many actors it has room for, which nodes live."""

from __future__ import annotations

import sys
from math import ceil, floor
from typing import TYPE_CHECKING, Any

from headrace.errors import ArgumentError, missing
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


def room(needs: Mapping[str, float], most: int) -> int:
    """Return how many actors the cluster has room for now, ``most`` at most."""
    free = imported().available_resources()
    found: int = min([most, *(floor(free.get(name, 0) / each + 1e-9) for name, each in needs.items() if each > 0)])
    return found


def is_alive(node: str) -> bool:
    """Return whether a node, by its id, is part of the cluster."""
    return any(each["NodeID"] == node and each["Alive"] for each in imported().nodes())
