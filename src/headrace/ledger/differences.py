"""Compare two runs by their ledgers: the first batch that differs, and how."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headrace.ledger.history import LedgerContents, history
from headrace.ledger.store import find_ledgers

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from headrace.ledger.format import Entry, Keys, Session
    from headrace.ledger.store import Ledger

Kind = Literal["batches", "mixture", "order", "bad samples", "augmentation", "sample content"]
_SHOWN = 8
_OTHER_BYTES = (
    "the same samples and random numbers gave different bytes: the data, a transform or a library changed, or "
    "some code draws from its own generator"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first batch in which two runs differ."""

    epoch: int
    step: int
    rank: int
    world: int
    kind: Kind
    words: str
    facts: tuple[str, ...]
    """The settings of the runs that differ."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing two runs."""

    difference: Difference | None
    batches: int
    """The number of equal batches before the first difference."""
    more: tuple[int, int]
    """If no batch differs: the number of batches that only the first run has, and only the second."""
    by_keys: bool
    """Whether only keys were compared, because a ledger has no fingerprints of the batches' bytes."""


@dataclass(frozen=True, slots=True)
class _Batch:
    session: Session
    entry: Entry


def compare(one: Ledger | str | os.PathLike[str], other: Ledger | str | os.PathLike[str]) -> Comparison:
    """Compare two runs, batch by batch, in the order of epochs, steps and ranks.

    >>> import headrace
    >>> runs = [headrace.Ledger(), headrace.Ledger()]
    >>> for seed, ledger in enumerate(runs):
    ...     batches = list(headrace.DataLoader(range(8), 2, shuffle=True, seed=seed, ledger=ledger))
    >>> compare(runs[0], runs[0])
    Comparison(difference=None, batches=4, more=(0, 0), by_keys=False)
    >>> compare(*runs).difference.kind
    'order'

    The runs are folders, files or ledgers. Batches that a restart undid are ignored, so an interrupted run equals one
    without interruption. Raises the same errors as `headrace.verify_epoch`.
    """
    ours, theirs = _batches(one), _batches(other)
    same = 0
    by_keys = False
    for place in sorted(ours.keys() & theirs.keys()):
        a, b = ours[place], theirs[place]
        kind_and_words = _differ(a, b)
        if kind_and_words is not None:
            epoch, step, rank = place
            kind, words = kind_and_words
            facts = _facts(a.session, b.session)
            return Comparison(Difference(epoch, step, rank, a.session.world, kind, words, facts), same, (0, 0), by_keys)
        by_keys |= not (a.entry.content and b.entry.content)
        same += 1
    return Comparison(None, same, (len(ours.keys() - theirs.keys()), len(theirs.keys() - ours.keys())), by_keys)


def _batches(run: Ledger | str | os.PathLike[str]) -> dict[tuple[int, int, int], _Batch]:
    ledgers = [LedgerContents.of(ledger) for ledger in find_ledgers(run)]
    return {
        (epoch, entry.at, rank): _Batch(effective.session, entry)
        for epoch in sorted({session.epoch for ledger in ledgers for session in ledger.sessions})
        for effective in history(ledgers, epoch)
        for rank, entries in effective.ranks.items()
        for entry in entries
        if not entry.over
    }


def _differ(a: _Batch, b: _Batch) -> tuple[Kind, str] | None:
    one, other = a.entry, b.entry
    if (a.session.world, one.replica, one.start, one.stop) != (b.session.world, other.replica, other.start, other.stop):
        return "batches", f"the order is cut into different batches: A has {_cut(a)}, B has {_cut(b)}"
    if one.order != other.order:
        mixtures = [
            {name: fact for name, fact in facts.items() if name.startswith("sampler.")}
            for facts in (a.session.facts, b.session.facts)
        ]
        mixed = all("sampler.weights" in mixture for mixture in mixtures) and mixtures[0] != mixtures[1]
        return "mixture" if mixed else "order", _keys_differ(one.keys, other.keys)
    if not _same(one.bad, other.bad):
        return "bad samples", f"{one.bad.count} bad samples in A, {other.bad.count} in B"
    if one.content != other.content and one.content and other.content:
        if a.session.facts.get("seed") != b.session.facts.get("seed"):
            return "augmentation", "the same samples have different bytes, because the seeds differ"
        return "sample content", _OTHER_BYTES
    return None


def _cut(batch: _Batch) -> str:
    entry, world = batch.entry, batch.session.world
    replica = "" if entry.replica is None else f" of copy {entry.replica}"
    return f"positions {entry.start} to {entry.stop - 1}{replica}{f' on {world} ranks' if world > 1 else ''}"


def _keys_differ(one: Keys, other: Keys) -> str:
    if one.numbers is None or other.numbers is None:
        return "the same samples in another order" if one == other else "different samples"
    ours, theirs = (Counter(np.asarray(keys.numbers).tolist()) for keys in (one, other))
    if ours == theirs:
        return "the same samples in another order"
    return f"only in A: {_named(ours - theirs)}; only in B: {_named(theirs - ours)}"


def _named(keys: Counter[int]) -> str:
    numbers = sorted(keys.elements())
    more = f" and {len(numbers) - _SHOWN:,} more" if len(numbers) > _SHOWN else ""
    return (", ".join(map(str, numbers[:_SHOWN])) or "none") + more


def _same(one: Keys, other: Keys) -> bool:
    if one.count != other.count or (one.numbers is None) != (other.numbers is None):
        return False
    if one.numbers is None or other.numbers is None:
        return one.hashed == other.hashed
    return bool(np.array_equal(np.asarray(one.numbers), np.asarray(other.numbers)))


def _facts(one: Session, other: Session) -> tuple[str, ...]:
    a: dict[str, Any] = {**one.facts, "world_size": one.world}
    b: dict[str, Any] = {**other.facts, "world_size": other.world}
    return tuple(f"{name}: {a.get(name)!r} in A, {b.get(name)!r} in B" for name in _names(a, b))


def _names(a: dict[str, Any], b: dict[str, Any]) -> Sequence[str]:
    return [name for name in {**a, **b} if a.get(name) != b.get(name)]
