"""The sessions that led to an epoch's current position, without the batches that restarts undid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.ledger.format import Entry, Session
    from headrace.ledger.store import Ledger


@dataclass(frozen=True, slots=True)
class LedgerContents:
    """The sessions and entries of one ledger."""

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
    """One session, and by rank its entries that no later session undid."""

    session: Session
    ranks: dict[int, list[Entry]]


def history(ledgers: Sequence[LedgerContents], epoch: int) -> list[EffectiveSession]:
    """Return the sessions that led to the epoch's current position, the latest first."""
    attempts: dict[str, list[tuple[Session, list[Entry]]]] = {}
    for ledger in ledgers:
        for session in ledger.sessions:
            if session.epoch == epoch:
                attempts.setdefault(session.name, []).append((session, ledger.entries[session.number]))
    for each in attempts.values():
        each.sort(key=lambda attempt: attempt[0].began)
    name: str | None = max(attempts, key=lambda name: attempts[name][-1][0].began)
    effective: list[EffectiveSession] = []
    child: EffectiveSession | None = None
    while name in attempts:
        ranks: dict[int, dict[int, Entry]] = {}
        for session, entries in attempts[name]:
            kept = ranks.setdefault(session.rank, {})
            if child is None:
                kept.clear()  # if no later session resumed from it, only the last attempt counts
            by_batch = session.facts.get("on_error") == "skip"
            if child is not None:
                undone = child.session.undone(by_batch=by_batch)
                entries = [entry for entry in entries if not entry.over and not undone(entry)]
            kept.update((-1 - entry.at if entry.over else entry.at, entry) for entry in entries)
        # Of an epoch whose length is found at its end, only the ranks that were there know it.
        known = [session for session, _ in attempts.pop(name)]
        here = next((session for session in reversed(known) if session.samples is not None), known[-1])
        child = EffectiveSession(here, {rank: list(kept.values()) for rank, kept in ranks.items()})
        effective.append(child)
        name = here.parent or ""
    return effective
