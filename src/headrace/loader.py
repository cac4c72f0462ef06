"""The loader: arguments, read once and turned into objects; and the loop."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np

from headrace import seeds
from headrace.collate.default import default_collate
from headrace.errors import ArgumentError, LoaderClosed, TooManyErrors
from headrace.executors.inline import Inline
from headrace.executors.threads import Threads
from headrace.maker import Maker, OnError
from headrace.memory import Recycler
from headrace.plan.batches import Batches, Plan
from headrace.plan.order import Order, Sequential, Shuffled
from headrace.source import Batched, Indexed, SupportsBatch, SupportsIndex
from headrace.stats import Meter, Statistics
from headrace.timing import counting
from headrace.tolerance import Budget, Refill
from headrace.window import Window
from headrace.work import Empty, Failed, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from headrace.executors.base import Executor

T_co = TypeVar("T_co", covariant=True)
POLICIES: tuple[OnError, ...] = ("raise", "skip", "replace")
PREFETCH_FACTOR = 2
SPARES = 100
"""Replacements of one sample that may fail in a row; with half of all samples bad, one run in 2**100 gets there."""


class DataLoader(Generic[T_co]):
    """Batches of a dataset, in order or shuffled, made ahead of the loop that reads them.

    >>> import headrace
    >>> loader = headrace.DataLoader(range(10), batch_size=4, shuffle=True, seed=0, num_workers=2)
    >>> for batch in loader:
    ...     print(batch.shape, batch.dtype)
    (4,) int64
    (4,) int64
    (2,) int64
    >>> len(loader)
    3

    ``dataset``: anything with ``__getitem__`` and ``__len__``. ``num_workers``: threads that make batches, at most
    ``prefetch_factor`` (2) each ahead of the loop; 0 makes them in the loop's own thread. ``seed`` (an integer from 0
    up) fixes order and augmentation: each batch is then a function of (dataset, seed, epoch, step) alone, the same on
    any number of workers. Without it, every loop draws a seed from NumPy's global generator. The epoch is 0 in the
    first loop and one more in each that is begun (`set_epoch` chooses).

    ``collate_fn`` makes a batch of a list of samples (`default_collate` if None). ``on_error``: an error in a sample
    is raised at its step ("raise"), the sample is left out and the batch filled from what follows, so that all but the
    last have the same size ("skip"), or another sample, drawn at random from the same epoch, takes its place
    ("replace"). With the last two `statistics` names the bad samples, and ``max_errors`` of them in one epoch (a
    count, or a fraction of the dataset) are allowed. ``timeout``: seconds to wait for a batch, else `WorkerTimeout`.

    A loop may be left at any time, and several may run at once; workers end with the loop, with `close`, and when the
    iterator is dropped. Raises `ArgumentError` for arguments that cannot be used.
    """

    def __init__(
        self,
        dataset: SupportsIndex,
        batch_size: int = 1,
        shuffle: bool = False,  # positional, as in torch
        *,
        num_workers: int = 0,
        drop_last: bool = False,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        seed: int | None = None,
        prefetch_factor: int | None = None,
        on_error: OnError = "raise",
        max_errors: int | float | None = None,
        timeout: float | None = None,
    ) -> None:
        if not isinstance(dataset, SupportsIndex):
            raise ArgumentError(
                f"dataset must have __getitem__ and __len__; a {type(dataset).__qualname__} lacks one of them"
            )
        if on_error not in POLICIES:
            raise ArgumentError(f"on_error must be one of {', '.join(map(repr, POLICIES))}; got {on_error!r}")
        if collate_fn is not None and not callable(collate_fn):
            raise ArgumentError(f"collate_fn must be callable, or None; got {collate_fn!r}")
        self.dataset = dataset
        self.batch_size = _whole("batch_size", batch_size, least=1)
        self.shuffle = bool(shuffle)
        self.num_workers = _whole("num_workers", num_workers, least=0)
        self.drop_last = bool(drop_last)
        self.collate_fn = collate_fn
        self.seed = seed
        self.on_error: OnError = on_error
        self.max_errors = _budget(max_errors, on_error)
        self.timeout = _seconds(timeout)
        if prefetch_factor is not None and self.num_workers == 0:
            raise ArgumentError("prefetch_factor needs workers that run ahead; give num_workers=1 or more, or leave it")
        self.prefetch_factor = (
            PREFETCH_FACTOR if prefetch_factor is None else _whole("prefetch_factor", prefetch_factor, least=1)
        )
        self._key = None if seed is None else seeds.key_of(seed)
        self._epoch = 0
        self._meter = Meter(epoch=0, workers=self.num_workers)
        self._loops: weakref.WeakSet[Loop[Any]] = weakref.WeakSet()

    def __len__(self) -> int:
        """Return how many batches an epoch has; ``on_error="skip"`` can make it fewer."""
        return len(self._plan(seeds.key_of(0)))

    def __iter__(self) -> Iterator[T_co]:
        """Begin a loop over the next epoch."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        # Without a seed each loop is a run of its own, whose random numbers depend on nothing but the seed it draws.
        key, stream = (seeds.key_of(seeds.fresh_seed()), 0) if self._key is None else (self._key, epoch)
        order = self._order(key)
        # Where bad samples are left out, the last batch is known to be short only when the end is reached.
        skip = self.on_error == "skip"
        plan = Batches(
            order, self.batch_size, self.drop_last and not skip, key, SPARES if self.on_error == "replace" else 0
        )
        maker = self._maker()
        executor: Executor = (
            Threads(maker, self.num_workers, self.prefetch_factor) if self.num_workers else Inline(maker)
        )
        self._meter = Meter(epoch=epoch, workers=self.num_workers)
        loop: Loop[T_co] = Loop(
            plan,
            stream,
            executor,
            maker,
            self._meter,
            Refill(self.batch_size, drop_last=self.drop_last) if skip else None,
            Budget(len(order), self._allowed(len(order))),
            self.timeout,
        )
        self._loops.add(loop)
        return loop

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next loop reads; those after it go on from there."""
        self._epoch = _whole("epoch", epoch, least=0)

    def statistics(self) -> Statistics:
        """Return what the newest loop has done so far; cheap, and safe from another thread."""
        return self._meter.snapshot()

    def close(self) -> None:
        """End all running loops and their workers; the loader can be looped over again."""
        for loop in list(self._loops):
            loop.close()

    def __enter__(self) -> DataLoader[T_co]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({type(self.dataset).__qualname__} of {len(self.dataset)}, "
            f"batch_size={self.batch_size}, shuffle={self.shuffle}, num_workers={self.num_workers})"
        )

    def _order(self, key: seeds.Key) -> Order:
        size = len(self.dataset)
        return Shuffled(size, key) if self.shuffle else Sequential(size)

    def _plan(self, key: seeds.Key) -> Plan:
        return Batches(self._order(key), self.batch_size, self.drop_last, key)

    def _maker(self) -> Maker:
        dataset, whole_batches = self.dataset, self.collate_fn is None and self.on_error == "raise"
        return Maker(
            Batched(dataset) if whole_batches and isinstance(dataset, SupportsBatch) else Indexed(self.dataset),
            default_collate if self.collate_fn is None else Plain(self.collate_fn),
            self.on_error,
            lands=self.collate_fn is None,
        )

    def _allowed(self, samples: int) -> int | None:
        if isinstance(self.max_errors, float):
            return int(self.max_errors * samples)
        return self.max_errors


class Loop(Iterator[T_co]):
    """One pass over an epoch: asks the plan, keeps the executor busy, delivers in order."""

    def __init__(
        self,
        plan: Plan,
        stream: int,
        executor: Executor,
        maker: Maker,
        meter: Meter,
        refill: Refill | None,
        budget: Budget,
        timeout: float | None,
    ) -> None:
        self._plan = plan
        self._stream = stream
        self._executor = executor
        self._maker = maker
        self._meter = meter
        self._refill = refill
        self._budget = budget
        self._timeout = timeout
        self._window = Window(executor.capacity)
        self._joined = Recycler(keep=2)  # for the batches that are joined here, out of pieces with holes
        self._asking = True
        self._state: Literal["open", "over", "closed"] = "open"

    def __next__(self) -> T_co:
        if self._state == "over":
            raise StopIteration
        if self._state == "closed":
            raise LoaderClosed("the loader was closed while a loop was still reading from it")
        began = perf_counter()
        if self._meter.started is None:
            self._meter.started = began
        batch: T_co = self._next_batch() if self._refill is None else self._next_filled(self._refill)
        self._meter.delivered(batch, waited=perf_counter() - began)
        return batch

    def close(self) -> None:
        """End the loop and its workers."""
        if self._state == "open":
            self._state = "closed"
        self._executor.close()

    def _next_batch(self) -> Any:
        outcome = self._next_outcome()
        if outcome is None:
            self._end()
            raise StopIteration
        return self._opened(outcome)

    def _next_filled(self, refill: Refill) -> Any:
        while (samples := refill.take()) is None:
            outcome = self._next_outcome()
            if outcome is None:
                samples = refill.rest()
                if samples is None:
                    self._end()
                    raise StopIteration
                break
            refill.put(self._opened(outcome))
        with counting() as seconds:
            batch = self._maker.join(samples, empty=self._joined.empty)
        self._meter.made(seconds, (), skip=True)
        return batch

    def _next_outcome(self) -> Outcome | None:
        """Return the next outcome in order, or None at the end of the epoch."""
        window, executor = self._window, self._executor
        while True:
            while self._asking and window.room:
                work = self._plan.work(self._stream, window.asked)
                if work is None:
                    self._asking = False
                else:
                    window.ask()
                    executor.submit(work)
            outcome = window.take()
            if outcome is not None:
                return outcome
            if not window.in_flight:
                return None
            window.put(executor.next(self._timeout))

    def _opened(self, outcome: Outcome) -> Any:
        meter = self._meter
        if isinstance(outcome, Failed):
            outcome.error.add_note(f"headrace: epoch {meter.epoch}, batch {outcome.step}: {outcome.place}")
            raise outcome.error
        meter.made(outcome.seconds, outcome.bad, skip=self._refill is not None)
        if outcome.bad:
            try:
                self._budget.check(meter.skipped + meter.replaced, outcome.bad)
            except TooManyErrors:
                self._end()
                raise
        return outcome.batch

    def _end(self) -> None:
        self._state = "over"
        self._executor.close()


class Plain:
    """A user's collate function, which knows nothing of lent memory."""

    def __init__(self, function: Callable[[list[Any]], Any]) -> None:
        self._function = function

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:  # noqa: ARG002
        """Collate as the user's function does, on a list as torch gives it."""
        return self._function(samples if isinstance(samples, list) else list(samples))


def _whole(name: str, value: Any, *, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if isinstance(value, bool) or number < least:
        raise ArgumentError(f"{name} must be an integer from {least} up; got {value!r}")
    return number


def _budget(value: Any, on_error: OnError) -> int | float | None:
    if value is None:
        return None
    if on_error == "raise":
        raise ArgumentError('max_errors needs on_error="skip" or "replace": with "raise" the first error ends the run')
    if isinstance(value, float) and 0 <= value < 1:
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= 0:
        return int(value)
    raise ArgumentError(
        f"max_errors must be a count (an integer from 0 up) or a fraction of the dataset (a float from 0 up, under 1); "
        f"got {value!r}"
    )


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value) or None  # torch's 0 means: wait for ever
    raise ArgumentError(f"timeout must be seconds from 0 up, or None; got {value!r}")
