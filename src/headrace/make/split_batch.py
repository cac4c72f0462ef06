"""The samples of one batch as a job: each of several threads makes the next sample that nobody has begun."""

from __future__ import annotations

import contextlib
import queue
from collections import deque
from dataclasses import dataclass, field
from time import perf_counter, thread_time
from typing import TYPE_CHECKING, Any

from headrace.context import seeds
from headrace.context.current import reset
from headrace.interop import torch_state
from headrace.storage import page_faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.context.timing import Seconds
    from headrace.plan.work import Work


@dataclass(slots=True)
class Helped:
    """What helpers have done for a batch."""

    seconds: Seconds = field(default_factory=dict)
    """By stage."""
    cpu: float = 0.0
    """Seconds that they ran on a CPU."""
    tokens: tuple[int, int] | None = None

    def add(self, other: Helped) -> None:
        """Count what another helper has done."""
        for stage, spent in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        self.cpu += other.cpu
        self.tokens = added(self.tokens, other.tokens)


def added(one: tuple[int, int] | None, other: tuple[int, int] | None) -> tuple[int, int] | None:
    """Add tokens and padding, where there are any."""
    if one is None or other is None:
        return one or other
    return one[0] + other[0], one[1] + other[1]


class SplitBatch:
    """Makes the samples of a work, row by row, on at most ``threads`` threads.

    ``make(row, here)`` makes a sample, in the thread that took the row. Whoever creates the job is one of the threads:
    it calls `run` and then `finish`. Rows are begun in order. So if a sample fails, those before it are made, and the
    error of the first one that failed is the batch's, as it is on one thread.

    >>> from headrace.context.seeds import Here
    >>> from headrace.plan.work import Work
    >>> here = Here()
    >>> job = SplitBatch(Work((0, 0), 0, 0, 0, "abc"), here, 2, lambda row, here: (row, here.position))
    >>> with seeds.at(here):
    ...     job.run()
    >>> job.finish({})
    [(0, 0), (1, 1), (2, 2)]
    """

    def __init__(self, work: Work, here: seeds.Here, threads: int, make: Callable[[int, seeds.Here], Any]) -> None:
        self.work = work
        self.helped = Helped()
        self._samples: list[Any] = [None] * len(work.keys)
        self._owner = here
        self._make = make
        # Threads take from these at once: what a deque's methods do is atomic.
        self._rows = deque(range(len(work.keys)))
        self._seats = deque(range(threads - 1))
        self._helpers = threads - 1
        self._ended: queue.SimpleQueue[Helped] = queue.SimpleQueue()
        self._failed: list[tuple[int, BaseException]] = []
        self._last: seeds.Drawn | None = None
        self._slowest: list[tuple[float, int]] = []

    @property
    def left(self) -> int:
        """Rows that another thread may begin."""
        return len(self._rows) if self._seats else 0

    @property
    def slowest(self) -> tuple[int, float] | None:
        """The row that took longest, and its seconds."""
        lasted, row = max(self._slowest, default=(0.0, -1))
        return None if row < 0 else (row, lasted)

    def run(self) -> None:
        """Make samples until none is left; none, where enough threads are at work."""
        here = seeds.place()
        if here is self._owner:
            self._take_rows(here)
            return
        try:
            self._seats.popleft()
        except IndexError:
            return
        self._help(here)

    def wait(self) -> None:
        """Wait for the samples that others have begun, and count what those have spent."""
        with contextlib.suppress(IndexError):
            while True:  # nobody comes any more
                self._seats.popleft()
                self._helpers -= 1
        while self._helpers > 0:
            self.helped.add(self._ended.get())
            self._helpers -= 1

    def stop(self) -> None:
        """Begin no further row."""
        self._rows.clear()

    def finish(self, seconds: Seconds) -> list[Any]:
        """Return the samples, and count what was spent; raise the error of the first sample that failed."""
        self.wait()
        here, helped = self._owner, self.helped
        samples, self._samples = self._samples, []  # a helper may still hold this job
        if not self._failed:
            if self._last is not None:
                here.resume(self._last)  # collate may draw from the generator of the last sample
            for stage, spent in helped.seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
            here.helped = helped.cpu
            here.tokens = added(here.tokens, helped.tokens)
            return samples
        row, error = min(self._failed, key=lambda each: each[0])
        self._failed.clear()  # an error holds the frames that it came through, and they hold this job: a cycle
        here.move(self.work.start + row)
        try:
            raise error
        finally:
            del error

    def _take_rows(self, here: seeds.Here) -> None:
        start, lasted, slowest = self.work.start, 0.0, -1
        began = perf_counter()
        while True:
            try:
                row = self._rows.popleft()
            except IndexError:
                break
            here.position = start + row
            try:
                self._samples[row] = self._make(row, here)
            except BaseException as error:  # noqa: BLE001  it is raised where the batch is put together
                self._rows.clear()
                self._failed.append((row, page_faults.cause_of(error)))
                break
            if row == len(self.work.keys) - 1:
                self._last = here.drawn()
            now = perf_counter()
            if now - began > lasted:
                lasted, slowest = now - began, row
            began = now
        self._slowest.append((lasted, slowest))

    def _help(self, here: seeds.Here) -> None:
        """Make samples in another thread than the batch's, with a place and times of its own."""
        work = self.work
        here.key, here.epoch, here.start = work.seed, work.epoch, work.start
        here.tokens, here.tokens_collated = None, False
        here.begin(work.step, work.start)
        here.move(work.start)
        began, cpu = perf_counter(), thread_time()
        seconds: dict[str, float] = {}
        token = seeds.enter(here, seconds)
        survived = page_faults.survive(on=True)
        try:
            with torch_state.on_cpu():
                self._take_rows(here)
        finally:
            page_faults.survive(on=survived)
            reset(token)
            seconds["other"] = max(0.0, perf_counter() - began - sum(seconds.values()))
            self._ended.put(Helped(seconds, thread_time() - cpu, here.tokens))
