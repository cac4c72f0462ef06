"""A maker that makes batches in this process as a worker process would."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from headrace.context import worker_info
from headrace.make.maker import Maker

if TYPE_CHECKING:
    from collections.abc import Collection

    from headrace.context import seeds
    from headrace.context.memory import Empty, Recycler
    from headrace.make.maker import Stop
    from headrace.plan.work import Outcome, Work


@dataclass(frozen=True, slots=True)
class StandInMaker(Maker):
    """Makes batches as another maker does in the only worker process of a loader: `get_worker_info` says so."""

    is_plain: ClassVar[bool] = False

    @classmethod
    def of(cls, maker: Maker) -> StandInMaker:
        """Return what makes the batches of a maker."""
        return cls(**{each.name: getattr(maker, each.name) for each in dataclasses.fields(Maker)})

    def make(
        self,
        work: Work,
        *,
        here: seeds.Here | None = None,
        empty: Empty = np.empty,
        stop: Stop | None = None,
        seeding: Collection[str] = (),
        gives_back: bool = True,
        scratch: Recycler | None = None,
    ) -> Outcome:
        """Make a work's batch; never raises, as `Maker.make`."""
        with worker_info.standing_in(self.source.dataset):
            return Maker.make(
                self, work, here=here, empty=empty, stop=stop, seeding=seeding, gives_back=gives_back, scratch=scratch
            )
