"""Bad samples, tolerated: batches of constant size from pieces with holes, and how many bad ones are too many."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.errors import TooManyErrors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.plan.work import BadSample


class Refill:
    """Good samples go in, in order and as many as there are; whole batches come out.

    >>> refill = Refill(batch_size=3, drop_last=False)
    >>> refill.put(0, ["a", "b"], bad=1)
    >>> refill.take() is None
    True
    >>> refill.put(1, ["c", "d"], bad=0)
    >>> refill.take(), refill.place
    (['a', 'b', 'c'], (1, 1, 0))
    >>> refill.rest(), refill.rest(), refill.place
    (['d'], None, None)

    ``offset`` is how many good samples were in a batch already, before this: of the first step, and of those that
    follow where it has fewer.
    """

    __slots__ = ("_batch_size", "_before", "_drop_last", "_offset", "_pieces", "_samples")

    def __init__(self, batch_size: int, *, drop_last: bool, offset: int = 0) -> None:
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._offset = self._before = offset
        self._samples: deque[Any] = deque()
        self._pieces: deque[tuple[int, int, int]] = deque()
        """Of each step in hand: which, how many samples it had, how many were bad."""

    def put(self, step: int, samples: Sequence[Any], bad: int) -> None:
        """Add the samples of the step that follows, and how many more it has that are bad."""
        self._pieces.append((step, len(samples), bad))
        # What was in a batch before belongs to the first pieces, as what has left since does.
        self._samples.extend(samples[self._before :])
        self._before = max(0, self._before - len(samples))

    @property
    def place(self) -> tuple[int, int, int] | None:
        """The step of the first sample in hand, how many of its good ones have left, and all bad ones from it on."""
        if not self._samples:
            return None
        self._forget()
        return self._pieces[0][0], self._offset, sum(bad for _, _, bad in self._pieces)

    def _forget(self) -> None:
        while self._pieces and self._offset >= self._pieces[0][1]:
            self._offset -= self._pieces.popleft()[1]

    def take(self) -> list[Any] | None:
        """Take a whole batch, or None while there are too few samples for one."""
        if len(self._samples) < self._batch_size:
            return None
        self._offset += self._batch_size
        batch = [self._samples.popleft() for _ in range(self._batch_size)]
        self._forget()
        return batch

    def rest(self) -> list[Any] | None:
        """Take what is left when no more samples come: the short last batch, if it is wanted and there is one."""
        rest = list(self._samples)
        self._samples.clear()
        self._pieces.clear()
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
            expected = f"at most {self.allowed} bad samples"
        elif latest and self.samples is not None and failed >= self.samples:
            found, expected = f"all {self.samples} samples of this epoch failed", "at least one good sample"
        else:
            return
        named = tuple(f"sample {bad.index!r}: {bad.error}" for bad in latest[-3:])
        raise TooManyErrors(
            f"{found}. The latest: {'; '.join(named)}",
            latest=named,
            found=failed,
            expected=expected,
            cure="Fix or remove the bad samples, or allow more of them with max_errors.",
        )
