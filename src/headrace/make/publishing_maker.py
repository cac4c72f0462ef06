"""A maker that puts the batches it makes into a store, where other processes find them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.ledger.fingerprint import of_batch, of_keys
from headrace.make.maker import Maker, Stop
from headrace.plan.work import Done, Failed, Work
from headrace.transport.batch_store import BatchStore  # noqa: TC001  dataclasses look for it

if TYPE_CHECKING:
    from collections.abc import Collection

    from headrace.context import seeds
    from headrace.context.memory import Empty, Recycler
    from headrace.plan.work import Outcome
    from headrace.transport.batch_store import BatchWriter

TRIAL = -1
"""The step of the work that all processes make, to compare its batch."""


@dataclass(slots=True)
class TrialWork(Work):
    """The samples that all processes make, to compare them."""

    @property
    def title(self) -> str:
        """Say what they are."""
        return "the comparison with other processes"


@dataclass(slots=True)
class UnsharedWork(Work):
    """A batch that this process makes for itself, whatever others do."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a worker process sends in the place of a batch that it has put into the store."""

    name: str


@dataclass(frozen=True, slots=True)
class Sample:
    """What is said of a batch in the store, beside the batch."""

    bad: tuple[Any, ...]
    tokens: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class PublishingMaker(Maker):
    """Makes batches as another maker does, in the memory of a store, and publishes them there.

    ``owner`` is the process that delivers them. It gets its own copy; a worker process tells it the batch's name.
    """

    store: BatchStore = dataclasses.field(kw_only=True)
    owner: int = dataclasses.field(kw_only=True, default_factory=os.getpid)

    @classmethod
    def of(cls, maker: Maker, store: BatchStore) -> PublishingMaker:
        """Return what makes the batches of a maker."""
        return cls(**{each.name: getattr(maker, each.name) for each in dataclasses.fields(Maker)}, store=store)

    @property
    def begins(self) -> bool:
        """False: whole works are made by threads, so that a batch is published while the consumer is busy."""
        return False

    def make(
        self,
        work: Work,
        *,
        here: seeds.Here | None = None,
        empty: Empty = np.empty,
        stop: Stop | None = None,
        seeding: Collection[str] = (),
        gives_back: bool = True,
        scratch: Recycler | None = None,
    ) -> Outcome:
        """Make a work's batch, and publish it where another process needs it; never raises, as `Maker.make`."""

        def made(lend: Empty) -> Outcome:
            return Maker.make(
                self, work, here=here, empty=lend, stop=stop, seeding=seeding, gives_back=gives_back, scratch=scratch
            )

        if work.step == TRIAL:
            found = made(np.empty)
            if isinstance(found, Failed) and not isinstance(found.error, Exception):
                return found  # Ctrl-C says nothing of the samples
            return Done(TRIAL, digest_of(found))
        name = name_of(work)
        if isinstance(work, UnsharedWork):
            return made(empty)
        try:
            if not self.store.wanted(name):
                return made(empty)
            with self.store.write(name) as writer:
                outcome = made(writer.empty if writer.lends else empty)
                if not isinstance(outcome, Done):
                    return outcome
                said = Sample(outcome.bad, outcome.tokens)
                try:
                    published = writer.publish(outcome.batch, said)
                except Exception:  # noqa: BLE001  a user's class that cannot be pickled: the batch stays here
                    published = False
                if not published:
                    return self._withdrawn(outcome, writer) or made(empty)
            if os.getpid() != self.owner:
                outcome.batch = Published(name)
                return outcome
            taken = self.store.take(name)
            if taken is None:  # dropped at once, for want of room
                return made(empty)
            outcome.batch = taken.batch
            return outcome
        finally:
            self.store.notify(name)

    def _withdrawn(self, outcome: Done, writer: BatchWriter) -> Done | None:
        """Return a batch that could not be published, in memory of this process; None where it cannot be copied."""
        if writer.lends:
            try:
                outcome.batch = writer.copied(outcome.batch)
            except Exception:  # noqa: BLE001  whatever a user's class does
                return None
        return outcome


def name_of(work: Work) -> str:
    """Return what names a batch: its epoch, its step, and a hash of all else that it depends on.

    >>> name_of(Work((1, 2), epoch=0, step=3, start=6, keys=[5, 4]))[:33]
    '0000000000000000-0000000000000003'
    """
    rest = repr((*map(int, work.seed), work.start, of_keys(work.keys), of_keys(work.spares)))
    return f"{work.epoch:016x}-{work.step:016x}-{hashlib.blake2b(rest.encode(), digest_size=8).hexdigest()}"


def digest_of(outcome: Outcome) -> str:
    """Return what two processes compare: a hash of a batch, or the kind of error that it raised."""
    if isinstance(outcome, Failed):
        return f"{type(outcome.error).__name__}"
    return f"{of_batch(outcome.batch):016x}" if isinstance(outcome, Done) else ""
