"""Proofs from ledgers: each sample of an epoch was delivered exactly once."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from headrace.errors import ArgumentError
from headrace.ledger.history import EffectiveSession, LedgerContents, history
from headrace.ledger.intervals import Intervals
from headrace.ledger.store import Ledger, find_ledgers

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from headrace.ledger.format import Entry, Keys, Session

NAMED = 1000
"""The maximum number of samples that a report names; it counts all."""
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class EpochProof:
    """The result of `verify_epoch`: what the ledgers say about one epoch; prints as one line."""

    epoch: int
    delivered: int
    """The number of delivered samples, with repeats, without padding."""
    samples: int | None
    """The number of samples in the epoch, if known."""
    ended: bool
    """Whether every rank whose ledger was given received the epoch's last batches."""
    missing: tuple[range, ...] = ()
    """Keys that were never delivered, as intervals; positions in the order, if keys are not integers."""
    missing_count: int = 0
    double: dict[int, int] = field(default_factory=dict)
    """Keys (or positions) that were delivered more than once, and how often."""
    double_count: int = 0
    padding: int = 0
    """Samples that filled the last global batch (``uneven="pad"`` and "repeat")."""
    left_out: int = 0
    """Samples at the epoch's end that were dropped (``drop_last``, ``uneven="drop"``)."""
    bad: int = 0
    """Bad samples that were skipped or replaced (``on_error``)."""
    repeats: int = 0
    """Samples that the sampler's order repeats."""
    not_asked_for: int = 0
    """Samples of the dataset that are not in the sampler's order, without those dropped at the end."""
    documents: int = 0
    """The documents or windows of token data that were delivered; each document of a packed row counts."""
    tokens: int = 0
    """Their tokens; not counted with ``on_error="skip"``."""
    absent: tuple[str, ...] = ()
    """Ledgers that are needed and were not given."""
    sessions: int = 1
    """The number of consecutive loops that delivered the epoch."""

    @property
    def exact(self) -> bool:
        """Whether each sample of the epoch was delivered exactly once."""
        return self.ended and not self.missing_count and not self.double_count and not self.absent

    def __str__(self) -> str:
        told = _extras(self) + _token_counts(self)
        if self.exact:
            whole = "each of " if self.delivered != 1 else ""
            return f"epoch {self.epoch}: {whole}{_samples(self.delivered)} was delivered exactly once{told}"
        lines = []
        if self.missing_count:
            lines.append(f"{_samples(self.missing_count)} missing: {_interval_names(self.missing, self.missing_count)}")
        if self.double_count:
            named = ", ".join(f"{key} ({times} times)" for key, times in list(self.double.items())[:_SHOWN])
            more = self.double_count - min(len(self.double), _SHOWN)
            lines.append(f"{_samples(self.double_count)} delivered more than once: {named}{_more(more)}")
        lines += [f"not given: {name}" for name in self.absent]
        if not self.ended:
            lines.append("the epoch was not read to its end")
        return f"epoch {self.epoch}: {_samples(self.delivered)} delivered{told}; " + "; ".join(lines)


