"""A dispatcher whose workers change while the loop runs."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from headrace.run.dispatch import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.executors.base import Executor
    from headrace.executors.changing import Changing
    from headrace.plan.work import Done, Failed
    from headrace.run.bottleneck import Measured
    from headrace.run.stats import Meter
    from headrace.run.tuning.auto_workers import AutoWorkers
    from headrace.run.tuning.tuner import Tuner
    from headrace.run.tuning.worker_setting import WorkerSetting


class TunedDispatcher(Dispatcher):
    """A `Dispatcher` that tells a tuner of each batch, and changes the executor between two batches.

    ``make(setting)`` makes the workers of a setting; ``measured()`` says what is known of the newest batches.
    """

    __slots__ = ("_auto", "_due", "_failing", "_make", "_measured", "_meter", "_tuner")

    def __init__(
        self,
        *parts: Any,
        auto: AutoWorkers,
        tuner: Tuner,
        make: Callable[[WorkerSetting], Executor],
        measured: Callable[[], Measured | None],
        meter: Meter,
    ) -> None:
        super().__init__(*parts)
        self._auto = auto
        self._tuner: Tuner | None = tuner
        self._make = make
        self._measured = measured
        self._meter = meter
        self._due = self._failing = False

    def next(self) -> Done | Failed | None:
        """Return the next outcome in order, or None at the end of the epoch."""
        tuner = self._tuner
        if tuner is None:
            return super().next()
        asked = perf_counter()
        if self._due or self._failing or tuner.over:
            self._look(tuner)
        outcome = super().next()
        if outcome is not None and not tuner.over:
            before = tuner.is_measuring
            self._due = tuner.took(asked, perf_counter())
            if tuner.is_measuring and not before:
                self._lives.recent.clear()  # those before are of another setting
        return outcome

    def _look(self, tuner: Tuner) -> None:
        """Change the workers, where another setting is to be measured, or is the best."""
        setting = None
        if self._failing:
            setting = tuner.failed()
        elif not tuner.over:
            setting = tuner.tried(self._measured())
        self._due = self._failing = False
        if setting is not None:
            self._change(tuner, setting)
        if tuner.over and not (self._failing or self._changing.is_changing):
            self._tuner = None
            self._auto.settle()

    @property
    def _changing(self) -> Changing:
        return self.executor  # type: ignore[return-value]  # the session gives it one

    def _change(self, tuner: Tuner, setting: WorkerSetting) -> None:
        def failed(error: Exception) -> None:  # noqa: ARG001  tried for what it might bring: nobody asked for it
            self._failing = True

        tuner.changed(self.window.open)
        self._meter.workers = setting.workers
        self.window.resize(setting.ahead)
        # A fork copies what threads at work hold; all others may begin while the old workers finish.
        self._changing.change(lambda: self._make(setting), after=setting.kind == "processes", failed=failed)
