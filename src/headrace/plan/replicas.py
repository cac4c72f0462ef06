"""The plan of a stream: an iterable dataset, whose length is not known."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headrace.plan.work import StreamReplica, Work

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from headrace.context.seeds import Key


@dataclass(frozen=True, slots=True)
class ReplicatedStream:
    """Batches from ``count`` copies of a stream in turn: step ``s`` reads replica ``s mod count``.

    >>> from headrace.context.seeds import key_of
    >>> plan = ReplicatedStream(count=2, batch_size=4, seed=key_of(0))
    >>> plan.work(epoch=0, step=3).replica
    StreamReplica(number=1, count=2, start=4, size=4, state=None)

    There is always a next step, because only reading a replica shows its end. Any worker may read it, because the
    work says where to continue.
    """

    count: int
    batch_size: int
    seed: Key
    first: int = 0
    """The step where the run resumes."""
    states: Mapping[int, Any] = field(default_factory=dict)
    """The streams' own states at that step, by replica."""
    starts: Sequence[int] = ()
    """The samples read of each replica by that step; empty if the batch size never changed in the epoch."""

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of a step. Sample ``i`` of a replica has position ``i * count + replica`` in the epoch."""
        number = step % self.count
        state = self.states.get(number) if step < self.first + self.count else None
        replica = StreamReplica(number, self.count, self._start(step), self.batch_size, state)
        return Work(self.seed, epoch, step, replica.start * self.count + number, (), (), replica)

    def at(self, step: int) -> list[int]:
        """Return for each replica how many of its samples come before a step.

        >>> from headrace.context.seeds import key_of
        >>> ReplicatedStream(count=2, batch_size=4, seed=key_of(0)).at(3)
        [8, 4]
        >>> ReplicatedStream(2, 5, key_of(0), 3, starts=[8, 4]).at(4)
        [8, 9]
        """
        return [self._start(step + (replica - step) % self.count) for replica in range(self.count)]

    def _start(self, step: int) -> int:
        if not self.starts:
            return step // self.count * self.batch_size
        number = step % self.count
        entered = self.first + (number - self.first) % self.count  # the replica's first step from there on
        return self.starts[number] + (step - entered) // self.count * self.batch_size
