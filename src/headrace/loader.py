"""The loader: arguments, read once and turned into objects; and the loop."""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sized
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np

from headrace import seeds
from headrace.calls import article
from headrace.collate.default import Collate, default_collate, default_convert
from headrace.datasets.parts import batch_reader, is_iterable
from headrace.errors import ArgumentError, LoaderClosed, TooManyErrors
from headrace.executors.inline import Inline
from headrace.executors.threads import Threads
from headrace.generators import GeneratorLike, draw_seed, resolve
from headrace.maker import Maker, OnError
from headrace.memory import Recycler
from headrace.plan.batches import Batches, Plan
from headrace.plan.drawn import Drawn, cut
from headrace.plan.lanes import Lanes
from headrace.plan.order import Order, Sequential, Shuffled
from headrace.source import Batched, Indexed, Source, Streamed, SupportsIndex
from headrace.stats import Meter, Statistics
from headrace.timing import counting
from headrace.tolerance import Budget, Refill
from headrace.window import Window
from headrace.work import Done, Empty, Ended, Failed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from headrace.executors.base import Executor

T_co = TypeVar("T_co", covariant=True)
Workers = Literal["auto", "thread", "process"]
POLICIES: tuple[OnError, ...] = ("raise", "skip", "replace")
KINDS: tuple[Workers, ...] = ("auto", "thread", "process")
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

    ``dataset``: anything with ``__getitem__`` and ``__len__``. ``seed`` (an integer from 0 up) fixes order and
    augmentation: each batch is then a function of (dataset, seed, epoch, step) alone, the same on any number and kind
    of workers. The epoch is 0 in the first loop and one more in each that is begun (`set_epoch` chooses). Without a
    seed, every loop draws one from ``generator`` (NumPy's, torch's, or an integer), else from torch's global generator
    if torch is loaded, else from NumPy's.

    **Order**: as the dataset has it, or with ``shuffle`` a new one each epoch; or any iterable of indices
    (``sampler``), or of lists of indices (``batch_sampler``, in place of ``batch_size``, ``shuffle``, ``sampler`` and
    ``drop_last``). With ``batch_size=None`` samples come one by one, not collated.

    An **iterable dataset** (`IterableDataset`, torch's too, or anything that has only ``__iter__``) is read in its own
    order, once: in the loop's thread, or ahead of it in one thread of its own. With ``workers="process"`` torch's rule
    holds instead: each process reads a copy, and `get_worker_info` tells the dataset which part is its own.

    **Workers**: ``num_workers`` of them make batches, at most ``prefetch_factor`` (2) each ahead of the loop; 0 makes
    them in the loop's own thread. They are threads (``workers="thread"``, and "auto"): right for what releases Python's
    lock, as decoding does. ``workers="process"`` is for datasets whose time goes into Python itself: batches come back
    in shared memory, a worker that dies is replaced and its batches are made again. Processes start by
    ``multiprocessing_context`` (a name or a context; the platform's default), and each calls ``worker_init_fn(id)``.

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
        dataset: SupportsIndex | Iterable[Any],
        batch_size: int | None = 1,
        shuffle: bool = False,  # positional, as in torch
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Sequence[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        *,
        drop_last: bool = False,
        seed: int | None = None,
        generator: GeneratorLike = None,
        workers: Workers = "auto",
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        prefetch_factor: int | None = None,
        on_error: OnError = "raise",
        max_errors: int | float | None = None,
        timeout: float | None = None,
    ) -> None:
        self._streams = is_iterable(dataset)
        if not self._streams and not isinstance(dataset, SupportsIndex):
            raise ArgumentError(
                "dataset must have __getitem__ and __len__, or __iter__; "
                f"{article(type(dataset).__qualname__)} can be read neither way"
            )
        if self._streams:
            _check_stream(shuffle, sampler, batch_sampler, on_error)
        _one_of("on_error", on_error, POLICIES)
        _one_of("workers", workers, KINDS)
        for name, function in (("collate_fn", collate_fn), ("worker_init_fn", worker_init_fn)):
            if function is not None and not callable(function):
                raise ArgumentError(f"{name} must be callable, or None; got {function!r}")
        if seed is not None and generator is not None:
            raise ArgumentError("seed and generator exclude each other: either fixes all loops, or each draws its own")
        self.dataset: Any = dataset
        self.num_workers = _whole("num_workers", num_workers, least=0)
        self.workers: Workers = workers
        self.collate_fn = collate_fn
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = _context(multiprocessing_context)
        self.seed = seed
        self.generator = generator
        self.on_error: OnError = on_error
        self.max_errors = _budget(max_errors, on_error)
        self.timeout = _seconds(timeout)
        if prefetch_factor is not None and self.num_workers == 0:
            raise ArgumentError("prefetch_factor needs workers that run ahead; give num_workers=1 or more, or leave it")
        self.prefetch_factor = (
            PREFETCH_FACTOR if prefetch_factor is None else _whole("prefetch_factor", prefetch_factor, least=1)
        )
        _check_order(batch_size, shuffle, sampler, batch_sampler, drop_last, on_error)
        self.batch_size = None if batch_size is None else _whole("batch_size", batch_size, least=1)
        if batch_sampler is not None:
            self.batch_size = None
        self.shuffle = bool(shuffle)
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.drop_last = bool(drop_last)
        self._key = None if seed is None else seeds.key_of(seed)
        self._source = resolve(generator)
        self._epoch = 0
        self._begun = False
        self._meter = Meter(epoch=0, workers=self.num_workers)
        self._loops: weakref.WeakSet[Loop[Any]] = weakref.WeakSet()

    def __len__(self) -> int:
        """Return how many batches an epoch has; ``on_error="skip"`` can make it fewer."""
        if self.batch_sampler is not None:
            return len(self.batch_sampler)  # type: ignore[arg-type]  # says itself where it has no length
        # Of an iterable dataset, what it says itself of all its copies together, as in torch.
        sized: Any = self.dataset if self.sampler is None else self.sampler
        samples = len(sized)
        whole, rest = divmod(samples, self.batch_size or 1)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[T_co]:
        """Begin a loop over the next epoch."""
        epoch, self._epoch = self._epoch, self._epoch + 1
        # Without a seed each loop is a run of its own, whose random numbers depend on nothing but the seed it draws.
        base = draw_seed(self._source) if self._key is None else 0
        key, stream = (seeds.key_of(base), 0) if self._key is None else (self._key, epoch)
        plan, samples = self._plan(key)
        maker = self._maker(again=self._begun)
        self._begun = True
        executor = self._executor(maker, base)
        self._meter = Meter(epoch=epoch, workers=self.num_workers)
        loop: Loop[T_co] = Loop(
            plan,
            key,
            stream,
            executor,
            maker,
            self._meter,
            Refill(self.batch_size or 1, drop_last=self.drop_last) if self.on_error == "skip" else None,
            Budget(samples, self._allowed(samples)),
            self.timeout,
            self._lanes if self._streams else 0,
        )
        self._loops.add(loop)
        return loop

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_loops": None}  # a copy has no part in the loops that run

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._loops = weakref.WeakSet()

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next loop reads; those after it go on from there."""
        self._epoch = _whole("epoch", epoch, least=0, most=2**64 - 1)

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

    def _plan(self, key: seeds.Key) -> tuple[Plan, int | None]:
        """Return the plan of a loop, and how many samples it has at the most, where that is known."""
        if self._streams:
            return Lanes(self._lanes, self.batch_size or 1, key), _length(self.dataset)
        replace = self.on_error == "replace"
        # Where bad samples are left out, the last batch is known to be short only when the end is reached.
        drop_last = self.drop_last and self.on_error != "skip"
        size = len(self.dataset)
        if self.batch_sampler is not None:
            return Drawn(self.batch_sampler, key, spare=replace), size
        if self.sampler is not None:
            batches = cut(self.sampler, self.batch_size or 1, drop_last=drop_last)
            return Drawn(batches, key, spare=replace), len(self.sampler) if isinstance(self.sampler, Sized) else size
        order: Order = Shuffled(size, key) if self.shuffle else Sequential(size)
        return Batches(order, self.batch_size or 1, drop_last, key, SPARES if replace else 0), size

    def _maker(self, *, again: bool) -> Maker:
        single = self.batch_size is None and self.batch_sampler is None
        collate: Collate = default_collate
        if single:
            collate = Single(self.collate_fn or default_convert)
        elif self.collate_fn is not None:
            collate = Plain(self.collate_fn)
        ours = collate is default_collate
        read_batch = batch_reader(self.dataset) if ours and self.on_error == "raise" else None
        source: Source = Indexed(self.dataset) if read_batch is None else Batched(self.dataset, read_batch)
        if self._streams:
            source = Streamed(self.dataset, drop_last=self.drop_last and self.on_error != "skip", again=again)
        return Maker(source, collate, self.on_error, lands=ours)

    def _executor(self, maker: Maker, base: int) -> Executor:
        if self.num_workers == 0:
            return Inline(maker)
        if self.workers == "process":
            from headrace.executors.processes import Processes  # brings multiprocessing along: only where it is used

            return Processes(
                maker,
                self.num_workers,
                self.prefetch_factor,
                context=self.multiprocessing_context,
                init=self.worker_init_fn,
                seed=base,
            )
        # A stream can be read by one thread only; so it is read once, ahead, and nothing is ever read twice.
        return Threads(maker, 1 if self._streams else self.num_workers, self.prefetch_factor)

    @property
    def _lanes(self) -> int:
        """Into how many copies a stream is read: one for each process, as in torch, else one."""
        return self.num_workers if self.workers == "process" and self.num_workers else 1

    def _allowed(self, samples: int | None) -> int | None:
        if isinstance(self.max_errors, float):
            if samples is None:
                raise ArgumentError("max_errors as a fraction needs a dataset that has a length; give a count")
            return int(self.max_errors * samples)
        return self.max_errors


class Loop(Iterator[T_co]):
    """One pass over an epoch: asks the plan, keeps the executor busy, delivers in order."""

    def __init__(
        self,
        plan: Plan,
        seed: seeds.Key,
        stream: int,
        executor: Executor,
        maker: Maker,
        meter: Meter,
        refill: Refill | None,
        budget: Budget,
        timeout: float | None,
        lanes: int,
    ) -> None:
        self._plan = plan
        self._lanes = lanes
        self._ended: set[int] = set()
        self._seed = seed
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
        try:
            return self._opened(outcome)
        finally:
            del outcome

    def _next_filled(self, refill: Refill) -> Any:
        while (samples := refill.take()) is None:
            outcome = self._next_outcome()
            if outcome is None:
                samples = refill.rest()
                if samples is None:
                    self._end()
                    raise StopIteration
                break
            try:
                refill.put(self._opened(outcome))
            finally:
                del outcome
        # What collate draws depends on which batch this is, as it does where a worker collates.
        here = seeds.Here(self._seed, self._stream, self._meter.batches)
        try:
            with counting() as seconds, seeds.at(here):
                batch = self._maker.join(samples, empty=self._joined.empty)
        except Exception as error:
            error.add_note(f"headrace: epoch {self._meter.epoch}, batch {self._meter.batches}, refilled")
            raise
        self._meter.made(seconds, (), skip=True)
        return batch

    def _next_outcome(self) -> Done | Failed | None:
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
            if isinstance(outcome, Ended):
                self._ended.add(outcome.step % self._lanes)
                self._asking = self._asking and len(self._ended) < self._lanes
                continue
            if outcome is not None:
                return outcome
            if not window.in_flight:
                return None
            window.put(executor.next(self._timeout))

    def _opened(self, outcome: Done | Failed) -> Any:
        meter = self._meter
        if isinstance(outcome, Failed):
            error = outcome.error
            error.add_note(f"headrace: epoch {meter.epoch}, batch {outcome.step}: {outcome.place}")
            try:
                del outcome
                raise error
            finally:
                del error  # what an error's own frames still name is a cycle, and keeps the workers alive
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


class Single:
    """For ``batch_size=None``: what one sample becomes."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:  # noqa: ARG002
        """Convert the only sample."""
        return self._function(samples[0])


def _check_order(
    batch_size: Any, shuffle: Any, sampler: Any, batch_sampler: Any, drop_last: Any, on_error: OnError
) -> None:
    if sampler is not None and shuffle:
        raise ArgumentError("sampler option is mutually exclusive with shuffle: the sampler says the order")
    if batch_sampler is not None:
        if batch_size != 1 or shuffle or sampler is not None or drop_last:
            raise ArgumentError(
                "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last"
            )
        if on_error == "skip":
            raise ArgumentError(
                'on_error="skip" refills batches of one size; a batch_sampler says itself what is in each: '
                'use "replace", or a sampler with batch_size'
            )
    elif batch_size is None and drop_last:
        raise ArgumentError("batch_size=None option disables auto-batching and is mutually exclusive with drop_last")


def _check_stream(shuffle: Any, sampler: Any, batch_sampler: Any, on_error: OnError) -> None:
    for name, value in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batch_sampler)):
        if value is not None:
            raise ArgumentError(
                f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={value!r}: "
                "an iterable dataset gives its samples in its own order"
            )
    if on_error == "replace":
        raise ArgumentError('on_error="replace" needs a dataset with an index to draw another sample from; use "skip"')


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None


def _one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, choices))}; got {value!r}")


def _context(context: Any) -> Any:
    if context is None or hasattr(context, "get_start_method"):
        return context
    import multiprocessing

    methods = multiprocessing.get_all_start_methods()
    if context not in methods:
        raise ArgumentError(f"multiprocessing_context option should be one of {methods} or a context; got {context!r}")
    return multiprocessing.get_context(context)


def _whole(name: str, value: Any, *, least: int, most: int | None = None) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if most is not None and number > most:
        raise ArgumentError(f"{name} must be an integer from {least} to {most}; got {value!r}")
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
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= threading.TIMEOUT_MAX:
        return float(value) or None  # torch's 0 means: wait for ever
    raise ArgumentError(f"timeout must be seconds from 0 up, or None; got {value!r}")
