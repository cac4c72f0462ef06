"""The plan of a sampler that can only be iterated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.errors import IterationError
from headrace.interop.keys import check_whole
from headrace.plan.work import StreamReplica, Work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headrace.context.seeds import Key
    from headrace.plan.batch_plan import RankShare


class IteratorPlan:
    """One epoch of batches of keys, in the order of an iterator.

    >>> from headrace.context.seeds import key_of
    >>> plan = IteratorPlan([[5, 3], [4]], seed=key_of(0))
    >>> plan.work(epoch=0, step=0).keys, plan.work(epoch=0, step=1).start, plan.work(epoch=0, step=2)
    ([5, 3], 2, None)

    The steps must be asked for in order, as a loop does. Steps before ``first`` are drawn and skipped.
    With ``spare``, other samples of the same batch replace a bad one: the rest of the epoch is not known yet.
    With ``stream``, the batches hold samples of a stream instead of keys. Then each is a global batch, and ``share``
    selects the rank's part. ``batches`` starts at ``entered``, a step and a number of keys. After each drawn batch,
    ``mark`` is called with the new step and number of keys.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        seed: Key,
        *,
        spare: bool = False,
        stream: bool = False,
        share: RankShare | None = None,
        first: int = 0,
        entered: tuple[int, int] = (0, 0),
        mark: Callable[[int, int], None] | None = None,
    ) -> None:
        self._batches = iter(batches)
        self._seed = seed
        self._spare = spare
        self._stream = stream
        self._share = share
        self._first = first
        self._step, self._start = entered
        self._mark = mark

    def work(self, epoch: int, step: int) -> Work | None:
        """Return the work of the next step."""
        while self._step < max(self._first, step):  # with in_order=False, later steps may have been delivered already
            if self._next() is None:
                return None
        if step != self._step:
            raise IterationError(
                f"step {step} was requested, but the sampler is at step {self._step}",
                found=step,
                expected=f"step {self._step} or a later one",
                cure="Begin a new pass over the sampler.",
            )
        start = self._start
        keys = self._next()
        if keys is None:
            return None
        if self._share is not None:
            offset, count = self._share.of(len(keys))
            if not count:
                return None
            start, keys = start + offset, [keys[(offset + row) % len(keys)] for row in range(count)]
        replica = StreamReplica(0, 1, start, len(keys)) if self._stream else None
        return Work(self._seed, epoch, step, start, keys, keys if self._spare else (), replica)

    def _next(self) -> list[Any] | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        keys = batch if isinstance(batch, list) else list(batch)
        if not self._stream:
            check_whole(keys)
        self._step += 1
        self._start += len(keys)
        if self._mark is not None:
            self._mark(self._step, self._start)
        return keys
