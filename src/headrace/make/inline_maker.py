"""Batches made in the consumer's own thread: the shortest way to one that arrives as it should."""

from __future__ import annotations

from collections import defaultdict
from time import perf_counter
from typing import TYPE_CHECKING, Any

from headrace.collate.row_writer import RowWriter
from headrace.context import worker_info
from headrace.context.current import Context, current, put, reset
from headrace.interop import torch_state
from headrace.make.map_guard import LOOKS
from headrace.make.source import Batched, Indexed, Streamed, items
from headrace.plan.work import Done, Ended
from headrace.storage import page_faults
from headrace.storage.mapped_samples import parts_in_memory, samples_in_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from headrace.context.memory import Empty, Recycler
    from headrace.context.seeds import Here
    from headrace.make.maker import Maker
    from headrace.plan.work import Outcome, Work

_UNUSUAL = object()
_END = object()


class InlineMaker:
    """Makes the batches of a `Maker` one after the other, where nobody asked for more than batches.

    What needs more than the source and collate is left to ``otherwise``, which is the maker's `Maker.make`: a state
    that a dataset keeps, mapped files, an item that is not there. An error becomes an outcome as it does there.
    """

    __slots__ = (
        "_context",
        "_empty",
        "_here",
        "_joined_at",
        "_looks",
        "_maker",
        "_modes",
        "_otherwise",
        "_outer",
        "_read",
        "_scratch",
        "_seconds",
        "_stage",
        "_stateless",
        "stages",
    )

    def __init__(
        self, maker: Maker, here: Here, empty: Empty, scratch: Recycler, otherwise: Callable[[Work], Outcome]
    ) -> None:
        source = maker.source
        self._maker = maker
        self._here = here
        self._empty = empty
        self._scratch = scratch
        self._otherwise = otherwise
        self._seconds: dict[str, float] = {}
        self._outer: Context | None = None
        self._context = Context()
        """What this thread works on while a batch is made; renewed where it worked on something else before."""
        self._modes = torch_state.modes()
        self._looks = LOOKS
        self._stateless = False
        self._joined_at = 0.0
        # Functions, and no methods: an object that holds one of its own methods is freed later.
        self._read: Callable[[InlineMaker, Work], Any] = _indexed
        if isinstance(source, Batched):
            self._read = _batched
        elif isinstance(source, Streamed):
            self._read = _streamed
        elif source.in_memory:
            self._read = _in_memory
        self._stage = "other" if isinstance(source, Indexed) else "read"
        self.stages: defaultdict[str, float] = defaultdict(float)
        """Where the seconds are counted by stage, beside those of outcomes."""

    @staticmethod
    def suits(maker: Maker, seeding: Collection[str]) -> bool:
        """Say whether batches can be made so: no bad samples to replace, and no generators to seed for each batch."""
        kind = type(maker.source)
        plain = maker.is_plain and maker.on_error == "raise"
        return plain and (kind is Batched or (kind in (Indexed, Streamed) and not seeding))

    def make(self, work: Work, began: float, noted: int = 0) -> tuple[Any, Outcome | None]:
        """Return a work's batch and None; or what `Maker.make` returns, where there is more to say than a batch.

        ``noted`` says that the seconds of each stage are to be known for this batch.
        """
        if work.dataset_copy is not None:
            return None, self._otherwise(work)
        here, seconds = self._here, self._seconds
        if seconds:
            seconds.clear()
        here.key, here.epoch, here.tokens, here.tokens_collated = work.seed, work.epoch, None, False
        here.move(work.start)
        now = current()
        if now is not self._outer:
            self._outer = now
            self._context = Context(here, seconds, self._scratch or now.recycler, now.share, now.worker, now.generator)
        token = put(self._context)
        survived = page_faults.survive(on=True)
        try:
            if self._modes():
                with torch_state.on_cpu():
                    batch = self._read(self, work)
            else:
                batch = self._read(self, work)
            if batch is _UNUSUAL:
                return None, self._otherwise(work)
            page_faults.check_faults("the batch")
            if batch is _END:
                return None, Ended(work.step, self._maker.kept(work, ended=True))
            ended = perf_counter()
            more = here.tokens is not None or not (self._stateless or work.replica is None)
            if seconds or more:
                self._settle(seconds, began, ended)
            if more or (seconds and noted):
                return None, self._done(work, batch)
        except BaseException as error:  # noqa: BLE001  every work gets exactly one outcome: see `Maker.make`
            return None, self._maker.failed(page_faults.cause_of(error), work, here)
        finally:
            page_faults.survive(on=survived)
            reset(token)
        self._count(seconds, began, ended)
        return batch, None

    def _count(self, seconds: dict[str, float], began: float, ended: float) -> None:
        """Count the time of a batch that there is no more to say of; ``seconds`` is settled, or empty."""
        stages = self.stages
        if seconds:
            for stage, spent in seconds.items():
                stages[stage] += spent
        elif self._read is _batched:
            stages[self._stage] += ended - began
        else:
            joined = self._joined_at
            stages[self._stage] += joined - began
            stages["collate"] += ended - joined

    def _settle(self, seconds: dict[str, float], began: float, ended: float) -> None:
        """Count the time that no stage has counted."""
        counted = sum(seconds.values())
        joined = ended if self._read is _batched else self._joined_at
        seconds[self._stage] = seconds.get(self._stage, 0.0) + joined - began
        if joined is not ended:
            seconds["collate"] = seconds.get("collate", 0.0) + ended - joined
        seconds[self._stage] = max(0.0, seconds[self._stage] - counted)

    def _done(self, work: Work, batch: Any) -> Done:
        """Return what there is to say of a batch."""
        seconds, self._seconds, self._outer = self._seconds, {}, None
        state = None if work.replica is None else self._maker.kept(work)
        return Done(work.step, batch, (), seconds, state, self._here.tokens)

    def finds_files(self, source: Indexed | Streamed, epoch: int) -> bool:
        """Say whether the dataset has mapped files, which are looked for in the first batches."""
        if self._looks:
            self._looks -= 1
            source.maps.look(epoch)
        return bool(source.maps.files)


