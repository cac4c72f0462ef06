"""A thread that fetches the blocks of a plan's next steps before anybody reads them."""

from __future__ import annotations

import queue
import threading
import warnings
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from headrace.context.dropped import when_dropped
from headrace.errors import HeadraceError
from headrace.storage.blocks import JOINED, runs_of
from headrace.storage.next_use import NextUses, PlannedEviction, PlannedUses
from headrace.storage.object_spans import BlockNumbers, estimated
from headrace.storage.request_limit import MOST, places_of
from headrace.storage.request_loop import Stop, check_stopped, stoppable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from headrace.storage.blocks import Block, Blocks
    from headrace.storage.object_spans import ObjectSpans

AHEAD = 1 << 28
"""Bytes that are fetched before the step that reads them is handed out, at most; and at most a quarter of the cache."""

MOST_STEPS, GROUP = 1000, 64
"""Steps that are looked through ahead; missing blocks that are put together, to find neighbors among them."""

TRUSTED_SECONDS = 10.0
"""How long a block that was seen in the cache is taken to be there: other processes delete blocks too."""

_STOP = object()


class StepSpans(Protocol):
    """What the steps of a plan read."""

    def at(self, step: int) -> Iterable[ObjectSpans] | None:
        """Return what a step reads; None after the last one."""
        ...

    def uses(self, step: int) -> Iterator[Iterable[ObjectSpans]]:
        """Yield what the steps from this one on read, of all ranks of this machine, as far as is worth knowing."""
        ...


@dataclass(slots=True)
class PrefetchCounts:
    """What was counted so far; written by the thread, read by anyone."""

    blocks: int = 0
    """Wanted: each once for each step that reads it."""
    hits: int = 0
    """Of these, there when the plan was looked through, or fetched already."""
    requests: int = 0
    nbytes: int = 0
    """Fetched."""
    stalls: int = 0
    """Steps that were handed out before all of their blocks were there."""
    stall_seconds: float = 0.0
    """How long one step or more waited for blocks."""
    at_once: int = 0
    """Requests of 1 MiB that may run at once."""


@dataclass(slots=True)
class _Fetched:
    """A request that has ended, whether it brought its blocks, and when."""

    run: list[Block]
    brought: bool
    when: float


@dataclass(slots=True)
class _Step:
    left: set[int] = field(default_factory=set)
    nbytes: int = 0


def _places(run: list[Block]) -> int:
    return places_of(sum(block.size for block in run))


