"""The search for the best setting of the workers: without threads and clocks, told of one trial after the other.

It begins at the setting that would be used without a search. After each trial, the model of the pipeline (`bottleneck`)
predicts the period of settings beside the best one; the most promising is tried next. A setting takes the place of the
best only if it is clearly better: by more than the noise of both trials.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from statistics import median
from typing import TYPE_CHECKING

from headrace.run.bottleneck import FREE
from headrace.run.tuning.worker_setting import WorkerSetting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.run.bottleneck import Measured
    from headrace.run.tuning.space import Space

CLEAR = 0.02
"""The part by which a setting must be faster to take the place of another, where nothing is noisy."""
ALIKE = 0.01
"""A cheaper setting may be slower by this part."""
NOISE = 2.0
"""Standard errors that a difference must exceed."""
MOST_NOISE = 0.15
BLIND = 1.25
"""A setting of another kind is tried up to this part of the period: the model does not know what handing over costs."""
IDLE = 0.5
"""Workers that are busy for a smaller part of the time wait for something that more of them do not bring."""
WAKING = 1e-3
"""Seconds a batch below which it matters what it costs to wake those who wait for one: the model does not know that."""
LEAST_EPOCH = 1.0
"""Seconds of an epoch from which on it is worth to start processes in the place of threads."""
MOST_TRIALS = 14
MOST_PREFETCH = 8


@dataclass(frozen=True, slots=True)
class Trial:
    """What was measured of a setting."""

    setting: WorkerSetting
    periods: tuple[float, ...]
    """Seconds a batch, of one window of time after the other."""
    waiting: float = 1.0
    """The part of its time that the loop waited."""
    measured: Measured | None = None
    """What is known of its batches; None where they were too few."""
    spent: float | None = None
    """Seconds of the workers a batch, of whole epochs."""

    @property
    def period(self) -> float:
        """The median window's seconds a batch."""
        return median(self.periods)

    @property
    def error(self) -> float:
        """The standard error of the period, as a part of it: by the median deviation, which outliers do not move."""
        if len(self.periods) < 2:
            return CLEAR
        middle = self.period
        deviation = 1.4826 * median(abs(each - middle) for each in self.periods)
        return deviation / middle / sqrt(len(self.periods)) if middle else 0.0

    @property
    def is_enough(self) -> bool:
        """Whether the loop is its own limit: it waits neither for batches nor for the GIL, which threads hold."""
        found, gil = self.measured, 0.0
        if found is not None and found.needs_gil:
            gil = found.gil_wait / found.period
        return self.waiting + gil < FREE

    @property
    def idles(self) -> bool:
        """Whether the workers stood idle for most of the time: they take longer to start than to make an epoch."""
        return self.spent is not None and self.spent / max(1, self.setting.hands) < IDLE * self.period

    def beats(self, other: Trial) -> bool:
        """Say whether it is faster by more than the noise."""
        return self.period < other.period * (1.0 - max(CLEAR, min(MOST_NOISE, self._noise(other))))

    def suffices(self, other: Trial) -> bool:
        """Say whether it is as fast as another one, or nearly."""
        return self.period <= other.period * (1.0 + max(ALIKE, min(CLEAR, self._noise(other))))

    def _noise(self, other: Trial) -> float:
        return NOISE * sqrt(self.error**2 + other.error**2)


