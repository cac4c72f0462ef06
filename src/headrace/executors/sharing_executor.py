"""The executor of processes that share their batches: one of them makes each batch, the others take it.

    submit ──> wanted ──claim──> the workers of this process ──> store
                  └── claimed by another process ──────────────────┴──> next

A batch is a function of its work, so any process can make any batch, and sharing only saves time. The executor looks
whether a batch is in the store, else claims it and lets its own workers make it, else waits for whoever has claimed it.
What its maker's death, a full store or a stopped process takes away is made here.

There is no thread: whoever asks for the next batch looks, claims and waits, in one ``poll``. Workers publish batches
themselves, so a process that is busy with a batch delays no other.
"""

from __future__ import annotations

import os
import select
import threading
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, fields
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from headrace.errors import ArgumentError
from headrace.executors.inline import Inline
from headrace.executors.lifecycle import ForkGuard, closed_while_reading, submitted_after_closing, timed_out
from headrace.make.publishing_maker import TRIAL, Published, Sample, TrialWork, UnsharedWork, name_of
from headrace.plan.work import Done, Work

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.executors.base import Executor, Reusable
    from headrace.plan.work import Failed, Outcome
    from headrace.transport.batch_claims import Claim
    from headrace.transport.batch_store import BatchStore, Peer

AHEAD = 4
"""How many times as many batches are asked for as the workers of one process have in hand: others make the rest."""

PATIENCE = 20.0
"""Seconds that a batch is waited for before it is made here too: its maker may be stopped."""


@dataclass(slots=True)
class Agreement:
    """What a process knows of the samples of the others; for all loops of a loader."""

    found: bool | None = None
    """Whether they are those of this process; None: not compared yet, False: there is no place to compare them."""


@dataclass(slots=True)
class _Wanted:
    """A batch that nobody has given to this process yet."""

    work: Work
    name: str
    since: float = inf
    """When another process was first found to make it."""
    watched: int = -1
    """A descriptor that tells news of it; -1 where it has no maker."""


@dataclass(slots=True)
class _Making:
    """A batch that the workers of this process make."""

    work: Work
    claim: Claim | None


class _State:
    """All that closing has to let go of."""

    def __init__(self, inner: Executor) -> None:
        self.inner = inner
        self.wanted: dict[int, _Wanted] = {}
        self.making: dict[int, _Making] = {}
        self.ready: deque[Outcome] = deque()
        self.reading = threading.RLock()
        self.poll = select.poll()
        self.woken, self.waker = os.pipe()
        self.poll.register(self.woken, select.POLLIN)

    def stop_watching(self, wanted: _Wanted) -> None:
        """Forget whoever makes a batch."""
        if wanted.watched >= 0:
            self.poll.unregister(wanted.watched)
            os.close(wanted.watched)
            wanted.watched = -1

    def forget(self) -> None:
        """Let go of all works; others may make them."""
        for wanted in list(self.wanted.values()):
            self.stop_watching(wanted)
        for making in list(self.making.values()):
            if making.claim is not None:
                making.claim.release()
        self.wanted.clear()
        self.making.clear()
        self.ready.clear()


