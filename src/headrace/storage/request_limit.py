"""How many requests a process sends at once: more while that brings more bytes, fewer where the server refuses."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FEWEST, MOST, FIRST = 4, 64, 16

BETTER, WORSE = 1.02, 0.8
"""What the bytes a second of a round must be of those before it to send more requests, and to send fewer."""


class RequestLimit:
    """Lets requests through, at most ``now`` at once, and changes that by what they bring.

    >>> limit = RequestLimit()
    >>> with limit.request(1 << 20):
    ...     limit.busy
    1
    >>> limit.refused()
    >>> limit.now
    8

    A round is as many requests as may run at once. After one in which all places were taken, there is one place more
    if it brought more bytes a second than the round before, and one in eight fewer if it brought far less. Where the
    server refuses (503, 429), half of the places go, at most once a round. For threads.
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
        self._full, self._cut = False, False
        self._rate = 0.0

    @contextmanager
    def request(self, nbytes: int, *, urgent: bool = True) -> Iterator[None]:
        """Wait for a place, and take it for a request of so many bytes; some places are for urgent requests only."""
        with self._free:
            while self.busy >= self.now + (FEWEST if urgent else 0):
                self._full = True
                self._free.wait()
            self.busy += 1
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
                self._cut = True
                self.now = max(self._fewest, self.now // 2)

    def _settle(self, nbytes: int) -> None:
        """Count a request that has ended; at the end of a round, change the limit."""
        self._ended += 1
        self._bytes += nbytes
        if self._ended < self.now:
            return
        now = self._clock()
        rate = self._bytes / max(now - self._begun, 1e-6)
        if self._full and not self._cut:
            if rate >= self._rate * BETTER:
                self.now = min(self._most, self.now + max(1, self.now // 8))
            elif rate < self._rate * WORSE:
                self.now = max(self._fewest, self.now - max(1, self.now // 8))
        if self._full:
            self._rate = rate if not self._rate else (self._rate + rate) / 2
        self._begun, self._ended, self._bytes = now, 0, 0
        self._full = self._cut = False
