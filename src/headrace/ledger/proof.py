"""What ledgers prove: that each sample of an epoch was delivered exactly once; and where two runs part."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import ArgumentError
from headrace.ledger.book import Ledger, found
from headrace.ledger.history import Book, Part, history

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from headrace.ledger.format import Entry, Keys, Session

NAMED = 1000
"""How many samples a report names; all are counted."""
_MOST = 2**33
"""Samples whose bitmap is still drawn up: it takes a bit each."""
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class EpochProof:
    """What the ledgers say of one epoch; printed, it is one line, or one for each thing that is wrong."""

    epoch: int
    delivered: int
    """Samples that were delivered, each time counted, without padding."""
    samples: int | None
    """How many there are, where that is known."""
    ended: bool
    """Whether the epoch's last batches were delivered, to every rank whose ledger was given."""
    missing: tuple[range, ...] = ()
    """Keys that never came, as stretches; of samples without an integer for a key, their places in the order."""
    missing_count: int = 0
    double: dict[int, int] = field(default_factory=dict)
    """Keys (or places) that came more than once: how often."""
    double_count: int = 0
    padding: int = 0
    """Samples that filled up the last global batch, beyond the epoch's end (``uneven="pad"`` and "repeat")."""
    left_out: int = 0
    """Samples at the epoch's end that make no whole batch (``drop_last``, ``uneven="drop"``)."""
    bad: int = 0
    """Samples that could not be made and were passed over, or replaced by others (``on_error``)."""
    repeats: int = 0
    """Samples that the sampler's own order has more than once."""
    not_asked_for: int = 0
    """Samples of the dataset that the sampler's own order does not have."""
    absent: tuple[str, ...] = ()
    """Ledgers that would be needed and were not given."""
    sessions: int = 1
    """How many loops, one after the other, delivered the epoch: one more than it was resumed with effect."""

    @property
    def exact(self) -> bool:
        """Whether each sample of the epoch was delivered exactly once."""
        return self.ended and not self.missing_count and not self.double_count and not self.absent

    def __str__(self) -> str:
        told = _told(self)
        if self.exact:
            whole = "each of " if self.delivered != 1 else ""
            return f"epoch {self.epoch}: {whole}{_samples(self.delivered)} was delivered exactly once{told}"
        lines = []
        if self.missing_count:
            lines.append(f"{_samples(self.missing_count)} missing: {_stretches(self.missing, self.missing_count)}")
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
    epoch 0: each of 9 samples was delivered exactly once (and 1 to fill up the last global batch)
    >>> print(headrace.verify_epoch(ranks[0]))
    epoch 0: 5 samples delivered; 4 samples missing: 2-3, 6-7; not given: rank 1 of 2

    ``ledgers``: the `Ledger` of every rank that took part, before and after restarts, or their files, or a folder that
    holds them. ``epoch``: which; None for the last that was begun. What a restart made undone does not count: batches
    that came after the state from which a later loop went on. Where several loops began at the same place, or went
    different ways from one state, the one that was begun last counts.

    The order of a dataset is proven by key, each once. That of a sampler is proven by place: each place of its order
    once; what the order itself has twice, or not at all, is told. So it is with iterable datasets, sample by sample as
    they were read. Samples for padding, those left out at the end, and bad ones are told, and are no fault. Returns an
    `EpochProof`, of which ``exact`` is the answer. Raises `ArgumentError` where there is nothing to go by, and
    `BadFile` for a damaged file.
    """
    books = [Book.of(ledger) for given in ledgers for ledger in found(given)]
    epochs = {session.epoch: session.began for book in books for session in sorted(book.sessions, key=_began)}
    if not epochs or epoch not in {None, *epochs}:
        what = f"epoch {epoch}" if epoch is not None else "an epoch"
        raise ArgumentError(f"no batch of {what} stands in the {len(books)} ledgers given; there are {sorted(epochs)}")
    chosen = max(epochs, key=lambda number: epochs[number]) if epoch is None else epoch
    return _proof(history(books, chosen))


def _proof(parts: Sequence[Part]) -> EpochProof:
    last = parts[0].session
    entries = [entry for part in parts for kept in part.ranks.values() for entry in kept]
    absent = [
        f"rank {rank} of {part.session.world}"
        for part in reversed(parts)
        for rank in range(part.session.world)
        if rank not in part.ranks
    ]
    if parts[-1].session.parent is not None:
        absent.insert(0, f"what was delivered before step {parts[-1].session.first}")
    ended = all(any(entry.over for entry in kept) for kept in parts[0].ranks.values())
    batches = [entry for entry in entries if not entry.over]
    places = _Places(last.samples, batches)
    if last.ends is not None and last.facts.get("on_error") != "skip":
        ended |= places.end >= last.ends  # a loop that took the last batch need not have asked for one more
    overs = sum(entry.stop - entry.start - entry.bad.count for entry in entries if entry.over)
    bad = sum(entry.bad.count for entry in entries)
    common: dict[str, Any] = {
        "epoch": last.epoch,
        "samples": last.samples,
        "ended": ended,
        "bad": bad,
        "absent": tuple(dict.fromkeys(absent)),
        "sessions": len(parts),
    }
    left_out = overs or (last.samples or 0) - (last.ends or 0)
    if last.samples is not None and last.facts.get("order") in {"sequential", "shuffled"}:
        return _by_key(last.samples, entries, places, left_out, common)
    end = None if last.samples is None else last.samples - left_out
    if end is not None and places.end < end:
        places.gaps.append(range(places.end, end))
    repeats, without = _told_of(last.facts.get("samples"), batches)
    return EpochProof(
        delivered=places.covered,
        missing=tuple(places.gaps[:NAMED]),
        missing_count=sum(map(len, places.gaps)),
        double=places.twice(),
        double_count=sum(len(stretch) for stretch in places.overlaps),
        padding=places.padding,
        left_out=left_out,
        repeats=repeats,
        not_asked_for=without,
        **common,
    )


class _Places:
    """Which places of the order, or of each lane of a stream, were delivered: as stretches."""

    def __init__(self, samples: int | None, batches: Iterable[Entry]) -> None:
        lanes: dict[int | None, list[tuple[int, int]]] = {}
        for entry in batches:
            stretch = entry.start, entry.stop
            if samples is not None:
                stretch = min(entry.start, samples), min(entry.stop, samples)
            if stretch[0] < stretch[1]:
                lanes.setdefault(entry.lane, []).append(stretch)
        self.padding = sum(max(0, e.stop - max(e.start, samples)) for e in batches) if samples is not None else 0
        self.gaps: list[range] = []
        self.overlaps: list[range] = []
        self.covered = 0
        self.end = 0
        for stretches in lanes.values():
            end = 0
            for start, stop in sorted(stretches):
                if start > end:
                    self.gaps.append(range(end, start))
                if start < end:
                    self.overlaps.append(range(start, min(stop, end)))
                self.covered += stop - start
                end = max(end, stop)
            self.end = max(self.end, end)

    def twice(self) -> dict[int, int]:
        """Return the first places that came more than once, and how often."""
        times: Counter[int] = Counter()
        for stretch in self.overlaps:
            times.update(stretch[: NAMED - len(times)])
        return {place: count + 1 for place, count in sorted(times.items())}


def _by_key(
    samples: int, entries: Sequence[Entry], places: _Places, left_out: int, common: dict[str, Any]
) -> EpochProof:
    """Prove the order of a dataset: each key once, whatever place it came at."""
    if samples > _MOST:
        raise ArgumentError(f"an epoch of {samples} samples: more than {_MOST} are not proven one by one")
    seen = np.zeros(-(-samples // 8), np.uint8)
    double: Counter[int] = Counter()
    doubles = 0
    delivered = 0
    for entry in entries:
        for keys, good in ((entry.keys, True), (entry.bad, False)):
            delivered += keys.count if good else 0
            for numbers in _stretches_of(keys, samples):
                again = _mark(seen, numbers)
                doubles += len(again)
                double.update(again[:NAMED].tolist() if len(double) < NAMED else ())
    missing_count = samples - _bits(seen)
    missing = _holes(seen, samples) if missing_count else []
    if missing_count == left_out and common["ended"]:
        missing, missing_count = [], 0
    else:
        left_out = 0
    return EpochProof(
        delivered=delivered,
        missing=tuple(missing),
        missing_count=missing_count,
        double={key: count + 1 for key, count in sorted(double.items())},
        double_count=doubles,
        padding=places.padding,
        left_out=left_out,
        **common,
    )


def _stretches_of(keys: Keys, samples: int) -> Iterator[NDArray[np.int64]]:
    """Return keys as rows of limited length; those that are no index of the dataset are none of its samples."""
    numbers = keys.numbers
    if numbers is None:
        return
    for start in range(0, min(len(numbers), samples), 2**20):
        part = numbers[start : start + 2**20]
        row = np.arange(part.start, part.stop) if isinstance(part, range) else part
        yield row[(row >= 0) & (row < samples)]


def _mark(seen: NDArray[np.uint8], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Set the bits of some numbers, in rising order, and return those that were set already."""
    byte, bit = numbers >> 3, np.left_shift(1, numbers & 7).astype(np.uint8)
    again = (seen[byte] & bit) != 0
    again[1:] |= numbers[1:] == numbers[:-1]
    np.bitwise_or.at(seen, byte, bit)
    repeated: NDArray[np.int64] = numbers[again]
    return repeated


