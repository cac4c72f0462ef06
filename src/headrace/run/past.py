"""Batches and samples of any epoch, made again: what `DataLoader.replay` and `DataLoader.lineage` give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.checks import integer
from headrace.errors import ArgumentError
from headrace.make.source import Batched, Indexed
from headrace.run import lineage
from headrace.run.orders import Entry
from headrace.run.progress import MOST_EPOCHS

if TYPE_CHECKING:
    from headrace.plan.work import Work
    from headrace.run.lineage import Lineage
    from headrace.run.session import Session


def work_at(session: Session, epoch: int, step: int) -> tuple[Work, int]:
    """Return the work of a step of any epoch, and the seed that it is made from."""
    settings, progress = session.settings, session.progress
    epoch = integer("epoch", epoch, least=0, most=MOST_EPOCHS)
    step = integer("step", step, least=0)
    if settings.on_error == "skip":
        raise ArgumentError(
            'on_error="skip" refills batches with the samples that follow, so a step alone does not say which samples '
            "are in its batch",
            found="skip",
            expected='on_error="raise" or "replace"',
            cure='make a loader with on_error="raise" or "replace" to replay from',
        )
    saved, cursor = progress.past(epoch)
    base: Any = settings.seed if settings.key is not None else saved.get("seed", cursor.seed)
    if base is None:
        raise ArgumentError(
            f"the order of epoch {epoch} is not known: without a seed, each loop draws one of its own",
            found=epoch,
            expected="the epoch of the newest loop, or of a loaded state",
            cure="make the loader with seed= to replay any epoch",
        )
    entry = Entry(*progress.stream(base, epoch), cursor, saved, again=progress.looped)
    work = session.order.work_at(entry, epoch, step)
    if work is None:
        raise ArgumentError(
            f"step {step} is not in epoch {epoch}, which has fewer steps",
            found=step,
            expected="a step of the epoch",
            cure="ask for an earlier step; len(loader) is the number of steps",
        )
    return work, base


def lineage_of(session: Session, epoch: int, step: int, index: int) -> Lineage:
    """Return where a sample of a batch came from and what was done to it."""
    work, base = work_at(session, epoch, step)
    maker = session.maker()
    sample, trace, bad = lineage.traced(maker, work, index)
    key = work.keys[index] if work.replica is None else None
    found = maker.source.where(key) if isinstance(maker.source, Indexed | Batched) and key is not None else None
    return lineage.Lineage(
        dataset=lineage.visits(session.settings.dataset, key),
        key=key,
        where=found,
        seed=base,
        epoch=epoch,
        step=work.step,
        index=index,
        position=work.start + index * (1 if work.replica is None else work.replica.count),
        before=trace.before if trace.steps else sample,
        sample=sample,
        steps=lineage.steps(trace),
        batch=lineage.of_batch(maker, work, sample),
        draws=tuple(trace.draws),
        replaced=bad,
    )
