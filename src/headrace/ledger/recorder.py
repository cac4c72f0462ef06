"""The interface between a loop and its ledger."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.ledger import fingerprint
from headrace.ledger.format import Entry, Keys, Session, of_entry, of_session
from headrace.plan.piece import Piece

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.ledger.store import Ledger
    from headrace.plan.work import Done, Work


@dataclass(slots=True)
class Recorder:
    """One loop's connection to its ledger: notes requested and completed work, records delivered batches."""

    ledger: Ledger
    session: Session
    by_batch: bool
    """Whether bad samples are skipped, so that batches are cut from the good samples, not by the plan's steps."""
    passed: int = 0
    """Good samples of the first step that were in an earlier batch."""
    read: int = 0
    """Samples of a stream in earlier steps, of all its copies together."""
    find_end: Callable[[int], tuple[int, int] | None] | None = None
    """Where the length of the epoch is not known ahead: returns it and the position to reach, for a step after it."""
    _asked: dict[int, Work] = field(default_factory=dict)
    _completed: tuple[Work, Keys, Keys, tuple[int, int]] | None = None
    _waiting: deque[tuple[int, int, Any, bool]] = field(default_factory=deque)
    """If bad samples are skipped, the samples not delivered yet: step, position, key, and whether each is bad."""
    _next_position: int | None = None
    _started: bool = False

    def submitted(self, work: Work) -> None:
        """Note the work of a batch that was submitted."""
        self._asked[work.step] = work

    def failed(self, step: int) -> None:
        """Note that a batch ended with an error."""
        self._asked.pop(step, None)

    def completed(self, done: Done) -> None:
        """Note the samples of a batch that was made."""
        work = self._asked.pop(done.step)
        self._look_for_end(work.step + 1)
        bad = [each.index for each in done.bad]
        keys: Sequence[Any] = work.keys
        if work.replica is not None and self.by_batch:
            # A stream may end early; the batch is still a list of samples here, so its length is known.
            keys = range(work.replica.start, work.replica.start + len(done.batch) + len(bad))
        if not self.by_batch:
            real = self._real(work, keys)
            good, worse = _split(real, bad)
            self._completed = work, _keys_of(good), _keys_of(worse), _counts(work, real, done.tokens)
            return
        # A batch here mixes copies of a stream, which have separate positions; so samples are counted instead.
        start = work.start if work.replica is None else self.read
        self.read += len(keys)
        left = deque(bad)
        for position, key in enumerate(keys, start):
            is_bad = bool(left) and left[0] == key
            if is_bad:
                left.popleft()
            if self.passed:
                self.passed -= not is_bad
            else:
                self._waiting.append((done.step, position, key, is_bad))

    def _look_for_end(self, step: int) -> None:
        """Note how long the epoch is, once that is known; the session is then written again, before its last batch."""
        if self.find_end is not None and (found := self.find_end(step)) is not None:
            self.session = replace(self.session, samples=found[0], ends=found[1])
            self.find_end, self._started = None, False

    def _real(self, work: Work, keys: Sequence[Any]) -> Sequence[Any]:
        """Return the keys without those that only fill the last global batch."""
        if work.replica is not None:
            return ()
        samples = self.session.samples
        return keys if samples is None else keys[: max(0, samples - work.start)]

    def entry_record(self, batch: Any, number: int, rows: int, step: int) -> bytes:
        """Return the record of a batch, by its number in the epoch and its rows (0: not known).

        ``step`` is the first step with samples that are not delivered yet.
        """
        content = fingerprint.of_batch(batch) if self.ledger.fingerprints else 0
        if self.by_batch:
            return self._regrouped(number, rows, step, content)
        assert self._completed is not None  # noqa: S101  for the type checker: a batch is made before it is handed over
        (work, keys, bad, counts), self._completed = self._completed, None
        if work.replica is None:
            order = fingerprint.of_keys(work.keys)
            return self._packed(work.step, None, work.start, work.rows, keys, bad, order, content, counts)
        replica = work.replica
        number, first, count = 0, work.start, replica.size
        if not work.keys:
            number, first, count = replica.number, replica.start, min(rows or replica.size, replica.size)
        return self._packed(work.step, number, first, count, keys, bad, 0, content, counts)

    def _regrouped(self, number: int, rows: int, step: int, content: int) -> bytes:
        keys: list[Any] = []
        bad: list[Any] = []
        start = self._waiting[0][1] if self._next_position is None and self._waiting else self._next_position or 0
        stop, given, samples = start, 0, self.session.samples
        # Bad samples at the end of a finished step belong to this batch; no later batch reaches them.
        while self._waiting and (given < rows or self._waiting[0][0] < step):
            _, position, key, is_bad = self._waiting.popleft()
            given += not is_bad
            if samples is None or position < samples:  # later positions only fill the last global batch
                (bad if is_bad else keys).append(key)
            stop = position + 1
        self._next_position = stop
        order = fingerprint.of_keys(keys)
        return self._packed(number, None, start, stop - start, _keys_of(keys), _keys_of(bad), order, content)

    def _packed(
        self,
        at: int,
        replica: int | None,
        start: int,
        count: int,
        keys: Keys,
        bad: Keys,
        order: int,
        content: int,
        counts: tuple[int, int] = (0, 0),
        *,
        over: bool = False,
    ) -> bytes:
        stop = start + count
        return of_entry(Entry(self.session.number, at, replica, start, stop, keys, bad, order, content, over, *counts))

    def end_record(self, at: int) -> bytes:
        """Return the record of the epoch's end: the bad and the dropped samples after the last batch."""
        self._look_for_end(at)
        samples = self.session.samples
        while self._waiting and samples is not None and self._waiting[-1][1] >= samples:
            self._waiting.pop()
        bad = [key for _, _, key, is_bad in self._waiting if is_bad]
        start = self._waiting[0][1] if self._waiting else self._next_position or 0
        return self._packed(at, None, start, len(self._waiting), Keys(), _keys_of(bad), 0, 0, over=True)

    def write(self, record: bytes | None) -> None:
        """Write the session's record if it is new or changed, and then the given one, if any (an error has none)."""
        if not self._started:
            self._started = True
            self.ledger.append(of_session(self.session))
        if record is not None:
            self.ledger.append(record)


