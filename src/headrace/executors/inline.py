"""The inline executor: makes each batch in the caller's thread, when it is asked for."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from headrace.context.memory import Recycler
from headrace.context.seeds import GLOBALS, Here
from headrace.executors.base import DELIVERED, SCRATCH
from headrace.executors.lifecycle import closed_while_reading, submitted_after_closing
from headrace.make.inline_maker import InlineMaker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from headrace.context.memory import Leftover
    from headrace.make.maker import Maker
    from headrace.plan.work import Outcome, Work


class Inline:
    """Makes each batch in the thread that waits for it.

    ``seeding`` names the global generators that are seeded for each batch; saving and restoring them takes about ten
    times as long as making a small batch does.
    """

    capacity = 1

    def __init__(self, maker: Maker, seeding: Collection[str] = GLOBALS, *, leftover: Leftover | None = None) -> None:
        self._batches, self._scratch = Recycler(DELIVERED, leftover), Recycler(keep=SCRATCH)
        self._works: deque[Work] = deque()
        self._closed = False
        empty, here = self._batches.empty, Here()
        self.make: Callable[[Work], Outcome] = partial(
            maker.make, here=here, empty=empty, seeding=seeding, scratch=self._scratch
        )
        """Makes a work at once."""
        self.short: InlineMaker | None = None
        """Makes it in less time, where nothing is asked for but batches; None: not here, or not any longer."""
        if InlineMaker.suits(maker, seeding):
            self.short = InlineMaker(maker, here, empty, self._scratch, self.make)

    def submit(self, work: Work) -> None:
        """Take a work."""
        if self._closed:
            raise submitted_after_closing()
        self._works.append(work)

    def next(self, timeout: float | None = None) -> Outcome:  # noqa: ARG002  nobody else is there to wait for
        """Make the work submitted first."""
        if self._closed:
            raise closed_while_reading()
        try:
            work = self._works.popleft()
        except IndexError:  # another thread has closed it meanwhile
            raise closed_while_reading() from None
        return self.make(work)

    def close(self) -> None:
        """Forget what was submitted."""
        self._closed = True
        self.make = _closed
        self.short = None
        self._works.clear()
        self._batches.close()
        self._scratch.close()


def _closed(work: Work) -> Outcome:  # noqa: ARG001
    raise closed_while_reading()
