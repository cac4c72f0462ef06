"""What limits a loop: constructed, and said; and what a change brings: predicted, and seen in the world of ticks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.run.pipeline_world import Part, World

import headrace
from headrace import DataLoader
from headrace.plan.work import GIL, Making
from headrace.run.bottleneck import Measured, measured
from headrace.run.life import Life
from headrace.run.lives import Lives
from headrace.run.queueing import Pipeline

READ, DECODE = Part("read", "io", 20.0), Part("decode", "cpu", 20.0)
TRANSFORM, PYTHON = Part("transform", "cpu", 20.0), Part("other", "python", 20.0)


def shorter(part: Part, by: float = 0.2) -> Part:
    """Return the same part, taking so much less time."""
    return Part(part.stage, part.how, part.length * (1 - by))


QUICK_READ = shorter(READ, 0.9)
TABLE: dict[str, tuple[World, str, str, dict[str, Any]]] = {
    "slow training, threads": (World([shorter(DECODE, 0.8)], 2, train=25), "consumer", "training -20 %", {"train": 20}),
    "slow training, processes": (
        World([shorter(DECODE, 0.8)], 2, "processes", train=25), "consumer", "+2 workers", {"workers": 4}),
    "slow training, storage": (World([shorter(READ, 0.5)], 2, train=25), "consumer", "+2 workers", {"workers": 4}),
    "slow training, inline": (
        World([shorter(DECODE, 0.9)], 0, "inline", train=25), "consumer", "training -20 %", {"train": 20}),
    "training that computes": (
        World([shorter(DECODE, 0.8)], 2, train=0, burns=25), "consumer", "decode -20 %",
        {"parts": [shorter(shorter(DECODE, 0.8))]}),
    "decode, inline": (World([QUICK_READ, DECODE], 0, "inline"), "decode", "decode -20 %",
        {"parts": [QUICK_READ, shorter(DECODE)]}),
    "decode, one thread": (World([QUICK_READ, DECODE], 1), "decode", "+2 workers", {"workers": 3}),
    "decode, other programs beside": (
        World([DECODE], 1, cpus=2, others=0.5), "decode", "+2 workers", {"workers": 3}),
    "a thing to pickle, other programs beside": (
        World([Part("other", "python", 2.0), Part("pack", "cpu", 10.0)], 1, "processes", cpus=2, others=0.3,
              train=0.1, packing=10, opening=2), "transport", "+2 workers", {"workers": 3}),
    "decode, all CPUs busy": (World([DECODE], 4, cpus=2), "decode", "+2 workers", {"workers": 6}),
    "decode, all CPUs busy, processes": (
        World([DECODE], 4, "processes", cpus=2), "decode", "decode -20 %", {"parts": [shorter(DECODE)]}),
    "decode and transform": (
        World([DECODE, shorter(TRANSFORM, 0.5)], 2), "decode", "transform -20 %",
        {"parts": [DECODE, shorter(shorter(TRANSFORM, 0.5))]}),
    "transform, one thread": (World([TRANSFORM], 1), "transform", "transform -20 %", {"parts": [shorter(TRANSFORM)]}),
    "transform, two processes": (World([TRANSFORM], 2, "processes"), "transform", "+2 workers", {"workers": 4}),
    "the dataset's Python, inline": (
        World([PYTHON], 0, "inline", train=5), "dataset", "dataset -20 %", {"parts": [shorter(PYTHON)]}),
    "the dataset's Python, processes": (World([PYTHON], 2, "processes"), "dataset", "+2 workers", {"workers": 4}),
    "storage, inline": (World([READ], 0, "inline", train=5), "storage", "1 worker", {"workers": 1, "kind": "threads"}),
    "storage, threads": (World([READ, shorter(DECODE, 0.9)], 2), "storage", "+2 workers", {"workers": 4}),
    "storage, processes": (World([READ], 2, "processes"), "storage", "read -20 %", {"parts": [shorter(READ)]}),
    "storage, no stage named": (World([Part("other", "io", 20.0)], 2), "storage", "+2 workers", {"workers": 4}),
    "the GIL, two threads": (World([PYTHON], 2), "GIL", "dataset -20 %", {"parts": [shorter(PYTHON)]}),
    "the GIL, four threads": (World([PYTHON], 4), "GIL", "training -20 %", {"train": 0.8}),
    "the GIL, and processes": (
        World([PYTHON], 2), "GIL", "processes in place of threads", {"kind": "processes"}),
    "the GIL and storage": (
        World([shorter(READ, 0.5), PYTHON], 4), "GIL", "read -20 %",
        {"parts": [shorter(shorter(READ, 0.5)), PYTHON]}),
    "a thing to unpickle": (
        World([shorter(DECODE, 0.8)], 4, "processes", opening=15), "transport", "+2 workers", {"workers": 6}),
    "memory": (World([DECODE], 2, pressure=0.4), "memory", "decode -20 %", {"parts": [shorter(DECODE)]}),
}  # fmt: skip
"""What is constructed; its limit; a change that is predicted, and the same change made."""


@pytest.mark.parametrize("name", TABLE)
def test_a_constructed_limit_is_named_and_a_change_predicted(name: str) -> None:
    """The limit is that which was built in, and the predicted rate is within 5 points of what the change brings."""
    world, bound, change, other = TABLE[name]
    measured = world.run()
    found = measured.diagnosis()
    assert found.bound == bound, str(found)
    gains = {gain.change: gain.gain for gain in found.gains}
    assert change in gains, str(found)
    brought = measured.period / replace(world, **other).period - 1.0
    assert abs(gains[change] - brought) < 0.05 * max(1.0, 1.0 + brought), (
        f"{gains[change]:+.3f} predicted, {brought:+.3f} seen: {found}"
    )
    assert found.evidence
    assert 0.0 <= found.below_free < 1.0


def test_a_pipeline_is_as_slow_as_its_slowest_part() -> None:
    """With constant times, that is exact; a shared floor holds whatever the workers do."""
    assert Pipeline([0.04], [0.001], workers=4, ahead=8).period() == pytest.approx(0.01, rel=0.02)
    assert Pipeline([0.04], [0.03], workers=4, ahead=8).period() == pytest.approx(0.03)
    assert Pipeline([0.04], [0.03], workers=0).period() == pytest.approx(0.07)
    assert Pipeline([0.04], [0.0], workers=4, ahead=8, floor=0.02).period() == pytest.approx(0.02)
    assert Pipeline([0.01], [0.0], workers=2, ahead=4, handing=0.02).period() == pytest.approx(0.02)


def test_times_that_differ_cost_more_where_fewer_batches_wait() -> None:
    """A window of two batches has to wait for the slow one; a larger one hides it."""
    service = [0.01, 0.01, 0.01, 0.09]
    narrow = Pipeline(service, [0.02], workers=2, ahead=2).period()
    wide = Pipeline(service, [0.02], workers=2, ahead=16).period()
    assert wide < narrow


@pytest.mark.parametrize(("backend", "workers"), [("inline", 0), ("threads", 2), ("processes", 1)])
def test_a_loop_is_measured_whoever_makes_its_batches(backend: str, workers: int) -> None:
    """From a few dozen batches on, there is a diagnosis, and it is in the printed statistics."""
    loader = DataLoader(headrace.ArrayDataset(np.zeros((2000, 3))), 4, num_workers=workers, backend=backend)
    assert loader.statistics().diagnosis is None
    with loader:
        for batch in loader:
            del batch
    statistics = loader.statistics()
    measured, diagnosis = statistics.measured, statistics.diagnosis
    assert measured is not None
    assert diagnosis is not None
    assert measured.kind == backend
    assert measured.period > 0.0
    assert measured.cpu >= 0.0
    assert sum(measured.stages.values()) == pytest.approx(1.0)
    assert f"{diagnosis.bound} is the limit" in str(statistics)


def test_cpus_that_other_programs_have_are_no_gain() -> None:
    """Predict less from more workers where less of the CPUs is idle; say nothing of CPUs that nobody leaves idle."""
    found = World([DECODE], 1, cpus=4).run()
    gains = []
    for spare in (None, 3.0, 1.5, 0.5, 0.0):
        said = {gain.change: gain.gain for gain in replace(found, spare=spare).diagnosis().gains}
        gains.append(round(said["+2 workers"], 1))
    assert gains == [2.0, 2.0, 1.5, 0.5, 2.0]


def test_a_few_batches_say_nothing() -> None:
    """No diagnosis is better than one from three batches."""
    loader = DataLoader(range(12), 4, num_workers=1)
    assert len(list(loader)) == 3
    assert loader.statistics().measured is None
    assert "limit" not in str(loader.statistics())


def test_measured_values_at_the_edges_are_no_error() -> None:
    """Nothing waited for, nothing computed, a period of almost nothing."""
    edge = Measured("threads", 1, 2, 1, 1e-9, 0.0, (0.0,), (0.0,), {}, 0.0)
    assert edge.diagnosis().bound == "consumer"
    assert replace(edge, waiting=1e-9).diagnosis().evidence


def _lives(waits: list[float]) -> list[Life]:
    """Return lives of batches that two threads make in Python, with the trials of the GIL."""
    lives = []
    for step, waited in enumerate(waits):
        ended = 0.016 * step
        making = Making(ended - 0.03, ended, 0.015, 1, 1 + step % 2, gil_wait=waited)
        lives.append(Life(step, ended - 0.03, ended, ended - 0.01, ended, 9, 9, {}, making, None, "", 0.001 * step))
    return lives


@pytest.mark.parametrize(("waits", "bound"), [([0.005] * 40, "GIL"), ([1e-4] * 39 + [0.2], "storage")])
def test_one_late_trial_is_no_queue_for_the_gil(waits: list[float], bound: str) -> None:
    """A thread that holds the GIL may wait for a CPU once; threads that queue for the GIL are late in many trials."""
    found = measured(
        _lives(waits), {"read": 1.0}, every=1, kind="threads", workers=2, ahead=4, cpus=2, in_turns=False, pressure=0.0
    )
    assert found is not None
    assert found.bound == bound


def test_only_threads_give_up_the_gil_for_a_trial() -> None:
    """A process has the GIL for itself."""
    assert [step for step, noted in enumerate(_noted(Lives(threads=True)), 1) if noted & GIL] == [
        *range(4, 33, 4), 64, 96]  # fmt: skip
    assert not any(noted & GIL for noted in _noted(Lives()))


def _noted(lives: Lives) -> list[int]:
    return [lives.noting() for _ in range(100)]