def start_recorder(
    ledger: Ledger,
    *,
    parent: str | None,
    epoch: int,
    first: int,
    beyond: tuple[int, ...],
    batches: int,
    offset: int,
    bad: int,
    rank: int,
    world: int,
    samples: int | None,
    ends: int | None,
    facts: dict[str, Any],
    find_end: Callable[[int], tuple[int, int] | None] | None = None,
) -> Recorder:
    """Return the recorder of a new loop.

    The session's name depends only on what all ranks know, not on the attempt. If two attempts start at the same
    position, a restart undid the first one.
    """
    place = json.dumps([parent, epoch, first, batches, offset, world, facts], sort_keys=True)
    name = hashlib.blake2b(place.encode(), digest_size=8).hexdigest()
    number = int.from_bytes(os.urandom(4), "little")
    read = batches * (facts.get("batch_size") or 1) - offset + bad
    session = Session(
        number, name, parent, epoch, first, beyond, batches, rank, world, time.time_ns(), samples, ends, facts
    )
    skips = facts.get("on_error") == "skip"
    return Recorder(ledger, session, by_batch=skips, passed=offset, read=read, find_end=find_end)


def _counts(work: Work, real: Sequence[Any], tokens: tuple[int, int] | None) -> tuple[int, int]:
    """Return the documents and the tokens of a batch, without those that only fill the last global batch."""
    if tokens is None:
        return 0, 0
    if work.replica is not None:
        return 0, tokens[0]
    members = (key if isinstance(key, tuple) else (key,) for key in real)
    documents = sum(not isinstance(key, Piece) or key.start == 0 for group in members for key in group)
    # Filling is whole batches of documents, or windows, which have one length.
    return documents, tokens[0] * len(real) // max(len(work.keys), 1)


def _split(keys: Sequence[Any], bad: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Split the keys of a batch into good and bad ones; ``bad`` is in the order of the batch, with padding."""
    if not bad:
        return keys, bad
    left = deque(bad)
    parts: tuple[list[Any], list[Any]] = [], []
    for key in keys:
        is_bad = bool(left) and left[0] == key
        parts[is_bad].append(left.popleft() if is_bad else key)
    return parts


def _keys_of(keys: Sequence[Any]) -> Keys:
    if isinstance(keys, range) and keys.step == 1:
        return Keys(len(keys), keys)
    numbers = fingerprint.integers(keys)
    if numbers is None:
        return Keys(len(keys), None, sum(fingerprint.of_keys([key]) for key in keys) % 2**64)
    return Keys(len(numbers), np.sort(numbers))
