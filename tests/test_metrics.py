"""A loader's numbers, as the tools that watch a training ask for them."""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pytest

from headrace import ArrayDataset, DataLoader
from headrace.errors import ArgumentError, MissingDependency
from headrace.metrics import Scalars, opentelemetry, prometheus, scalars


def loader_of(samples: int = 40, **given: Any) -> DataLoader[Any]:
    """Return a loader of small rows."""
    return DataLoader(ArrayDataset(np.zeros((samples, 3), np.float32)), 4, **given)


class Board:
    """Keeps what a `SummaryWriter` would write."""

    def __init__(self) -> None:
        self.written: dict[int, dict[str, float]] = {}

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        self.written.setdefault(step, {})[tag] = value


class Run:
    """Keeps what a run of Weights & Biases would log."""

    def __init__(self) -> None:
        self.written: dict[int, dict[str, float]] = {}

    def log(self, values: dict[str, float], *, step: int) -> None:
        self.written[step] = values


@pytest.mark.parametrize("kind", [Board, Run])
def test_scalars_are_written_every_few_steps(kind: type[Any]) -> None:
    """The same names and numbers for both; nothing at the other steps."""
    loader, writer = loader_of(), kind()
    write = Scalars(loader, writer, every=4, prefix="data/")
    for step, batch in enumerate(loader, 1):
        del batch
        write(step)
    assert list(writer.written) == [4, 8]
    assert [each["data/samples"] for each in writer.written.values()] == [16.0, 32.0]
    assert writer.written[8]["data/bytes"] == 32 * 3 * 4
    assert all(isinstance(value, float) for each in writer.written.values() for value in each.values())
    assert 0.0 <= writer.written[8]["data/wait_share"] <= 1.0
    assert any(name.startswith("data/stage_seconds/") for name in writer.written[8])


def test_a_new_epoch_begins_at_zero() -> None:
    """Rates since the last time are those of one loop."""
    loader, writer = loader_of(8), Board()
    write, step = Scalars(loader, writer, every=1), 0
    for _ in range(2):
        for batch in loader:
            del batch
            step += 1
            write(step)
    assert [writer.written[n]["loader/samples"] for n in range(1, 5)] == [4.0, 8.0, 4.0, 8.0]
    assert [writer.written[n]["loader/epoch"] for n in range(1, 5)] == [0.0, 0.0, 1.0, 1.0]
    assert all(each["loader/samples_per_second"] >= 0.0 for each in writer.written.values())


@pytest.mark.parametrize("writer", [None, 3, object()])
def test_a_writer_that_cannot_write_is_refused(writer: Any) -> None:
    """The error says what would do."""
    with pytest.raises(ArgumentError, match="neither add_scalar nor log"):
        Scalars(loader_of(), writer)


def test_every_must_be_a_count() -> None:
    """Zero would be a division by it."""
    with pytest.raises(ArgumentError, match="every"):
        Scalars(loader_of(), Board(), every=0)


def test_before_the_first_batch_all_is_zero() -> None:
    """Nothing is missing, and nothing is an error."""
    found = scalars(loader_of().statistics())
    assert found["batches"] == found["samples_per_second"] == found["first_batch_seconds"] == 0.0


@pytest.mark.parametrize(
    ("library", "function", "extra"),
    [("prometheus_client", prometheus, "prometheus"), ("opentelemetry", opentelemetry, "opentelemetry")],
)
def test_a_library_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, library: str, function: Any, extra: str
) -> None:
    """With what to install."""
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingDependency, match=rf"headrace\[{extra}\]"):
        function(loader_of())


def test_prometheus_asks_a_loader_that_runs() -> None:
    """Counters grow, a loader that is gone gives nothing, and two loaders have names."""
    client = pytest.importorskip("prometheus_client")
    registry = client.CollectorRegistry()
    loader, other = loader_of(4000, num_workers=1), loader_of(8)
    collector = prometheus(loader, "train", registry=registry)
    prometheus(other, "valid", registry=registry)
    with loader:
        assert registry.get_sample_value("headrace_samples_total", {"loader": "train"}) == 0.0
        assert len(list(loader)) == 1000
    list(other)
    assert registry.get_sample_value("headrace_samples_total", {"loader": "train"}) == 4000.0
    assert registry.get_sample_value("headrace_samples_total", {"loader": "valid"}) == 8.0
    text = client.generate_latest(registry).decode()
    assert 'headrace_stage_seconds_total{loader="train",stage="read"}' in text
    assert 'headrace_limit{limit="' in text
    registry.unregister(collector)
    assert registry.get_sample_value("headrace_samples_total", {"loader": "train"}) is None
    del other
    gc.collect()
    assert registry.get_sample_value("headrace_samples_total", {"loader": "valid"}) is None


def test_opentelemetry_asks_a_loader() -> None:
    """Each number is a gauge with the loader's name, stages apart; a loader that is gone gives nothing."""
    sdk = pytest.importorskip("opentelemetry.sdk.metrics")
    export = pytest.importorskip("opentelemetry.sdk.metrics.export")
    reader = export.InMemoryMetricReader()
    loader = loader_of(8)
    opentelemetry(loader, "train", meter=sdk.MeterProvider([reader]).get_meter("test"))

    def read() -> dict[str, list[tuple[dict[str, Any], float]]]:
        found = reader.get_metrics_data()
        parts = [] if found is None else found.resource_metrics
        return {
            metric.name: [(dict(point.attributes), point.value) for point in metric.data.data_points]
            for part in parts
            for scope in part.scope_metrics
            for metric in scope.metrics
        }

    list(loader)
    found = read()
    assert found["headrace.samples"] == [({"loader": "train"}, 8.0)]
    assert {attributes["stage"] for attributes, _ in found["headrace.stage_seconds"]} >= {"read"}
    del loader
    gc.collect()
    assert not any(read().values())
