"""What a loader does, for the tools that watch a training: Prometheus, OpenTelemetry, TensorBoard, Weights & Biases.

Prometheus and OpenTelemetry ask for the numbers, and `Scalars` writes them every few steps. Between that, nothing runs.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from headrace.checks import integer, kind_of
from headrace.errors import ArgumentError, missing
from headrace.run import monitor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.loader import DataLoader
    from headrace.run.monitor import Offer as Watched
    from headrace.run.stats import Statistics

__all__ = ["Scalars", "opentelemetry", "prometheus", "scalars", "watch"]

_COUNTS = {
    "batches": "Batches delivered by the newest loop.",
    "samples": "Samples delivered by the newest loop.",
    "bytes": "Bytes of the arrays delivered by the newest loop.",
    "tokens": "Tokens delivered by the newest loop.",
    "padding": "Positions of padding delivered by the newest loop.",
    "seconds": "Seconds that the newest loop has run.",
    "wait_seconds": "Seconds that the newest loop waited for the loader.",
    "skipped": "Bad samples that were left out.",
    "replaced": "Bad samples in whose place another one was put.",
}
"""What grows during a loop, and begins at 0 with the next."""


def scalars(statistics: Statistics) -> dict[str, float]:
    """Return the numbers of a loop by name, as one dictionary of floats.

    >>> from headrace import DataLoader
    >>> loader = DataLoader(range(10), batch_size=5)
    >>> batches = list(loader)
    >>> found = scalars(loader.statistics())
    >>> found["batches"], found["samples"]
    (2.0, 10.0)

    Times are in seconds; shares are from 0 to 1. ``stage_seconds/NAME`` are the workers' seconds by stage.
    """
    found: dict[str, float] = dict(zip(_COUNTS, _counts(statistics), strict=True))
    found |= {
        "epoch": float(statistics.epoch),
        "samples_per_second": statistics.samples_per_second,
        "wait_share": statistics.wait_share,
        "first_batch_seconds": statistics.first_batch_seconds or 0.0,
    }
    return found | {f"stage_seconds/{name}": spent for name, spent in statistics.stage_seconds.items()}


def _counts(statistics: Statistics) -> tuple[float, ...]:
    counted = (
        statistics.batches,
        statistics.samples,
        statistics.nbytes,
        statistics.tokens,
        statistics.padding,
        statistics.seconds,
        statistics.wait_seconds,
        statistics.skipped,
        statistics.replaced,
    )
    return tuple(map(float, counted))


class Scalars:
    """Writes a loader's numbers to TensorBoard or Weights & Biases, every few steps.

    >>> from headrace import DataLoader
    >>> class Writer:
    ...     def add_scalar(self, tag, value, step):
    ...         if tag == "loader/samples":
    ...             print(step, value)
    >>> loader = DataLoader(range(8), batch_size=2)
    >>> write = Scalars(loader, Writer(), every=2)
    >>> for step, batch in enumerate(loader, 1):
    ...     write(step)
    2 4.0
    4 8.0

    ``writer`` is a ``SummaryWriter``, or anything else with ``add_scalar(tag, value, step)``; or a run of Weights &
    Biases, or anything else with ``log(values, step=)``. ``samples_per_second`` and ``wait_share`` are those since the
    last time that something was written. Raises `ArgumentError` for a writer that has neither method.
    """

    def __init__(self, loader: DataLoader[Any], writer: Any, *, every: int = 50, prefix: str = "loader/") -> None:
        if not (callable(getattr(writer, "add_scalar", None)) or callable(getattr(writer, "log", None))):
            raise ArgumentError(
                f"writer is {kind_of(writer)}, which has neither add_scalar nor log",
                found=kind_of(writer),
                expected="a SummaryWriter of TensorBoard, or a run of Weights & Biases",
                cure="pass SummaryWriter(), or what wandb.init() returns",
            )
        self._loader = loader
        self._writer = writer
        self._every = integer("every", every, least=1)
        self._prefix = prefix
        self._before: Statistics | None = None

    def __call__(self, step: int) -> None:
        """Write the numbers at this training step, if it is one of every so many."""
        if step % self._every:
            return
        now = self._loader.statistics()
        found = scalars(now) | self._recent(now)
        self._before = now
        named = {f"{self._prefix}{name}": value for name, value in found.items()}
        if callable(getattr(self._writer, "add_scalar", None)):
            for name, value in named.items():
                self._writer.add_scalar(name, value, step)
        else:
            self._writer.log(named, step=step)

    def _recent(self, now: Statistics) -> dict[str, float]:
        """Return the rates since the last time, within one loop."""
        before = self._before
        if before is None or before.epoch != now.epoch or before.seconds >= now.seconds:
            return {}
        seconds = now.seconds - before.seconds
        return {
            "samples_per_second": (now.samples - before.samples) / seconds,
            "wait_share": min(1.0, max(0.0, now.wait_seconds - before.wait_seconds) / seconds),
        }


def watch(loader: DataLoader[Any], name: str = "loader") -> Watched:
    """Let ``headrace top`` look at a loader, under a name.

    >>> from headrace import DataLoader
    >>> loader = DataLoader(range(100), batch_size=10)
    >>> with watch(loader, "train"):
    ...     for batch in loader:
    ...         pass

    A Unix socket in the user's runtime folder sends what the loader does to whoever connects: only the same user can.
    It receives nothing. It ends with ``close()``, the end of the block, or the process. With ``HEADRACE_TOP=1`` in the
    environment, all loaders of a process are offered without this call. Raises `UnusableArgument` where no socket can
    be made: in a folder that others may enter, or on Windows.
    """
    return monitor.offer(loader._session, name)


def prometheus(loader: DataLoader[Any], name: str = "loader", *, registry: Any = None) -> Any:
    """Let Prometheus ask a loader for its numbers; return the collector, which ``registry.unregister`` takes.

    >>> loader = DataLoader(dataset, batch_size=32, num_workers=4)  # doctest: +SKIP
    >>> prometheus(loader, "train")  # doctest: +SKIP
    >>> prometheus_client.start_http_server(8000)  # doctest: +SKIP

    Counters are those of the newest loop: they begin at 0 with the next, which ``rate()`` knows how to read. The limit
    that `Statistics.diagnosis` names is ``headrace_limit{limit="decode"} 1``. A loader that no longer exists gives
    nothing. ``registry`` is the library's own if None. Needs ``pip install 'headrace[prometheus]'``; raises
    `MissingDependency` without it.
    """
    try:
        from prometheus_client import REGISTRY
    except ModuleNotFoundError as error:
        raise missing("prometheus_client", extra="prometheus", purpose="headrace.metrics.prometheus") from error
    collector = _Collector(loader, name)
    (REGISTRY if registry is None else registry).register(collector)
    return collector


class _Collector:
    """What Prometheus asks."""

    def __init__(self, loader: DataLoader[Any], name: str) -> None:
        self._loader = weakref.ref(loader)
        self._name = name

    def describe(self) -> list[Any]:
        """Return nothing: the numbers are not asked for before somebody wants them."""
        return []

    def collect(self) -> Iterator[Any]:
        """Yield the numbers of the newest loop."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        loader = self._loader()
        if loader is None:
            return
        statistics, labels = loader.statistics(), [self._name]
        for name, about in _COUNTS.items():
            counter = CounterMetricFamily(f"headrace_{name}", about, labels=["loader"])
            counter.add_metric(labels, scalars(statistics)[name])
            yield counter
        stages = CounterMetricFamily("headrace_stage_seconds", "The workers' seconds.", labels=["loader", "stage"])
        for stage, spent in statistics.stage_seconds.items():
            stages.add_metric([self._name, stage], spent)
        yield stages
        for name, about, value in (
            ("epoch", "Which epoch the newest loop reads.", statistics.epoch),
            ("workers", "How many workers make batches.", statistics.workers),
        ):
            gauge = GaugeMetricFamily(f"headrace_{name}", about, labels=["loader"])
            gauge.add_metric(labels, value)
            yield gauge
        if statistics.measured is not None:
            limit = GaugeMetricFamily("headrace_limit", "What limits the loop.", labels=["loader", "limit"])
            limit.add_metric([self._name, statistics.measured.bound], 1.0)
            yield limit