def verify_epoch(*ledgers: Ledger | str | os.PathLike[str], epoch: int | None = None) -> EpochProof:
    """Prove from its ledgers that each sample of an epoch was delivered exactly once, or say what is missing or double.

    >>> import headrace
    >>> ranks = [headrace.Ledger() for _ in range(2)]
    >>> for rank, ledger in enumerate(ranks):
    ...     loader = headrace.DataLoader(range(9), 2, seed=0, rank=rank, world_size=2, ledger=ledger)
    ...     batches = list(loader)
    >>> proof = headrace.verify_epoch(*ranks)
    >>> print(proof)
    epoch 0: each of 9 samples was delivered exactly once (and 1 to fill the last global batch)
    >>> print(headrace.verify_epoch(ranks[0]))
    epoch 0: 5 samples delivered; 4 samples missing: 2-3, 6-7; not given: rank 1 of 2

    ``ledgers`` are the `Ledger` of every rank, before and after restarts, or their files, or a folder with them.
    ``epoch`` is the epoch's number; None for the latest one. Batches that a restart undid do not count: they came after
    the state from which a later loop resumed. If several loops started at the same position or from the same state, the
    latest one counts.

    Without a sampler, the proof is by key: each key once. With a sampler, it is by position in the sampler's order:
    each position once. The report counts the samples that the order repeats or omits. For iterable datasets, positions
    are in the order of reading. Padding, samples dropped at the end and bad samples are counted too, and are not
    errors. Returns an `EpochProof`; its ``exact`` is the answer. Raises `ArgumentError` if the ledgers have no such
    epoch, and `BadFile` for a damaged file.
    """
    contents = [LedgerContents.of(ledger) for given in ledgers for ledger in find_ledgers(given)]
    epochs = {session.epoch: session.began for each in contents for session in sorted(each.sessions, key=_began)}
    if not epochs or epoch not in {None, *epochs}:
        what = f"epoch {epoch}" if epoch is not None else "an epoch"
        raise ArgumentError(
            f"the {len(contents)} ledgers given have no batch of {what}",
            found=epoch,
            expected=f"one of their epochs, {sorted(epochs)}",
            cure="give an epoch that was recorded, or the ledgers of that run",
        )
    chosen = max(epochs, key=lambda number: epochs[number]) if epoch is None else epoch
    return _proof(history(contents, chosen))


def _proof(sessions: Sequence[EffectiveSession]) -> EpochProof:
    last = sessions[0].session
    skips = last.facts.get("on_error") == "skip"
    entries = [entry for each in sessions for kept in each.ranks.values() for entry in kept]
    ended = all(any(entry.over for entry in kept) for kept in sessions[0].ranks.values())
    places, ends = _Places(last.samples, entries), _ends(sessions)
    if ends is not None and not skips:
        ended |= places.end >= ends  # a loop may stop right after the last batch
    # With on_error="skip", bad samples and good ones that make no full batch follow the last batch.
    overs = sum(entry.stop - entry.start - entry.bad.count for entry in entries if entry.over)
    behind = overs + (last.samples or 0) - (ends or 0)
    common: dict[str, Any] = {
        "epoch": last.epoch,
        "samples": last.samples,
        "ended": ended,
        "bad": sum(entry.bad.count for entry in entries),
        "absent": tuple(_absent(sessions)),
        "sessions": len(sessions),
        "padding": places.padding,
        "documents": sum(entry.documents for entry in entries),
        "tokens": sum(entry.tokens for entry in entries),
    }
    if last.samples is not None and str(last.facts.get("order")) in {"sequential", "shuffled"}:
        return _by_key(last.samples, entries, behind, common)
    gaps = places.gaps(ends)
    repeats, without = _repeats_and_gaps(last.facts.get("samples"), entries)
    return EpochProof(
        delivered=places.covered - overs - common["bad"],
        missing=tuple(gaps[:NAMED]),
        missing_count=sum(gap.stop - gap.start for gap in gaps),
        double=places.double.counts(NAMED),
        double_count=places.double.total,
        left_out=behind,
        repeats=repeats,
        not_asked_for=max(0, without - behind),
        **common,
    )


def _ends(sessions: Sequence[EffectiveSession]) -> int | None:
    """Return the position to reach; what earlier loops dropped stays dropped if the last one had no batch."""
    ends: int | None = None
    for each in sessions:
        if each.session.ends is not None:
            ends = each.session.ends if ends is None else min(ends, each.session.ends)
        entries = [entry for kept in each.ranks.values() for entry in kept]
        if any(not entry.over for entry in entries) or (each is sessions[0] and not entries):
            break
    return ends


def _absent(sessions: Sequence[EffectiveSession]) -> Iterator[str]:
    """Yield the missing ledgers, at most `NAMED` of them, so that a forged number of ranks costs little."""
    if sessions[-1].session.parent is not None:
        yield f"the records before step {sessions[-1].session.first}"
    told: set[tuple[int, int]] = set()
    for each in reversed(sessions):
        world = each.session.world
        more = world - len(each.ranks)
        for rank in islice((rank for rank in range(world) if rank not in each.ranks), NAMED):
            more -= 1
            if (rank, world) not in told:
                told.add((rank, world))
                yield f"rank {rank} of {world}"
        if more and (-1, world) not in told:
            told.add((-1, world))
            yield f"{more:,} more ranks of {world}"


