"""A session: puts plan, maker, executor, window and ledger together for each loop over a loader."""

from __future__ import annotations

import copy
import dataclasses
import weakref
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace.checks import kind_of
from headrace.context import seeds
from headrace.context.dropped import WeakRefs
from headrace.context.memory import Leftover
from headrace.datasets.torchvision_datasets import examined
from headrace.errors import ArgumentError, UnusableArgument
from headrace.executors import registry
from headrace.executors.base import Reusable
from headrace.executors.changing import Changing, ReusableChanging
from headrace.executors.inline import Inline
from headrace.executors.shared_preparation import SharedPreparation
from headrace.executors.worker_options import Options
from headrace.interop.calls import takes_empty
from headrace.interop.machine import cpus, idle_seconds, memory_stall_seconds
from headrace.ledger.recorder import Recorder, start_recorder
from headrace.make.maker import Maker
from headrace.make.source import Streamed
from headrace.run import arguments
from headrace.run.ahead import Ahead, Mapped
from headrace.run.bottleneck import measured
from headrace.run.checkpoint import Cursor, Place
from headrace.run.detector import Watch, warn_of_held
from headrace.run.dispatch import Direct, Dispatcher
from headrace.run.inline_loop import InlineLoop
from headrace.run.journal import Journal
from headrace.run.lives import Lives
from headrace.run.loop import Loop
from headrace.run.orders import Entry, SampledOrder, kept_dataset, order_of, with_own_states
from headrace.run.prefetched_plan import prefetched
from headrace.run.progress import Progress, fingerprint
from headrace.run.promise import Promise
from headrace.run.settings import changed
from headrace.run.stats import Meter
from headrace.run.tolerance import Budget, Refill
from headrace.run.tuning.auto_workers import AutoWorkers
from headrace.run.tuning.makers import Makers
from headrace.run.tuning.tuned_dispatch import TunedDispatcher
from headrace.run.tuning.worker_setting import WorkerSetting
from headrace.run.window import Unordered, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headrace.collate.default import Collate
    from headrace.context.memory import Empty
    from headrace.executors.base import Executor
    from headrace.run.bottleneck import Measured
    from headrace.run.orders import EpochOrder
    from headrace.run.settings import Settings
    from headrace.run.stats import Statistics
    from headrace.run.timeline import Timeline
    from headrace.run.tuning.tuner import Tuner

ENOUGH = 16
"""Samples, before the time that one takes is compared with another way to read it."""
LEAST_LOOK = 0.2
"""Seconds of a loop, before it says anything how long CPUs were idle: that is counted in hundredths."""
LEAST_GAIN = 1.1
"""How many times as fast another way is to be, to be worth a word."""


