"""What a loop over a loader has done so far: counted as it goes, told as a frozen snapshot."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._native.items import one_type
from headrace.formatting import count, duration, html_table, percent, rate, table
from headrace.run.report import doing, in_order, stage_rows

if TYPE_CHECKING:
    from headrace.plan.work import BadSample, MadeOn
    from headrace.run.bottleneck import Diagnosis, Measured
    from headrace.run.prefetcher import PrefetchCounts

SHORT_ID = 8
"""Digits of a node's id in tables, where names are not enough."""

MOST_BAD_SAMPLES = 1000
"""How many bad samples are kept by name; all are counted."""


@dataclass(frozen=True, slots=True)
class SourceShare:
    """What a run has read of one dataset of a mixture, counted from the start of the first epoch."""

    samples: int
    share: float
    """Its part of all samples, from 0 to 1."""
    passes: float
    """How often the dataset was read: 1.0 is once."""


@dataclass(frozen=True, slots=True)
class NodeShare:
    """What a machine of a cluster has made for one loop."""

    node: str
    """Its name."""
    node_id: str
    """The cluster's name for it: machines may share a name."""
    batches: int
    cpu_seconds: float
    nbytes: int
    """The size of these batches as they left it."""
    stage_seconds: Mapping[str, float]
    """Seconds that its workers spent, by stage, summed: read, decode, transform, collate, other."""


@dataclass(frozen=True, slots=True)
class RemoteReads:
    """What a loop has read of objects behind URLs, as the thread that fetches ahead has counted it."""

    blocks: int
    """Blocks that the steps so far needed, those fetched ahead included."""
    hits: int
    """Of these, in the cache already."""
    requests: int
    """Sent by this process. Workers send more only for what was not there when they read it."""
    nbytes: int
    """Bytes that these requests brought."""
    stalls: int
    """Batches that were begun before all of their blocks were there."""
    stall_seconds: float
    """How long the workers, or some of them, waited for blocks."""
    requests_at_once: int
    """How many requests of 1 MiB may run at once, a larger one in place of several; it follows what they bring."""
    needed_bytes_per_second: float
    """The bandwidth without stalls: bytes fetched by the seconds in which nothing waited for blocks; 0 if unknown."""

    @property
    def hit_rate(self) -> float:
        """The part of the blocks that was in the cache already, from 0 to 1; 1 before the first block."""
        return self.hits / self.blocks if self.blocks else 1.0

    def __str__(self) -> str:
        """Return it as one sentence.

        >>> print(RemoteReads(200, 150, 20, 50_000_000, 2, 0.25, 16, 5e6))
        remote data: 75 % of 200 blocks were in the cache, 20 requests brought 50.0 MB; 2 batches waited 0.25 s for \
blocks, which 5.0 MB/s would prevent
        """
        stalls = "nothing waited for blocks"
        if self.stalls:
            cure = f", which {self.needed_bytes_per_second / 1e6:,.1f} MB/s would prevent"
            stalls = f"{count(self.stalls, 'batch', 'batches')} waited {self.stall_seconds:.2f} s for blocks"
            stalls += cure if self.needed_bytes_per_second else ""
        return (
            f"remote data: {percent(self.hit_rate)} of {count(self.blocks, 'block')} were in the cache, "
            f"{count(self.requests, 'request')} brought {self.nbytes / 1e6:,.1f} MB; {stalls}"
        )