class Search:
    """Says which setting is to be tried next; over when nothing is worth a trial any more."""

    def __init__(self, start: WorkerSetting, space: Space) -> None:
        self.space = space
        self.trials: list[Trial] = []
        self._known = {start}
        self._best: Trial | None = None
        self.next: WorkerSetting | None = start
        """What is to be tried; None: the search is over."""

    @property
    def best(self) -> WorkerSetting | None:
        """The best setting so far; None before the first trial."""
        return None if self._best is None else self._best.setting

    @property
    def best_period(self) -> float | None:
        """The seconds a batch of the best setting so far."""
        return None if self._best is None else self._best.period

    @property
    def over(self) -> bool:
        """Whether nothing is to be tried any more."""
        return self.next is None

    def found(self, trial: Trial) -> WorkerSetting | None:
        """Take note of a trial, and return what is to be tried next."""
        self.trials.append(trial)
        best = self._best
        if best is None or trial.beats(best) or (trial.setting.cost < best.setting.cost and trial.suffices(best)):
            self._best = trial
        return self._go_on()

    def failed(self, setting: WorkerSetting) -> WorkerSetting | None:
        """Take note of a setting that cannot be used: others of its kind are not tried."""
        self.space = replace(self.space, kinds=tuple(kind for kind in self.space.kinds if kind != setting.kind))
        works = [trial for trial in self.trials if trial.setting.kind != setting.kind]
        if self._best is not None and self._best.setting.kind == setting.kind:
            self._best = min(works, key=lambda trial: trial.period, default=None)
        return self._go_on()

    def stop(self) -> None:
        """End the search with the best setting so far."""
        self.next = None

    def _go_on(self) -> WorkerSetting | None:
        self.next = None
        if self._best is not None and len(self.trials) < MOST_TRIALS:
            self.next = self._cheaper(self._best) if self._best.is_enough else self._faster(self._best)
        if self.next is not None:
            self._known.add(self.next)
        return self.next

    def _may(self, setting: WorkerSetting) -> bool:
        return setting not in self._known and self.space.has(setting)

    def _cheaper(self, best: Trial) -> WorkerSetting | None:
        """Return a setting with fewer workers that may suffice for a slow loop; the cheapest first."""
        measured = best.measured
        fewer = [
            self.space.fitted(replace(best.setting, workers=count))
            for count in self.space.counts(best.setting.kind)
            if count < best.setting.workers
        ]
        inline = [WorkerSetting("inline")] if best.setting.kind != "inline" else []
        refused = [trial.setting for trial in self.trials if not trial.suffices(best)]
        for setting in [*inline, *fewer] if measured is not None else fewer[-1:]:
            if measured is not None and _predicted(measured, setting) > best.period * (1.0 + ALIKE):
                continue
            if not self._may(setting):
                continue
            if all(other.cost < setting.cost for other in refused):
                return setting
        return None

    def _faster(self, best: Trial) -> WorkerSetting | None:
        """Return the most promising setting beside the best one."""
        measured = best.measured
        options: list[tuple[float, WorkerSetting]] = []
        if best.spent is not None and best.spent < best.period * BLIND:
            options.append((best.spent, WorkerSetting("inline")))
        if best.setting.workers and best.period < WAKING and best.setting.prefetch < MOST_PREFETCH:
            deeper = replace(best.setting, prefetch=best.setting.prefetch * 2)
            options.append((best.period, self.space.fitted(deeper)))
        if best.idles:
            options.append((best.period, self.space.fitted(replace(best.setting, workers=1))))
        else:
            options += [*self._more(best), *(() if measured is None else self._others(best, measured))]
        return min((option for option in options if self._may(option[1])), key=lambda one: one[0], default=(0, None))[1]

    def _more(self, best: Trial) -> Iterator[tuple[float, WorkerSetting]]:
        """Yield the setting with the next larger number of workers, which is tried whatever the model says."""
        setting, measured = best.setting, best.measured
        kind = setting.kind
        for count in self.space.counts(kind) if kind != "inline" else []:
            if count > setting.workers:
                more = self.space.fitted(replace(setting, workers=count))
                yield (best.period if measured is None else _predicted(measured, more)), more
                break
        if setting.ahead > self.space.most_ahead and setting.workers:  # more than there is memory for
            yield 0.0, self.space.fitted(setting)
            fewer = replace(setting, workers=max(1, self.space.most_ahead // setting.threads), prefetch=1)
            yield 0.0, self.space.fitted(fewer)

    def _others(self, best: Trial, measured: Measured) -> Iterator[tuple[float, WorkerSetting]]:
        """Yield settings that the model thinks better, and those of other kinds that may be, with their periods."""
        setting, now = best.setting, best.period
        for kind in self.space.kinds:
            # Processes are not started in a loop of threads without need.
            needless = setting.kind == "threads" and kind == "processes" and not measured.needs_gil
            if kind == "processes" != setting.kind and now * self.space.most_at_once < LEAST_EPOCH:
                continue
            prefetch = self.space.prefetch or setting.prefetch
            options = [WorkerSetting("inline")]
            if kind != "inline":
                threads = (self.space.threads or 1) if kind == "processes" else 1
                options = [WorkerSetting(kind, count, prefetch, threads) for count in self.space.counts(kind)]
            if kind == "processes" and self.space.threads is None and setting.kind != "inline":
                options.append(WorkerSetting(kind, 1, prefetch, max(2, setting.hands)))
            fitted = [option for option in map(self.space.fitted, options) if self.space.has(option)]
            periods = [(_predicted(measured, option), option) for option in fitted]
            if not periods:
                continue
            least = min(period for period, _ in periods)
            # The fewest workers that come near the best.
            period, chosen = next(one for one in periods if one[0] <= least * (1.0 + CLEAR))
            if period < now * (1.0 - CLEAR if kind == setting.kind or needless else BLIND):
                yield period, chosen
        if setting.kind != "inline":
            deeper = replace(setting, prefetch=setting.prefetch * 2)
            period = _predicted(measured, deeper)
            if setting.prefetch < MOST_PREFETCH and period < now * (1.0 - CLEAR):
                yield period, deeper
            closer = replace(setting, together=min(self.space.most_together, setting.pool, setting.together * 2))
            closer = self.space.fitted(replace(closer, prefetch=setting.ahead // closer.at_once))
            if (period := _predicted(measured, closer)) < now * (1.0 - CLEAR):
                yield period, closer


def _predicted(measured: Measured, setting: WorkerSetting) -> float:
    return measured.period_with(setting.kind, setting.hands, setting.ahead, setting.together)