class Prefetcher:
    """Fetches what the steps of a plan need, in their order, and says in which order the cache evicts.

    The first step is fetched alone, so that nothing delays the first batch; with it only those that other workers read
    already. After it, the steps are looked through as far as the cache has room for; neighboring blocks become one
    request. ``lag``: how many steps are read at once.

    One thread looks through the plan and owns all that is known; it receives messages, and never waits for a request.
    It ends with `close`, and when ``owner`` is dropped. What it cannot fetch is left to whoever reads it, who gets the
    error.
    """

    def __init__(self, blocks: Blocks, spans: StepSpans, first: int, lag: int, owner: Any) -> None:
        self.counts = PrefetchCounts()
        self._mail: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._work = _Prefetching(blocks, spans, first, lag, self._mail, self.counts)
        self._thread = threading.Thread(target=self._work.run, name="headrace-prefetch", daemon=True)
        when_dropped(owner, self._mail.put, _STOP)

    def reached(self, step: int) -> None:
        """Say that a step is handed out now: somebody reads it."""
        self._mail.put((step, perf_counter()))

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop its requests, and end the thread and those of the requests: none of them keeps a file open."""
        self._work.stop.set()
        self._mail.put(_STOP)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()
        error, self._work.error = self._work.error, None
        if error is not None:
            said = f"{type(error).__name__}: {error}"
            warnings.warn(f"nothing was fetched ahead from some step on: {said}", RuntimeWarning, stacklevel=2)


class _Prefetching:
    """What the thread knows, and does."""

    def __init__(
        self,
        blocks: Blocks,
        spans: StepSpans,
        first: int,
        lag: int,
        mail: queue.SimpleQueue[Any],
        counts: PrefetchCounts,
    ) -> None:
        self._blocks, self._spans, self._mail, self.counts = blocks, spans, mail, counts
        self.error: Exception | None = None
        """What ended it."""
        self._first = self._next = first
        self._lag = lag
        self._reached = first - 1
        """The last step that was handed out."""
        self._steps: dict[int, _Step] = {}
        """Steps that were looked through, and not handed out, or whose blocks are not all there."""
        self._fetching: dict[int, list[int]] = {}
        """Blocks that are being fetched, and the steps that wait for them."""
        self._waiting: list[list[Block]] = []
        """Runs of blocks to be fetched, the next one at the end."""
        self._running = self._ahead = 0
        self._ended = self._holds_back = False
        """Whether the plan has ended; whether the last run that waits may grow by what is found next."""
        self._early: dict[int, float] = {}
        """Steps that were handed out before they were looked through, and when."""
        self._stalled: set[int] = set()
        self._stalled_since = self._stall_ended = 0.0
        self.numbers = BlockNumbers()
        self._seen = np.zeros(0, np.float64)
        """When each block was seen in the cache last."""
        self._trusted = TRUSTED_SECONDS
        self._uses = PlannedUses(self.numbers.by_prefix)
        self._looking = False
        """Whether the uses of blocks are being looked up."""
        self._room = min(AHEAD, blocks.room() // 4)
        self._numbered: dict[Block, int] = {}
        self.stop = Stop()
        self._pool = ThreadPoolExecutor(MOST, thread_name_prefix="headrace-prefetch")

    def run(self) -> None:
        """Fetch until the plan has ended and all is there, or somebody says stop."""
        eviction = self._blocks.disk.eviction
        if isinstance(eviction, PlannedEviction):
            eviction.add(self._uses)
        try:
            with stoppable(self.stop):  # to know what a step reads, some datasets read a little of it
                while self._take_mail(wait=not self._can_scan()):
                    if self._can_scan():
                        self._scan()
                    self._submit()
        except Exception as error:  # noqa: BLE001  whoever reads fetches what is missing: this only costs time
            self.error = error
        finally:
            if isinstance(eviction, PlannedEviction):
                eviction.remove(self._uses)
            self.stop.set()
            self._pool.shutdown(cancel_futures=True)  # they end soon: what they wait for is stopped

    def _take_mail(self, *, wait: bool) -> bool:
        """Take the messages that are there; with ``wait``, one at least. Return False to stop."""
        while True:
            try:
                found = self._mail.get(block=wait)
            except queue.Empty:
                return True
            wait = False
            if found is _STOP:
                return False
            if isinstance(found, NextUses):
                self._uses.uses, self._looking = found, False
            elif isinstance(found, _Fetched):
                self._fetched(found)
            else:
                self._hand_out(*found)

    def _can_scan(self) -> bool:
        """Say whether there is room for many steps: few at a time would be a request for each block."""
        return self._has_room(max(1, self._room // 4), MOST_STEPS // 4)

    def _has_room(self, nbytes: int, steps: int) -> bool:
        if self._ended:
            return False
        if self._next == self._first:
            return True
        if self._waits_for_first():
            return self._next <= self._reached  # nothing delays the first batch but what workers read already
        return self._ahead + nbytes <= self._room and self._next - self._reached + steps <= MOST_STEPS

    def _waits_for_first(self) -> bool:
        return self._first in self._steps and bool(self._steps[self._first].left)

    def _scan(self) -> None:
        """Look through the next steps, until some blocks are missing."""
        missing, before = list[int](), self._ahead
        while self._has_room(1, 1) and len(missing) < GROUP:
            spans = self._spans.at(self._next)
            if spans is None:
                self._ended = True
                break
            missing += self._look(self._next, self.numbers.of(spans))
            self._next += 1
        # A last run that waits for the next scan is not late: that begins before anybody needs a block of this one. But
        # the scan after that of the first step waits for its blocks.
        many = len(missing) >= GROUP and self._ahead - before <= self._room // 2
        self._holds_back = many and not self._ended and not self._waits_for_first()
        if missing:
            # Of shards in order, the last run is joined with what follows it.
            last = self._waiting.pop(0) if self._waiting and len(self._waiting[0]) < JOINED else []
            missing = [self._numbered[block] for block in last] + missing
            first = {self.numbers.block(number): place for place, number in enumerate(missing)}
            self._numbered |= {block: missing[place] for block, place in first.items()}
            runs = list(runs_of(first))
            runs.sort(key=lambda run: -min(first[block] for block in run))
            self._waiting = [*runs, *self._waiting]
        if self.numbers.total_bytes > self._blocks.room():
            self._trusted = 0.0
            if not self._looking:
                self._look_up_uses()

    def _look(self, step: int, wanted: NDArray[np.int64]) -> list[int]:
        """Note what a step needs; return the blocks that are to be fetched."""
        if len(self._seen) < self.numbers.count:
            self._seen = np.concatenate((self._seen, np.zeros(self.numbers.count - len(self._seen))))
        now = perf_counter()
        unsure = wanted[self._seen[wanted] < now - self._trusted].tolist()
        block = self.numbers.block
        here = [number for number in unsure if number not in self._fetching and self._blocks.holds(block(number))]
        self._seen[here] = now
        left = set(unsure) - set(here)
        missing = [number for number in left if number not in self._fetching]
        nbytes = sum(block(number).size for number in missing)
        self.counts.blocks += len(wanted)
        self.counts.hits += len(wanted) - len(missing)
        for number in left:
            self._fetching.setdefault(number, []).append(step)
        if step > self._reached:
            self._ahead += nbytes
            self._steps[step] = _Step(left, nbytes)
        elif left:
            self._steps[step] = _Step(left)
            self._stall(step, self._early.pop(step, now))
        else:
            self._early.pop(step, None)
        return missing

    def _hand_out(self, step: int, when: float) -> None:
        """Note that somebody reads a step."""
        self._reached = max(self._reached, step)
        self._uses.step = max(0, step - self._lag)
        known = self._steps.get(step)
        if step >= self._next:
            self._early[step] = when
        elif known is not None:
            self._ahead -= known.nbytes
            if known.left:
                self._stall(step, when)
            else:
                del self._steps[step]

    def _stall(self, step: int, when: float) -> None:
        self.counts.stalls += 1
        if not self._stalled:
            self._stalled_since = max(when, self._stall_ended)
        self._stalled.add(step)

    def _fetched(self, request: _Fetched) -> None:
        """Note that a request has ended."""
        self._running -= _places(request.run)
        if request.brought:
            self.counts.requests += 1
            self.counts.nbytes += sum(block.size for block in request.run)
        now = request.when  # not when this thread, which may have been busy, came to know
        for block in request.run:
            number = self._numbered.pop(block)
            self._seen[number] = now if request.brought else 0
            for step in self._fetching.pop(number):
                self._steps[step].left.discard(number)
                if not self._steps[step].left and step <= self._reached:
                    self._end_stall(step, now)

    def _end_stall(self, step: int, now: float) -> None:
        """Note that all blocks of a step that was handed out are there."""
        del self._steps[step]
        self._stalled.discard(step)
        if not self._stalled:
            now = max(now, self._stalled_since)
            self.counts.stall_seconds += now - self._stalled_since
            self._stall_ended = now

    def _submit(self) -> None:
        """Send requests, as many as have places, those for the next steps first."""
        self.counts.at_once = self._blocks.limit.now
        while self._waiting and self._running < self._blocks.limit.now:
            if self._holds_back and len(self._waiting) == 1 and len(self._waiting[0]) < JOINED:
                return
            run = self._waiting.pop()
            self._running += _places(run)
            self._pool.submit(self._fetch, run)

    def _fetch(self, run: list[Block]) -> None:
        """Fetch a run, in a thread of the pool."""
        brought = False
        try:
            with stoppable(self.stop):
                self._blocks.fetch(run)
            brought = True
        except (HeadraceError, CancelledError):
            pass  # whoever reads it asks again, and gets the error
        finally:
            self._mail.put(_Fetched(run, brought, perf_counter()))

    def _look_up_uses(self) -> None:
        """Look up when blocks are used next, in a thread of the pool; again when half of what is known has passed."""
        uses = self._uses.uses
        if self._reached < (uses.first + uses.end) // 2 and uses.end:
            return
        self._looking = True
        begin = max(self._first, self._uses.step)
        self._pool.submit(self._found_uses, begin)

    def _found_uses(self, begin: int) -> None:
        def numbers() -> Iterator[NDArray[np.int64]]:
            for each in self._spans.uses(begin):
                check_stopped()
                yield self.numbers.of(each)

        with stoppable(self.stop), estimated():
            self._mail.put(NextUses(numbers(), begin))