def _bits(seen: NDArray[np.uint8]) -> int:
    return sum(int(np.unpackbits(seen[start : start + 2**20]).sum()) for start in range(0, len(seen), 2**20))


def _holes(seen: NDArray[np.uint8], samples: int) -> list[range]:
    """Return the first stretches of bits that are not set."""
    stretches: list[range] = []
    for start in range(0, len(seen), 2**17):
        bits = np.unpackbits(seen[start : start + 2**17], bitorder="little")
        edges = np.flatnonzero(np.diff(np.concatenate([[1], bits, [1]]))) + start * 8
        for low, high in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            high = min(high, samples)
            if low >= high:
                continue
            if stretches and stretches[-1].stop == low:
                stretches[-1] = range(stretches[-1].start, high)
            else:
                stretches.append(range(low, high))
        if len(stretches) > NAMED:
            break
    return stretches[:NAMED]


def _told_of(dataset: Any, batches: Sequence[Entry]) -> tuple[int, int]:
    """Return how many keys of a sampler's order came again, and how many of the dataset's never, if that is known."""
    if not isinstance(dataset, int) or not 0 <= dataset <= _MOST or any(e.keys.numbers is None for e in batches):
        return 0, 0
    seen, again = np.zeros(-(-dataset // 8), np.uint8), 0
    for entry in batches:
        for numbers in _stretches_of(entry.keys, dataset):
            again += len(_mark(seen, numbers))
    return again, dataset - _bits(seen)


def _began(session: Session) -> int:
    return session.began


def _samples(number: int) -> str:
    return f"{number:,} sample{'s' if number != 1 else ''}"


def _more(number: int) -> str:
    return f" and {number:,} more" if number > 0 else ""


def _stretches(stretches: Sequence[range], total: int) -> str:
    shown = stretches[:_SHOWN]
    named = [str(s.start) if len(s) == 1 else f"{s.start}-{s.stop - 1}" for s in shown]
    return ", ".join(named) + _more(total - sum(map(len, shown)))


def _told(proof: EpochProof) -> str:
    parts = [
        (proof.padding, "to fill up the last global batch"),
        (proof.left_out, "left out at the end"),
        (proof.bad, "bad"),
        (proof.repeats, "repeated by the sampler's own order"),
        (proof.not_asked_for, "not in the sampler's own order"),
    ]
    named = [f"{number:,} {what}" for number, what in parts if number]
    return f" (and {', '.join(named)})" if named else ""
