"""The loader: arguments, read once and turned into objects; each loop over it is put together here."""

from __future__ import annotations

import copy
import dataclasses
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np

from headrace import samplers
from headrace.collate.default import Collate, default_collate, default_convert
from headrace.context import seeds
from headrace.datasets.protocol import batch_beginner, batch_reader, is_iterable, unmapped
from headrace.errors import ArgumentError, UnusableArgument
from headrace.executors.inline import Inline
from headrace.executors.native import Native
from headrace.executors.threads import Threads
from headrace.interop.calls import article, flag, takes_empty
from headrace.interop.generators import GeneratorLike, Stateful, draw_seed, resolve
from headrace.interop.keras_advice import AdvisesKeras
from headrace.interop.keys import check_no_mask
from headrace.interop.machine import cpus
from headrace.ledger.recorder import Recorder, start_recorder
from headrace.ledger.store import Ledger, open_ledger
from headrace.make.maker import Maker, OnError
from headrace.make.source import Batched, Indexed, SharedStream, Source, Streamed, read_once
from headrace.plan.batch_plan import BatchPlan, Plan, RankShare, Uneven
from headrace.plan.batch_sampler_plan import BatchSamplerPlan
from headrace.plan.iterator_plan import IteratorPlan, after, cut
from headrace.plan.order import BatchOrdered, FixedEpoch, Order, Ordered, Sequential, Shuffled
from headrace.plan.passes import Pass, apart, undisturbed
from headrace.plan.replicas import ReplicatedStream
from headrace.run import arguments
from headrace.run import lineage as again
from headrace.run.ahead import Ahead
from headrace.run.checkpoint import Cursor, Place, bad_before, check, from_dict
from headrace.run.detector import Watch, warn_of_held
from headrace.run.lineage import Lineage
from headrace.run.loop import Loop
from headrace.run.stats import Meter, Statistics
from headrace.run.tolerance import Budget, Refill
from headrace.run.turns import Turn
from headrace.run.window import Unordered, Window

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from headrace.context.memory import Empty
    from headrace.executors.base import Executor
    from headrace.executors.processes.pool import Processes
    from headrace.plan.work import Work

T_co = TypeVar("T_co", covariant=True)
SPARES = 100
"""Replacements of one sample that may fail in a row; with half of all samples bad, one run in 2**100 gets there."""

_NONE = object()

FROZEN = frozenset({"batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"})
"""What may not be set once a loader is made, as in torch: its plan follows from them."""


