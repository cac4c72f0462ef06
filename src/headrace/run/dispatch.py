"""The near end of the executor: asks the plan for works, keeps the executor busy, and takes outcomes in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.plan.work import Done, Ended

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.executors.base import Executor
    from headrace.executors.inline import Inline
    from headrace.ledger.recorder import Recorder
    from headrace.plan.batch_plan import Plan
    from headrace.plan.work import Failed, Outcome, Work
    from headrace.run.lives import Lives
    from headrace.run.window import Unordered, Window


class Dispatcher:
    """Submits the works of a plan as far as the window has room, and returns their outcomes in its order.

    ``release`` is called where the epoch ends, or the loop is closed: it ends the workers, or lets them wait for the
    next epoch. ``timeout`` is how many seconds to wait for an outcome; None: for ever.
    """

    __slots__ = (
        "_asking",
        "_lives",
        "_plan",
        "_recorder",
        "_stream",
        "_timeout",
        "_unplanned",
        "ended",
        "executor",
        "release",
        "window",
    )

    def __init__(
        self,
        plan: Plan,
        stream: int,
        executor: Executor,
        window: Window | Unordered,
        release: Callable[[], None],
        timeout: float | None,
        recorder: Recorder | None,
        lives: Lives,
    ) -> None:
        self._plan = plan
        self._lives = lives
        self._stream = stream
        self._timeout = timeout
        self._recorder = recorder
        self._asking = True
        self._unplanned: Exception | None = None
        """What the plan raised (a sampler of the user's) when asked for the step after those in flight."""
        self.ended: dict[int, Any] = {}
        """What streams keep of themselves after their end, by copy."""
        self.executor = executor
        self.window = window
        self.release = release

    def submit(self) -> None:
        """Submit works until the window is full or the plan has no more."""
        window = self.window
        while self._asking and window.room:
            try:
                work = self._plan.work(self._stream, window.asked)
            except Exception as error:  # noqa: BLE001  raised when the batches before it have been delivered
                self._asking, self._unplanned = False, error
                break
            if work is None:
                self._asking = False
            else:
                window.ask()
                if self._recorder is not None:
                    self._recorder.submitted(work)
                self._lives.submitted(work)
                self.executor.submit(work)

    def next(self) -> Done | Failed | None:
        """Return the next outcome in order, or None at the end of the epoch."""
        window = self.window
        while True:
            self.submit()
            outcome = window.take()
            if outcome is not None:
                return outcome  # type: ignore[return-value]  # a window takes no Ended
            if window.in_flight:
                found = self.executor.next(self._timeout)
                if isinstance(found, Done):
                    self._lives.received(found)
                else:
                    self._lives.lost(found.step)
                if isinstance(found, Ended) and found.stream is not None:
                    self.ended[found.stream[0]] = found.stream[1]
                window.put(found)
                del found
            elif self._unplanned is not None:
                self._raise_unplanned()
            elif not (self._asking and window.room):
                return None

    def forget(self) -> None:
        """Let go of what the plan raised: nobody asks for it any more."""
        self._unplanned = None

    def _raise_unplanned(self) -> None:
        """Raise what the plan raised; a plan that can still be asked is asked again, as it is without workers."""
        error, self._unplanned, self._asking = self._unplanned, None, True
        try:
            if error is not None:
                raise error
        finally:
            del error  # what an error's own frames still name is a cycle, and keeps the workers alive


class Direct:
    """A dispatcher where there are no workers: a batch is made when it is asked for, so none waits to be put in order.

    It gives what a `Dispatcher` with a window of one gives, and exists because small batches are made faster than that
    one asks for them (docs/decisions/0014-small-batches.md).
    """

    __slots__ = ("_plan", "_recorder", "_stream", "ended", "executor", "lives", "made", "release", "step")

    def __init__(
        self,
        plan: Plan,
        stream: int,
        executor: Inline,
        first: int,
        release: Callable[[], None],
        recorder: Recorder | None,
        lives: Lives,
    ) -> None:
        self.lives = lives
        self._plan = plan
        self._stream = stream
        self.step = first
        """The first step that was not taken."""
        self.made: Outcome | None = None
        """The outcome of that step, where somebody has made it already."""
        self._recorder = recorder
        self.ended: dict[int, Any] = {}
        """As a `Dispatcher` has it."""
        self.executor = executor
        self.release = release

    @property
    def place(self) -> tuple[int, tuple[int, ...]]:
        """The first step that was not taken; none beyond it was."""
        return self.step, ()

    def work(self) -> Work | None:
        """Return the next work, or None at the end of the epoch."""
        return self._plan.work(self._stream, self.step)

    def submit(self) -> None:
        """Do nothing: what is asked for is made at once."""

    def next(self) -> Done | Failed | None:
        """Make the next batch and return its outcome, or None at the end of the epoch."""
        outcome, self.made = self.made, None
        if outcome is None:
            work = self.work()
            if work is None:
                return None
            if self._recorder is not None:
                self._recorder.submitted(work)
            self.lives.submitted(work)
            outcome = self.executor.make(work)
            self.lives.received(outcome)
        self.step += 1
        if not isinstance(outcome, Ended):
            return outcome
        self.lives.lost(outcome.step)
        if outcome.stream is not None:
            self.ended[outcome.stream[0]] = outcome.stream[1]
        return None

    def forget(self) -> None:
        """Do nothing: what the plan raises is raised at once."""
