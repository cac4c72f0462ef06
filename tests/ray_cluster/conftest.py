"""A Ray cluster of two nodes for all tests here; what each must give back is its actors and its objects."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

QUIET = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
STORE = 80 << 20
"""The smallest object store that Ray takes."""
NODE = {"num_cpus": 1, "object_store_memory": STORE}
HEAD = {
    **NODE,
    # The death of a node is known within 2 s instead of 30.
    "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 4},
}
UNCLOSED = "Exception ignored in. (<_io.FileIO name=./dev/null|<function Popen.__del__|<socket.socket)"
"""What Ray leaves open where it starts a node, as Python says it."""
SETTLE_SECONDS = 60.0
LOOKS = 0.05
"""Seconds between two looks at what Ray gives no notice of."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let Ray's own warnings be: they are not ours to fix."""
    for item in items:
        if "ray_cluster" in item.nodeid:
            item.add_marker(pytest.mark.filterwarnings("ignore:::ray"))
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{UNCLOSED}:pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(scope="session", name="cluster")
def two_nodes() -> Iterator[Any]:
    """Start a cluster, and connect to it."""
    ray = pytest.importorskip("ray", reason="Ray is not installed, or has no wheel for this Python")
    from ray.cluster_utils import Cluster

    os.environ.update(QUIET)
    cluster = Cluster(initialize_head=True, head_node_args=HEAD)
    cluster.add_node(**NODE)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def stored() -> float:
    """Return how many bytes the object stores hold."""
    import ray

    return float(
        ray.cluster_resources()["object_store_memory"] - ray.available_resources().get("object_store_memory", 0)
    )


def left(beside: float = 0) -> list[str]:
    """Say which of our actors live, and whether the object store holds more than so many bytes."""
    from ray._private import state

    ours = [one for one in state.actors().values() if one["ActorClassName"] == "RemoteWorker"]
    actors = [f"actor {one['ActorID']} ({one['State']})" for one in ours if one["State"] != "DEAD"]
    held = stored()
    return actors + ([f"{held:.0f} bytes in the object store"] if held > beside else [])


def until(holds: Callable[[], bool], seconds: float = SETTLE_SECONDS) -> bool:
    """Look at something that Ray gives no notice of until it holds; return whether it does in the end."""
    deadline, never = time.monotonic() + seconds, threading.Event()
    while not (found := holds()) and time.monotonic() < deadline:
        never.wait(LOOKS)
    return found


def settled(beside: float = 0) -> list[str]:
    """Wait for the end of what was killed; return what is left after a while."""
    gc.collect()  # what only a cycle still holds is not a leak
    until(lambda: not left(beside))
    return left(beside)


def remove(cluster: Any, node: Any, graceful: bool = True) -> None:
    """Take a node away, and wait until Ray starts no actor on it any more."""
    cluster.remove_node(node, allow_graceful=graceful)
    wait_for_removals(cluster)


def wait_for_removals(cluster: Any) -> None:
    """Wait until Ray knows that all nodes that were removed are dead: until then it starts actors on them."""
    import ray

    there = {node.node_id for node in cluster.list_all_nodes()}
    assert until(lambda: there >= {one["NodeID"] for one in ray.nodes() if one["Alive"]})


@pytest.fixture(autouse=True)
def nothing_leaks(cluster: Any) -> Iterator[None]:
    """Fail a test that leaves an actor or an object behind; Ray's own threads and processes come and go."""
    before = stored()  # where Ray Data keeps blocks
    yield
    wait_for_removals(cluster)
    if found := settled(before):
        pytest.fail(f"left behind: {', '.join(found)}")
