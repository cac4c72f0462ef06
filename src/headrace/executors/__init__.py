"""Who makes the batches: the loop itself, threads, the native extension's threads, processes, or a Ray cluster.

`Executor` is the protocol of all of them, and of one of your own: docs/contributing/add-an-executor.md shows one.
"""

from headrace.executors.base import Executor
from headrace.executors.ray_cluster.cluster_options import RayCluster
from headrace.executors.ray_cluster.shared_pool import RayPool
from headrace.executors.registry import register
from headrace.executors.worker_options import Options

__all__ = ["Executor", "Options", "RayCluster", "RayPool", "register"]
