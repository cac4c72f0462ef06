"""The loop without workers, where nothing is asked for but batches."""

from __future__ import annotations

from time import thread_time
from typing import TYPE_CHECKING, TypeVar

from headrace.interop.machine import run_queue_seconds
from headrace.make.maker import making_here
from headrace.plan.work import QUEUE, Done, Ended
from headrace.run.loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.run.dispatch import Direct

T_co = TypeVar("T_co", covariant=True)


class InlineLoop(Loop[T_co]):
    """A `Loop` that takes a batch that arrives the shortest way; whatever else comes of a step is the `Loop`'s."""

    _dispatcher: Direct
    _ahead = False

    def _deliver(self, began: float) -> T_co:
        dispatcher = self._dispatcher
        short = dispatcher.executor.short
        if self._state != "open" or short is None or self._ahead:
            return super()._deliver(began)
        if self._meter.started is None:
            self._meter.started = began
            short.stages = self._meter.stages
        try:
            work = dispatcher.work()
        except KeyboardInterrupt:
            self.close()
            raise
        if work is None:
            dispatcher.made = Ended(dispatcher.step)
            return super()._deliver(began)
        batch: T_co
        step = dispatcher.step
        noted = 0 if step % dispatcher.lives.every else dispatcher.lives.noting()
        queued = run_queue_seconds() if noted & QUEUE else -1.0
        cpu = thread_time() if noted else 0.0
        batch, outcome = short.make(work, began, noted)
        if outcome is not None:
            if noted and isinstance(outcome, Done):
                outcome.making = making_here(outcome.seconds, began, cpu, queued)
                dispatcher.lives.begun(step, began)
            dispatcher.made = outcome
            del outcome
            return super()._deliver(began)
        dispatcher.step += 1
        if noted:
            making = making_here({}, began, cpu, queued)
            dispatcher.lives.inline(step, making, making.ended)
        self._journal.received(batch, began, dispatcher.step)
        if self._check is not None:
            self._check(self._meter.batches, self._meter.samples)
        return batch

    def fetched_ahead(self) -> Callable[[], None]:
        """Say that somebody fetches batches ahead of the consumer, as in a `Loop`."""
        self._ahead = True
        return super().fetched_ahead()
