"""An executor that changes to another one while it works: new works go to the new one, the old one makes what it has.

    submit ──> the newest executor
    next   <── the oldest executor that has works in hand

A batch is a function of its work, so who makes it does not matter. No work is given to two executors.
"""

from __future__ import annotations

import weakref
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from headrace.executors.lifecycle import ForkGuard, closed_while_reading, submitted_after_closing

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.executors.base import Executor, Reusable
    from headrace.plan.work import Outcome, Work


@dataclass(slots=True, eq=False)
class _Part:
    """An executor, and how many works it has in hand."""

    executor: Executor
    works: int = 0


@dataclass(slots=True)
class _State:
    """All that closing has to let go of."""

    parts: list[_Part]
    """The oldest first; the last one takes new works."""
    waiting: deque[Work] = field(default_factory=deque)
    """Works for an executor that does not exist yet."""
    closed: bool = False


class Changing:
    """Makes batches by an executor that `change` replaces.

    >>> from headrace.executors.inline import Inline
    >>> from headrace.testing.executors import Squares, maker_of, work_of
    >>> maker = maker_of(Squares())
    >>> executor = Changing(Inline(maker))
    >>> executor.submit(work_of(0))
    >>> executor.change(lambda: Inline(maker))
    >>> executor.submit(work_of(1))
    >>> executor.next().step, executor.next().step
    (0, 1)
    >>> executor.close()
    """

    def __init__(self, executor: Executor) -> None:
        self.capacity = executor.capacity
        self._guard = ForkGuard()
        self._state = _State([_Part(executor)])
        self._make: Callable[[], Executor] | None = None
        """Makes the next executor, once the works in hand are made."""
        self._failed: Callable[[Exception], Any] | None = None
        self._finish = weakref.finalize(self, _finish, self._state, self._guard)

    @property
    def newest(self) -> Executor:
        """The executor that takes new works."""
        return self._state.parts[-1].executor

    @property
    def processes(self) -> list[Any]:
        """The newest executor's workers, where they are processes."""
        return getattr(self.newest, "processes", [])

    @property
    def is_changing(self) -> bool:
        """Whether the next executor waits for the works in hand."""
        return self._make is not None

    def change(
        self,
        make: Callable[[], Executor],
        *,
        after: bool = False,
        failed: Callable[[Exception], Any] | None = None,
    ) -> None:
        """Give new works to the executor that ``make`` returns.

        ``after``: it is made when no work is in hand, because threads at work must not be forked. ``failed`` gets the
        error if it cannot be made; the executor before it then stays. Without ``failed``, the error is raised.
        """
        self._guard.check()
        self._check_open()
        self._make, self._failed = make, failed
        if not after or not any(part.works for part in self._state.parts):
            self._begin()

    def submit(self, work: Work) -> None:
        """Take a work."""
        self._guard.check()
        if not self._finish.alive:
            raise submitted_after_closing()
        if self._make is not None:
            self._state.waiting.append(work)
        else:
            self._hand_over(work)

    def next(self, timeout: float | None = None) -> Outcome:
        """Return an outcome of the oldest executor that has works in hand: its steps come first."""
        self._guard.check()
        self._check_open()
        state = self._state
        if self._make is not None and not any(part.works for part in state.parts):
            self._begin()
        part = next((part for part in list(state.parts) if part.works), None)
        if part is None:
            self._check_open()  # another thread may have closed it meanwhile
            part = state.parts[-1]
        outcome = part.executor.next(timeout)
        part.works -= 1
        if not part.works and part is not state.parts[-1]:
            self._retire(part)
        return outcome

    def close(self) -> None:
        """End the workers of all executors."""
        self._finish()

    def _check_open(self) -> None:
        if not self._finish.alive:
            raise closed_while_reading()

    def _begin(self) -> None:
        """Put the next executor in the place of the newest, and give it what waits."""
        state = self._state
        make, failed = self._make, self._failed
        self._make = self._failed = None
        before = state.parts[-1]
        try:
            if make is not None:
                state.parts.append(_Part(make()))
                self.capacity = self.newest.capacity
        except Exception as error:
            if failed is None:
                raise
            failed(error)
        if state.closed:  # by another thread, which may not have seen the new one
            _close_all(state)
            raise closed_while_reading()
        if before is not state.parts[-1] and not before.works:
            self._retire(before)
        while state.waiting:
            self._hand_over(state.waiting.popleft())

    def _hand_over(self, work: Work) -> None:
        part = self._state.parts[-1]
        part.works += 1
        part.executor.submit(work)

    def _retire(self, part: _Part) -> None:
        self._state.parts.remove(part)
        part.executor.close()


class ReusableChanging(Changing):
    """The same, of executors whose workers can stay for the next epoch."""

    @property
    def closed(self) -> bool:
        """Whether the workers are gone."""
        return self._guard.in_child or not self._finish.alive or cast("Reusable", self.newest).closed

    def reset(self) -> None:
        """Forget what was asked for; the newest executor's workers stay."""
        state = self._state
        state.waiting.clear()
        self._make = self._failed = None
        for part in state.parts[:-1]:
            self._retire(part)
        cast("Reusable", self.newest).reset()
        state.parts[-1].works = 0


def _close_all(state: _State) -> None:
    """Close every executor, whatever one of them raises."""
    parts = list(state.parts)
    try:
        for part in reversed(parts[1:]):
            part.executor.close()
    finally:
        parts[0].executor.close()


def _finish(state: _State, guard: ForkGuard) -> None:
    if guard.in_child:
        return  # a fork took the executor along, but its workers are not that process's
    state.closed = True
    state.waiting.clear()
    _close_all(state)
