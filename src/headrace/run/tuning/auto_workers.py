"""What a loader with ``num_workers="auto"`` keeps from loop to loop: the search, and the setting it has found."""

from __future__ import annotations

import sys
import warnings
import weakref
from typing import TYPE_CHECKING, Any

from headrace.datasets import protocol
from headrace.interop.user_line import user_line
from headrace.run.tuning.makers import may_start_processes
from headrace.run.tuning.remembered import Remembered
from headrace.run.tuning.space import Room, Space
from headrace.run.tuning.tuner import Tuner
from headrace.run.tuning.worker_setting import WorkerSetting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.run.settings import Settings
    from headrace.run.stats import Meter


class AutoWorkers:
    """The workers of a loader that measures which number and which kind is best.

    ``moves``: whether batches are moved to a device in a thread of their own, which a loader without workers has not.
    ``rows``: how many threads can make one batch together.
    """

    def __init__(self, settings: Settings) -> None:
        self.start = WorkerSetting.of(settings)
        """The setting without a search."""
        self.moves = False
        self.rows = 1
        self._settings = settings
        self._batches: int | None = None
        self._meter: Meter | None = None
        self._tuner = Tuner(self.start, self._space)
        self._chosen: WorkerSetting | None = None
        self._loop: weakref.ref[Any] | None = None
        """The loop that is measured."""
        self._file: Remembered | None = None

    @property
    def now(self) -> WorkerSetting:
        """The setting of new works."""
        return self._chosen or self._tuner.setting

    @property
    def chosen(self) -> WorkerSetting | None:
        """What the search has found; None before its end."""
        return self._chosen

    def enter(self, measured: Callable[[], Any], facts: Callable[[], Mapping[str, Any]]) -> Tuner | None:
        """Return the tuner of a loop that begins; None after the search, and while another loop is measured.

        ``facts`` are what the setting depends on: a search over the same is not made twice, where it is remembered.
        """
        place = self._settings.remember_tuning
        if self._file is None and place is not False:
            self._file = Remembered(place, {**facts(), "kinds": self._settings.free_kinds, "start": str(self.start)})
            self._chosen = self._file.load(self._space())
            if self._chosen is not None:
                self._say("a search in an earlier run has chosen")
        loop = None if self._loop is None else self._loop()
        if self._chosen is not None or (loop is not None and loop.running):
            return None
        if self._tuner.enter():
            meter = self._meter
            spent = None if meter is None or not meter.batches else sum(meter.stages.values()) / meter.batches
            self._tuner.tried(measured(), spent)
            self.settle()
            self._tuner.enter()
        return None if self._chosen is not None else self._tuner

    def watch(self, loop: Any, meter: Meter, batches: int | None) -> None:
        """Measure a loop, whose epoch has so many batches; None where nobody knows."""
        self._loop, self._meter, self._batches = weakref.ref(loop), meter, batches

    def settle(self) -> None:
        """Keep the setting, if the search is over, and say which it is."""
        tuner = self._tuner
        if not tuner.over or self._chosen is not None:
            return
        self._chosen = tuner.setting
        count = f"{tuner.trials} setting{'s were' if tuner.trials != 1 else ' was'} measured"
        self._say(f"{count} in {tuner.seconds:.0f} s of training; the best is")
        if self._file is not None:
            self._file.save(self._chosen)

    def failed(self, error: Exception) -> None:
        """Take other workers, because those of the setting cannot be made; raises the error if it is the first one."""
        if self.now.kind == self.start.kind:
            raise error
        if self._chosen is None:
            self._tuner.failed()
            self.settle()
            return
        said = f'num_workers="auto" goes back to {self.start}, because {self._chosen} failed: {error}'
        self._chosen = self.start
        warnings.warn(said, RuntimeWarning, stacklevel=user_line())

    def again(self) -> AutoWorkers:
        """Return what a copy of the loader has: the same result, or a search of its own."""
        other = AutoWorkers(self._settings)
        other._chosen = self._chosen
        return other

    def _space(self) -> Space:
        settings, meter, kinds = self._settings, self._meter, self._settings.free_kinds
        if self.moves:
            kinds = tuple(kind for kind in kinds if kind != "inline")
        crosses = self.start.kind != "processes" and "processes" in kinds
        if _reads_objects(settings.dataset):  # fetched ahead for the workers of this process, or for other processes
            kinds = tuple(kind for kind in kinds if (kind == "processes") == (self.start.kind == "processes"))
        elif crosses and not may_start_processes(settings.adapter):
            kinds = tuple(kind for kind in kinds if kind != "processes")
        return Room.here(settings.rank, settings.world_size).space(
            kinds,
            batch_bytes=None if meter is None or not meter.batches else meter.nbytes // meter.batches,
            batches=self._batches,
            prefetch=settings.prefetch_factor if settings.sets_prefetch else None,
            threads=None if crosses and self.start.threads == 1 else self.start.threads,
            under_way=self.start.ahead,
            rows=self.rows,
            together=settings.threads_per_batch,
        )

    def _say(self, how: str) -> None:
        """Say what was chosen, for all ranks once."""
        if self._settings.rank == 0 and sys.stderr is not None:
            sys.stderr.write(f'headrace: num_workers="auto": {how} DataLoader(..., {self._chosen})\n')
            sys.stderr.flush()


def _reads_objects(dataset: Any) -> bool:
    try:
        return bool(protocol.object_spans(dataset, []))
    except Exception:  # noqa: BLE001  a view of a user's may refuse to be asked for nothing
        return True
