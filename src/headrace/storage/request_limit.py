"""How much a process asks for at once: more while that brings more bytes a second, less where the server refuses."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from headrace.storage.request_loop import STOP_SECONDS, check_stopped, stop_of_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FEWEST, MOST, FIRST = 4, 64, 16

PLACE = 1 << 20
"""Bytes of a request that take one place. What is on its way shares the bandwidth: many large requests at once would
delay the one that is needed first."""

BETTER, MUCH_BETTER, WORSE = 1.02, 1.5, 0.8
"""What the bytes a second of a round must be of those before it to send more requests, twice as many, and fewer."""


def places_of(nbytes: int) -> int:
    """Return how many places a request of so many bytes takes.

    >>> places_of(100), places_of(8 << 20)
    (1, 8)
    """
    return max(1, -(-nbytes // PLACE))


class RequestLimit:
    """Lets requests through while fewer than ``now`` places are taken, and changes that by what they bring.

    A request takes a place for each MiB that it asks for.

    >>> limit = RequestLimit()
    >>> with limit.request(1 << 20):
    ...     limit.busy
    1
    >>> limit.refused()
    >>> limit.now
    8

    A round is as many places as there are, taken and given back. In the beginning, the places double after each round
    in which all were taken, as long as twice as many bring far more bytes a second. Then there is one in eight more
    after a round that brought more, and one in eight fewer after one that brought far less. Where the server refuses
    (503, 429), half of the places go, at most once a round. For threads.
    """

    def __init__(
        self,
        first: int = FIRST,
        fewest: int = FEWEST,
        most: int = MOST,
        clock: Callable[[], float] = perf_counter,
    ) -> None:
        self.now, self.busy = first, 0
        self._fewest, self._most, self._clock = fewest, most, clock
        self._free = threading.Condition()
        self._begun, self._ended, self._bytes = clock(), 0, 0
        self._full, self._cut, self._doubling = False, False, True
        self._rate = 0.0

    @contextmanager
    def request(self, nbytes: int, *, urgent: bool = True) -> Iterator[None]:
        """Wait for a place, and take those of a request of so many bytes; some are for urgent requests only."""
        places = places_of(nbytes)
        with self._free:
            while self.busy >= self.now + (FEWEST if urgent else 0):
                self._free.wait(None if stop_of_thread() is None else STOP_SECONDS)
                check_stopped()
            if not self.busy:  # nothing was sent for a while, which says nothing of the server
                self._begin_round()
            self.busy += places
            # Not only where somebody waits: the prefetcher asks for no more places than there are.
            self._full = self._full or self.busy >= self.now
        try:
            yield
        except BaseException:
            nbytes = 0
            raise
        finally:
            with self._free:
                self.busy -= places
                self._settle(places, nbytes)
                self._free.notify_all()

    def refused(self) -> None:
        """Take note of a server that asks for fewer requests."""
        with self._free:
            if not self._cut:
                self._cut, self._doubling = True, False
                self.now = max(self._fewest, self.now // 2)

    def _settle(self, places: int, nbytes: int) -> None:
        """Count a request that has ended; at the end of a round, change the limit."""
        self._ended += places
        self._bytes += nbytes
        if self._ended < self.now:
            return
        rate = self._bytes / max(self._clock() - self._begun, 1e-6)
        if self._full and not self._cut:
            self._adapt(rate)
        if self._full:
            self._rate = rate if self._doubling or not self._rate else (self._rate + rate) / 2
        self._cut = False
        self._begin_round()
        self._full = self.busy >= self.now

    def _begin_round(self) -> None:
        self._begun, self._ended, self._bytes = self._clock(), 0, 0
        self._full = False

    def _adapt(self, rate: float) -> None:
        """Change the number of places by what a round brought in which all were taken."""
        self._doubling = self._doubling and rate >= self._rate * MUCH_BETTER
        part = max(1, self.now // 8)
        if self._doubling:
            self.now = min(self._most, 2 * self.now)
        elif rate >= self._rate * BETTER:
            self.now = min(self._most, self.now + part)
        elif rate < self._rate * WORSE:
            self.now = max(self._fewest, self.now - part)
