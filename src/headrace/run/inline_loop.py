"""The loop without workers, where nothing is asked for but batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from headrace.plan.work import Ended
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
        batch, outcome = short.make(work, began)
        if outcome is not None:
            dispatcher.made = outcome
            del outcome
            return super()._deliver(began)
        dispatcher.step += 1
        self._journal.received(batch, began, dispatcher.step)
        if self._check is not None:
            self._check(self._meter.batches, self._meter.samples)
        return batch

    def fetched_ahead(self) -> Callable[[], None]:
        """Say that somebody fetches batches ahead of the consumer, as in a `Loop`."""
        self._ahead = True
        return super().fetched_ahead()