@dataclass(frozen=True, slots=True)
class Statistics:
    """A snapshot of one loop (the newest) over a loader.

    >>> import headrace
    >>> loader = headrace.DataLoader([1, 2, 3, 4], batch_size=2)
    >>> for batch in loader:
    ...     pass
    >>> statistics = loader.statistics()
    >>> statistics.batches, statistics.samples, statistics.skipped
    (2, 4, 0)
    """

    epoch: int
    """Which epoch the loop reads."""
    workers: int
    """How many threads make batches; 0: the loop's own."""
    batches: int
    """Delivered so far."""
    samples: int
    """Delivered so far; 0 for batches that have no length."""
    nbytes: int
    """Bytes of the arrays delivered so far."""
    seconds: float
    """From the first ``next`` to the last batch; of a single batch, from ``iter``, where it may have been begun."""
    wait_seconds: float
    """How much of that the loop stood waiting for the loader."""
    first_batch_seconds: float | None
    """From ``iter`` to the first batch; None before it."""
    stage_seconds: Mapping[str, float]
    """Seconds that the workers spent, by stage, summed: read, decode, transform, collate, other."""
    tokens: int
    """Tokens delivered so far, where token data is read: `TokenDataset`, `PaddedCollate`, `PackedCollate`."""
    padding: int
    """Positions of padding delivered beside them."""
    skipped: int
    """Bad samples that were left out (``on_error="skip"``)."""
    replaced: int
    """Bad samples in whose place another one was put (``on_error="replace"``)."""
    bad: tuple[BadSample, ...] = ()
    """The bad samples by name, the first 1,000 of them."""
    sources: tuple[SourceShare, ...] = ()
    """With a `MixtureSampler`, what the run has read of each dataset. With batches planned by window (packing, token
    budgets), these are the samples of the windows before the current one."""
    nodes: tuple[NodeShare, ...] = ()
    """On a cluster (``backend="ray"``), what each machine has made."""
    remote: RemoteReads | None = None
    """Of data behind URLs, what was fetched ahead; None for files, and where the order is not known ahead."""
    measured: Measured | None = None
    """What was measured of the newest batches; None while they are too few."""
    taken: int = 0
    """Batches that other processes made (`headrace.share`); all others were made here."""
    tuned: str | None = None
    """What ``num_workers="auto"`` has chosen, as arguments; None while it measures, and for other loaders."""
    hint: str = ""
    """What would make the loop faster; empty where nothing is known."""

    @property
    def samples_per_second(self) -> float:
        """Samples delivered a second of the loop; 0 before the first batch."""
        return self.samples / self.seconds if self.seconds else 0.0

    @property
    def wait_share(self) -> float:
        """The part of the loop's time that it waited for the loader, from 0 to 1; 0 before the first batch."""
        return min(1.0, self.wait_seconds / self.seconds) if self.seconds else 0.0

    @property
    def diagnosis(self) -> Diagnosis | None:
        """What limits the loop, and what would help by how much; None while too few batches were delivered.

        >>> import headrace
        >>> loader = headrace.DataLoader(range(4000), batch_size=2)
        >>> for batch in loader:
        ...     pass
        >>> loader.statistics().diagnosis.bound in ("dataset", "collate", "consumer", "storage")
        True
        """
        return None if self.measured is None else self.measured.diagnosis()

    @property
    def tokens_per_second(self) -> float:
        """Tokens delivered a second of the loop; 0 before the first batch."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def padding_share(self) -> float:
        """The part of all positions that is padding, from 0 to 1."""
        return self.padding / (self.tokens + self.padding) if self.padding else 0.0

    def __str__(self) -> str:
        """Return the tables that ``headrace bench`` prints: the rate, and where the workers' time went."""
        tables = [table(rate_rows([self], items="samples"))]
        if self.stage_seconds:
            tables.append(table(self._stage_rows()))
        if self.nodes:
            tables.append(table(self._node_rows()))
        return "\n\n".join([*tables, *self._remarks()])

    def _repr_html_(self) -> str:
        rates = html_table(rate_rows([self], items="samples"), title=f"epoch {self.epoch}")
        stages = html_table(self._stage_rows(), title="where the workers' time went") if self.stage_seconds else ""
        nodes = html_table(self._node_rows(), title="where batches were made") if self.nodes else ""
        return rates + stages + nodes + "".join(f"<p>{escape(remark)}</p>" for remark in self._remarks())

    def _stage_rows(self) -> list[tuple[str, ...]]:
        return stage_rows(self.stage_seconds, images=self.samples, item="sample")

    def _node_rows(self) -> list[tuple[str, ...]]:
        names = Counter(each.node for each in self.nodes)
        stages = [stage for stage, _ in in_order(self.stage_seconds)]
        heads = ("node", "batches", "CPU seconds", "MB", *(f"{doing(stage)} s" for stage in stages))
        rows = [
            (
                n.node if names[n.node] == 1 else f"{n.node} ({n.node_id[:SHORT_ID]})",
                f"{n.batches:,}",
                f"{n.cpu_seconds:.2f}",
                f"{n.nbytes / 1e6:,.1f}",
                *(f"{n.stage_seconds.get(stage, 0.0):.2f}" for stage in stages),
            )
            for n in self.nodes
        ]
        return [heads, *rows]

    def _remarks(self) -> list[str]:
        bad = [
            f"{count(number, 'bad sample was', 'bad samples were')} {done}"
            for number, done in ((self.skipped, "left out"), (self.replaced, "replaced"))
            if number
        ]
        tokens = f"{count(self.tokens, 'token')}, {percent(self.padding_share, 1)} padding"
        remote = [] if self.remote is None else [str(self.remote)]
        found = self.diagnosis
        limit = [] if found is None else [str(found)]
        taken = f"{count(self.taken, 'batch was', 'batches were')} taken from other processes"
        said = [*bad, *([tokens] if self.tokens else []), *([taken] if self.taken else []), *remote, *limit]
        return [*said, *([self.hint] if self.hint else [])]


