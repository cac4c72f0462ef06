"""The maker: from a work to its outcome, whatever the user's code does on the way.

The only file that runs a user's dataset, transforms and collate function; every executor calls it, none knows more.
"""

from __future__ import annotations

import copy
import os
import threading
from dataclasses import dataclass, field
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from headrace.collate.row_writer import RowWriter
from headrace.context import seeds, sharing, worker_info
from headrace.context.current import reset
from headrace.context.timing import Spans
from headrace.errors import CollateError, IterationError, LoaderClosed, MissingDependency, TooManyErrors
from headrace.interop import torch_state
from headrace.interop.ambient import Ambient
from headrace.interop.machine import gil_seconds, run_queue_seconds
from headrace.interop.own_states import restore
from headrace.make.source import Batched, Indexed, Source, Streamed
from headrace.make.split_batch import SplitBatch
from headrace.plan.work import (
    GIL,
    QUEUE,
    SLOWEST,
    STAGES,
    BadSample,
    Done,
    Ended,
    Failed,
    Making,
    Outcome,
    StreamReplica,
    Work,
)
from headrace.storage import page_faults, request_loop
from headrace.storage.mapped_samples import parts_in_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from headrace.collate.default import Collate
    from headrace.context.memory import Empty, Recycler
    from headrace.context.timing import Seconds
    from headrace.datasets.in_flight import InFlightBatch

MOST_CHARACTERS = 300
"""Of the name of a slow sample."""
OnError = Literal["raise", "skip", "replace"]


class Stop:
    """A flag that one thread raises and the others look at between two samples.

    ``requests``: what ends their requests for remote data, where `stoppable` gives it to them.
    """

    __slots__ = ("is_set", "requests")

    def __init__(self) -> None:
        self.is_set = False
        self.requests = request_loop.Stop()

    def set(self) -> None:
        """Ask for an end before the next sample, and end what waits for a server."""
        self.is_set = True
        self.requests.set()

    def check(self) -> None:
        """Raise `LoaderClosed` if the end was asked for."""
        if self.is_set:
            raise LoaderClosed("the loader was closed while this batch was being made", cure="Begin a new loop.")