class DataLoader(AdvisesKeras, Generic[T_co]):
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

    The arguments up to ``in_order`` are torch's, in its order; the others are ours. ``dataset``: anything with
    ``__getitem__`` and ``__len__``. ``seed`` (an integer from 0 up) fixes order and augmentation: each batch is then a
    function of (dataset, seed, epoch, step) alone, the same on any number and kind of workers. The epoch is 0 in the
    first loop and one more in each that is begun (`set_epoch` chooses). Without a seed, every loop draws one from
    ``generator`` (NumPy's, torch's, or an integer), else from torch's global generator if torch is loaded, else from
    NumPy's.

    **Order**: as the dataset has it, or with ``shuffle`` a new one each epoch; or any iterable of indices
    (``sampler``), or of lists of indices (``batch_sampler``, in place of ``batch_size``, ``shuffle``, ``sampler`` and
    ``drop_last``). The order of a planned sampler (`ShardSampler`, `MixtureSampler`, `BucketBatchSampler` and others)
    is a function of the seed and the epoch, as the loader's own is: it can be entered anywhere, and ranks share it.
    With ``batch_size=None`` samples come one by one, not collated. With ``in_order=False`` batches come as they are
    made, so that a slow one holds up no other; not with ``world_size`` above 1, where one state must restore all ranks.

    **Workers**: ``num_workers`` of them make batches, at most ``prefetch_factor`` (2) each ahead of the loop; 0 makes
    them in the loop's own thread, and so does ``workers="inline"``; "auto" is one for each CPU that this process may
    use, no more than there are batches, and 1 for an iterable dataset. ``workers`` says what they are: "thread" is
    right for what releases Python's lock, as decoding does, "process" for what spends its time in Python itself; "auto"
    takes threads where the dataset says that they suit it (``suits_threads``: ours say so; so do lists and arrays,
    unless they come with a ``collate_fn``), and processes otherwise, or where an argument is given that only they have.

    *Processes* start by ``multiprocessing_context`` (a name or a context; the platform's default), and each calls
    ``worker_init_fn(id)``. Batches come back in shared memory. A worker that dies is replaced, with a warning, and its
    batches are made again; ``restart_workers`` is how often (0: never, the error is raised at once). With
    ``persistent_workers`` they stay for the next epoch, each with its copy of the dataset. ``threads_per_worker``: how
    many batches each makes at once, on threads of its own.

    An **iterable dataset** (`IterableDataset`, torch's too, or anything that has only ``__iter__``) is read in its own
    order. By threads: once, ahead of the loop, in a thread of its own. By processes: torch's rule, each reads a copy,
    and `get_worker_info` tells the dataset which part is its own. ``shard="auto"`` is for one that does not ask: it is
    read once, here, and what it yields is handed round; the functions that were added with ``map``, and collating, are
    the workers'.

    ``collate_fn`` makes a batch of a list of samples (`default_collate` if None); with a parameter ``empty`` it is lent
    memory. ``on_error``: an error in a sample is raised at its step ("raise"), the sample is left out and the
    batch filled from what follows, so that all but the last have the same size ("skip"), or another sample, drawn at
    random from the same epoch, takes its place ("replace"). With the last two `statistics` names the bad samples, and
    ``max_errors`` of them in one epoch (a count, or a fraction of the dataset) are allowed. ``timeout``: seconds to
    wait for a batch, else `WorkerTimeout`; 0 for ever. ``pin_memory`` is for tensors: see `headrace.torch`.

    ``ledger``: a `Ledger`, or a folder in which each rank keeps one: what the loop has received is written down there,
    batch by batch, and `verify_epoch` proves from it that each sample came exactly once.

    A loop may be left at any time, and several may run at once; workers end with the loop, with `close`, and when the
    iterator is dropped. Raises `ArgumentError` for arguments that cannot be used.
    """

    _collate: Any = staticmethod(default_collate)
    _convert: Any = staticmethod(default_convert)
    _finish: Any = None
    """What is done to batches that a dataset makes itself; an adapter's, as the two above may be."""
    _samplers: Any = samplers
    _source: Stateful | None
    """Where seeds are drawn from; follows from the attribute ``generator``."""
    _start_method: str | None = None
    """How processes start where nothing is asked for; None: as is the platform's custom."""

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,  # positional, as in torch
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Sequence[Any]] | None = None,
        num_workers: int | Literal["auto"] = 0,
        collate_fn: Callable[..., Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: GeneratorLike = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        seed: int | None = None,
        workers: arguments.Workers = "auto",
        threads_per_worker: int = 1,
        restart_workers: int | None = None,
        shard: Literal["auto"] | None = None,
        rank: int | Literal["auto"] | None = None,
        world_size: int | None = None,
        uneven: Uneven = "pad",
        on_error: OnError = "raise",
        max_errors: int | float | None = None,
        ledger: Ledger | str | os.PathLike[str] | None = None,
    ) -> None:
        dataset, shuffle = self._received(dataset, None if shuffle is None else flag("shuffle", shuffle))
        drop_last = flag("drop_last", drop_last)
        persistent_workers = flag("persistent_workers", persistent_workers)
        self._streams = is_iterable(dataset)
        if not self._streams and not hasattr(dataset, "__getitem__"):
            raise ArgumentError(
                "dataset must have __getitem__ and __len__, or __iter__; "
                f"{arguments.describe(dataset)} can be read neither way"
            )
        arguments.one_of("on_error", on_error, arguments.POLICIES)
        arguments.one_of("workers", workers, arguments.KINDS)
        arguments.one_of("shard", shard, (None, "auto"))
        if seed is not None and generator is not None:
            raise ArgumentError("seed and generator exclude each other: either fixes all loops, or each draws its own")
        self.dataset = dataset
        self.num_workers = arguments.worker_count(
            num_workers, streams=self._streams, samples=arguments.length(dataset), batch_size=batch_size
        )
        self.timeout = arguments.seconds(timeout)
        self.prefetch_factor = arguments.prefetch_factor(prefetch_factor, self.num_workers)
        if persistent_workers and self.num_workers == 0:
            raise ArgumentError("persistent_workers option needs num_workers > 0")
        self.pin_memory = flag("pin_memory", pin_memory)
        self.pin_memory_device = pin_memory_device
        self.worker_init_fn = arguments.function("worker_init_fn", worker_init_fn)
        self.multiprocessing_context = multiprocessing_context
        if self._streams:
            arguments.check_stream(shuffle, sampler, batch_sampler, on_error)
        check_no_mask("sampler", sampler)
        check_no_mask("the indices of a Subset", getattr(dataset, "indices", None) if _is_subset(dataset) else None)
        arguments.check_order(batch_size, shuffle, sampler, batch_sampler, drop_last, on_error)
        self.in_order = flag("in_order", in_order)
        self.generator = generator
        self.seed = seed
        self.workers = workers
        self.threads_per_worker = arguments.whole(
            "threads_per_worker", threads_per_worker, least=1, most=arguments.MOST_THREADS
        )
        self.restart_workers = (
            None if restart_workers is None else arguments.whole("restart_workers", restart_workers, least=0)
        )
        self.shard = shard
        if shard and not self._streams:
            raise ArgumentError('shard="auto" is for iterable datasets; one with an index is never read twice')
        if self.threads_per_worker > 1 and self._streams and not shard:
            raise ArgumentError(
                'threads_per_worker needs a dataset with an index, or shard="auto": a stream is read by one thread'
            )
        self.rank, self.world_size = arguments.ranks(rank, world_size)
        arguments.one_of("uneven", uneven, arguments.UNEVEN)
        self.uneven: Uneven = uneven
        self._given: Any = batch_sampler if batch_sampler is not None else sampler
        ordered = isinstance(sampler, Ordered) or isinstance(batch_sampler, BatchOrdered)
        planner: Any = self._given if ordered else None
        self._planner = planner
        # Any place of any epoch can be entered where the order is our own, or a planned sampler's.
        self._planned = not self._streams and (ordered or self._given is None)
        self._sampler_facts = {f"sampler.{k}": v for k, v in planner.fingerprint.items()} if ordered else {}
        if self.world_size > 1:
            planned = self._planned or shard is not None
            arguments.check_ranks(seed, on_error, planned=planned, streams=self._streams)
        self.on_error: OnError = on_error
        self.max_errors = arguments.max_errors(max_errors, on_error)
        self.ledger = open_ledger(ledger, self.rank)
        self._shuffle = bool(shuffle)
        self.batch_size = None if batch_sampler is not None else arguments.batch_size(batch_size)
        self.drop_last = drop_last
        self.sampler = self._default_sampler() if sampler is None else sampler
        self.batch_sampler = batch_sampler
        if batch_sampler is None and self.batch_size is not None and self.sampler is not None:
            self.batch_sampler = self._samplers.BatchSampler(self.sampler, self.batch_size, self.drop_last)
        single = self.batch_size is None and batch_sampler is None
        self.collate_fn = arguments.function("collate_fn", collate_fn) or (self._convert if single else self._collate)
        self.persistent_workers = persistent_workers
        self._key = None if seed is None else seeds.key_of(seed)
        self._epoch = 0
        self._cursor = Cursor(Place(0))
        self._resume: dict[str, Any] | None = None
        self._next_seed: int | None = None
        self._copies = 0
        self._begun = False
        self._promised: tuple[int, int] | None = None
        self._counted: tuple[tuple[int, int | None], int] | None = None
        self._recalled: tuple[Any, Plan] | None = None
        self._meter = Meter(epoch=0, workers=self.num_workers)
        self._turn = Turn()
        self._loops: weakref.WeakSet[Loop[Any] | Ahead[Any]] = weakref.WeakSet()
        self._kept: Processes | None = None
        self._keeper: weakref.ref[Loop[Any]] | None = None
        self._index = self._indices
        self._check_count()
        self._made = True

    def __setattr__(self, name: str, value: Any) -> None:
        # timm's MultiEpochsDataLoader opens torch's own lock, whose name Python mangles the same way here.
        if name in FROZEN and "_made" in vars(self) and vars(self).get("_DataLoader__initialized", True):
            raise ArgumentError(
                f"{name} attribute should not be set after {type(self).__name__} is initialized: make another loader"
            )
        if name == "multiprocessing_context":
            value = arguments.start_method(value, self.num_workers)
        if name == "generator":
            object.__setattr__(self, "_source", resolve(value))
        object.__setattr__(self, name, value)

    def __len__(self) -> int:
        """Return how many batches an epoch has; ``on_error="skip"`` can make it fewer.

        Where that differs from epoch to epoch, the one that comes next is meant. Of an iterable dataset, what it says
        itself of all its copies together; a loop that gives more then warns.
        """
        self._adopt_replaced_sampler()
        if self._planned:
            epoch = (self._resume or {"epoch": self._epoch})["epoch"]
            what = epoch, arguments.length(self.dataset)
            counted = self._counted
            if counted is None or counted[0] != what:
                self._counted = counted = what, len(self._whole(self._key or seeds.key_of(0), epoch))
            return counted[1]
        if not self._streams:
            return len(self.sampler if self.batch_sampler is None else self.batch_sampler)  # type: ignore[arg-type]
        samples = len(self.dataset)
        whole, rest = divmod(samples, self.batch_size or 1)
        self._promised = whole + (rest > 0 and not self.drop_last), samples
        return self._promised[0]

    def __iter__(self) -> Iterator[T_co]:
        """Begin a loop over the next epoch."""
        if self.pin_memory:
            warnings.warn(
                "pin_memory=True does nothing for NumPy batches: headrace.torch.DataLoader pins tensors",
                UserWarning,
                stacklevel=2,
            )
        return self._loop()

    @property
    def _indices(self) -> Any:
        """What says which samples come when: the batch sampler, or the sampler where samples come one by one."""
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def _adopt_replaced_sampler(self) -> None:
        """Read from the sampler that a subclass has put in the place of its own, as torch's loader does."""
        if self._indices is self._index:
            return
        if self.world_size > 1:
            raise ArgumentError(
                f"the sampler of a loader with world_size={self.world_size} was replaced by "
                f"{article(type(self._indices).__qualname__)}; ranks share only the order that the loader was made "
                "with: pass the sampler to the constructor"
            )
        self._index = self._given = self._indices
        self._planner, self._planned, self._sampler_facts = None, False, {}

    def _loop(self) -> Loop[T_co]:
        self._check_start()
        with self._turn.lock:
            loop = self._begin()
        if self._kind != "inline":
            try:
                loop.start()
            except BaseException:
                loop.close()
                raise
        return loop

    def _begin(self) -> Loop[T_co]:
        self._adopt_replaced_sampler()
        saved = self._resume or {}
        place = from_dict(saved) if saved else Place(self._epoch)
        place = dataclasses.replace(place, bad=bad_before(saved, self.rank, self.world_size))
        epoch, self._epoch = place.epoch, place.epoch + 1
        # Without a seed each loop is a run of its own, whose random numbers depend on nothing but the seed it draws.
        base = 0 if self._key is not None else saved["seed"] if "seed" in saved else self._drawn_ahead()
        self._next_seed = None
        key, stream = (seeds.key_of(base), 0) if self._key is None else (self._key, epoch)
        cursor = Cursor(place, base if self._key is None else None, began=place, rank=self.rank)
        # A stream is read in the number of copies that the run began with.
        self._copies = saved.get("plan", {}).get("copies") or self._copies or self._readers
        plan, samples = self._plan(key, stream, cursor, saved)
        recorder = self._recorder(place, base, cursor.plan)
        watch = None
        if not self._begun:
            warn_of_held(self.dataset, self.collate_fn)
            # Other samplers, and what puts refilled batches together, draw in the loop's own thread.
            ours = (self._planned or (self._streams and not self._shares_stream)) and self.on_error != "skip"
            watch = Watch(self.num_workers) if ours and self._kind == "thread" else None
        maker = self._maker(again=self._begun)
        self._begun = True
        executor, end = self._staff(maker, base)
        self._meter = Meter(epoch=epoch, workers=self.num_workers)
        window = Window if self._ordered else Unordered
        loop: Loop[T_co] = Loop(
            plan,
            key,
            stream,
            executor,
            window(executor.capacity, self._copies, place.step, place.beyond),
            maker,
            self._meter,
            Refill(self.batch_size or 1, drop_last=self.drop_last, offset=place.offset)
            if self.on_error == "skip"
            else None,
            Budget(samples, self._allowed(samples)),
            self.timeout or None,
            end,
            self._check_promise if self._streams else None,
            cursor,
            recorder,
            watch,
        )
        self._cursor = cursor
        self._resume = None  # not before: whoever asks for the state meanwhile gets the one or the other
        self._loops.add(loop)
        if executor is self._kept:
            self._keeper = weakref.ref(loop)
        return loop

    def _ahead(self, function: Callable[[Any], Any]) -> Iterator[Any]:
        """Begin a loop whose batches go through a function, one ahead of the consumer, on their way to it.

        A thread of its own does it where there are workers; with none, all is done in the loop's own thread.
        """
        loop = self._loop()
        if self._kind == "inline":
            return map(function, loop)
        self._meter.ahead = True
        # Workers that stay are given to the next loop when nobody waits for a batch of this one any more.
        stay = self._keeper is not None and self._keeper() is loop
        ahead = Ahead(
            loop,
            function,
            1,
            close=None if stay else loop.close,
            then=loop.close if stay else None,
            waited=self._meter.stood,
            handed_on=loop.fetched_ahead(),
        )
        with self._turn.lock:
            self._loops.discard(loop)
            self._loops.add(ahead)
        return ahead

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no part in the loops that run, nor in their workers.
        none: dict[str, Any] = dict.fromkeys(("_loops", "_kept", "_keeper", "_recalled"))
        return {**vars(self), **none, "_cursor": Cursor(self._cursor.place)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._loops = weakref.WeakSet()

    def batches(self, *, endless: bool = False) -> Iterator[T_co]:
        """Return a plain generator of the next epoch's batches; with ``endless``, of that and all epochs after it.

        >>> from headrace import DataLoader
        >>> steps = DataLoader([1, 2, 3], batch_size=2).batches(endless=True)
        >>> [next(steps).tolist() for _ in range(3)]
        [[1, 2], [3], [1, 2]]
        >>> steps.close()

        Closing it ends its workers. Raises RuntimeError where an epoch is empty, which would never end.
        """
        while True:
            batch: Any = _NONE
            loop = iter(self)
            try:
                for batch in loop:
                    yield batch
            finally:
                if hasattr(loop, "close"):  # without workers, an adapter's has nothing to close
                    loop.close()
            if not endless:
                return
            if batch is _NONE:
                raise RuntimeError("an endless generator of batches needs a dataset that has some; an epoch gave none")
            del batch

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next loop reads, from its beginning; those after it go on from there.

        The epoch that a loaded state is in the middle of is gone on with: scripts call this before every epoch.
        """
        with self._turn.lock:
            self._epoch = arguments.whole("epoch", epoch, least=0, most=2**64 - 1)
            if self._resume is not None and self._resume["epoch"] == self._epoch:
                return
            self._cursor = Cursor(Place(self._epoch))
            self._resume = None

    def state_dict(self) -> dict[str, Any]:
        """Return where the run stands, as a few numbers that JSON can hold: what comes next is what was not received.

        >>> from headrace import DataLoader
        >>> loader = DataLoader(range(100), batch_size=10, shuffle=True, seed=7)
        >>> batches = iter(loader)
        >>> _ = next(batches), next(batches)
        >>> state = loader.state_dict()
        >>> state["epoch"], state["step"]
        (0, 2)
        >>> resumed = DataLoader(range(100), batch_size=10, shuffle=True, seed=7, num_workers=2)
        >>> resumed.load_state_dict(state)
        >>> next(iter(resumed)).tolist() == next(batches).tolist()
        True

        It may be called at any moment, from any thread, with a loop running or not; it names the place after the last
        batch that the loop over this loader begun last has handed out, whatever was made ahead of it. After the end of
        an epoch, that is the beginning of the next. Without a ``seed``, a state taken between two loops draws the seed
        of the next one: this loader, and one that loads the state, then continue with the same order.
        """
        resume = self._resume  # read once: another thread may begin the loop that takes it
        if resume is not None:
            return copy.deepcopy(resume)
        while True:
            cursor = self._cursor
            place = cursor.place
            state = cursor.to_dict(self._fingerprint())
            if cursor.place is place:  # else the loop moved meanwhile, and forgot what belongs to the place before
                break
        if self._key is None and "seed" not in state:  # between two loops: the next one's order is settled here
            with self._turn.lock:
                state["seed"] = self._drawn_ahead()
        return state

    def _drawn_ahead(self) -> int:
        """Return the seed of the next loop, where the loader has none: drawn once, by whoever asks first."""
        if self._next_seed is None:
            self._next_seed = draw_seed(self._source)
        return self._next_seed

    def load_state_dict(self, state: dict[str, Any], *, strict: bool = True) -> None:
        """Let the next loop go on where a state was saved, with exactly the batches that would have come.

        Workers may be others in number and kind, ranks others too. Raises `StateMismatch` for a state of another
        dataset, batch size, seed or order, and says what differs; with ``strict=False`` the loop goes on all the same,
        from the sample at which the other stood. Loops over indexed datasets go there at once; samplers and streams
        that do not keep a state of their own are read up to there.
        """
        from_dict(state)
        here = self._fingerprint(state["plan"].get("copies"))
        if strict:
            check(state["plan"], here, beyond=bool(state.get("beyond")))
        self.close()
        resume = copy.deepcopy(state)
        if state["plan"] != here:
            resume.pop("beyond", None)  # steps of another order, or cut otherwise: better twice than lost
        with self._turn.lock:
            self._resume = resume
            self._epoch = state["epoch"]

    def replay(self, *, epoch: int, step: int, index: int | None = None) -> Any:
        """Return a batch of any epoch as it was, or the sample that stood at an index of it, and read nothing else.

        >>> import numpy as np
        >>> from headrace import ArrayDataset, DataLoader
        >>> noisy = ArrayDataset(np.arange(9.0)).map(lambda x, rng: x + rng.random())
        >>> loader = DataLoader(noisy, 2, shuffle=True, seed=0, num_workers=2)
        >>> batches = list(loader)
        >>> np.array_equal(loader.replay(epoch=0, step=3), batches[3])
        True
        >>> bool(loader.replay(epoch=0, step=3, index=1) == batches[3][1])
        True

        It is made here, in the caller's thread, of this rank's part. Loops that run, their place and the state are not
        touched. Code that draws from elsewhere than `headrace.rng` gives what it gave only where one thread at a time
        made batches: inline with a seed, and in processes. Any place of a dataset's own order, or of a planned
        sampler's, can be replayed. Without a ``seed``, and of any other sampler, only the epoch begun last, or that of
        a loaded state, is known; a sampler is then read up to there, and so is an iterable dataset, of which earlier
        samples are made again too. Raises `ArgumentError` for a step or an index that is not there, for an epoch that
        is not known, for an iterable dataset that can be read only once or keeps a state of its own, and with
        ``on_error="skip"``, where which samples are in a batch depends on all that were bad before; and what the
        dataset raises.
        """
        work, _ = self._past(epoch, step)
        maker = self._maker(again=False)
        return again.batch(maker, work) if index is None else again.traced(maker, work, index)[0]

    def lineage(self, *, epoch: int, step: int, index: int) -> Lineage:
        """Return where a sample of a batch came from and what was done to it, as far as `replay` can make it again.

        >>> import numpy as np
        >>> from headrace import ArrayDataset, DataLoader
        >>> noisy = ArrayDataset(np.arange(9.0)).map(lambda x, rng: x + rng.random())
        >>> lineage = DataLoader(noisy, 2, shuffle=True, seed=0).lineage(epoch=0, step=3, index=1)
        >>> lineage.dataset, lineage.position, [str(draw) for draw in lineage.steps[0].draws]
        ((('Mapped', 5), ('ArrayDataset', 5)), 7, ['random() = 0.7845'])
        """
        work, base = self._past(epoch, step)
        maker = self._maker(again=False)
        sample, trace, bad = again.traced(maker, work, index)
        key = work.keys[index] if work.replica is None else None
        return Lineage(
            again.visits(self.dataset, key),
            key,
            maker.source.where(key) if isinstance(maker.source, Indexed | Batched) and key is not None else None,
            base,
            epoch,
            step,
            index,
            work.start + index * (1 if work.replica is None else work.replica.count),
            trace.before if trace.steps else sample,
            sample,
            again.steps(trace),
            tuple(trace.draws),
            bad,
        )

    def statistics(self) -> Statistics:
        """Return what the newest loop has done so far; cheap, and safe from another thread."""
        return self._meter.snapshot()

    def close(self) -> None:
        """End all running loops and their workers; the loader can be looped over again."""
        with self._turn.lock:
            loops = list(self._loops)
            kept, self._kept = self._kept, None
        for loop in loops:
            loop.close()
        if kept is not None:
            kept.close()
        if self.ledger is not None:
            self.ledger.close()

    def __enter__(self) -> DataLoader[T_co]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        samples = arguments.length(self.dataset)
        return (
            f"{type(self).__name__}({type(self.dataset).__qualname__}{'' if samples is None else f' of {samples}'}, "
            f"batch_size={self.batch_size}, shuffle={self._shuffle}, num_workers={self.num_workers})"
        )

    def _check_promise(self, batches: int, samples: int) -> None:
        if self._promised is None:
            return
        promised, reported = self._promised
        # Copies that each end with a short batch may give more batches than were promised, of no more samples.
        if batches > promised and max(batches, samples) > reported:
            warnings.warn(
                f"Length of IterableDataset {self.dataset!r} was reported to be {reported} (when accessing "
                f"len(dataloader)), but {max(batches, samples)} samples have been fetched. For multiprocessing "
                "data-loading, this could be caused by copies that each give everything: where each worker reads a "
                "copy, the dataset should ask get_worker_info for its part, and __len__ count all parts together",
                UserWarning,
                stacklevel=3,
            )

    @staticmethod
    def _received(dataset: Any, shuffle: bool | None) -> tuple[Any, bool | None]:
        """Return what is read, and whether the loader shuffles it; an adapter knows datasets that do it themselves."""
        return dataset, shuffle

    def _default_sampler(self) -> Any:
        """Return the sampler that says what the order is like; the loader's own order needs none, nor does a stream."""
        if self._streams:
            return None
        if self._shuffle:
            if arguments.length(self.dataset) == 0:
                raise ArgumentError(
                    "num_samples should be a positive integer value, but got num_samples=0: a dataset without samples "
                    "cannot be shuffled"
                )
            return self._samplers.RandomSampler(self.dataset, generator=self.generator)
        return self._samplers.SequentialSampler(self.dataset)

    def _fingerprint(self, copies: int | None = None) -> dict[str, Any]:
        """Return what a place is a place in: the facts that say which sample comes when."""
        given = type(self._given).__name__ if self._given is not None else None
        facts = {
            "dataset": type(self.dataset).__name__,
            "samples": arguments.length(self.dataset),
            "batch_size": self.batch_size,
            "drop_last": self.drop_last,
            "order": given or ("shuffled" if self._shuffle else "sequential"),
            "seed": self.seed,
            "on_error": self.on_error,
            "world_size": self.world_size,
        }
        if self._streams:
            facts |= {"order": "stream", "copies": copies or self._copies or self._readers}
        return facts | self._sampler_facts

    def _plan(
        self, key: seeds.Key, epoch: int, cursor: Cursor, saved: dict[str, Any], given: Any = None
    ) -> tuple[Plan, int | None]:
        """Return the plan of a loop, and how many samples it has at the most, where that is known."""
        size, place = arguments.length(self.dataset), cursor.place
        # Where bad samples are left out, the last batch is known to be short only when the end is reached.
        drop_last = self.drop_last and self.on_error != "skip"
        if self._shares_stream:
            stream, _ = unmapped(self.dataset)
            read = self._read(cursor, saved, self._share.global_batch_size)
            samples = after(read_once(stream, key, epoch, again=self._begun), read)
            batches = cut(samples, self._share.global_batch_size, drop_last=drop_last)
            return IteratorPlan(batches, key, stream=True, share=self._share, entered=(place.step, read)), size
        if self._streams:
            return self._replicated(key, cursor, saved), size
        if self._planned:
            plan = cursor.plan = self._whole(key, place.epoch, place.step, saved.get("samples", 0))
            return plan, len(plan.order) if isinstance(plan, BatchPlan) else size
        replace = self.on_error == "replace"
        name = "sampler" if self._given is not self.batch_sampler else "batch_sampler"
        cursor.sampler = Pass(
            self._given if given is None else given, saved.get("sampler"), name=name, again=self._begun
        )
        start = cursor.sampler.start
        how: dict[str, Any] = {
            "spare": replace,
            "first": place.step,
            "entered": (0, 0) if start is None else (place.step, start),
            "mark": cursor.sampler.mark,
        }
        if self._given is self.batch_sampler:
            return IteratorPlan(cursor.sampler, key, **how), size
        keys: Iterator[Any] = cursor.sampler
        read = self._read(cursor, saved, self.batch_size or 1, start)
        if start is None:
            keys, how["entered"] = after(keys, read), (place.step, read)
        batches = cut(keys, self.batch_size or 1, drop_last=drop_last)
        most = len(self._given) if isinstance(self._given, Sized) else size
        return IteratorPlan(batches, key, **how), most

    def _read(self, cursor: Cursor, saved: dict[str, Any], whole: int, start: int | None = None) -> int:
        """Return how much of a stream or a sampler comes before a place, in batches of ``whole`` from there on."""
        step = cursor.place.step
        plan = saved.get("plan", {})
        before = (plan.get("batch_size") or self.batch_size or 1) * (plan.get("world_size") or self.world_size)
        found = saved.get("read", step * before) if start is None else start
        read: int = found[0] if isinstance(found, list) else found
        if read != step * whole:
            cursor.position = lambda at: read + (at - step) * whole
        return read

    def _replicated(self, key: seeds.Key, cursor: Cursor, saved: dict[str, Any]) -> ReplicatedStream:
        """Return the plan of a stream that is read in copies."""
        place, size = cursor.place, self.batch_size or 1
        plan_saved = saved.get("plan", {})
        before = (plan_saved.get("batch_size") or size) * (plan_saved.get("world_size") or 1)
        starts = saved.get("read", [])
        starts = starts if isinstance(starts, list) else [starts]
        if not starts and before != size:
            starts = ReplicatedStream(self._copies, before, key).at(place.step)
        plan = ReplicatedStream(self._copies, size, key, place.step, place.streams, starts)
        if starts:
            cursor.position = plan.at
        return plan

    @property
    def _ordered(self) -> bool:
        """Whether batches come in the order of their steps.

        Where they come as they are made, which steps are behind a loop depends on its own timing, and a state of one
        rank could not say what the others have had. Batches that are filled up are cut from one order, too.
        """
        return self.in_order or self.on_error == "skip" or self.world_size > 1

    def _past(self, epoch: int, step: int) -> tuple[Work, int]:
        """Return the work of a step of any epoch, and the seed that it is made from."""
        epoch = arguments.whole("epoch", epoch, least=0, most=2**64 - 1)
        step = arguments.whole("step", step, least=0)
        self._adopt_replaced_sampler()
        if self.on_error == "skip":
            raise ArgumentError(
                'on_error="skip" fills batches up from what follows, so that a step does not say which samples are in '
                'its batch; only with "raise" or "replace" can it be replayed'
            )
        saved: dict[str, Any] = self._resume or {}
        if saved.get("epoch") != epoch or not saved["step"]:
            saved = {}
        began = self._cursor.began
        cursor = self._cursor if not saved and began is not None and began.epoch == epoch else Cursor(Place(epoch))
        base: Any = self.seed if self._key is not None else saved.get("seed", cursor.seed)
        if base is None:
            raise ArgumentError(
                f"the order of epoch {epoch} is not known: without a seed each loop draws one, and only that of the "
                "loop begun last, or of a loaded state, can be replayed; make the loader with seed="
            )
        key, stream = (seeds.key_of(base), 0) if self._key is None else (self._key, epoch)
        if self._planned:
            first, origin = saved.get("step", 0), saved.get("samples", 0)
            if cursor.plan is not None:
                first, origin = cursor.plan.first, cursor.plan.origin
            place = (key, epoch, first, origin) if step >= first else (key, epoch, 0, 0)
            recalled = self._recalled
            if recalled is None or recalled[0] != (place, arguments.length(self.dataset)):
                # Kept for the next sample that is asked for: some plans are worked out for an epoch at a time.
                recalled = (place, arguments.length(self.dataset)), self._whole(*place)
                self._recalled = recalled
            work = recalled[1].work(stream, step)
        else:
            work = self._read_up_to(epoch, step, key, stream, cursor, saved)
        if work is None:
            raise ArgumentError(f"step {step} is not in epoch {epoch}, which has fewer")
        return work, base

    def _read_up_to(
        self, epoch: int, step: int, key: seeds.Key, stream: int, cursor: Cursor, saved: dict[str, Any]
    ) -> Work | None:
        """Return the work of a step of an order that can only be passed through."""
        source = unmapped(self.dataset)[0] if self._streams else self._given
        name = article(type(source).__qualname__)
        if isinstance(source, Iterator):
            raise ArgumentError(
                f"{name} is an iterator, which can be read only once: nothing of it can be replayed; give an object "
                "whose iter() begins anew"
            )
        given = None if self._streams else apart(source)
        if given is None and hasattr(source, "load_state_dict"):
            raise ArgumentError(
                f"the {'dataset' if self._streams else 'sampler'}, {name}, keeps a state of its own, which replaying "
                "would move: load a state saved before the step into another loader, and read on from there"
            )
        if self._streams and not self._shares_stream:
            copies = saved.get("plan", {}).get("copies") or self._copies or self._readers
            return ReplicatedStream(copies, self.batch_size or 1, key).work(stream, step)
        drawn = saved.get("sampler") if cursor.sampler is None else cursor.sampler.state()
        if not self._streams and drawn is None and not (saved or isinstance(source, Sequence | np.ndarray)):
            raise ArgumentError(
                f"the order of epoch {epoch} is not known: {name} can only be passed through, and only the pass begun "
                "last, or that of a loaded state, can be replayed; planned samplers (ShardSampler, MixtureSampler, …) "
                "can be asked for any place"
            )
        with undisturbed(source):
            plan, _ = self._plan(key, stream, Cursor(Place(epoch, step)), {"sampler": drawn}, given)
            return plan.work(stream, step)

    def _recorder(self, place: Place, drawn: int, plan: BatchPlan | BatchSamplerPlan | None) -> Recorder | None:
        """Return what writes a loop's batches into the ledger, if there is one."""
        if self.ledger is None:
            return None
        facts = {**self._fingerprint(), "uneven": self.uneven}
        if self._key is None:
            facts["seed"] = drawn
        return start_recorder(
            self.ledger,
            parent=place.session,
            epoch=place.epoch,
            first=place.step,
            beyond=place.beyond,
            batches=place.batches,
            offset=place.offset,
            bad=place.bad,
            rank=self.rank,
            world=self.world_size,
            samples=None if plan is None else plan.samples,
            ends=None if plan is None else plan.ends,
            facts=facts,
        )

    def _whole(self, key: seeds.Key, epoch: int, first: int = 0, origin: int = 0) -> BatchPlan | BatchSamplerPlan:
        """Return the plan of a planned epoch, from a step on that begins at a sample."""
        replace = self.on_error == "replace"
        if self._planner is not None and self._given is self.batch_sampler:
            order = self._planner.batch_order(key)
            return BatchSamplerPlan(order, epoch, self._share, key, spare=replace, first=first, origin=origin)
        keys: Order
        if self._planner is not None:
            keys = FixedEpoch(self._planner, key, epoch)
        else:
            size = len(self.dataset)
            keys = Shuffled(size, key) if self._shuffle else Sequential(size)
        # Where bad samples are left out, the last batch is known to be short only when the end is reached.
        drop_last = self.drop_last and self.on_error != "skip"
        return BatchPlan(keys, self._share, drop_last, key, SPARES if replace else 0, first, origin)

    @property
    def _share(self) -> RankShare:
        return RankShare(self.batch_size or 1, self.rank, self.world_size, self.uneven)

    def _maker(self, *, again: bool) -> Maker:
        ours = self.collate_fn is self._collate
        collate: Collate = self.collate_fn
        if self.batch_size is None and self.batch_sampler is None:
            collate = Single(self.collate_fn)
        elif not ours and not takes_empty(self.collate_fn):
            collate = Plain(self.collate_fn)
        return Maker(
            self._reader(ours=ours, again=again), collate, self.on_error, writes_rows=ours, finish=self._finish
        )

    def _reader(self, *, ours: bool, again: bool) -> Source:
        if self._shares_stream:
            return SharedStream(unmapped(self.dataset)[1])
        if self._streams:
            stream, function = unmapped(self.dataset)
            drop_last = self.drop_last and self.on_error != "skip"
            return Streamed(self.dataset, stream, function, drop_last=drop_last, again=again)
        read_batch = batch_reader(self.dataset) if ours and self.on_error == "raise" else None
        if read_batch is not None:
            return Batched(self.dataset, read_batch, batch_beginner(self.dataset))
        return Indexed(self.dataset, singly=self.batch_size is None and self.batch_sampler is None)

    def _staff(self, maker: Maker, base: int) -> tuple[Executor, Callable[[], None]]:
        """Return who makes the batches of a loop, and what is to be done when it ends."""
        kind, ahead = self._kind, self.prefetch_factor or arguments.PREFETCH_FACTOR
        executor: Executor
        if kind == "inline":
            # Without a seed, the caller's own random.seed() and np.random.seed() reach the dataset, as on torch.
            executor = Inline(maker, seeds.GLOBALS if self._key is not None else ())
            return executor, executor.close
        if kind == "thread":
            if maker.begins:
                executor = Native(maker, self.num_workers, ahead)
                return executor, executor.close
            # A stream can be read by one thread only; so it is read once, ahead, and nothing is ever read twice.
            executor = Threads(maker, 1 if self._streams and not self._shares_stream else self.num_workers, ahead)
            return executor, executor.close
        kept = self._kept
        if kept is None or kept.closed:
            executor = kept = self._processes(maker, base, ahead)
            if not self.persistent_workers:
                return kept, kept.close
            self._kept = kept
        elif self._keeper is not None and (keeper := self._keeper()) is not None and keeper.running:
            executor = self._processes(maker, base, ahead)  # another loop is at work with those that are kept
            return executor, executor.close
        kept.reset()
        return kept, kept.reset

    def _processes(self, maker: Maker, base: int, ahead: int) -> Processes:
        import multiprocessing  # only where it is used

        from headrace.executors.processes.pool import Processes

        context = self.multiprocessing_context or multiprocessing.get_context(self._start_method)
        arguments.check_processes(context)
        return Processes(
            maker,
            self.num_workers,
            ahead,
            threads=self.threads_per_worker,
            context=context,
            init=self.worker_init_fn,
            seed=base,
            restarts=self.restart_workers,
            round_robin=self._ordered,
        )

    @property
    def _kind(self) -> arguments.Kind:
        processes_only = [
            name
            for name, given in (
                ("worker_init_fn", self.worker_init_fn),
                ("multiprocessing_context", self.multiprocessing_context),
                ("persistent_workers", self.persistent_workers),
                ("threads_per_worker", self.threads_per_worker > 1),
                ("restart_workers", self.restart_workers is not None),
            )
            if given
        ]
        collates = self.collate_fn not in (self._collate, self._convert)
        return arguments.kind_of_workers(
            self.workers, self.num_workers, self.dataset, processes_only=processes_only, collates=collates
        )

    @property
    def _shares_stream(self) -> bool:
        """Whether a stream is read here, once, shared out between ranks, and finished by the workers."""
        shares = self.world_size > 1 or self.uneven == "repeat"
        return self.shard == "auto" and (shares or self._kind != "inline")

    @property
    def _readers(self) -> int:
        """How many copies of a stream are read: one for each process, as in torch, else one."""
        return self.num_workers if self._streams and not self._shares_stream and self._kind == "process" else 1

    def _allowed(self, samples: int | None) -> int | None:
        if isinstance(self.max_errors, float):
            if samples is None:
                raise ArgumentError("max_errors as a fraction needs a dataset that has a length; give a count")
            return int(self.max_errors * samples)
        return self.max_errors

    def _check_count(self) -> None:
        most = cpus()
        if self._kind == "process" and self.num_workers > most:
            warnings.warn(
                f"This DataLoader will create {self.num_workers} worker processes in total, more than the {most} CPUs "
                "that this process may use: excessive worker creation might get DataLoader running slow or even freeze",
                UserWarning,
                stacklevel=3,
            )

    def _check_start(self) -> None:
        if self.timeout and self._kind == "inline":
            raise UnusableArgument(
                f"timeout={self.timeout:g} needs workers that can be waited for: num_workers=1 or more, or timeout=0"
            )
        if self.prefetch_factor == 0 and self._kind != "inline":
            raise UnusableArgument("prefetch_factor must be 1 or more for workers to have work; got 0")


def _is_subset(dataset: Any) -> bool:
    return any(kind.__name__ == "Subset" for kind in type(dataset).__mro__)  # torch's too, which checks nothing


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
