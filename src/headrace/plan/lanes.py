"""Plans for streams: iterable datasets, of which nobody knows the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headrace.work import Lane, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from headrace.seeds import Key


@dataclass(frozen=True, slots=True)
class Lanes:
    """Batches from ``count`` copies of a stream in turn: step ``s`` reads lane ``s mod count``, where it stands then.

    >>> from headrace.seeds import key_of
    >>> plan = Lanes(count=2, batch_size=4, seed=key_of(0))
    >>> plan.work(epoch=0, step=3).lane
    Lane(number=1, count=2, start=4, size=4, state=None)

    There is always a next step; that a lane is over is learnt when it is read. Who reads a lane may change: where it
    stands is in the work.
    """

    count: int
    batch_size: int
    seed: Key
    first: int = 0
    """The step from which a run goes on."""
    states: Mapping[int, Any] = field(default_factory=dict)
    """What the streams said of themselves at that step, by lane."""
    starts: Sequence[int] = ()
    """Where each lane stands at that step; empty where batches had this size from the epoch's beginning."""

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step. Sample ``i`` of a lane has position ``i * count + lane`` in the epoch."""
        number = step % self.count
        state = self.states.get(number) if step < self.first + self.count else None
        lane = Lane(number, self.count, self._start(step), self.batch_size, state)
        return Work(self.seed, epoch, step, lane.start * self.count + number, (), (), lane)

    def at(self, step: int) -> list[int]:
        """Return where each lane stands at a step: how many of its samples come before.

        >>> from headrace.seeds import key_of
        >>> Lanes(count=2, batch_size=4, seed=key_of(0)).at(3), Lanes(2, 5, key_of(0), 3, starts=[8, 4]).at(4)
        ([8, 4], [8, 9])
        """
        return [self._start(step + (lane - step) % self.count) for lane in range(self.count)]

    def _start(self, step: int) -> int:
        if not self.starts:
            return step // self.count * self.batch_size
        number = step % self.count
        entered = self.first + (number - self.first) % self.count  # the lane's first step from there on
        return self.starts[number] + (step - entered) // self.count * self.batch_size
