"""The lengths of samples, read for a window of samples at a time, and the parts that fit a limit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headrace.checks import one_of, row
from headrace.errors import ArgumentError
from headrace.plan.piece import Piece
from headrace.plan.planned import counts, digest, whole_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

Longer = Literal["split", "truncate", "drop", "error"]
LONGER: tuple[Longer, ...] = ("split", "truncate", "drop", "error")

CHECKED = 2**22
"""Up to this many lengths are copied and checked at once, in a few milliseconds; more, window by window."""

DIGESTED = 2**20
"""How many lengths a fingerprint reads: all of them, or so many spread evenly."""


@dataclass(frozen=True, slots=True)
class Parts:
    """Samples, or parts of them: the elements ``start`` to ``stop - 1`` of each. ``cut`` is None if all are whole."""

    index: NDArray[np.int64]
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    cut: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """How many elements each has."""
        return self.stop - self.start

    def take(self, places: NDArray[np.integer[Any]] | NDArray[np.bool_] | slice) -> Parts:
        """Return those at some places.

        >>> three = Parts(np.array([7, 8, 9]), np.zeros(3, int), np.array([4, 2, 3]))
        >>> three.take(np.array([2, 0])).keys()
        [9, 7]
        """
        cut = None if self.cut is None else self.cut[places]
        return Parts(self.index[places], self.start[places], self.stop[places], cut)

    def keys(self) -> list[int | Piece]:
        """Return the key of each: an index, or a `Piece` of a sample."""
        keys: list[int | Piece] = self.index.tolist()
        if self.cut is not None:
            for place in np.flatnonzero(self.cut).tolist():
                keys[place] = Piece(int(self.index[place]), int(self.start[place]), int(self.stop[place]))
        return keys


class SampleLengths:
    """The lengths of all samples, and what becomes of those longer than ``most``.

    >>> lengths = SampleLengths([7, 2], 3, "split", "row_length")
    >>> lengths.parts(np.array([1, 0])).keys()
    [1, Piece(index=0, start=0, stop=3), Piece(index=0, start=3, stop=6), Piece(index=0, start=6, stop=7)]
    """

    def __init__(self, lengths: Any, most: int, longer: Any, limit: str) -> None:
        self.longer: Longer = one_of("longer", longer, LONGER)
        self._most = most
        self._limit = limit
        self._values: NDArray[Any] = row("lengths", lengths, "one row of integers", kinds="iuf")
        self._checked = len(self._values) <= CHECKED
        if self._checked:
            self._values = counts("lengths", self._values)
            self._check_long(self._values, None)

    def __len__(self) -> int:
        return len(self._values)

    @cached_property
    def digest(self) -> str:
        """A hash of the lengths: of all, or of `DIGESTED` of them and their number."""
        size = len(self._values)
        if size <= DIGESTED:
            return digest(self._values.astype(np.int64))
        some = self._values[np.linspace(0, size - 1, DIGESTED, dtype=np.int64)].astype(np.int64)
        return digest(np.append(some, size))

    def mean(self) -> float:
        """Return about how long a sample is, as counted: from at most 4,096 of them, spread evenly."""
        some = np.linspace(0, len(self) - 1, min(len(self), 2**12), dtype=np.int64)
        sizes = self.parts(some).sizes
        return float(sizes.mean()) if len(sizes) else 0.0

    def parts(self, indices: NDArray[np.int64]) -> Parts:
        """Return the parts of some samples that have at most the allowed length, in order."""
        outside = (indices < 0) | (indices >= len(self._values))
        if outside.any():
            index = int(indices[np.argmax(outside)])
            raise ArgumentError(
                f"the sampler gives index {index}, but lengths has {len(self._values)} samples",
                found=index,
                expected=f"an index from 0 to {len(self._values) - 1}",
                cure="give the lengths of all samples that the sampler chooses from",
            )
        lengths: NDArray[np.int64] = self._values[indices]
        if not self._checked:
            lengths = whole_numbers("lengths", lengths, indices)
            self._check_long(lengths, indices)
        over = lengths > self._most
        start = np.zeros_like(lengths)
        if not over.any():
            return Parts(indices, start, lengths)
        if self.longer == "drop":
            return Parts(indices, start, lengths).take(~over)
        if self.longer == "truncate":
            return Parts(indices, start, np.minimum(lengths, self._most), over)
        count = np.maximum(-(-lengths // self._most), 1)
        start = (np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)) * self._most
        stop = np.minimum(start + self._most, np.repeat(lengths, count))
        return Parts(np.repeat(indices, count), start, stop, np.repeat(over, count))

    def _check_long(self, lengths: NDArray[np.int64], indices: NDArray[np.int64] | None) -> None:
        """Raise for samples that are too long, where that is an error, or where all of them would be dropped."""
        all_dropped = self.longer == "drop" and indices is None
        if self.longer != "error" and not all_dropped:
            return
        over = lengths > self._most
        if not (over.all() if all_dropped else over.any()):
            return
        if all_dropped:
            raise ArgumentError(
                f'longer="drop" drops every sample: the shortest has length {lengths.min()}, more than '
                f"{self._limit}={self._most}",
                found=int(lengths.min()),
                expected=f"some samples of at most {self._most}",
                cure=f'increase {self._limit}, or pass longer="split" or "truncate"',
            )
        at = int(np.argmax(over))
        index = at if indices is None else int(indices[at])
        more = f" (and {int(over.sum()) - 1} more)" if over.sum() > 1 else ""
        raise ArgumentError(
            f"sample {index} has length {lengths[at]}{more}, more than {self._limit}={self._most}",
            index=index,
            found=int(lengths[at]),
            expected=f"at most {self._most}",
            cure=f'increase {self._limit}, or pass longer="split", "truncate" or "drop"',
        )
