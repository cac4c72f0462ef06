"""The tuner: measures settings of the workers while loops run, one after the other, and keeps the best one."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from headrace.run.bottleneck import LEAST
from headrace.run.tuning.search import Search, Trial

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.run.bottleneck import Measured
    from headrace.run.tuning.space import Space
    from headrace.run.tuning.worker_setting import WorkerSetting

WINDOW = 0.15
"""Seconds, at least, of a window: its batches divided by its time are one measurement."""
WINDOWS = 5
"""Measurements of a setting."""
FEWEST = 3
"""Measurements after which a setting is given up that is clearly worse."""
WORSE = 1.3
"""How many times as long as the best setting's its batches then take."""
MOST_SECONDS = 4.0
"""How long one setting is measured, unless it has hardly any batches in that time."""
EPOCHS = 2
"""Epochs that are measured as a whole, where they are too short for windows."""
BUDGET = 20.0
"""Seconds of loops after which no other setting is tried."""
LEAST_TRIALS = 3
"""Settings that are tried all the same, where a batch takes seconds."""


class Tuner:
    """Says which setting the workers of a loop have, and when to change it.

    A loop tells when it asked for a batch and when it took one. ``space()`` says what may be tried, once there is a
    batch.
    """

    def __init__(self, start: WorkerSetting, space: Callable[[], Space]) -> None:
        self.setting = start
        """What new works are made by."""
        self.over = False
        """Whether the search has ended: the setting stays."""
        self.seconds = 0.0
        """How long loops were measured."""
        self._space = space
        self._search: Search | None = None
        self._periods: list[float] = []
        """What was measured of the setting."""
        self._epochs: list[float] = []
        """The same, of whole epochs."""
        self._again()

    def _again(self) -> None:
        self._skip = self.setting.ahead
        self._began = self._last = 0.0
        self._opened = 0.0
        self._batches = self._windows = self._count = self._measured = 0
        self._waited = self._total = self._stood = 0.0

    @property
    def trials(self) -> int:
        """How many settings were measured."""
        return 0 if self._search is None else len(self._search.trials)

    def enter(self, now: float | None = None) -> bool:
        """Begin another loop; return whether the setting has been measured long enough, by whole epochs."""
        if self._batches and not self._windows:
            self._epochs.append((self._last - self._opened) / self._batches)
        if len(self._epochs) >= EPOCHS:
            self._periods = self._periods or self._epochs
            return True
        self._again()
        self._opened = perf_counter() if now is None else now
        return False

    def took(self, asked: float, now: float) -> bool:
        """Note a batch; return whether the setting has been measured long enough."""
        self.seconds += now - (self._last or asked)
        self._last = now
        self._batches += 1
        self._stood += now - asked
        if self._skip > 0:  # batches of the setting before, and those that a new one begins with
            self._skip -= 1
            self._began = now
            return False
        self._count += 1
        self._measured += 1
        self._waited += now - asked
        if now - self._began < WINDOW or self._count < self.setting.at_once:
            return self.seconds > BUDGET and self.trials >= LEAST_TRIALS
        self._periods.append((now - self._began) / self._count)
        self._windows += 1
        self._total += now - self._began
        self._began, self._count = now, 0
        return self._is_enough()

    @property
    def is_measuring(self) -> bool:
        """Whether the batches of the setting come as they will go on to come."""
        return self._skip == 0

    def _is_enough(self) -> bool:
        done = len(self._periods)
        slow = done >= FEWEST and self._total > 2 * MOST_SECONDS
        if self._measured < 2 * LEAST and done < 4 * WINDOWS and not slow:
            return False
        best = None if self._search is None else self._search.best_period
        if best is not None and done >= FEWEST and sorted(self._periods)[done // 2] > WORSE * best:
            return True
        return done >= WINDOWS or (done >= 2 and self._total > MOST_SECONDS)

    def tried(self, measured: Measured | None, spent: float | None = None) -> WorkerSetting | None:
        """End the trial of the setting; return the one to change to, or None where it stays.

        ``spent``: seconds of the workers a batch.
        """
        if self._search is None:
            self._search = Search(self.setting, self._space())
        search, before = self._search, self.setting
        if self._periods:
            search.found(Trial(before, tuple(self._periods), self._waiting(), measured, spent))
        if self.seconds > BUDGET and len(search.trials) >= LEAST_TRIALS:
            search.stop()
        return self._move(search, before)

    def _waiting(self) -> float:
        """Return the part of the time that the loop waited: in the windows, or else in the whole epoch."""
        if self._windows:
            return min(1.0, self._waited / self._total)
        lasted = self._last - self._opened
        return min(1.0, self._stood / lasted) if lasted > 0.0 else 1.0

    def failed(self) -> WorkerSetting | None:
        """Say that workers of the setting cannot be made; return the one to change to."""
        assert self._search is not None  # noqa: S101  for the type checker: the first setting's errors are the user's
        before = self.setting
        self._search.failed(before)
        return self._move(self._search, before)

    def _move(self, search: Search, before: WorkerSetting) -> WorkerSetting | None:
        self.over = search.over
        self.setting = search.next or search.best or before
        self._periods, self._epochs = [], []
        self._again()
        return None if self.setting == before else self.setting

    def changed(self, under_way: int) -> None:
        """Note that so many batches of the setting before are under way."""
        self._skip += under_way
