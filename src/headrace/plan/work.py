"""The words that cross every boundary: what to make, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.context.seeds import Key
    from headrace.context.timing import Seconds


@dataclass(frozen=True, slots=True)
class Work:
    """One batch to make. Nothing in it depends on who makes it.

    ``seed`` (spread to a key) and ``epoch`` choose the random numbers, ``start`` is the position of its first sample in
    the epoch's order, ``keys`` are what the dataset is asked for, ``spares`` what may stand in for bad samples.
    """

    seed: Key
    epoch: int
    step: int
    start: int
    keys: Sequence[Any]
    spares: Sequence[Any] = ()
    replica: StreamReplica | None = None
    """Of an iterable dataset, which has no keys: what to read instead. With keys: samples that were read from there."""

    @property
    def rows(self) -> int:
        """How many samples it is to have, at the most."""
        return len(self.keys) if self.replica is None else self.replica.size

    def name(self, row: int) -> str:
        """Say which sample a row of the batch is.

        >>> Work((0, 0), epoch=0, step=1, start=2, keys=["a", "b"]).name(1)
        "sample 'b'"
        """
        return (
            f"sample {self.keys[row]!r}" if self.replica is None else f"sample {self.replica.start + row} of the stream"
        )


@dataclass(frozen=True, slots=True)
class StreamReplica:
    """A stretch of a stream: one of ``count`` copies of an iterable dataset, from its ``start``-th sample on."""

    number: int
    count: int
    start: int
    size: int
    state: Any = None
    """What the stream said of itself when it stood here, if it did: it need not be read again up to here."""


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that could not be made and was passed over."""

    index: Any
    """What the dataset was asked for."""
    where: str | None
    """Where it comes from (a path), if the dataset can tell."""
    error: str
    """The type and the message of the error."""


@dataclass(frozen=True, slots=True)
class Done:
    """The batch of a step; or, where bad samples are skipped, the good samples that it is to be made of."""

    step: int
    batch: Any
    bad: tuple[BadSample, ...] = ()
    seconds: Seconds = field(default_factory=dict)
    stream: tuple[int, Any] | None = None
    """A replica, and where its stream says that it stands after this batch, if it says so."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What stands in the place of a batch: the error to be raised at its step."""

    step: int
    error: BaseException
    place: str = ""
    """Where it happened, in words: which sample, which file, made by whom."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What stands in the place of a batch where the stream had nothing left for it."""

    step: int


Outcome = Done | Failed | Ended
"""Every submitted work gets exactly one."""