class SharingExecutor:
    """Makes batches by ``inner``, whose maker publishes them in ``store``, and takes those of other processes.

    ``trial``: indices of samples that all processes make, to compare them before anything is taken.
    """

    def __init__(
        self, inner: Executor, store: BatchStore, peer: Peer, trial: Sequence[int], agreement: Agreement
    ) -> None:
        self.capacity = max(inner.capacity * AHEAD, AHEAD)
        self._inner, self._store, self._peer = inner, store, peer
        self._limit = inner.capacity
        self._eager = not isinstance(inner, Inline)
        self._trial, self._agreement = trial, agreement
        self._trying = False
        self._next = (0, 0)
        """The epoch and the step after the last that was submitted."""
        self._guard = ForkGuard()
        self._state = _State(inner)
        self._finish = weakref.finalize(self, _finish, self._state, self._guard)

    @property
    def processes(self) -> list[Any]:
        """The workers of this process, where they are processes."""
        return getattr(self._inner, "processes", [])

    def submit(self, work: Work) -> None:
        """Take a work; where no other process makes it, the workers of this one begin."""
        self._guard.check()
        with self._state.reading:
            if not self._finish.alive:
                raise submitted_after_closing()
            if work.replica is not None or work.dataset_copy is not None:
                raise not_shared()
            if self._agreement.found is None and not self._trying:
                self._trying = True
                self._inner.submit(TrialWork(work.seed, 0, TRIAL, 0, self._trial))
            self._state.wanted[work.step] = _Wanted(work, name_of(work))
            self._next = (work.epoch, work.step + 1)
            if self._eager:
                self._advance()

    def next(self, timeout: float | None = None) -> Outcome:
        """Return the outcome that is ready first."""
        self._guard.check()
        state = self._state
        began = monotonic()
        with state.reading:
            while True:
                self._check_open()
                self._advance()
                if state.ready and (self._eager or not state.making):  # what is claimed is made now, or nobody makes it
                    self._tell_place()
                    return state.ready.popleft()
                left = None if timeout is None else max(0.0, timeout - (monotonic() - began))
                if state.making or self._trying:
                    self._receive(self._inner.next(left))
                elif not self._wait(left):
                    raise timed_out(timeout or 0, self._explain())

    def close(self) -> None:
        """End the workers, and let others make what was claimed here."""
        self._finish()

    def _check_open(self) -> None:
        if not self._finish.alive:
            raise closed_while_reading()

    def _advance(self) -> None:
        """Take what others have made, and claim as much as the workers have room for; never waits."""
        if self._trying:
            return  # first it must be known that the others make the same
        state = self._state
        news = {file for file, _ in state.poll.poll(0)}
        for step, wanted in list(state.wanted.items()):
            if (wanted.watched < 0 or wanted.watched in news) and self._take(step, wanted):
                continue
            late = monotonic() - wanted.since > PATIENCE
            if (
                len(state.making) < self._limit
                and (wanted.watched < 0 or wanted.watched in news or late)
                and (self._eager or not (state.making or state.ready))
            ):
                self._claim(step, wanted, told=late or wanted.watched in news)

    def _take(self, step: int, wanted: _Wanted) -> bool:
        taken = self._store.take(wanted.name) if self._agreement.found else None
        if taken is None:
            return False
        self._state.stop_watching(wanted)
        del self._state.wanted[step]
        self._state.ready.append(_done(step, taken.batch, taken.said))
        return True

    def _claim(self, step: int, wanted: _Wanted, *, told: bool) -> None:
        """Let the workers make a batch, unless another process does; ``told``: its maker has nothing to give."""
        state = self._state
        state.stop_watching(wanted)
        claim, alone = None, not self._agreement.found
        if not alone:
            try:
                claim = self._store.claim(wanted.name)
            except OSError:  # the folder has been deleted, or there is no room for a name
                alone = True
        if claim is None and not (alone or told):
            watched = self._store.watch(wanted.name)
            if watched is not None:
                wanted.watched = watched
                wanted.since = min(wanted.since, monotonic())
                state.poll.register(watched, select.POLLIN)
            return  # without a descriptor it was released just now, and is looked at again
        if claim is not None and self._take(step, wanted):
            claim.release()
            return
        del state.wanted[step]
        state.making[step] = _Making(wanted.work, claim)
        self._inner.submit(wanted.work if claim is not None else unshared(wanted.work))

    def _receive(self, outcome: Outcome) -> None:
        """Take an outcome of this process's own workers."""
        state = self._state
        if outcome.step == TRIAL:
            self._trying = False
            self._compare(outcome)
            return
        making = state.making.pop(outcome.step)
        if isinstance(outcome, Done) and isinstance(outcome.batch, Published):
            taken = self._store.take(outcome.batch.name)
            if taken is None:  # dropped before it was looked at, for want of room
                state.making[outcome.step] = making
                self._inner.submit(unshared(making.work))
                return
            outcome.batch = taken.batch
        if making.claim is not None:
            making.claim.release()
        state.ready.append(outcome)

    def _compare(self, outcome: Outcome) -> None:
        if not isinstance(outcome, Done):
            self._finish()
            raise cast("Failed", outcome).error
        digest = outcome.batch
        try:
            same = self._store.agree(digest)
        except OSError:  # without a place for it, nothing is shared
            self._agreement.found = False
            return
        if not same:
            self._finish()
            raise ArgumentError(
                "other processes share batches under this name, and the same samples are other data there",
                found=digest,
                expected="the same dataset, transforms and collate_fn in all processes, with random numbers from rng()",
                cure="Use another name for another run.",
            )
        self._agreement.found = True

    def _wait(self, seconds: float | None) -> bool:
        """Wait until there is news of a batch; False if none comes in so many seconds."""
        state = self._state
        oldest = min((wanted.since for wanted in state.wanted.values()), default=monotonic())
        patience = max(0.0, oldest + PATIENCE - monotonic())
        if any(wanted.watched < 0 for wanted in state.wanted.values()):
            return True  # released just now
        first = patience if seconds is None else min(patience, seconds)
        return bool(state.poll.poll(first * 1000 + 1)) or seconds is None or patience < seconds

    def _tell_place(self) -> None:
        state = self._state
        steps = [*state.wanted, *state.making]
        self._peer.needs((self._next[0], min(steps)) if steps else self._next)

    def _explain(self) -> str:
        steps = ", ".join(map(str, self._state.wanted))
        return f"waiting for batches that another process makes: {steps}"


class ReusableSharingExecutor(SharingExecutor):
    """The same, where the workers can stay for the next epoch."""

    @property
    def closed(self) -> bool:
        """Whether its workers are gone."""
        return self._guard.in_child or not self._finish.alive or cast("Reusable", self._inner).closed

    def reset(self) -> None:
        """Forget what was asked for; the workers stay."""
        with self._state.reading:
            cast("Reusable", self._inner).reset()
            self._state.forget()
            self._trying = False


def not_shared() -> ArgumentError:
    """Return the error for a dataset whose batches depend on what was read before."""
    return ArgumentError(
        "a dataset that is read as a stream, or keeps a state of its own, cannot be shared",
        expected="a dataset with an index, whose samples any process can make",
        cure="leave backend=headrace.share(...) out, or use a dataset with an index",
    )


def unshared(work: Work) -> UnsharedWork:
    """Return a work that this process makes for itself.

    >>> mine = unshared(Work((0, 0), 0, 1, 2, [3], noted=1))
    >>> mine.keys, mine.noted
    ([3], 1)
    """
    return UnsharedWork(**{each.name: getattr(work, each.name) for each in fields(Work)})


def _done(step: int, batch: Any, said: Sample) -> Done:
    return Done(step, batch, said.bad, tokens=said.tokens, taken=True)


def _finish(state: _State, guard: ForkGuard) -> None:
    if guard.in_child:
        return  # a fork took the executor along, but its workers are not that process's
    with suppress(OSError):
        os.write(state.waker, b"!")
    try:
        state.inner.close()
    finally:
        with state.reading:  # whoever waits has been woken
            state.forget()
            for file in (state.woken, state.waker):
                os.close(file)