class _Places:
    """The delivered positions of the order, or of each replica of a stream, as intervals."""

    def __init__(self, samples: int | None, entries: Iterable[Entry]) -> None:
        replicas: dict[int | None, list[range]] = {}
        self.padding = 0
        for entry in entries:
            start, stop = entry.start, entry.stop
            if samples is not None:
                self.padding += max(0, stop - max(start, samples))
                stop = min(stop, samples)
            replicas.setdefault(entry.replica, []).append(range(start, stop))
        given = [Intervals.of(ranges) for ranges in replicas.values()]
        merged = [each.merged() for each in given]
        self._unions = [union for union, _ in merged]
        self.double = Intervals.of(each for _, double in merged for each in double.first(len(double.starts)))
        self.covered = sum(each.total for each in given)
        self.end = max((each.end for each in given), default=0)

    def gaps(self, size: int | None) -> list[range]:
        """Return the missing positions below a size; without a size, below the last delivered one."""
        unions = self._unions if self._unions or not size else [Intervals.of([])]
        holes = [union.gaps(union.end if size is None else size) for union in unions]
        return [gap for each in holes for gap in each.first(len(each.starts))]


def _by_key(samples: int, entries: Sequence[Entry], behind: int, common: dict[str, Any]) -> EpochProof:
    """Prove the order of a dataset: each key once, at any position."""
    came, double = Intervals.of_keys(_all_keys(entries), samples).merged()
    missing_count = samples - came.total
    left_out = behind if missing_count == behind and common["ended"] else 0
    return EpochProof(
        delivered=sum(entry.keys.count for entry in entries),
        missing=() if left_out else tuple(came.gaps(samples).first(NAMED)),
        missing_count=missing_count - left_out,
        double=double.counts(NAMED),
        double_count=double.total,
        left_out=left_out,
        **common,
    )


def _all_keys(entries: Iterable[Entry]) -> Iterator[Keys]:
    for entry in entries:
        yield entry.keys
        yield entry.bad


def _repeats_and_gaps(dataset: Any, batches: Sequence[Entry]) -> tuple[int, int]:
    """Return how many keys the sampler's order repeats and omits, if that is known."""
    keys = list(_all_keys(batches))
    if type(dataset) is not int or not 0 <= dataset < 2**63 or any(each.numbers is None for each in keys):
        return 0, 0
    came, again = Intervals.of_keys(keys, dataset).merged()
    return again.total, dataset - came.total


def _began(session: Session) -> int:
    return session.began


def _samples(number: int) -> str:
    return f"{number:,} sample{'s' if number != 1 else ''}"


def _more(number: int) -> str:
    return f" and {number:,} more" if number > 0 else ""


def _interval_names(intervals: Sequence[range], total: int) -> str:
    shown = intervals[:_SHOWN]
    named = [str(s.start) if len(s) == 1 else f"{s.start}-{s.stop - 1}" for s in shown]
    return ", ".join(named) + _more(total - sum(map(len, shown)))


def _token_counts(proof: EpochProof) -> str:
    if not proof.tokens:
        return ""
    documents = f"{proof.documents:,} document{'s' if proof.documents != 1 else ''}, " if proof.documents else ""
    return f": {documents}{proof.tokens:,} token{'s' if proof.tokens != 1 else ''}"


def _extras(proof: EpochProof) -> str:
    parts = [
        (proof.padding, "to fill the last global batch"),
        (proof.left_out, "dropped at the end"),
        (proof.bad, "bad"),
        (proof.repeats, "repeated by the sampler"),
        (proof.not_asked_for, "not in the sampler's order"),
    ]
    named = [f"{number:,} {what}" for number, what in parts if number]
    return f" (and {', '.join(named)})" if named else ""
