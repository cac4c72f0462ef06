"""A cache of the last computed range of an order, with some positions ahead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class RangeCache:
    """A range of an epoch's order, computed ahead for callers that ask for consecutive ranges.

    >>> held = RangeCache(ahead=100)
    >>> def squares(epoch, start, stop):
    ...     print(f"making {start} to {stop}")
    ...     return [place * place for place in range(start, stop)]
    >>> held.take(0, 0, 3, squares, end=1000), held.take(0, 3, 5, squares, end=1000)
    making 0 to 3
    making 3 to 103
    ([0, 1, 4], [9, 16])
    >>> held.take(0, 5, 7, squares, end=1000), held.take(0, 500, 501, squares, end=1000)
    making 500 to 501
    ([25, 36], [250000])

    The results depend only on the arguments; the cost also depends on earlier calls. A copy or an unpickled cache is
    empty.
    """

    __slots__ = ("_ahead", "_last")

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._last: tuple[int, int, list[Any]] | None = None

    def take(
        self, epoch: int, start: int, stop: int, make: Callable[[int, int, int], list[Any]], *, end: int
    ) -> list[Any]:
        """Return ``make(epoch, start, stop)``, cut at ``end``, from the cache if possible."""
        start, stop = max(start, 0), min(stop, end)
        if stop <= start:
            return []
        last = self._last  # read once: other threads may set it meanwhile
        ahead = 0
        if last is not None and last[0] == epoch and start >= last[1]:
            if stop - last[1] <= len(last[2]):
                return last[2][start - last[1] : stop - last[1]]
            # Close to the last call: the next batch, or a rank's part of it.
            ahead = self._ahead if start - last[1] <= max(len(last[2]), self._ahead) else 0
        made = make(epoch, start, min(max(stop, start + ahead), end))
        self._last = epoch, start, made
        return made[: stop - start]

    def __reduce__(self) -> tuple[Any, ...]:
        return RangeCache, (self._ahead,)
