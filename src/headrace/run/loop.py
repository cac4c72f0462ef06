"""One pass over an epoch: takes outcomes in order, and delivers batches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from headrace.context import seeds
from headrace.context.memory import Recycler
from headrace.context.timing import timed
from headrace.errors import IterationError, LoaderClosed, TooManyErrors
from headrace.executors.lifecycle import PATIENCE, closed_while_reading
from headrace.interop.keras_advice import AdvisesKeras
from headrace.plan.work import Failed
from headrace.run.ahead import no_length
from headrace.run.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.make.maker import Maker
    from headrace.plan.work import Done
    from headrace.run.detector import Watch
    from headrace.run.dispatch import Direct, Dispatcher
    from headrace.run.journal import Journal
    from headrace.run.orders import Entry
    from headrace.run.tolerance import Refill

T_co = TypeVar("T_co", covariant=True)


class Loop(AdvisesKeras, Iterator[T_co]):
    """One pass over an epoch: takes outcomes from the dispatcher, delivers batches, and keeps the journal.

    Any number of threads may call any method: each batch goes to one of them, the end and `LoaderClosed` to all.
    """

    def __init__(
        self,
        entry: Entry,
        dispatcher: Dispatcher | Direct,
        journal: Journal,
        maker: Maker,
        *,
        refill: Refill | None = None,
        watch: Watch | None = None,
        check: Callable[[int, int], None] | None = None,
        length: Callable[[], int] | None = None,
    ) -> None:
        self._key, self._stream = entry.key, entry.stream
        self._dispatcher = dispatcher
        self._journal = journal
        self._meter = journal.meter
        self._maker = maker
        self._refill = refill
        self._watch = watch
        self._check = check
        self.length = length
        self._joined = Recycler(keep=2)  # for the batches that are joined here, out of pieces with holes
        self._rows = 0
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

    def __len__(self) -> int:
        """Return how many batches the whole epoch has, as torch's iterators do; raises TypeError for streams."""
        if self.length is None:
            raise no_length()
        return self.length()

    def start(self) -> None:
        """Let the workers begin, before the first batch is asked for."""
        with self._turn.lock:
            self._inside = True
            try:
                self._check_open()
                if self._watch is not None:
                    self._watch.begin()
                self._dispatcher.submit()
                if self._watch is not None:
                    self._watch.pause()
            finally:
                self._inside = False

    def _check_open(self) -> None:
        if self._state == "closed":
            raise closed_while_reading()

    def __next__(self) -> T_co:
        with self._turn.lock:
            if self._inside:
                raise IterationError(
                    "the code that makes a batch asked the same loop for another batch, in the same thread",
                    expected="one batch at a time",
                    cure="give that code a loop of its own",
                )
            self._inside = True
            try:
                return self._deliver(perf_counter())
            except (StopIteration, LoaderClosed):
                raise
            except Exception as error:
                if self._state == "closed":  # by another thread, whatever that broke off here
                    raise closed_while_reading() from error
                raise
            finally:
                self._inside = False

    def _deliver(self, began: float) -> T_co:
        """Return the next batch, which the consumer asked for at that time."""
        if self._state != "open":
            self._check_open()
            raise StopIteration
        if self._meter.started is None:
            self._meter.started = began
        watch, self._watch = self._watch, None  # the first batch is enough
        if watch is not None:
            watch.begin()
        try:
            batch: T_co = self._next_batch() if self._refill is None else self._next_filled(self._refill)
            if watch is not None:
                watch.end()
            self._journal.delivered(batch, self._rows, began)
        finally:
            self._journal.move()
        if self._check is not None:
            self._check(self._meter.batches, self._meter.samples)
        return batch

    def fetched_ahead(self) -> Callable[[], None]:
        """Say that somebody fetches batches ahead of the consumer; return what is to be called for each one handed on.

        The state then names the place after the batch that the consumer received last.
        """
        self._watch = None  # while they are fetched, the consumer is free to draw from what it likes
        return self._journal.fetched_ahead()

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
        here = seeds.Here(self._key, self._stream, self._journal.batches, start=self._journal.batches)
        try:
            seconds: dict[str, float] = {}
            with seeds.at(here, seconds), timed("collate"):
                batch = self._maker.join(samples, empty=self._joined.empty)
        except Exception as error:
            error.add_note(f"headrace: epoch {self._meter.epoch}, batch {self._meter.batches}, refilled")
            raise
        self._meter.made(seconds, (), here.tokens, skip=True)
        return batch

    def _next_outcome(self) -> Done | Failed | None:
        """Return the next outcome in order, or None at the end of the epoch."""
        try:
            return self._dispatcher.next()
        except KeyboardInterrupt:  # whatever it broke off, nobody shall wait for the rest of it
            self.close()
            raise

    def _opened(self, outcome: Done | Failed) -> Any:
        if isinstance(outcome, Failed):
            self._journal.lost(outcome.step)
            error = outcome.error
            error.add_note(f"headrace: epoch {self._meter.epoch}, batch {outcome.step}: {outcome.place}")
            try:
                del outcome
                raise error
            finally:
                del error  # what an error's own frames still name is a cycle, and keeps the workers alive
        try:
            self._journal.made(outcome)
        except TooManyErrors:
            self._end("over")
            raise
        return outcome.batch

    def _over(self) -> None:
        self._journal.finished(self._dispatcher.ended)
        self._end("over")

    def _end(self, state: Literal["over", "closed"]) -> None:
        with self._note.lock:
            first = self._ender is None
            if first:
                self._ender, self._state = threading.get_ident(), state
                self._dispatcher.forget()
        if first:
            try:
                if state == "closed" and self._inside:  # persistent workers cannot drop an awaited batch
                    self._dispatcher.executor.close()
                else:
                    self._dispatcher.release()
            finally:
                self._ended.release()
        elif self._ender != threading.get_ident():
            self._await_end()

    def _await_end(self) -> None:
        # A worker's own thread cannot wait for whoever waits for it.
        ours = threading.current_thread().name.startswith("headrace")
        if not ours and self._ended.acquire(timeout=PATIENCE):
            self._ended.release()