class Session:
    """All loops over one loader: begins them, knows those that run, and keeps workers from one epoch to the next."""

    def __init__(self, settings: Settings) -> None:
        self._use(settings)
        self.progress = Progress(settings)
        self.promise = Promise(settings.dataset)
        self.meter = Meter(epoch=0, workers=settings.num_workers)
        self._loops: WeakRefs[Loop[Any] | Ahead[Any]] = WeakRefs()
        self._kept: Reusable | None = None
        """Workers that stay for the next epoch."""
        self._leftover = Leftover()
        self._lives = Lives()
        self._ahead_of_loop = 0
        """How many batches the newest loop may have under way."""
        self._stalled = 0.0
        """How long processes had stood still because memory is short when it began."""
        self._idle: float | None = None
        """How long CPUs had been idle then."""
        self.timeline: Timeline | None = None
        """Where the lives of the batches are written, of loops that begin while it is open."""
        self.watched = False
        """Whether `headrace top` may look at it."""
        self.dataset_samples: int | None = None
        """How many samples the dataset has, for `headrace top`: its thread calls nothing of the user's."""
        self._hinted: str | None = None
        self._keeper: weakref.ref[Loop[Any]] | None = None
        """The loop that they work for."""

    def _use(self, settings: Settings) -> None:
        self.settings = settings
        self.fixed = settings.fixed
        """What the loader shows as its attributes, whatever workers `settings` has meanwhile."""
        self.order = order_of(settings)
        self._auto: AutoWorkers | None = None
        """Who chooses the workers, where the user does not."""
        if settings.free_kinds and kept_dataset(settings) is None:
            self._auto = AutoWorkers(settings)

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no part in the loops that run, nor in their workers.
        own = {"progress": copy.copy(self.progress), "order": copy.copy(self.order)}
        ours: dict[str, Any] = {"_loops": None, "_kept": None, "_keeper": None, "timeline": None}
        ours |= {"_lives": Lives(), "_leftover": Leftover()}
        ours["_auto"] = None if self._auto is None else self._auto.again()
        return {**vars(self), **own, **ours}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._loops = WeakRefs()

    @property
    def measures(self) -> bool:
        """Whether the workers are chosen by measuring, as ``num_workers="auto"`` asks."""
        return self._auto is not None

    def count_samples(self) -> None:
        """Note how many samples the dataset has; call it in a thread of the user's."""
        settings = self.settings
        self.dataset_samples = settings.samples if settings.world_size == 1 else None

    def adopt(self, sampler: Any, batch_sampler: Any) -> None:
        """Read from another sampler than the loader was made with, if one of these is another."""
        before = self.settings
        old = before.sampler if before.batch_sampler is None else before.batch_sampler
        new = sampler if batch_sampler is None else batch_sampler
        if new is old:
            return
        if before.streams:
            raise ArgumentError(
                f"the sampler of a loader over an iterable dataset was replaced by {kind_of(new)}",
                found=kind_of(new),
                expected="no sampler: an iterable dataset gives its samples in its own order",
                cure="leave the sampler as it is, or give a dataset with an index",
            )
        if before.world_size > 1:
            raise ArgumentError(
                f"the sampler of a loader with world_size={before.world_size} was replaced by {kind_of(new)}",
                found=kind_of(new),
                expected="the order that the loader was made with, because all ranks share it",
                cure="pass the sampler to the constructor",
            )
        self.settings = dataclasses.replace(
            before,
            sampler=sampler,
            batch_sampler=batch_sampler,
            given_sampler=new,
            given_batches=batch_sampler is not None,
        )
        self.order = SampledOrder(self.settings)
        self.progress.settings = self.settings

    def change(self, name: str, value: Any) -> Settings:
        """Let later loops have another value of an argument, and return the settings that they will have."""
        settings = changed(self.settings, name, value)
        with self.progress.turn.lock:
            if self._kept_at_work() is not None:
                raise ArgumentError(
                    f"{name} was set while a loop uses the workers that stay (persistent_workers=True)",
                    found=value,
                    expected="no loop, while an argument of the loader changes",
                    cure=f"end the loop before {name} is set, or pass {name}= to the constructor",
                )
            kept, self._kept = self._kept, None
            self._use(settings)
            self.progress.settings = settings
        if kept is not None:
            kept.close()
        return settings

    def _kept_at_work(self) -> Loop[Any] | None:
        """Return the loop that the workers that stay are working for, if there is one."""
        keeper = None if self._kept is None or self._kept.closed or self._keeper is None else self._keeper()
        return keeper if keeper is not None and keeper.running else None

    def loop(self, place: Callable[[Any], Any] | None = None) -> Iterator[Any]:
        """Begin a loop over the next epoch; ``place`` moves each batch, one ahead of the consumer."""
        self._check_start()
        if self.watched:
            self.count_samples()
        with self.progress.turn.lock:
            loop = self._begin(moves=place is not None)
        if self.settings.kind != "inline":
            try:
                loop.start()
            except BaseException:
                loop.close()
                raise
        return loop if place is None else self._ahead(loop, place)

    def close(self) -> None:
        """End all loops and their workers."""
        with self.progress.turn.lock:
            loops = list(self._loops)
            kept, self._kept = self._kept, None
        for loop in loops:
            loop.close()
        if kept is not None:
            kept.close()
        self._leftover.drop()
        if self.settings.ledger is not None:
            self.settings.ledger.close()

    def statistics(self) -> Statistics:
        """Return what the newest loop has done, and what would make it faster."""
        cursor = self.progress.cursor
        key, _ = self.progress.stream(cursor.seed or 0, cursor.place.epoch)
        sources = self.order.sources(key, cursor)
        chosen = None if self._auto is None or self._auto.chosen is None else str(self._auto.chosen)
        snapshot = dataclasses.replace(self.meter.snapshot(), sources=sources, tuned=chosen)
        return dataclasses.replace(snapshot, measured=self._measured(), hint=self._hint())

    def _batches(self) -> int | None:
        """Return how many batches an epoch has; None where nobody knows."""
        try:
            return batches_of(self.order, self.settings, self.progress.epoch)
        except Exception:  # noqa: BLE001  a stream's, or a user's sampler that has no length
            return None

    def _measured(self) -> Measured | None:
        settings, meter = self.settings, self.meter
        workers = WorkerSetting.of(settings) if self._auto is None else self._auto.now
        elapsed, idle = perf_counter() - meter.created, idle_seconds()
        spare = None if idle is None or self._idle is None or elapsed < LEAST_LOOK else (idle - self._idle) / elapsed
        return measured(
            list(self._lives.recent),
            dict(meter.stages),
            every=self._lives.every,
            kind=workers.kind,
            workers=workers.hands,
            together=workers.together,
            ahead=self._ahead_of_loop if self._auto is None else workers.ahead,
            # Of a cluster nobody knows how many CPUs its actors share.
            cpus=max(settings.num_workers, 1) if settings.kind == "ray" else cpus(),
            in_turns=workers.kind == "processes" and settings.ordered,
            pressure=(memory_stall_seconds() - self._stalled) / elapsed if elapsed > 0.0 else 0.0,
            spare=None if settings.kind == "ray" else spare,
        )

    def _hint(self) -> str:
        """Say once what native=True would bring: as soon as there are times to compare with."""
        if self._hinted is None and self.meter.samples >= ENOUGH:
            self._hinted = self._promised()
        return self._hinted or ""

    def _promised(self) -> str:
        found = None if self.settings.native else examined(self.settings.dataset)
        if found is None or found.plan is None:
            return ""
        from headrace.datasets.native_trial import seconds_each

        meter = self.meter
        native, spent = seconds_each(found.plan, self.settings.collate_fn), sum(meter.stages.values())
        gain = spent / meter.samples / native if native and spent else None
        if gain is not None and gain < LEAST_GAIN:
            return ""
        times = "" if gain is None else f" about {gain:.1f} times as fast"
        return f"{found.name}: the native extension can make these batches{times}: pass native=True"

    def maker(self, *, again: bool = False) -> Maker:
        """Return what makes the batches."""
        settings = self.settings
        collate: Collate = settings.collate_fn
        if settings.single:
            collate = Single(settings.collate_fn)
        elif not settings.own_collate and not takes_empty(settings.collate_fn):
            collate = Plain(settings.collate_fn)
        elif settings.adapter.finish is not None and getattr(settings.collate_fn, "gives_arrays", False):
            collate = Finished(settings.collate_fn, settings.adapter.finish)
        apart = None if settings.single else getattr(settings.collate_fn, "stacks_all_but", None)
        return Maker(
            self.order.source(again=again),
            collate,
            settings.on_error,
            writes_rows=settings.own_collate or apart is not None,
            converts=settings.single and settings.collate_fn is settings.adapter.convert,
            apart=apart or (),
            finish=settings.adapter.finish,
        )

    def _begin(self, *, moves: bool) -> Loop[Any]:
        tuner = self._enter_tuner(moves=moves)
        settings, order, progress = self.settings, self.order, self.progress
        entry, base = progress.enter()
        copies = order.copies(entry.saved)
        plan, samples = order.plan(entry)
        plan = with_own_states(settings, plan, progress.waiting)
        recorder = self._recorder(entry, base)
        watch = self._watch()
        maker = self.maker(again=entry.again)
        progress.looped = True
        self._settle_stream(maker, entry, copies)
        makers = self._makers(maker)
        executor, release = self._staff(makers, base, changing=tuner is not None)
        settings = self.settings  # others, where those workers could not be made
        place = entry.cursor.place
        self.meter = Meter(epoch=place.epoch, workers=settings.num_workers)
        traced = self.timeline is not None and self.timeline.is_open
        threads = settings.kind == "threads" or (tuner is not None and "threads" in settings.free_kinds)
        self._lives = lives = Lives(self.timeline if traced else None, threads=threads, samples=self.watched)
        self._ahead_of_loop, self._stalled, self._idle = executor.capacity, memory_stall_seconds(), idle_seconds()
        lag = executor.capacity if tuner is None else arguments.MOST_THREADS
        ahead = prefetched(settings, order, entry, self._next_entry(entry), plan, lag)
        if ahead is not None:
            plan, release, self.meter.prefetched = ahead, _both(ahead.close, release), ahead.counts
        window: Window | Unordered | Direct
        dispatcher: Dispatcher | Direct
        if isinstance(executor, Inline) and copies == 1 and not place.beyond:
            window = dispatcher = Direct(plan, entry.stream, executor, place.step, release, recorder, lives)
        else:
            kind = Window if settings.ordered else Unordered
            window = kind(executor.capacity, copies, place.step, place.beyond)
            parts = plan, entry.stream, executor, window, release, settings.timeout or None, recorder, lives
            dispatcher = Dispatcher(*parts) if tuner is None else self._tuned(tuner, makers, base, parts)
        refill = None
        if settings.on_error == "skip":
            refill = Refill(settings.batch_size or 1, drop_last=settings.drop_last, offset=place.offset)
        budget = Budget(samples, settings.allowed(samples))
        short = (
            isinstance(dispatcher, Direct) and dispatcher.executor.short is not None and recorder is None and not traced
        )
        loop: Loop[Any] = (InlineLoop if short else Loop)(
            entry,
            dispatcher,
            Journal(entry.cursor, self.meter, budget, window, refill, recorder, lives, stays=settings.workers_stay),
            maker,
            refill=refill,
            watch=watch,
            check=self.promise.check if settings.streams else None,
            length=None if settings.streams else partial(batches_of, order, settings, place.epoch),
        )
        progress.begin(entry.cursor)
        if self._auto is not None and tuner is not None:
            self._auto.watch(loop, self.meter, self._batches())
        self._loops.add(loop)
        if executor is self._kept:
            self._keeper = weakref.ref(loop)
        return loop

    def _makers(self, maker: Maker) -> Makers:
        """Return a maker for each kind of workers that a loop may have."""
        settings, auto = self.settings, self._auto
        if auto is None:
            return Makers(maker, settings.kind)
        auto.rows = _rows(settings) if maker.splits else 1
        return Makers(maker, auto.start.kind)

    def _next_entry(self, entry: Entry) -> Entry | None:
        """Return how the epoch after this one is entered; None where a seed will be drawn for it."""
        epoch = entry.cursor.place.epoch + 1
        if self.settings.key is None:
            return None
        return Entry(*self.progress.stream(0, epoch), Cursor(Place(epoch)))

    def _settle_stream(self, maker: Maker, entry: Entry, copies: int) -> None:
        """Note what a stream that this process reads keeps of itself, for a state before the first batch."""
        settings, place, source = self.settings, entry.cursor.place, maker.source
        mine = settings.kind in ("inline", "threads") and not settings.persistent_workers and copies == 1
        if not mine or not isinstance(source, Streamed) or place.step or place.streams:
            return
        with seeds.at(seeds.Here(entry.key, entry.stream)):
            state = source.begin(seeded=settings.key is not None)
        if state is not None:
            entry.cursor.place = dataclasses.replace(place, streams={0: state})

    def _ahead(self, loop: Loop[Any], function: Callable[[Any], Any]) -> Iterator[Any]:
        """Move batches one ahead of the consumer: in a thread, or where there are no workers in the loop's own."""
        if self.settings.kind == "inline":
            return Mapped(loop, function, loop.length)
        self.meter.ahead = True
        # Workers that stay are given to the next loop when nobody waits for a batch of this one any more.
        stay = self._keeper is not None and self._keeper() is loop
        ahead = Ahead(
            loop,
            function,
            1,
            close=None if stay else loop.close,
            then=loop.close if stay else None,
            waited=self.meter.stood,
            handed_on=loop.fetched_ahead(),
            length=loop.length,
        )
        with self.progress.turn.lock:
            self._loops.discard(loop)
            self._loops.add(ahead)
        return ahead

    def _watch(self) -> Watch | None:
        """Return what looks for random numbers drawn in the wrong place, in the first epoch."""
        settings = self.settings
        if self.progress.looped:
            return None
        warn_of_held(settings.dataset, settings.collate_fn)
        quiet = not self.order.draws_in_loop and settings.on_error != "skip"
        return Watch(settings.num_workers) if quiet and settings.kind == "threads" else None

    def _recorder(self, entry: Entry, base: int) -> Recorder | None:
        """Return what writes a loop's batches into the ledger, if there is one."""
        settings, place, plan = self.settings, entry.cursor.place, entry.cursor.plan
        if settings.ledger is None:
            return None
        facts = {**fingerprint(settings, self.order, entry.saved), "uneven": settings.uneven}
        if settings.key is None:
            facts["seed"] = base
        return start_recorder(
            settings.ledger,
            parent=place.session,
            epoch=place.epoch,
            first=place.step,
            beyond=place.beyond,
            batches=place.batches,
            offset=place.offset,
            bad=place.bad,
            rank=settings.rank,
            world=settings.world_size,
            samples=None if plan is None or not plan.counted else plan.samples,
            ends=None if plan is None or not plan.counted else plan.ends,
            find_end=None if plan is None or plan.counted else plan.end,
            facts=facts,
        )

    def _enter_tuner(self, *, moves: bool) -> Tuner | None:
        """Take the workers that are to be measured next, or are the best; return what measures them in a loop."""
        auto = self._auto
        if auto is None:
            return None
        before, auto.moves = auto.now, auto.moves or moves
        tuner = auto.enter(self._measured, self._facts)
        if auto.now != before and self._kept is not None:
            self._kept.close()
        self.settings = auto.now.applied(self.settings)
        return tuner

    def _tuned(self, tuner: Tuner, makers: Makers, base: int, parts: tuple[Any, ...]) -> TunedDispatcher:
        """Return a dispatcher that changes the workers."""
        auto, settings = cast("AutoWorkers", self._auto), self.settings

        def make(setting: WorkerSetting) -> Executor:
            return self._executor(setting.applied(settings), makers, base)

        return TunedDispatcher(*parts, auto=auto, tuner=tuner, make=make, measured=self._measured, meter=self.meter)

    def _staff(self, makers: Makers, base: int, *, changing: bool) -> tuple[Executor, Callable[[], None]]:
        """Return who makes the batches of a loop, and what is to be done when it ends.

        ``changing``: they may be replaced while they work.
        """
        kept = self._kept
        if kept is None or kept.closed:
            executor = self._first_executor(makers, base, changing=changing)
            if not (self.settings.persistent_workers and isinstance(executor, Reusable)):
                return executor, executor.close
            self._kept = kept = executor
        elif self._kept_at_work() is not None:
            # Another loop is at work with those that are kept.
            executor = self._first_executor(makers, base, changing=changing)
            return executor, executor.close
        kept.reset()
        return kept, kept.reset

    def _first_executor(self, makers: Makers, base: int, *, changing: bool) -> Executor:
        """Return the workers of the settings; others, where they were chosen here and cannot be made."""
        while True:
            try:
                executor = self._executor(self.settings, makers, base)
            except Exception as error:
                if self._auto is None:
                    raise
                self._auto.failed(error)
                self.settings = self._auto.now.applied(self.settings)
                continue
            if not changing:
                return executor
            return ReusableChanging(executor) if self.settings.workers_stay else Changing(executor)

    def _executor(self, settings: Settings, makers: Makers, base: int) -> Executor:
        # A stream can be read by one thread only; so it is read once, ahead, and nothing is ever read twice.
        alone = settings.kind == "threads" and settings.streams and not settings.shares_stream
        shares = isinstance(settings.backend, SharedPreparation)
        backend = arguments.own_workers(settings.backend)
        as_processes = self._auto is not None and self._auto.start.kind == "processes"
        options = Options(
            workers=1 if alone else settings.num_workers,
            prefetch=settings.prefetch_factor or arguments.PREFETCH_FACTOR,
            threads=settings.threads_per_worker,
            together=settings.threads_per_batch,
            context=settings.multiprocessing_context,
            start_method=settings.adapter.start_method,
            init=settings.worker_init_fn,
            seed=base,
            restarts=settings.restart_workers,
            in_turns=settings.ordered,
            # Without a seed, the caller's own random.seed() and np.random.seed() reach the dataset, as on torch.
            seeds_globals=settings.key is not None or as_processes,
            workers_by=backend if callable(backend) and settings.kind != "inline" else settings.kind,
            facts=self._facts() if shares else {},
            rank=settings.rank,
            leftover=self._leftover,
        )
        return registry.made(settings.backend if shares else options.workers_by, makers.of(settings.kind), options)

    def _facts(self) -> dict[str, Any]:
        """Return what tells the batches of two loaders apart, as far as it can be said without reading a sample."""
        collate = self.settings.collate_fn
        name = getattr(collate, "__qualname__", type(collate).__qualname__)
        return {**fingerprint(self.settings, self.order, {}), "collate_fn": name}

    def _check_start(self) -> None:
        settings = self.settings
        if settings.kind != "inline":
            if settings.prefetch_factor == 0:
                raise UnusableArgument(
                    "prefetch_factor must be 1 or more with workers; got 0",
                    found=0,
                    expected="1 or more",
                    cure="leave prefetch_factor None for the default",
                )
        elif settings.timeout:
            raise UnusableArgument(
                f"timeout={settings.timeout:g} needs workers; got num_workers=0",
                found=settings.timeout,
                expected="num_workers=1 or more, or timeout=0",
                cure="leave timeout out, or give num_workers=1 or more",
            )


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    """Return a function that calls two; the second one whatever the first one raises."""

    def call() -> None:
        try:
            first()
        finally:
            second()

    return call