@dataclass(slots=True)
class Pending:
    """A work whose rows are being made without Python, which it takes again to complete it.

    Nobody changes one; like all that is made for every batch, it is not declared frozen: that takes five times as long.
    """

    work: Work
    begun: InFlightBatch
    here: seeds.Here
    seconds: Seconds
    began: float


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes batches: reads the keys of a work, deals with bad samples, collates the good ones."""

    is_plain: ClassVar[bool] = True
    """Whether nothing is added to what this class does."""

    source: Source
    collate: Collate
    on_error: OnError = "raise"
    writes_rows: bool = False
    """Whether the rows of a batch may be written as soon as they are made: with the default collate, or one like it."""
    converts: bool = False
    """Whether collate only converts a sample: what it returns lies in memory if the sample does."""
    apart: Collection[str] = ()
    """The fields of a sample that are not stacked."""
    finish: Callable[[Any], Any] | None = None
    """What is done to a batch that the dataset has made itself, to be what collating gives: tensors, say."""
    ambient: Ambient = field(default_factory=Ambient.here)
    """The settings of the thread that begins the loop, which its workers take over."""
    together: int = 1
    """How many threads make the samples of one batch together, where others stand by (`context.sharing`)."""

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
        """Make a work's batch; never raises: an error of any kind becomes the outcome.

        ``here`` is where the caller may watch the position move; ``seeding`` names the global generators that no other
        thread draws from (`seeds.GLOBALS`), so that they can be seeded for user code that does. Not ``gives_back``:
        nobody draws from them between two batches. ``scratch`` lends memory for the steps on the way to a sample.
        """
        here = here or seeds.Here()
        here.key, here.epoch, here.start = work.seed, work.epoch, work.start
        here.tokens, here.tokens_collated, here.slowest = None, False, None
        here.helped = 0.0
        here.move(work.start)
        noted = work.noted
        gil_wait = gil_seconds() if noted & GIL else -1.0
        began, cpu = perf_counter(), thread_time() if noted else 0.0
        queued = run_queue_seconds() if noted & QUEUE else -1.0
        keeper = work.replica or work.dataset_copy
        seconds: Seconds = Spans() if noted & STAGES else {}
        token = seeds.enter(here, seconds, scratch)
        survived = page_faults.survive(on=True)
        try:
            with torch_state.on_cpu():
                if keeper is not None and keeper.state is not None:
                    self._restore(work)
                if isinstance(self.source, Batched) or not seeding:
                    batch, bad = self._make(work, here, seconds, empty, stop)
                else:
                    # A dataset with a state of its own may keep that of a global generator, between batches too.
                    back = gives_back or keeper is not None
                    with seeds.seeded(work.seed, work.epoch, work.start, seeding, back=back):
                        batch, bad = self._make(work, here, seconds, empty, stop)
            stream = None if keeper is None else self.kept(work)
            page_faults.check_faults("the batch")
            ended = perf_counter()
            cpu -= here.helped
            making = making_here(seconds, began, cpu, queued, gil_wait, here.slowest) if noted else None
            seconds["other"] = _rest(seconds, began, ended)
            return Done(work.step, batch, bad, seconds, stream, here.tokens, making=making)
        except _Exhausted:
            return Ended(work.step, self.kept(work, ended=True))
        # Every work gets exactly one outcome, sys.exit() in a dataset included: or the consumer would wait for ever.
        except BaseException as error:  # noqa: BLE001
            # Only here: a thread that survives no faults has not counted those that others have met.
            return self.failed(page_faults.cause_of(error), work, here)
        finally:
            page_faults.survive(on=survived)
            reset(token)

    def _restore(self, work: Work) -> None:
        """Give the dataset the state of its own that a work has: before random numbers are seeded for the batch."""
        if isinstance(self.source, Streamed):
            if work.replica is not None:
                self.source.enter(work.replica)
        elif work.dataset_copy is not None and work.dataset_copy.state is not None:
            restore(self.source.dataset, *work.dataset_copy.state)

    def kept(self, work: Work, *, ended: bool = False) -> tuple[int, Any] | None:
        """Return what the dataset keeps of itself after a work, and in which copy of it."""
        if isinstance(self.source, Streamed):
            replica = work.replica
            if replica is None:
                return None
            state = self.source.ended(replica) if ended else self.source.state(replica)
            return None if state is None else (replica.number, state)
        if work.dataset_copy is None:
            return None
        return work.dataset_copy.number, ("dataset", copy.deepcopy(self.source.dataset.state_dict()))

    @property
    def splits(self) -> bool:
        """Whether several threads can make the samples of one batch: the dataset is asked for them one by one."""
        return isinstance(self.source, Indexed) and not self.source.reads_many

    @property
    def begins(self) -> bool:
        """Whether works can be begun here and made elsewhere."""
        return isinstance(self.source, Batched) and self.source.begin is not None

    def begin(self, work: Work, *, empty: Empty = np.empty) -> Pending | Failed:
        """Begin a work, where `begins` says that it can be; raises nothing but Ctrl-C, which is not the work's."""
        here = seeds.Here(work.seed, work.epoch, work.start)
        begin = cast("Any", self.source).begin
        began = perf_counter()
        seconds: Seconds = Spans() if work.noted & STAGES else {}
        token = seeds.enter(here, seconds)
        try:
            self._restore(work)
            begun = begin(work.keys, empty=empty)
            seconds["other"] = _rest(seconds, began, perf_counter())
            return Pending(work, begun, here, seconds, began)
        except KeyboardInterrupt:
            raise  # in the consumer's thread: it would be told of at the work's turn, many batches from now
        except BaseException as error:  # noqa: BLE001  as above
            return self.failed(error, work, here)
        finally:
            reset(token)

    def complete(self, pending: Pending, *, stop: Stop | None = None) -> Outcome:
        """Return the outcome of a work that was begun, whose job is done.

        ``stop`` is for threads, where it never raises; in the consumer's, without one, Ctrl-C comes through.
        """
        work, here, seconds = pending.work, pending.here, pending.seconds
        token = seeds.enter(here, seconds)
        try:
            batch = pending.begun.finish(None if stop is None else stop.check)
            if self.finish is not None:
                batch = self.finish(batch)
            making = None
            if work.noted:
                # The extension counts its own seconds, of all its threads together; it only waits while it reads.
                cpu = sum(seconds.values()) - seconds.get("read", 0.0)
                making = Making(pending.began, perf_counter(), cpu, os.getpid(), 0)
            return Done(work.step, batch, (), seconds, self.kept(work), here.tokens, making=making)
        except BaseException as error:
            if stop is None and isinstance(error, KeyboardInterrupt):
                raise
            return self.failed(error, work, here)
        finally:
            reset(token)

    def failed(self, error: BaseException, work: Work, here: seeds.Here) -> Failed:
        """Return the outcome of a work that raised an error, with the place in words."""
        if isinstance(error, StopIteration):
            error = _unending(error, "a sample")
        try:
            place = self._place(error, work, here)
        except BaseException:  # noqa: BLE001  a user's `where`, or an error with attributes that are not ours
            place = f"made by {threading.current_thread().name}"
        return Failed(work.step, error, place)

    def join(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:
        """Collate samples into a batch."""
        with torch_state.on_cpu():
            return self.collated(samples, empty)

    def collated(self, samples: Sequence[Any], empty: Empty) -> Any:
        """Do what `join` does, where tensors are made on the CPU already."""
        try:
            batch = self.collate(samples, empty=empty)
        except StopIteration as error:
            raise _unending(error, "collate_fn") from error
        return batch if self.writes_rows or self.converts else parts_in_memory(batch)

    def _make(
        self, work: Work, here: seeds.Here, seconds: Seconds, empty: Empty, stop: Stop | None
    ) -> tuple[Any, tuple[BadSample, ...]]:
        if isinstance(self.source, Batched):
            began = perf_counter()
            batch = self.source.read(work.keys, empty=empty)
            ended = perf_counter()
            seconds["read"] = seconds.get("read", 0.0) + _rest(seconds, began, ended)
            return (batch if self.finish is None else self.finish(batch)), ()
        writes = empty if self.writes_rows and self.on_error != "skip" else None
        if isinstance(self.source, Streamed):
            assert work.replica is not None  # noqa: S101  for the type checker: the plan of a stream gives nothing else
            began = perf_counter()
            with worker_info.serving(work.replica.number, work.replica.count, self.source.dataset):
                samples, bad = self._stream(self.source, work.replica, work, here, stop, writes)
            seconds["read"] = _rest(seconds, began, perf_counter())
        else:
            samples, bad = self._samples(self.source, work, here, seconds, stop, writes)
        if self.on_error == "skip":
            return samples, tuple(bad)
        here.collating = True
        began = perf_counter()
        batch = self.collated(samples, empty)
        ended = perf_counter()
        seconds["collate"] = seconds.get("collate", 0.0) + ended - began
        if isinstance(seconds, Spans):
            seconds.note("collate", began, ended)
        return batch, tuple(bad)

    def _samples(
        self,
        source: Indexed,
        work: Work,
        here: seeds.Here,
        seconds: Seconds,
        stop: Stop | None,
        writes: Empty | None,
    ) -> tuple[Sequence[Any], list[BadSample]]:
        source.maps.look(work.epoch)
        if source.reads_many and (found := self._at_once(source, work, here)) is not None:
            return found, []
        if self.together > 1 and len(work.keys) > 1 and work.dataset_copy is None and sharing.helps():
            return self._split(source, work, here, seconds, stop, writes)
        samples: list[Any] = []
        bad: dict[int, BadSample] = {}
        writer = None if writes is None else RowWriter(work.rows, writes, self.apart)
        read, maps = source.read if writer is None else source.read_unmade, source.maps
        arrays = writer is None
        settles = arrays or bool(maps.files)
        clock = _Slowest() if work.noted & SLOWEST else None
        for position, key in enumerate(work.keys, work.start):
            if stop is not None:
                stop.check()
            here.position = position
            try:
                sample = read(key)
                if (fault := page_faults.take()) or settles:
                    sample = maps.settle(sample, key, fault, arrays=arrays)
            except Exception as error:
                if self.raises(error):
                    raise
                sample = self.instead(source, work, here, error, bad)
                if sample is _END:
                    continue
            if writer is not None:
                sample = writer.write(len(samples), sample)
                if not writer.writes:
                    writer, read = None, source.read
            samples.append(sample)
            if clock is not None:
                clock.passed(key)
        here.slowest = None if clock is None else clock.found(source)
        maps.check(*work.keys[-1:])
        return samples, list(bad.values())

    def _split(
        self,
        source: Indexed,
        work: Work,
        here: seeds.Here,
        seconds: Seconds,
        stop: Stop | None,
        writes: Empty | None,
    ) -> tuple[Sequence[Any], list[BadSample]]:
        """Make the samples as `_samples` does, on several threads."""
        rows = _Rows(self, source, work, stop, writes)
        job = SplitBatch(work, here, self.together, rows.make)
        sharing.run(job, self.together)
        samples = job.finish(seconds)
        if work.noted & SLOWEST and job.slowest is not None:
            row, lasted = job.slowest
            here.slowest = _named(source, work.keys[row]), lasted
        source.maps.check(*work.keys[-1:])
        return [sample for sample in samples if sample is not _END], [rows.bad[row] for row in sorted(rows.bad)]

    def raises(self, error: Exception) -> bool:
        """Say whether an error ends the batch. A library that is missing is no fault of the sample's: all need it."""
        return self.on_error == "raise" or isinstance(error, MissingDependency)

    def instead(
        self, source: Indexed, work: Work, here: seeds.Here, error: Exception, bad: dict[int, BadSample]
    ) -> Any:
        """Return what takes the place of the sample at hand, which raised an error: ``_END`` for nothing."""
        row = here.position - work.start
        key = work.keys[row]
        bad[row] = BadSample(key if work.replica is None else here.position, source.where(key), _told(error))
        return _END if self.on_error == "skip" else self._replacement(source, work, here, bad[row])

    def _at_once(self, source: Indexed, work: Work, here: seeds.Here) -> list[Any] | None:
        """Read all samples in one call; None where one is bad, and they are read one by one to learn which."""
        try:
            samples = source.read_many(work.keys, arrays=not self.writes_rows)
        except Exception:
            if self.on_error == "raise" and not source.in_memory:
                raise
            return None
        if source.in_memory:
            here.position += len(samples) - 1  # for what collate draws, as one by one
        return samples

    def _stream(
        self,
        source: Streamed,
        replica: StreamReplica,
        work: Work,
        here: seeds.Here,
        stop: Stop | None,
        writes: Empty | None,
    ) -> tuple[Sequence[Any], list[BadSample]]:
        samples: list[Any] = []
        bad: list[BadSample] = []
        writer = None if writes is None else RowWriter(work.rows, writes, self.apart)
        stream, function, maps = source.read(replica), source.function, source.maps
        maps.look(work.epoch)
        arrays = writer is None
        settles = arrays or bool(maps.files)
        for position in range(work.start, work.start + replica.size * replica.count, replica.count):
            if stop is not None:
                stop.check()
            here.position, here.reading = position, True
            try:
                if maps.files:
                    maps.check(replica.start + len(samples) + len(bad))
                sample = next(stream, _END)
                if sample is _END:
                    source.end(replica)
                    break
                here.reading = False
                if function is not None:
                    sample = function(sample)
                if (fault := page_faults.take()) or settles:
                    row = replica.start + len(samples) + len(bad)
                    sample = maps.settle(sample, row, fault, arrays=arrays)
            except Exception as error:
                if self.on_error == "raise":
                    raise
                bad.append(BadSample(replica.start + len(samples) + len(bad), None, _told(error)))
                continue
            if writer is not None:
                sample = writer.write(len(samples), sample)
                if not writer.writes:
                    writer = None
            samples.append(sample)
        maps.check(replica.start + len(samples))
        if source.is_short(len(samples) + len(bad), replica):
            raise _Exhausted
        return samples, bad

    def _replacement(self, source: Indexed, work: Work, here: seeds.Here, bad: BadSample) -> Any:
        """Make the first of the work's spares that can be made, in an order that is the bad sample's own."""
        order = seeds.generator(work.seed, seeds.Purpose.REPLACE, work.epoch, here.position)
        last: Exception | None = None
        for spare in order.permutation(len(work.spares)):
            here.move(here.position)
            try:
                return source.read(work.spares[spare])
            except Exception as error:  # noqa: BLE001  another bad one: on to the next
                last = error
        raise TooManyErrors(
            f"no replacement found for sample {bad.index!r} ({bad.error}): {len(work.spares)} samples drawn at random "
            "failed too",
            (f"sample {bad.index}: {bad.error}",),
            index=bad.index,
            found=len(work.spares),
            expected="one sample that can be made",
            cure="Look at the last sample's error, above, and fix the dataset.",
        ) from last

    def _place(self, error: BaseException, work: Work, here: seeds.Here) -> str:
        """Say in words where an error happened: the sample at hand, or the two that do not fit together."""
        if isinstance(self.source, Batched) and not here.alone:
            samples = [f"{len(work.keys)} samples"]
        elif isinstance(self.source, Streamed) and work.replica is not None:
            samples = [work.name((here.position - work.start) // work.replica.count)]
        else:
            if here.collating:
                rows: Sequence[int] = (error.rows or ()) if isinstance(error, CollateError) else ()
            else:
                rows = [here.position - work.start]
            if not rows:
                return f"its {len(work.keys)} samples put together, made by {threading.current_thread().name}"
            samples = [self._sample(self.source, work, row) for row in rows if 0 <= row < len(work.keys)]
        return f"{' and '.join(samples)}, made by {threading.current_thread().name}"

    def _sample(self, source: Source, work: Work, row: int) -> str:
        where = None if isinstance(source, Streamed) else source.where(work.keys[row])
        return f"{work.name(row)} ({where})" if where else work.name(row)


def _rest(seconds: Seconds, began: float, ended: float) -> float:
    """Return the seconds between two times that are not counted under any stage yet."""
    return max(0.0, ended - began - sum(seconds.values()))


def making_here(
    seconds: Seconds,
    began: float,
    cpu: float,
    queued: float,
    gil_wait: float = -1.0,
    slowest: tuple[str, float] | None = None,
) -> Making:
    """Say when this thread made a batch, which ends now; with its stages one by one, if they were noted.

    ``cpu`` and ``queued`` are what `thread_time` and `run_queue_seconds` said before it; ``queued`` is negative where
    that was not asked.
    """
    waited = -1.0 if queued < 0.0 else max(0.0, run_queue_seconds() - queued)
    ran, ended = thread_time() - cpu, perf_counter()
    name = ""
    spans: tuple[tuple[str, float, float], ...] = ()
    if isinstance(seconds, Spans):
        name, spans = threading.current_thread().name, tuple(seconds.spans)
    return Making(began, ended, ran, os.getpid(), threading.get_native_id(), name, spans, waited, gil_wait, slowest)


class _Slowest:
    """Which of a batch's samples takes longest, one after the other."""

    def __init__(self) -> None:
        self._key: Any = None
        self._seconds = 0.0
        self._last = perf_counter()

    def passed(self, key: Any) -> None:
        """Note that a sample is made."""
        now = perf_counter()
        if now - self._last > self._seconds:
            self._key, self._seconds = key, now - self._last
        self._last = now

    def found(self, source: Indexed) -> tuple[str, float] | None:
        """Return the sample, by the name that its dataset gives it or by its key, and its seconds."""
        if not self._seconds:
            return None
        return _named(source, self._key), self._seconds


def _named(source: Indexed, key: Any) -> str:
    where = source.where(key)
    return (f"sample {key!r}" if where is None else where)[:MOST_CHARACTERS]


def _told(error: BaseException) -> str:
    """Return the type and the message of an error; a user's own may not even have one."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001
        return f"{type(error).__name__} (its message cannot be had)"


class _Rows:
    """Makes the samples of a work, each row in whichever thread asks for it."""

    def __init__(self, maker: Maker, source: Indexed, work: Work, stop: Stop | None, writes: Empty | None) -> None:
        self.bad: dict[int, BadSample] = {}
        self._maker, self._source, self._work, self._stop = maker, source, work, stop
        self._writer = None if writes is None else RowWriter(work.rows, writes, maker.apart)
        self._settles = writes is None or bool(source.maps.files)
        self._defined = threading.Event()
        """Whether the first row has defined the columns, which others wait for."""

    def make(self, row: int, here: seeds.Here) -> Any:
        """Make the sample of a row; ``_END`` if it is left out."""
        try:
            return self._made(row, here)
        finally:
            if row == 0:
                self._defined.set()

    def _made(self, row: int, here: seeds.Here) -> Any:
        if self._stop is not None:
            self._stop.check()
        source, writer = self._source, self._writer
        key = self._work.keys[row]
        if writer is not None and self._defined.is_set() and not writer.writes:
            writer = None
        try:
            sample = (source.read if writer is None else source.read_unmade)(key)
            if (fault := page_faults.take()) or self._settles:
                sample = source.maps.settle(sample, key, fault, arrays=self._writer is None)
        except Exception as error:
            if self._maker.raises(error):
                raise
            sample = self._maker.instead(source, self._work, here, error, self.bad)
        if writer is None or sample is _END:
            return sample
        if row:
            self._defined.wait()
        return writer.write(row, sample)


class _Exhausted(Exception):
    """The stream has nothing left for this batch."""


_END = object()


def _unending(error: StopIteration, culprit: str) -> IterationError:
    """Stand in for a StopIteration, which would end the loop in silence as if the epoch were over (PEP 479)."""
    ours = IterationError(
        f"{culprit} raised StopIteration, which would end the epoch",
        found="StopIteration",
        expected="a return value, or another error",
        cure="Pass a default to next(), or catch StopIteration where it is raised.",
    )
    ours.__cause__ = error
    return ours
