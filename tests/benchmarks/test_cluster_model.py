"""The model of a cluster agrees with what can be worked out by hand."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "cluster_model.py"


@pytest.fixture(scope="module")
def model() -> Any:
    spec = importlib.util.spec_from_file_location("cluster_model", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["cluster_model"] = module  # dataclasses look for their module there
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["cluster_model"]


def test_actors_alone_limit_a_small_cluster(model: Any) -> None:
    """Make with two actors what two actors make."""
    found = model.simulate(model.Setting(nodes=1, actors=2, spread=0.0), 100)
    assert found.rate == pytest.approx(2 / 0.512, rel=0.05)
    assert found.limit == "actors"


def test_the_network_limits_large_samples(model: Any) -> None:
    """Take no more batches than the network carries, however many nodes there are."""
    setting = model.Setting(nodes=20)
    found = model.simulate(setting, 1000)
    assert found.rate == pytest.approx(setting.network / setting.nbytes, rel=0.02)
    assert found.limit == "network"


def test_the_driver_limits_small_samples(model: Any) -> None:
    """Take no more batches than the loop's thread handles."""
    setting = model.Setting(nodes=200, nbytes=1000.0)
    found = model.simulate(setting, 8000)
    assert found.rate <= 1 / setting.call
    assert found.limit == "driver"


def test_lost_batches_are_made_again(model: Any) -> None:
    """Count them; without losses there is none."""
    assert model.simulate(model.Setting(nodes=2), 200).again == 0
    assert model.simulate(model.Setting(nodes=2, lifetime=20.0), 200).again > 0


def test_one_pool_hides_that_nodes_differ(model: Any) -> None:
    """Give ranks the same pace, where the slowest node would hold up all; the window must be longer than its works."""
    setting = model.Setting(nodes=32, ranks=32, actors=20, step=0.03, uneven=0.2, prefetch=4)
    own = model.simulate(setting, 100)
    shared = model.simulate(model.replace(setting, shared=True), 100)
    assert own.rate < shared.rate
