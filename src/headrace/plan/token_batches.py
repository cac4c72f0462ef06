"""Batches of one cost: within a budget of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import flag, integer
from headrace.errors import ArgumentError
from headrace.plan.piece import Piece
from headrace.plan.planned import PlannedBatchSampler
from headrace.plan.sample_lengths import SampleLengths
from headrace.plan.windows import Groups, WindowOrder, WindowSettings, checked_sampler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike

    from headrace.context.seeds import Key
    from headrace.plan.planned import PlannedSampler
    from headrace.plan.sample_lengths import Longer, Parts

BATCHES = 100
"""Batches in a window by default: the lengths in a batch are then within about 1 % of all lengths."""

FEW_BATCHES = 16
"""Batches in a window of a small dataset. In one window, the same samples would share a batch in every epoch."""


class TokenBatchSampler(PlannedBatchSampler[int | Piece]):
    """Batches of similar cost: the longest sample, times the number of samples, is within a budget.

    >>> from headrace import DataLoader
    >>> from headrace.samplers import TokenBatchSampler
    >>> lengths = [3, 50, 4, 52, 3, 51, 4, 53]
    >>> for batch in DataLoader(lengths, batch_sampler=TokenBatchSampler(lengths, max_tokens=110, shuffle=False)):
    ...     print(batch)
    [3 3 4 4]
    [50 51]
    [52 53]

    ``lengths`` has the length of each sample of the dataset. ``max_tokens`` is the budget of a padded batch. The
    longest length is rounded up to ``multiple_of``, as in `PaddedCollate`. ``max_samples`` limits the number of samples
    too; with a large budget, all batches have that size.

    ``sampler`` and ``longer`` are as in `PackingBatchSampler`: "split" and "truncate" cut a sample above the budget.
    The next ``window`` samples in the sampler's order (None: about 100 batches, fewer of a small dataset) are sorted by
    length and cut into batches, which come in random order. A larger window needs less padding. With ``shuffle=False``
    the batches of a window are in order of length, and samples without a sampler are not shuffled. ``seed`` is as in
    `BucketBatchSampler`.

    The number of batches may differ from epoch to epoch. ``len`` plans all windows: a loop does not ask for it, and
    finds the end of the epoch when it comes.

    Raises `ArgumentError` for lengths that are not integers from 0 up or above the budget, with the first such sample,
    and for other numbers below 1. Of more than 4 million lengths, those of a window are checked when it is planned.
    """

    def __init__(
        self,
        lengths: ArrayLike,
        max_tokens: int,
        *,
        sampler: PlannedSampler[int] | None = None,
        window: int | None = None,
        multiple_of: int = 1,
        max_samples: int | None = None,
        longer: Longer = "error",
        shuffle: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        self.max_tokens = integer("max_tokens", max_tokens, least=1)
        self.sampler = checked_sampler(sampler)
        self.multiple_of = integer("multiple_of", multiple_of, least=1)
        self.max_samples = None if max_samples is None else integer("max_samples", max_samples, least=1)
        self.shuffle = flag("shuffle", shuffle)
        # The largest length that is still within the budget when rounded up.
        most = self.max_tokens // self.multiple_of * self.multiple_of
        if not most:
            raise ArgumentError(
                f"max_tokens={max_tokens} is smaller than multiple_of={multiple_of}, so that no sample fits",
                found=self.max_tokens,
                expected=f"max_tokens from {self.multiple_of} up",
                cure="increase max_tokens or decrease multiple_of",
            )
        known = SampleLengths(lengths, most, longer, "max_tokens")
        self.window = self._usual_window(known) if window is None else integer("window", window, least=1)
        self.longer: Longer = known.longer
        self._settings = WindowSettings(known, self.sampler, self.window, self.shuffle)

    def _usual_window(self, known: SampleLengths) -> int:
        each = self.max_tokens / max(known.mean(), 1)
        if self.max_samples is not None:
            each = min(each, self.max_samples)
        window = BATCHES * each
        if self.shuffle:
            size = len(known) if self.sampler is None else len(self.sampler)
            window = min(window, max(FEW_BATCHES * each, size / FEW_BATCHES))
        return max(int(window), 1)

    def batch_order(self, key: Key) -> TokenOrder:
        """Return the batches for a key, or for the sampler's own seed if it has one."""
        return TokenOrder(self, self._settings, self.key_for(key))

    @property
    def cuts(self) -> bool:
        """Whether some keys are a `Piece`: a part of a sample."""
        return self.longer in ("split", "truncate")

    @property
    def fingerprint(self) -> dict[str, Any]:
        """The settings of the batches, by name."""
        names = ("max_tokens", "multiple_of", "max_samples", "seed")
        return {**self._settings.fingerprint, **{name: getattr(self, name) for name in names}}


class TokenOrder(WindowOrder):
    """The batches of a `TokenBatchSampler`, planned window by window. Positions count samples, or their parts."""

    def __init__(self, sampler: TokenBatchSampler, settings: WindowSettings, key: Key) -> None:
        super().__init__(settings, key)
        self._max_tokens = sampler.max_tokens
        self._multiple_of = sampler.multiple_of
        self._max_samples = sampler.max_samples

    def divide(self, parts: Parts) -> Groups:
        """Divide samples into batches."""
        parts = parts.take(np.argsort(parts.sizes, kind="stable"))
        # An empty sample takes a row of the batch too.
        costs = np.maximum(parts.sizes + -parts.sizes % self._multiple_of, 1).tolist()
        most = self._max_samples or len(costs)
        ends: list[int] = []
        begin = 0
        for place, cost in enumerate(costs):
            count = place - begin
            if count and (cost * (count + 1) > self._max_tokens or count == most):
                ends.append(place)
                begin = place
        if costs:
            ends.append(len(costs))
        return Groups(parts, np.array(ends, np.int64))

    def collect(self, groups: Sequence[list[Any]]) -> list[Any]:
        """Return the keys of the batch."""
        return groups[0]
