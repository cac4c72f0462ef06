"""The life of one batch, as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from headrace.plan.work import Carried, Making


class Life(NamedTuple):
    """The life of one batch; times are seconds of ``time.perf_counter``."""

    step: int
    submitted: float
    """When its work was given to the executor."""
    received: float
    """When the executor returned it, to the thread numbered ``receiver``."""
    asked: float
    """When the loop asked for a batch, and got this one: in the thread numbered ``consumer``."""
    delivered: float
    receiver: int
    consumer: int
    seconds: Mapping[str, float]
    making: Making | None
    carried: Carried | None
    node: str
    """The other machine where it was made; empty for this one."""
    clock: float
    """The CPU seconds of the thread that asked, so far."""
