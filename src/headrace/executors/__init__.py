"""Who makes the batches: the loop itself, threads, the native extension's threads, or processes.

`Executor` is the protocol of all of them, and of one of your own: docs/contributing/add-an-executor.md shows one.
"""

from headrace.executors.base import Executor
from headrace.executors.registry import Options, register

__all__ = ["Executor", "Options", "register"]
