"""Bad samples, tolerated: batches of constant size from pieces with holes, and how many bad ones are too many."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.errors import TooManyErrors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.work import BadSample


class Refill:
    """Good samples go in, in order and as many as there are; whole batches come out.

    >>> refill = Refill(batch_size=3, drop_last=False)
    >>> refill.put(["a", "b"])
    >>> refill.take() is None
    True
    >>> refill.put(["c", "d"])
    >>> refill.take(), refill.rest(), refill.rest()
    (['a', 'b', 'c'], ['d'], None)
    """

    __slots__ = ("_batch_size", "_drop_last", "_samples")

    def __init__(self, batch_size: int, *, drop_last: bool) -> None:
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._samples: deque[Any] = deque()

    def put(self, samples: Sequence[Any]) -> None:
        """Add the samples that follow."""
        self._samples.extend(samples)

    def take(self) -> list[Any] | None:
        """Take a whole batch, or None while there are too few samples for one."""
        if len(self._samples) < self._batch_size:
            return None
        return [self._samples.popleft() for _ in range(self._batch_size)]

    def rest(self) -> list[Any] | None:
        """Take what is left when no more samples come: the short last batch, if it is wanted and there is one."""
        rest = list(self._samples)
        self._samples.clear()
        return rest if rest and not self._drop_last else None


@dataclass(frozen=True, slots=True)
class Budget:
    """How many samples of an epoch may fail.

    >>> Budget(samples=100, allowed=2).check(2, ())
    >>> Budget(samples=100, allowed=None).check(99, ())
    """

    samples: int | None
    """How many there are, where that is known."""
    allowed: int | None
    """How many may fail; None: all but the last, for an epoch of nothing would be mistaken for a finished one."""

    def check(self, failed: int, latest: Sequence[BadSample]) -> None:
        """Raise `TooManyErrors` if that many failures are too many."""
        if self.allowed is not None and failed > self.allowed:
            found = f"{failed} samples of this epoch failed, and max_errors allows {self.allowed}"
        elif latest and self.samples is not None and failed >= self.samples:
            found = f"all {self.samples} samples of this epoch failed"
        else:
            return
        named = "; ".join(f"sample {bad.index!r}: {bad.error}" for bad in latest[-3:])
        raise TooManyErrors(f"{found}. The latest: {named}")
