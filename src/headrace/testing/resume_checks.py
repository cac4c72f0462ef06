"""The check of a state in the middle of an epoch: who loads it gets the batches that would have come."""

from __future__ import annotations

import json
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from headrace.loader import DataLoader
from headrace.testing.isolated import Ran, isolated
from headrace.testing.sample_bytes import digest
from headrace.testing.source_lines import place_of
from headrace.testing.subject import Report, Subject, seed

if TYPE_CHECKING:
    from collections.abc import Iterable

BATCHES = 2
_CURE = "Let a sample depend on its index alone; a stream's state_dict() names what load_state_dict() continues with."


def resumes(subject: Subject, seconds: float, patience: float) -> Report:
    """Save a state after two batches, and let another copy of the loader continue: the same batches come."""
    report = Report()
    if subject.loader is not None and subject.loader._session.settings.ledger is not None:
        report.unchecked["resume"] = "the loader writes a ledger, which a check must not add to"
        return report
    first = isolated(partial(_begun, subject), subject.pulse, seconds=seconds / 2, patience=patience)
    if first.value is None:
        return _ended(subject, report, first)
    state, expected = first.value
    if not expected:
        report.unchecked["resume"] = f"an epoch has no more than {BATCHES} batches"
        return report
    again = isolated(partial(_continued, subject, state), subject.pulse, seconds=seconds / 2, patience=patience)
    if again.value is None:
        return _ended(subject, report, again)
    if again.value != expected:
        at = next((n for n, (a, b) in enumerate(zip(again.value, expected, strict=False)) if a != b), None)
        wrong = (
            f"{len(again.value)} came in place of {len(expected)}" if at is None else f"batch {at + BATCHES} differs"
        )
        said = f"after a state saved behind batch {BATCHES - 1}, {wrong}"
        report.find("resume", "a resumed loop gives other batches", said, _CURE, subject.place())
    return report


def _ended(subject: Subject, report: Report, ran: Ran) -> Report:
    if ran.error:
        place = place_of(ran.frames) or subject.place()
        report.find("resume", "a loop cannot be saved and resumed", ran.error, _CURE, place)
    else:
        report.unchecked["resume"] = "the loader gave too few batches in the time"
    return report


def _loader(subject: Subject) -> DataLoader[Any]:
    if subject.loader is not None:
        return subject.loader
    return DataLoader(subject.dataset, 2, shuffle=None if subject.streams else True, seed=0, collate_fn=list)


def _digests(batches: Iterable[Any]) -> list[str]:
    return [digest(batch) for batch in batches]


def _begun(subject: Subject) -> tuple[str, list[str]]:
    seed(0)
    with _loader(subject) as loader:
        batches = iter(loader)
        for _ in islice(batches, BATCHES):
            pass
        state = json.dumps(loader.state_dict())
        return state, _digests(islice(batches, BATCHES))


def _continued(subject: Subject, state: str) -> list[str]:
    seed(0)
    with _loader(subject) as loader:
        loader.load_state_dict(json.loads(state))
        return _digests(islice(iter(loader), BATCHES))
