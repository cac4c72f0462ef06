"""What led to where an epoch stands: the sessions, one after the other, without what restarts made undone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.ledger.format import Entry, Session
    from headrace.ledger.store import Ledger


@dataclass(frozen=True, slots=True)
class LedgerContents:
    """What one ledger says."""

    sessions: list[Session]
    entries: dict[int, list[Entry]]

    @classmethod
    def of(cls, ledger: Ledger) -> LedgerContents:
        """Read a ledger."""
        sessions, entries = ledger.sessions()
        by_session: dict[int, list[Entry]] = {number: [] for number in sessions}
        for entry in entries:
            by_session[entry.session].append(entry)
        return cls(list(sessions.values()), by_session)


@dataclass(frozen=True, slots=True)
class EffectiveSession:
    """What counts of one session: by rank, the entries that no later session made undone."""

    session: Session
    ranks: dict[int, list[Entry]]


def history(books: Sequence[LedgerContents], epoch: int) -> list[EffectiveSession]:
    """Return the sessions that led to where the epoch stands, the last one first."""
    attempts: dict[str, list[tuple[Session, list[Entry]]]] = {}
    for book in books:
        for session in book.sessions:
            if session.epoch == epoch:
                attempts.setdefault(session.name, []).append((session, book.entries[session.number]))
    for each in attempts.values():
        each.sort(key=lambda attempt: attempt[0].began)
    name: str | None = max(attempts, key=lambda name: attempts[name][-1][0].began)
    parts: list[EffectiveSession] = []
    child: EffectiveSession | None = None
    while name in attempts:
        ranks: dict[int, dict[int, Entry]] = {}
        for session, entries in attempts[name]:
            kept = ranks.setdefault(session.rank, {})
            if child is None:
                kept.clear()  # of what is not saved, only the last attempt counts
            by_batch = session.facts.get("on_error") == "skip"
            if child is not None:
                undone = child.session.undone(by_batch=by_batch)
                entries = [entry for entry in entries if not entry.over and not undone(entry)]
            kept.update((-1 - entry.at if entry.over else entry.at, entry) for entry in entries)
        here = attempts.pop(name)[-1][0]
        child = EffectiveSession(here, {rank: list(kept.values()) for rank, kept in ranks.items()})
        parts.append(child)
        name = here.parent or ""
    return parts
