"""One pass over an epoch: asks the plan, keeps the executor busy, delivers in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from headrace.context import seeds
from headrace.context.memory import Recycler
from headrace.context.timing import counting
from headrace.errors import IterationError, LoaderClosed, TooManyErrors
from headrace.executors.lifecycle import PATIENCE, closed_while_reading
from headrace.interop.keras_advice import AdvisesKeras
from headrace.plan.work import Failed
from headrace.run.checkpoint import Place
from headrace.run.stats import measure
from headrace.run.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.executors.base import Executor
    from headrace.ledger.recorder import Recorder
    from headrace.make.maker import Maker
    from headrace.plan.batch_plan import Plan
    from headrace.plan.work import Done
    from headrace.run.checkpoint import Cursor
    from headrace.run.detector import Watch
    from headrace.run.stats import Meter
    from headrace.run.tolerance import Budget, Refill
    from headrace.run.window import Unordered, Window

T_co = TypeVar("T_co", covariant=True)


class Loop(AdvisesKeras, Iterator[T_co]):
    """One pass over an epoch: asks the plan, keeps the executor busy, delivers in order.

    Any number of threads may call any method: each batch goes to one of them, the end and `LoaderClosed` to all.
    """

    def __init__(
        self,
        plan: Plan,
        seed: seeds.Key,
        stream: int,
        executor: Executor,
        window: Window | Unordered,
        maker: Maker,
        meter: Meter,
        refill: Refill | None,
        budget: Budget,
        timeout: float | None,
        end: Callable[[], None],
        check: Callable[[int, int], None] | None,
        cursor: Cursor,
        recorder: Recorder | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._plan = plan
        self._seed = seed
        self._stream = stream
        self._executor = executor
        self._window = window
        self._maker = maker
        self._meter = meter
        self._refill = refill
        self._budget = budget
        self._timeout = timeout
        self._end_workers = end
        self._check = check
        self._cursor = cursor
        self._first = self._latest = cursor.place
        self._streams = dict(cursor.place.streams)
        self._earlier: dict[int, dict[int, Any]] = {}
        """Where batches are filled up: the streams' states before each step of which samples are in hand."""
        self._recorder = recorder
        self._watch = watch
        self._record: bytes | None = None
        self._places: deque[tuple[Place, bytes | None]] | None = None
        self._joined = Recycler(keep=2)  # for the batches that are joined here, out of pieces with holes
        self._rows = 0
        self._asking = True
        self._unplanned: Exception | None = None
        """What the plan raised (a sampler of the user's) when asked for the step after those in flight."""
        self._broken = False
        """Whether too many samples were bad: the place is then before the batch that had the last of them."""
        self._state: Literal["open", "over", "closed"] = "open"
        self._turn, self._note = Turn(), Turn()
        """For the one thread that may be inside at a time, and for what decides how the loop ends."""
        self._inside = False
        self._ender: int | None = None
        self._ended = threading.Lock()
        self._ended.acquire()

    @property
    def running(self) -> bool:
        """Whether its workers are still its own."""
        return self._ended.locked()

    @property
    def _workers(self) -> list[Any]:
        # torch's name: test suites and profilers look at its iterator's worker processes by it.
        return getattr(self._executor, "processes", [])

    def start(self) -> None:
        """Let the workers begin, before the first batch is asked for."""
        with self._turn.lock:
            self._inside = True
            try:
                self._check_open()
                if self._watch is not None:
                    self._watch.begin()
                self._submit()
                if self._watch is not None:
                    self._watch.pause()
            finally:
                self._inside = False

    def _submit(self) -> None:
        while self._asking and self._window.room:
            if self._window.over:
                self._asking = False
                break
            try:
                work = self._plan.work(self._stream, self._window.asked)
            except Exception as error:  # noqa: BLE001  raised when the batches before it have been delivered
                self._asking, self._unplanned = False, error
                break
            if work is None:
                self._asking = False
            else:
                self._window.ask()
                if self._recorder is not None:
                    self._recorder.submitted(work)
                self._executor.submit(work)

    def _check_open(self) -> None:
        if self._state == "closed":
            raise closed_while_reading()

    def __next__(self) -> T_co:
        with self._turn.lock:
            if self._inside:
                raise IterationError(
                    "the loop was asked for a batch by the code that makes one of its batches, in the same thread; "
                    "give that code a loop of its own"
                )
            self._inside = True
            try:
                return self._deliver()
            except (StopIteration, LoaderClosed):
                raise
            except Exception as error:
                if self._state == "closed":  # by another thread, whatever that broke off here
                    raise closed_while_reading() from error
                raise
            finally:
                self._inside = False

    def _deliver(self) -> T_co:
        if self._state == "over":
            raise StopIteration
        self._check_open()
        began = perf_counter()
        if self._meter.started is None:
            self._meter.started = began
        watch, self._watch = self._watch, None  # the first batch is enough
        if watch is not None:
            watch.begin()
        try:
            batch: T_co = self._next_batch() if self._refill is None else self._next_filled(self._refill)
            if watch is not None:
                watch.end()
            if self._recorder is not None:
                rows = self._rows if self._refill is not None else measure(batch)[0]
                number = self._first.batches + self._meter.batches
                self._record = self._recorder.entry_record(batch, number, rows, self._place().step)
            self._meter.delivered(batch, waited=perf_counter() - began)
        finally:
            self._move()
        if self._check is not None:
            self._check(self._meter.batches, self._meter.samples)
        return batch

    def fetched_ahead(self) -> Callable[[], None]:
        """Say that somebody fetches batches ahead of the consumer; return what is to be called for each one handed on.

        The cursor then stands where the consumer does.
        """
        places = self._places = deque()
        turn = Turn()
        self._watch = None  # while they are fetched, the consumer is free to draw from what it likes

        def handed_on() -> None:
            with turn.lock:  # places are taken up in their order, by however many threads
                if places:
                    self._stand(*places.popleft())

        return handed_on

    def _move(self) -> None:
        record, self._record = self._record, None
        self._latest = place = self._place()
        if self._places is not None:
            self._places.append((place, record))
        else:
            self._stand(place, record)

    def _stand(self, place: Place, record: bytes | None) -> None:
        # First the ledger: a state saved from here on says that the batch was received.
        if self._recorder is not None:
            self._recorder.write(record)
        self._cursor.place = place
        if self._cursor.sampler is not None:
            self._cursor.sampler.forget(place.step)

    def _place(self) -> Place:
        if self._broken:
            return self._latest
        if self._state == "over":
            return Place(self._first.epoch + 1)
        step, beyond = self._window.place
        streams = self._streams
        offset, bad = 0, self._first.bad + self._meter.skipped + self._meter.replaced
        if self._refill is not None and (place := self._refill.place) is not None:
            step, offset, again = place
            bad -= again
            # Samples in hand are read again: from where their streams stood then.
            for old in [each for each in self._earlier if each < step]:
                del self._earlier[old]
            streams = self._earlier.get(step, streams)
        batches = self._first.batches + self._meter.batches
        session = None if self._recorder is None else self._recorder.session.name
        return Place(self._first.epoch, step, beyond, offset, batches, bad, streams, session)

    def close(self) -> None:
        """End the loop and its workers; a thread that waits for a batch gets `LoaderClosed`."""
        self._end("closed")

    def _next_batch(self) -> Any:
        outcome = self._next_outcome()
        if outcome is None:
            self._over()
            raise StopIteration
        try:
            return self._opened(outcome)
        finally:
            del outcome

    def _next_filled(self, refill: Refill) -> Any:
        while (samples := refill.take()) is None:
            outcome = self._next_outcome()
            if outcome is None:
                samples = refill.rest()
                if samples is None:
                    self._over()
                    raise StopIteration
                break
            try:
                bad = self._meter.skipped
                refill.put(outcome.step, self._opened(outcome), self._meter.skipped - bad)
            finally:
                del outcome
        self._rows = len(samples)
        # What collate draws depends on which batch this is, as it does where a worker collates.
        here = seeds.Here(self._seed, self._stream, self._first.batches + self._meter.batches)
        try:
            with counting() as seconds, seeds.at(here):
                batch = self._maker.join(samples, empty=self._joined.empty)
        except Exception as error:
            error.add_note(f"headrace: epoch {self._meter.epoch}, batch {self._meter.batches}, refilled")
            raise
        self._meter.made(seconds, (), skip=True)
        return batch

    def _next_outcome(self) -> Done | Failed | None:
        """Return the next outcome in order, or None at the end of the epoch."""
        window = self._window
        try:
            while True:
                self._submit()
                outcome = window.take()
                if outcome is not None:
                    return outcome  # type: ignore[return-value]  # a window takes no Ended
                if window.in_flight:
                    window.put(self._executor.next(self._timeout))
                elif self._unplanned is not None:
                    self._raise_unplanned()
                elif not (self._asking and window.room):
                    return None
        except KeyboardInterrupt:  # whatever it broke off, nobody shall wait for the rest of it
            self.close()
            raise

    def _raise_unplanned(self) -> None:
        """Raise what the plan raised; a plan that can still be asked is asked again, as it is without workers."""
        error, self._unplanned, self._asking = self._unplanned, None, True
        try:
            if error is not None:
                raise error
        finally:
            del error  # what an error's own frames still name is a cycle, and keeps the workers alive

    def _opened(self, outcome: Done | Failed) -> Any:
        meter = self._meter
        if isinstance(outcome, Failed):
            if self._recorder is not None:
                self._recorder.failed(outcome.step)
            error = outcome.error
            error.add_note(f"headrace: epoch {meter.epoch}, batch {outcome.step}: {outcome.place}")
            try:
                del outcome
                raise error
            finally:
                del error  # what an error's own frames still name is a cycle, and keeps the workers alive
        if self._recorder is not None:
            self._recorder.completed(outcome)
        meter.made(outcome.seconds, outcome.bad, skip=self._refill is not None)
        if outcome.stream is not None:
            replica, state = outcome.stream
            if self._refill is not None:
                self._earlier[outcome.step] = self._streams
            self._streams = {**self._streams, replica: state}
        if outcome.bad:
            try:
                self._budget.check(self._first.bad + meter.skipped + meter.replaced, outcome.bad)
            except TooManyErrors:
                self._broken = True
                self._end("over")
                raise
        return outcome.batch

    def _over(self) -> None:
        if self._recorder is not None:
            self._record = self._recorder.end_record(self._window.place[0])
        self._end("over")

    def _end(self, state: Literal["over", "closed"]) -> None:
        with self._note.lock:
            first = self._ender is None
            if first:
                self._ender, self._state = threading.get_ident(), state
                self._unplanned = None
        if first:
            try:
                if state == "closed" and self._inside:  # workers that stay cannot be told to forget what is waited for
                    self._executor.close()
                else:
                    self._end_workers()
            finally:
                self._ended.release()
        elif self._ender != threading.get_ident():
            self._await_end()

    def _await_end(self) -> None:
        # A worker's own thread cannot wait for whoever waits for it.
        ours = threading.current_thread().name.startswith("headrace")
        if not ours and self._ended.acquire(timeout=PATIENCE):
            self._ended.release()
