"""How many requests a process sends at once: more while that brings more bytes, fewer where the server refuses."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

from headrace.storage.request_loop import STOP_SECONDS, check_stopped, stop_of_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FEWEST, MOST, FIRST = 4, 64, 16

BETTER, MUCH_BETTER, WORSE = 1.02, 1.5, 0.8
"""What the bytes a second of a round must be of those before it to send more requests, twice as many, and fewer."""


class RequestLimit:
    """Lets requests through, at most ``now`` at once, and changes that by what they bring.

    >>> limit = RequestLimit()
    >>> with limit.request(1 << 20):
    ...     limit.busy
    1
    >>> limit.refused()
    >>> limit.now
    8

    A round is as many requests as may run at once. In the beginning, the places double after each round in which all
    were taken, as long as twice as many bring far more bytes a second. Then there is one in eight more after a round
    that brought more, and one in eight fewer after one that brought far less. Where the server refuses (503, 429), half
    of the places go, at most once a round. For threads.
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
        """Wait for a place, and take it for a request of so many bytes; some places are for urgent requests only."""
        with self._free:
            while self.busy >= self.now + (FEWEST if urgent else 0):
                self._free.wait(None if stop_of_thread() is None else STOP_SECONDS)
                check_stopped()
            if not self.busy:  # nothing was sent for a while, which says nothing of the server
                self._begin_round()
            self.busy += 1
            # Not only where somebody waits: the prefetcher asks for no more places than there are.
            self._full = self._full or self.busy >= self.now
        try:
            yield
        except BaseException:
            nbytes = 0
            raise
        finally:
            with self._free:
                self.busy -= 1
                self._settle(nbytes)
                self._free.notify_all()

    def refused(self) -> None:
        """Take note of a server that asks for fewer requests."""
        with self._free:
            if not self._cut:
                self._cut, self._doubling = True, False
                self.now = max(self._fewest, self.now // 2)

    def _settle(self, nbytes: int) -> None:
        """Count a request that has ended; at the end of a round, change the limit."""
        self._ended += 1
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
