"""A trace of batches that are made on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace import DataLoader
from tests.run.test_timeline import Staged, counted, events_of


def test_batches_of_actors_have_a_life_too(cluster: Any, tmp_path: Path) -> None:
    """Made and packed in the actor's process, opened in the loop's, on one time axis."""
    with DataLoader(Staged(), 4, num_workers=1, backend="ray") as loader, loader.trace(tmp_path / "x.json"):
        assert sum(map(len, loader)) == 12
    events = events_of(tmp_path / "x.json")
    found = counted(events)
    assert found["X", "make"] == found["X", "pack"] == found["X", "open"] == found["X", "wait"] == 3
    lives = {event["id"]: event["ts"] for event in events if event["ph"] == "b" and event["name"] == "batch"}
    made = [event["ts"] for event in events if event["name"] == "make"]
    assert min(made) >= min(lives.values())
