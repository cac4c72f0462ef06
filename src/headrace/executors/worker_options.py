"""What a loader asks of its workers, whatever they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.context.memory import Leftover


def groups(threads: int, together: int) -> int:
    """Return how many batches so many threads make at once, if each batch is made by ``together`` of them.

    >>> groups(8, 1), groups(8, 3), groups(2, 4)
    (8, 3, 1)
    """
    return -(-threads // together)


@dataclass(frozen=True, slots=True)
class Options:
    """What a loader asks of an executor.

    >>> Options(workers=2).prefetch
    2
    """

    workers: int
    """How many workers there are to be; 0: none beside the loop."""
    prefetch: int = 2
    """How many batches each worker runs ahead of the loop."""
    threads: int = 1
    """How many threads each worker process has."""
    together: int = 1
    """How many threads make the samples of one batch together."""
    context: Any = None
    """The multiprocessing context that worker processes start by; None: one of ``start_method``."""
    start_method: str | None = None
    """How worker processes start where there is no context; None: as the platform does."""
    init: Callable[[int], Any] | None = None
    """Called in each worker process with its number, before it makes anything."""
    seed: int = 0
    """What `get_worker_info` derives the workers' seeds from."""
    restarts: int | None = None
    """How many workers may be replaced in all; None: any number."""
    in_turns: bool = True
    """Whether batches are taken in order, so that each worker may make every n-th."""
    seeds_globals: bool = False
    """Whether the global generators are seeded for each batch, where no other thread draws from them."""
    workers_by: Any = "inline"
    """The name or the factory of the executor that an executor around another one is to use."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What batches are a function of, in names and plain values: dataset, order, seed."""
    rank: int = 0
    """The rank whose batches these are, where several share the workers."""
    leftover: Leftover | None = None
    """The memory of batches that the loader's last loop left; None: the executor begins with none."""