def opentelemetry(loader: DataLoader[Any], name: str = "loader", *, meter: Any = None) -> None:
    """Let OpenTelemetry ask a loader for its numbers, as gauges named ``headrace.samples``, ``headrace.wait_share``, ….

    >>> loader = DataLoader(dataset, batch_size=32, num_workers=4)  # doctest: +SKIP
    >>> opentelemetry(loader, "train")  # doctest: +SKIP

    ``meter`` is that of the global provider if None. Each number has the attribute ``loader``, and those of stages have
    ``stage``. They are those of the newest loop. A loader that no longer exists gives nothing. Needs ``pip install
    'headrace[opentelemetry]'``. Raises `MissingDependency`.
    """
    try:
        from opentelemetry import metrics
    except ModuleNotFoundError as error:
        raise missing("opentelemetry", extra="opentelemetry", purpose="headrace.metrics.opentelemetry") from error
    own = metrics.get_meter("headrace") if meter is None else meter
    reference, named = weakref.ref(loader), {"loader": name}

    def observed(wanted: str) -> Callable[[Any], list[Any]]:
        def observe(_options: Any) -> list[Any]:
            here = reference()
            if here is None:
                return []
            found = []
            for key, value in scalars(here.statistics()).items():
                kind, _, stage = key.partition("/")
                if kind == wanted:
                    found.append(metrics.Observation(value, named | ({"stage": stage} if stage else {})))
            return found

        return observe

    about = _COUNTS | {
        "epoch": "Which epoch the newest loop reads.",
        "samples_per_second": "Samples delivered a second of the newest loop.",
        "wait_share": "The part of the newest loop's time that it waited for the loader.",
        "first_batch_seconds": "Seconds from the beginning of the newest loop to its first batch.",
        "stage_seconds": "The workers' seconds by stage.",
    }
    for key, text in about.items():
        own.create_observable_gauge(f"headrace.{key}", callbacks=[observed(key)], description=text)
