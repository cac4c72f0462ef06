"""A function over many items on threads, its results in order, with few of them waiting at a time."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")


def in_order(function: Callable[[T], R], items: Iterable[T], threads: int, *, finish: bool) -> Iterator[R]:
    """Give the results in the order of the items; at most four items a thread are under way or done and not taken.

    ``finish``: whether to wait, where the results are left before their end, for the items that are being worked on;
    one that is stuck (in a read from a drive that is gone) would hold everything up.

    >>> list(in_order(abs, range(-3, 3), threads=2, finish=True))
    [3, 2, 1, 0, 1, 2]
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix="headrace-in-order")
    futures: deque[Future[R]] = deque()
    try:
        for item in items:
            futures.append(pool.submit(function, item))
            if len(futures) >= 4 * threads:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        pool.shutdown(wait=finish, cancel_futures=True)


def usable_cpus() -> int:
    """Return how many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