def rate_rows(
    runs: Sequence[Statistics], *, items: str = "images", parts: Sequence[float | None] = ()
) -> list[tuple[str, ...]]:
    """Return a row for each run: its rate, its first batch, and how long the loop waited; the heading first.

    ``parts``: how much of each epoch was read, 1.0 for all of it; None where that is not known.
    """
    rows: list[tuple[str, ...]] = [("epoch", items, "seconds", f"{items}/s", "first batch", "waiting")]
    rows += [
        (
            _epoch(run, part),
            f"{run.samples:,}",
            f"{run.seconds:.2f}",
            rate(run.samples, run.seconds, "").removesuffix(" /s"),
            duration(run.first_batch_seconds or 0),
            percent(run.wait_share),
        )
        for run, part in zip(runs, parts or [1.0] * len(runs), strict=True)
    ]
    return rows


def _epoch(run: Statistics, part: float | None) -> str:
    """Return the number of an epoch, as `DataLoader.set_epoch` takes it, and the part of it that was read."""
    if part is None:
        return f"{run.epoch} (part)"
    return f"{run.epoch} ({percent(part)})" if part < 1 else str(run.epoch)


@dataclass(slots=True)
class NodeMeter:
    """The counters behind `NodeShare`."""

    node: str
    batches: int = 0
    cpu_seconds: float = 0.0
    nbytes: int = 0
    stages: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def made(self, seconds: Mapping[str, float], made_on: MadeOn) -> None:
        """Count a batch that the node made."""
        self.batches += 1
        self.cpu_seconds += made_on.cpu_seconds
        self.nbytes += made_on.nbytes
        for stage, spent in seconds.items():
            self.stages[stage] += spent

    def snapshot(self, node_id: str) -> NodeShare:
        """Freeze the counters."""
        return NodeShare(self.node, node_id, self.batches, self.cpu_seconds, self.nbytes, dict(self.stages))