def _in_memory(own: InlineMaker, work: Work) -> Any:
    """Make a batch of samples that exist already."""
    maker, here = own._maker, own._here
    source: Any = maker.source
    if own.finds_files(source, work.epoch):
        return _UNUSUAL
    try:
        samples = items(source.dataset, work.keys)
    except Exception:  # noqa: BLE001  which sample it is, is found out one by one
        return _UNUSUAL
    if not maker.writes_rows:
        samples = samples_in_memory(samples)
    here.position += len(samples) - 1  # for what collate draws, as one by one
    here.collating = True
    own._joined_at = perf_counter()
    return maker.collated(samples, own._empty)


def _indexed(own: InlineMaker, work: Work) -> Any:
    """Make a batch of samples that a dataset is asked for."""
    maker, here = own._maker, own._here
    source: Any = maker.source
    if own.finds_files(source, work.epoch):
        return _UNUSUAL
    keys, arrays = work.keys, not maker.writes_rows
    if source.reads_many:
        samples = source.read_many(keys, arrays=arrays)
    else:
        samples = []
        writer = None if arrays else RowWriter(len(keys), own._empty, maker.apart)
        dataset, append, fault = source.dataset, samples.append, page_faults.take
        unmade = None if writer is None else source.unmade
        for position, key in enumerate(keys, work.start):
            here.position = position
            sample = dataset[key] if unmade is None else unmade(key)
            if address := fault():
                sample = source.maps.settle(sample, key, address, arrays=arrays)
            if writer is not None:
                sample = writer.write(len(samples), sample)
                if not writer.writes:
                    writer = unmade = None
            elif arrays:
                sample = parts_in_memory(sample)
            append(sample)
    here.collating = True
    own._joined_at = perf_counter()
    return maker.collated(samples, own._empty)


def _streamed(own: InlineMaker, work: Work) -> Any:
    """Make a batch of the next samples of a stream."""
    maker, here, replica = own._maker, own._here, work.replica
    source: Any = maker.source
    if replica is None or replica.state is not None or not worker_info.outside():
        return _UNUSUAL
    stream = source.read(replica)
    if own.finds_files(source, work.epoch):
        source.hand_back(replica, stream)
        return _UNUSUAL
    function, arrays = source.function, not maker.writes_rows
    samples: list[Any] = []
    writer = None if arrays else RowWriter(replica.size, own._empty, maker.apart)
    append, fault = samples.append, page_faults.take
    sample: Any = None
    here.reading = True
    for position in range(work.start, work.start + replica.size * replica.count, replica.count):
        here.position = position
        sample = next(stream, _END)
        if sample is _END:
            source.end(replica)
            break
        if function is not None:
            here.reading = False
            sample = function(sample)
            here.reading = True
        if address := fault():
            sample = source.maps.settle(sample, replica.start + len(samples), address, arrays=arrays)
        if writer is not None:
            sample = writer.write(len(samples), sample)
            if not writer.writes:
                writer = None
        elif arrays:
            sample = parts_in_memory(sample)
        append(sample)
    here.reading = False
    if source.is_short(len(samples), replica):
        return _END
    # Of a stream that has ended, that is to be said with its last batch.
    own._stateless = sample is not _END and (own._stateless or not source.keeps_any_state(replica))
    here.collating = True
    own._joined_at = perf_counter()
    return maker.collated(samples, own._empty)


def _batched(own: InlineMaker, work: Work) -> Any:
    """Make a batch that a dataset makes itself."""
    maker = own._maker
    source: Any = maker.source
    batch = source.read(work.keys, empty=own._empty)
    return batch if maker.finish is None else maker.finish(batch)
