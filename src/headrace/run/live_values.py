"""What a loop does now, as values for JSON: what `headrace top` shows."""

from __future__ import annotations

from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING, Any

from headrace.run.tuning.worker_setting import WorkerSetting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.run.life import Life
    from headrace.run.session import Session
    from headrace.run.stats import Statistics

RECENT = 5.0
"""Seconds that "now" lasts."""
MOST = 5
"""Samples in each list."""
MOST_CHARACTERS = 300
"""Of each text."""


def live_values(session: Session) -> dict[str, Any]:
    """Return the values of the newest loop over a loader."""
    settings, statistics, measured = session.settings, session.meter.snapshot(), session._measured()
    lives, every = list(session._lives.recent), session._lives.every
    workers = WorkerSetting.of(settings) if session._auto is None else session._auto.now
    number = workers.hands
    running = any(getattr(loop, "running", True) for loop in list(session._loops))
    found = {
        "dataset": _text(type(settings.dataset).__qualname__),
        "backend": workers.kind,
        "workers": number,
        "rank": settings.rank,
        "world_size": settings.world_size,
        "running": running,
        "epoch": statistics.epoch,
        "batches": statistics.batches,
        "samples": statistics.samples,
        "dataset_samples": session.dataset_samples,
        "bytes": statistics.nbytes,
        "seconds": statistics.seconds,
        "samples_per_second": statistics.samples_per_second,
        "wait_share": statistics.wait_share,
        "stage_seconds": dict(list(statistics.stage_seconds.items())[:20]),
        "capacity": session._ahead_of_loop if session._auto is None else workers.ahead,
        "skipped": statistics.skipped,
        "replaced": statistics.replaced,
        "bad": [
            {"index": _text(bad.index), "where": _text(bad.where), "error": _text(bad.error)}
            for bad in statistics.bad[-MOST:]
        ],
        "slowest": _slowest(lives),
        "limit": None if measured is None else _text(measured.diagnosis()),
    }
    return found | _now(statistics, lives, every, number)


def _now(statistics: Statistics, lives: Sequence[Life], every: int, workers: int) -> dict[str, Any]:
    """Return the rates of the last seconds, and how many batches are where, on average."""
    now = perf_counter()
    recent = [life for life in lives if now - life.delivered < RECENT]
    if len(recent) < 2:
        return dict.fromkeys(("recent_samples_per_second", "recent_wait_share", "ready_batches", "busy_workers"))
    span = max(now - recent[0].delivered, 1e-9)
    recent = recent[1:]  # the first one begins the span
    made = [(life, life.making) for life in recent if life.making is not None]
    each = statistics.samples / statistics.batches if statistics.batches else 0.0
    # How long a batch is somewhere, times how many come a second, is how many are there.
    pace = len(recent) * every / span
    waits = pace * fmean(life.delivered - life.asked for life in recent)
    ready = pace * fmean(max(0.0, life.asked - making.ended) for life, making in made) if made else None
    busy = pace * fmean(_spent(life) for life, _ in made) if made else None
    return {
        "recent_samples_per_second": pace * each,
        "recent_wait_share": min(1.0, waits),
        "ready_batches": ready,
        "busy_workers": None if busy is None else min(busy, float(max(1, workers))),
    }


def _spent(life: Life) -> float:
    """Return how long workers were busy with a batch: all of them in sum, where they made it together."""
    making = life.making
    return 0.0 if making is None else max(making.ended - making.began, sum(life.seconds.values()))


def _slowest(lives: Sequence[Life]) -> list[dict[str, Any]]:
    """Return the newest batches' slowest samples; batches, where samples are not made one by one."""
    found = []
    for life in lives:
        if life.making is not None:
            sample, seconds = life.making.slowest or (None, life.making.ended - life.making.began)
            found.append({"step": life.step, "sample": sample, "seconds": seconds})
    return sorted(found, key=lambda one: -float(one["seconds"] or 0.0))[:MOST]


def _text(value: object) -> str | None:
    return None if value is None else str(value)[:MOST_CHARACTERS]