@dataclass(slots=True)
class Meter:
    """The counters behind `Statistics`; written by one loop, read by anyone."""

    epoch: int
    workers: int
    created: float = field(default_factory=perf_counter)
    started: float | None = None
    ended: float = 0.0
    batches: int = 0
    samples: int = 0
    nbytes: int = 0
    waited: float = 0.0
    ahead: bool = False
    """Whether batches are fetched ahead of the loop, by a thread whose waiting is not the loop's."""
    first: float | None = None
    stages: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    tokens: int = 0
    padding: int = 0
    skipped: int = 0
    replaced: int = 0
    bad: list[BadSample] = field(default_factory=list)
    nodes: dict[str, NodeMeter] = field(default_factory=dict)
    """By the node's id."""
    prefetched: PrefetchCounts | None = None
    taken: int = 0

    def made(
        self,
        seconds: Mapping[str, float],
        bad: Sequence[BadSample],
        tokens: tuple[int, int] | None = None,
        made_on: MadeOn | None = None,
        *,
        skip: bool,
    ) -> None:
        """Count what a worker reports with its batch."""
        stages = self.stages
        for stage, spent in seconds.items():
            stages[stage] += spent
        if tokens is not None:
            self.tokens += tokens[0]
            self.padding += tokens[1]
        if made_on is not None:
            if made_on.node_id not in self.nodes:
                self.nodes[made_on.node_id] = NodeMeter(made_on.node)
            self.nodes[made_on.node_id].made(seconds, made_on)
        if bad:
            if skip:
                self.skipped += len(bad)
            else:
                self.replaced += len(bad)
            self.bad.extend(bad[: MOST_BAD_SAMPLES - len(self.bad)])

    def delivered(self, batch: Any, asked: float) -> None:
        """Count a batch on its way to the loop, which asked for it at that time."""
        self.ended = now = perf_counter()
        if self.first is None:
            self.first = now - self.created
        self.batches += 1
        if not self.ahead:
            self.waited += now - asked
        samples, nbytes = measure(batch)
        self.samples += samples
        self.nbytes += nbytes

    def stood(self, seconds: float) -> None:
        """Count how long the loop stood waiting for a batch that was fetched ahead."""
        self.waited += seconds

    def _remote(self) -> RemoteReads | None:
        counts = self.prefetched
        if counts is None:
            return None
        stalled = counts.stall_seconds
        lasted = self.ended - self.created - stalled
        return RemoteReads(
            blocks=counts.blocks,
            hits=counts.hits,
            requests=counts.requests,
            nbytes=counts.nbytes,
            stalls=counts.stalls,
            stall_seconds=stalled,
            requests_at_once=counts.at_once,
            needed_bytes_per_second=counts.nbytes / lasted if lasted > 0 else 0.0,
        )

    def snapshot(self) -> Statistics:
        """Freeze the counters."""
        began = self.created if self.batches == 1 else self.started
        return Statistics(
            epoch=self.epoch,
            workers=self.workers,
            batches=self.batches,
            samples=self.samples,
            nbytes=self.nbytes,
            seconds=max(0.0, self.ended - began) if began is not None else 0.0,
            wait_seconds=self.waited,
            first_batch_seconds=self.first,
            stage_seconds=dict(self.stages),
            tokens=self.tokens,
            padding=self.padding,
            skipped=self.skipped,
            replaced=self.replaced,
            bad=tuple(self.bad),
            nodes=tuple(each.snapshot(node_id) for node_id, each in self.nodes.items()),
            remote=self._remote(),
            taken=self.taken,
        )


_without_rows: set[type] = {int, float, bool, str, bytes, type(None)}
"""Types of what has neither rows nor parts; others that were met too."""
_FEW = 8
"""Parts that are looked at one by one in less time than their types together."""
_COLUMNS = (list, tuple)
_MOST_KINDS = 64
_arrays: set[type] = {np.ndarray}
"""Types of arrays, of other libraries too, that were met: to know them at once."""


def _measured(array: Any) -> tuple[int, int]:
    try:
        shape = array.shape
        return (shape[0] if shape else 0), array.nbytes
    except Exception:  # noqa: BLE001  of a kind that has no one shape: torch's nested tensors
        return 0, 0


def measure(batch: Any) -> tuple[int, int]:
    """Return how many samples a batch holds, by its first array or list, and how many bytes its arrays have.

    >>> measure([np.zeros((4, 2)), {"label": np.zeros(4)}])
    (4, 96)
    """
    kind = type(batch)
    if kind in _without_rows:
        return 0, 0
    if kind in _arrays:
        return _measured(batch)
    if isinstance(batch, _COLUMNS):  # before mappings: whether it is one takes longer to say
        parts: Any = batch
    elif kind is dict or (hasattr(kind, "keys") and isinstance(batch, Mapping)):
        parts = batch.values()
    elif hasattr(kind, "shape"):  # another library's array
        if len(_arrays) < _MOST_KINDS:
            _arrays.add(kind)
        return _measured(batch)
    else:
        if len(_without_rows) < _MOST_KINDS:
            _without_rows.add(kind)
        return 0, 0
    if len(parts) > _FEW:
        one: Any = one_type(parts)
        if one in _without_rows or _without_rows.issuperset(map(type, parts)):
            return len(parts), 0
    rows = total = 0
    for part in parts:
        count, nbytes = _measured(part) if type(part) in _arrays else measure(part)
        rows = rows or count
        total += nbytes
    # A list without arrays is a column of strings, or what a user's own collate function made: one item a sample.
    return rows or len(parts), total
