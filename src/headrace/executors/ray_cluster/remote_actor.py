"""An actor on a cluster as the loader sees it: its works, and how it died."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headrace.executors.processes.deaths import Death

if TYPE_CHECKING:
    from headrace.executors.ray_cluster.remote_worker import Opened
    from headrace.plan.work import Work


@dataclass(eq=False, slots=True)
class RemoteActor:
    """One actor, as the loader sees it."""

    number: int
    handle: Any
    threads: int
    place: int
    """Its place in the order in which the executor turns to actors that have as few works."""
    opened: Opened | None = None
    """None before it has read its sample."""
    apart: bool = False
    """Whether this rank started it, beside the actors of a pool, for batches that may kill."""
    counted: int = 0
    """How many of its works the executor counts as in flight."""
    load: int | None = None
    """Under which load the executor lists it among those with room; None where it has none."""
    waiting: deque[Work] = field(default_factory=deque)
    """Works that only this one can make: it has the copy of the stream."""
    in_flight: dict[Any, Work] = field(default_factory=dict)
    """By Ray's reference to the answer, in the order in which it makes them."""

    def __str__(self) -> str:
        if self.opened is None:
            return f"Ray worker {self.number}"
        return f"Ray worker {self.number} (pid {self.opened.pid} on {self.opened.host})"

    def making(self) -> list[Work]:
        """Return the works that it is making."""
        return list(self.in_flight.values())[: self.threads]

    def doing(self) -> str:
        """Say in words what it is, or was, working on."""
        if self.opened is None:
            return "starting, or waiting for a node with room"
        return " and ".join(_named(work) for work in self.making()) or "idle"


@dataclass(slots=True)
class ActorDeath(Death):
    """An actor that ended by itself."""

    name: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} died {f'at {self.at}' if self.ready else 'before its first sample'}: {self.reason}"


def reason(error: Exception) -> str:
    r"""Return the part of Ray's message that says what happened.

    >>> reason(ValueError("The actor died.\n class_name: A\nThe actor died because its node has died. Node Id: 1"))
    'The actor died because its node has died. Node Id: 1'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    because = ("The actor is dead because", "The actor died because")
    said = next((line for line in lines if line.startswith(because)), lines[0] if lines else "")
    for rest in ("Some common causes", "There are some potential root causes", "The task may or may not"):
        said = said.partition(rest)[0]
    return said.strip().rstrip(".") or type(error).__name__


def _named(work: Work) -> str:
    """Say which samples a work is of: on another machine nobody sees which of them is being read."""
    ends = dict.fromkeys(work.name(row) for row in (0, work.rows - 1)) if work.rows else {}
    return " ".join([" to ".join(ends), f"of {work.title}"]).strip()