def _rows(settings: Settings) -> int:
    """Return how many samples a batch has, or may have where a sampler makes the batches."""
    if settings.batch_size is not None:
        return settings.batch_size
    return 1 if settings.single else arguments.MOST_THREADS


_ANY_KEY = seeds.key_of(0)


def batches_of(order: EpochOrder, settings: Settings, epoch: int) -> int:
    """Return how many batches an epoch has."""
    return order.length(settings.key or _ANY_KEY, epoch)


class Plain:
    """A user's collate function, which knows nothing of lent memory."""

    def __init__(self, function: Callable[[list[Any]], Any]) -> None:
        self._function = function

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:  # noqa: ARG002
        """Collate as the user's function does, on a list as torch gives it."""
        return self._function(samples if isinstance(samples, list) else list(samples))


class Finished:
    """A collate function of ours that gives arrays, and what a framework makes of them."""

    def __init__(self, collate: Collate, finish: Callable[[Any], Any]) -> None:
        self._collate = collate
        self._finish = finish

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:
        """Collate, and convert the batch."""
        return self._finish(self._collate(samples, empty=empty))


class Single:
    """For ``batch_size=None``: what one sample becomes."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def __call__(self, samples: Sequence[Any], *, empty: Empty = np.empty) -> Any:  # noqa: ARG002
        """Convert the only sample."""
        return self._function(samples[0])
