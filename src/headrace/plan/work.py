"""The values that cross every boundary: a batch to make, and its outcome.

Nobody changes one after it is made. Those made for every batch are not declared frozen: it takes five times as long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.context.seeds import Key
    from headrace.context.timing import Seconds


@dataclass(slots=True)
class Work:
    """One batch to make. Nothing in it depends on who makes it.

    ``seed`` (spread to a key) and ``epoch`` choose the random numbers. ``start`` is the position of the first sample in
    the epoch's order. The dataset is asked for ``keys``; samples of ``spares`` may replace bad ones.
    """

    seed: Key
    epoch: int
    step: int
    start: int
    keys: Sequence[Any]
    spares: Sequence[Any] = ()
    replica: StreamReplica | None = None
    """The part of a stream to read. If there are keys too, they are samples that were already read from there."""
    dataset_copy: DatasetCopy | None = None
    """Of a dataset with an index that keeps a state of its own: whose turn it is."""
    noted: int = 0
    """What is noted of its making, which changes no batch: a sum of `WHEN` and others."""

    @property
    def rows(self) -> int:
        """The largest number of samples in the batch."""
        return len(self.keys) if self.replica is None else self.replica.size

    @property
    def title(self) -> str:
        """Say which batch it is."""
        return f"batch {self.step}"

    def place(self, row: int) -> str:
        """Name the sample of a row, and its batch; the batch alone for a row that it does not have.

        >>> work = Work((0, 0), epoch=0, step=1, start=2, keys=["a", "b"])
        >>> work.place(1), work.place(-1)
        ("sample 'b' of batch 1", 'batch 1')
        """
        return f"{self.name(row)} of {self.title}" if 0 <= row < self.rows else self.title

    def name(self, row: int) -> str:
        """Say which sample a row of the batch is.

        >>> Work((0, 0), epoch=0, step=1, start=2, keys=["a", "b"]).name(1)
        "sample 'b'"
        """
        return (
            f"sample {self.keys[row]!r}" if self.replica is None else f"sample {self.replica.start + row} of the stream"
        )


@dataclass(slots=True)
class StreamReplica:
    """A part of one of ``count`` copies of an iterable dataset: ``size`` samples from the ``start``-th on."""

    number: int
    count: int
    start: int
    size: int
    state: Any = None
    """The stream's own state at this point, if it has one: then nothing before it is read again."""


@dataclass(frozen=True, slots=True)
class DatasetCopy:
    """One of the copies of a dataset that take turns with the batches: each worker process has its own."""

    number: int
    state: tuple[Any, ...] | None = None
    """What the copy kept of itself before this batch, where it is to be restored."""


@dataclass(frozen=True, slots=True)
class BadSample:
    """A sample that could not be made and was skipped."""

    index: Any
    """The key that the dataset was asked for."""
    where: str | None
    """Where it comes from (a path), if the dataset knows."""
    error: str
    """The error's type and message."""


@dataclass(frozen=True, slots=True)
class MadeOn:
    """Where a batch was made, if on another machine, and what it took there."""

    node: str
    """The machine's name."""
    node_id: str
    """The cluster's name for it: machines may share a name."""
    cpu_seconds: float
    nbytes: int
    """How much came over the network, or would have."""


WHEN, STAGES, QUEUE, GIL, SLOWEST = 1, 2, 4, 8, 16
"""When a batch was made, and by whom; each stage of each sample; how long the thread waited for a CPU, for the GIL;
which sample took longest."""


class Making(NamedTuple):
    """When a batch was made, and by which thread.

    Times are seconds of ``time.perf_counter``, which on Linux and macOS all processes of a machine share.
    """

    began: float
    ended: float
    cpu: float
    """Seconds that the thread ran on a CPU meanwhile."""
    pid: int
    thread: int
    """The operating system's number for it; 0 for the native extension's threads, which make a batch together."""
    name: str = ""
    """The thread's name, and the times of its stages: of a traced work."""
    spans: Sequence[tuple[str, float, float]] = ()
    queued: float = -1.0
    """Seconds that the thread could have run and had no CPU; negative where that is not known."""
    gil_wait: float = -1.0
    """Seconds until the thread had the GIL back that it gave up before the batch; negative where it was not tried."""
    slowest: tuple[str, float] | None = None
    """The sample that took longest, and its seconds, where samples are made one by one."""


class Carried(NamedTuple):
    """When a batch from another process was packed there, and opened here."""

    packed: float
    """The end of packing, which begins when the batch is made."""
    opening: float
    opened: float


@dataclass(slots=True)
class Done:
    """The batch of a step; if bad samples are skipped, its good samples instead."""

    step: int
    batch: Any
    bad: tuple[BadSample, ...] = ()
    seconds: Seconds = field(default_factory=dict)
    stream: tuple[int, Any] | None = None
    """A replica number and its stream's own state after this batch, if it has one."""
    tokens: tuple[int, int] | None = None
    """The number of tokens, and of positions of padding, where the batch has them."""
    made_on: MadeOn | None = None
    """None for this machine."""
    making: Making | None = None
    carried: Carried | None = None
    """None where nothing had to be carried."""
    taken: bool = False
    """Whether another process of this machine made it (`headrace.share`)."""


@dataclass(frozen=True, slots=True)
class Failed:
    """An error instead of a batch; the loop raises it at this step."""

    step: int
    error: BaseException
    place: str = ""
    """Where it happened, in words: the sample, the file, the worker."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a stream: no sample is left for this step."""

    step: int
    stream: tuple[int, Any] | None = None
    """A replica, and what its dataset keeps of itself after the end, if it does."""


Outcome = Done | Failed | Ended
"""Every submitted work has exactly one outcome."""
