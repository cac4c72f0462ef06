"""The loader: its signature and documentation; everything else is delegated."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from headrace.errors import ArgumentError, IterationError
from headrace.formatting import count, html_table
from headrace.hints import LOADER, LOADER_METHODS, Hinted
from headrace.interop.keras_advice import AdvisesKeras
from headrace.run import arguments, lineage, past, settings
from headrace.run.adapter import NUMPY, Adapter
from headrace.run.monitor import offer_if_asked
from headrace.run.session import Session, batches_of
from headrace.run.timeline import MOST_BYTES, Timeline

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from types import TracebackType

    from headrace.interop.generators import GeneratorLike
    from headrace.ledger.store import Ledger
    from headrace.make.maker import OnError
    from headrace.plan.batch_plan import Uneven
    from headrace.run.lineage import Lineage
    from headrace.run.stats import Statistics

T_co = TypeVar("T_co", covariant=True)

_NONE = object()


class DataLoader(AdvisesKeras, Hinted, Generic[T_co]):
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
    first loop, and one more in each loop after it (`set_epoch` chooses). Without a seed, every loop draws one from
    ``generator`` (NumPy's, torch's, or an integer), else from torch's or NumPy's global generator.

    **Order**: as the dataset has it, or with ``shuffle`` a new one each epoch. ``sampler`` (any iterable of indices) or
    ``batch_sampler`` (any iterable of lists of indices) gives another. The order of a planned sampler (`ShardSampler`,
    `MixtureSampler`, `BucketBatchSampler` and others) is a function of seed and epoch, as the loader's own is: a loop
    can enter it anywhere, and ranks share it. With ``batch_size=None`` samples come one by one, not collated. With
    ``in_order=False`` batches come as they are made, so that a slow one delays no other; not with ``world_size`` above
    1, where one state must restore all ranks.

    **Workers**: ``num_workers`` of them make batches, at most ``prefetch_factor`` (2) each ahead of the loop. 0 makes
    them in the loop's own thread, and so does ``backend="inline"``. "auto" begins with one worker for each CPU that
    this process may use, no more than there are batches. While the first loops run, it measures other numbers and kinds
    of workers that give the same bytes, prints the best setting and keeps it (`statistics` has it as ``tuned``; the
    attribute ``num_workers`` is the number that it began with). ``remember_tuning=True``, or a folder,
    keeps it in a file for the next run. An iterable dataset without ``read_once`` gets 1 worker, and datasets with
    ``state_dict`` keep those they begin with. ``backend`` says what the workers are: "threads" suit code that releases
    the GIL, as decoding does; "processes" suit code that spends its time in Python. "auto" takes threads where the
    dataset says that they suit it (``suits_threads``: ours say so; so do lists and arrays, unless they come with a
    ``collate_fn``), and processes otherwise, or where an argument is given that only processes have. "ray", or
    `headrace.executors.RayCluster` with its options, makes them on the machines of a Ray cluster. `headrace.share` lets
    processes of one machine make each batch once. The name of your own executor (`headrace.executors.register`), or a
    factory, fits too.

    *Processes* start by ``multiprocessing_context`` (a name or a context; the platform's default), and each calls
    ``worker_init_fn(id)``. Batches come back in shared memory. A worker that dies is replaced, with a warning, and its
    batches are made again; ``restart_workers`` limits how often (0: the error is raised at once). With
    ``persistent_workers`` they stay for the next epoch, each with its copy of the dataset. ``threads_per_worker``: how
    many batches each makes at once, on threads of its own. ``threads_per_batch``: how many threads, workers or those of
    one process, make the samples of each batch together. Then the first batch comes sooner and fewer batches are in
    memory, as suits large batches of slow samples.

    An **iterable dataset** (`IterableDataset`, torch's too, or anything that has only ``__iter__``) is read in its own
    order. A thread reads it once, ahead of the loop. Processes follow torch's rule: each reads a copy, and
    `get_worker_info` tells the dataset which part is its own. ``read_once=True`` is for a dataset that does not ask:
    the loader's own process reads it once, and the workers apply the functions added with ``map``, and collate.

    ``collate_fn`` makes a batch of a list of samples (`default_collate` if None); if it has a parameter ``empty``, that
    lends it memory. ``on_error``: "raise" raises a sample's error at its step; "skip" leaves the sample out and refills
    the batch from what follows, so that all but the last have the same size; "replace" puts another sample, drawn at
    random from the same epoch, in its place. `statistics` names the bad samples, and ``max_errors`` (a count, or a
    fraction of the dataset) limits them in one epoch. ``timeout``: seconds to wait for a batch, else `WorkerTimeout`;
    0: no limit. ``pin_memory`` is for tensors: see `headrace.torch`. ``ledger``: a `Ledger`, or a folder in which each
    rank keeps one: it records each batch that the loop received, and `verify_epoch` proves that each sample came once.
    ``native=True``: the native extension reads a dataset of torchvision's (`headrace.explain` says which it recognizes)
    and draws other random numbers, of the same distributions; where it cannot, `NotNativeWarning` says why.

    A loop may be left at any time, and several may run at once. Workers end with the loop, with `close`, and when the
    iterator is dropped. Raises `ArgumentError` for arguments that cannot be used.
    """

    _adapter: ClassVar[Adapter] = NUMPY

    dataset: Any
    batch_size: int | None
    sampler: Any
    batch_sampler: Any
    num_workers: int
    collate_fn: Callable[..., Any]
    pin_memory: bool
    drop_last: bool
    timeout: float
    worker_init_fn: Callable[[int], Any] | None
    multiprocessing_context: Any
    generator: GeneratorLike
    prefetch_factor: int | None
    persistent_workers: bool
    pin_memory_device: str
    in_order: bool
    seed: int | None
    backend: arguments.Backend
    threads_per_worker: int
    threads_per_batch: int
    restart_workers: int | None
    read_once: bool
    rank: int
    world_size: int
    uneven: Uneven
    on_error: OnError
    max_errors: int | float | None
    ledger: Ledger | None
    remember_tuning: bool | str | os.PathLike[str]
    native: bool

    _argument_hints = LOADER
    _method_hints = LOADER_METHODS

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
        backend: arguments.Backend = "auto",
        threads_per_worker: int = 1,
        threads_per_batch: int = 1,
        restart_workers: int | None = None,
        read_once: bool = False,
        rank: int | Literal["auto"] | None = None,
        world_size: int | None = None,
        uneven: Uneven = "pad",
        on_error: OnError = "raise",
        max_errors: int | float | None = None,
        ledger: Ledger | str | os.PathLike[str] | None = None,
        native: bool = False,
        remember_tuning: bool | str | os.PathLike[str] = False,
    ) -> None:
        found = settings.read(
            self._adapter,
            {
                "dataset": dataset,
                "batch_size": batch_size,
                "shuffle": shuffle,
                "sampler": sampler,
                "batch_sampler": batch_sampler,
                "num_workers": num_workers,
                "collate_fn": collate_fn,
                "pin_memory": pin_memory,
                "drop_last": drop_last,
                "timeout": timeout,
                "worker_init_fn": worker_init_fn,
                "multiprocessing_context": multiprocessing_context,
                "generator": generator,
                "prefetch_factor": prefetch_factor,
                "persistent_workers": persistent_workers,
                "pin_memory_device": pin_memory_device,
                "in_order": in_order,
                "seed": seed,
                "backend": backend,
                "threads_per_worker": threads_per_worker,
                "threads_per_batch": threads_per_batch,
                "restart_workers": restart_workers,
                "read_once": read_once,
                "rank": rank,
                "world_size": world_size,
                "uneven": uneven,
                "on_error": on_error,
                "max_errors": max_errors,
                "ledger": ledger,
                "native": native,
                "remember_tuning": remember_tuning,
            },
        )
        self._show(found.shown())
        self._session = Session(found)
        self._check_count()

    def _show(self, shown: dict[str, Any]) -> None:
        vars(self).update(shown)

    def _check_count(self) -> None:
        arguments.check_count(self._session.settings.kind, self.num_workers)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in settings.SHOWN and "_session" in vars(self):
            # timm's MultiEpochsDataLoader opens torch's own lock, whose name Python mangles the same way here.
            open_lock = not vars(self).get("_DataLoader__initialized", True)
            if name in settings.CHANGEABLE:
                found = self._session.change(name, value)
                vars(self).update({each: getattr(found, each) for each in settings.CHANGEABLE})
                value = getattr(found, name)
            elif not (open_lock and name in ("sampler", "batch_sampler")):
                raise ArgumentError(
                    f"{name} attribute should not be set after {type(self).__name__} is initialized",
                    found=value,
                    expected=f"{name} as an argument of the constructor",
                    cure=f"make another loader, with {name}=",
                )
        object.__setattr__(self, name, value)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_session": copy.copy(self._session)}

    def __len__(self) -> int:
        """Return how many batches an epoch has; ``on_error="skip"`` can make it fewer.

        Where that differs from epoch to epoch, the next epoch is meant. Of an iterable dataset, what it says itself of
        all its copies together; a loop that gives more then warns.
        """
        session = self._current()
        batches = batches_of(session.order, session.settings, session.progress.epoch)
        if session.settings.streams:
            session.promise.made(batches)
        return batches

    def __iter__(self) -> Iterator[T_co]:
        """Begin a loop over the next epoch."""
        session = self._current()
        offer_if_asked(session)
        return session.loop(self._adapter.place(self))

    async def __aiter__(self) -> AsyncIterator[T_co]:
        """Begin a loop over the next epoch once its first batch is asked for; waiting for a batch blocks the thread.

        `tqdm.auto` looks for this. Without it, its bar would begin a loop that it never reads, beside the one that it
        reads: every other epoch would be left out, and so would the rest of an epoch that a loaded state is in.
        """
        for batch in self:
            yield batch

    def _current(self) -> Session:
        """Return the session, which reads from the sampler that a subclass put in the place of ours, as torch does."""
        self._session.adopt(self.sampler, self.batch_sampler)
        return self._session

    def batches(self, *, endless: bool = False) -> Iterator[T_co]:
        """Return a generator of the next epoch's batches; with ``endless``, of all epochs from there on.

        >>> from headrace import DataLoader
        >>> steps = DataLoader([1, 2, 3], batch_size=2).batches(endless=True)
        >>> [next(steps).tolist() for _ in range(3)]
        [[1, 2], [3], [1, 2]]
        >>> steps.close()

        Closing it ends its workers. Raises `IterationError` if an epoch is empty, because the loop would never end.
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
                raise IterationError(
                    "an endless generator of batches needs batches, but an epoch gave none",
                    found=0,
                    expected="at least one batch in each epoch",
                    cure="check the dataset, or use drop_last=False",
                )
            del batch

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch the next loop reads, from its beginning; later loops continue from there.

        If a loaded state is partway through this epoch, the loop resumes there: scripts call this before every epoch.
        """
        self._session.progress.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the place of the run, as a few numbers that JSON can hold: what comes next was not received.

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

        It may be called at any moment, from any thread, with a loop running or not. It names the place after the last
        batch that the newest loop delivered, whatever was made ahead of it. After the end of an epoch, that is the
        beginning of the next. Without a ``seed``, a state taken between two loops draws the seed
        of the next one: this loader, and one that loads the state, then continue with the same order.
        """
        return self._session.progress.state_dict(self._session.order)

    def load_state_dict(self, state: dict[str, Any], *, strict: bool = True) -> None:
        """Let the next loop resume where a state was saved, with exactly the batches that would have come.

        The number and kind of workers may differ, and so may the number of ranks. Raises `StateMismatch` for a state of
        another dataset, batch size, seed or order, and says what differs; with ``strict=False`` the loop continues all
        the same, from the sample at which the other run was. Loops over indexed datasets get there at once; samplers
        and streams that keep no state of their own are read up to there.
        """
        fit = self._session.progress.check(state, self._session.order, strict=strict)
        self.close()
        self._session.progress.load(fit)

    def replay(self, *, epoch: int, step: int, index: int | None = None) -> Any:
        """Return a batch of any epoch as it was, or the sample at an index of it, and read nothing else.

        >>> import numpy as np
        >>> from headrace import ArrayDataset, DataLoader
        >>> noisy = ArrayDataset(np.arange(9.0)).map(lambda x, rng: x + rng.random())
        >>> loader = DataLoader(noisy, 2, shuffle=True, seed=0, num_workers=2)
        >>> batches = list(loader)
        >>> np.array_equal(loader.replay(epoch=0, step=3), batches[3])
        True
        >>> bool(loader.replay(epoch=0, step=3, index=1) == batches[3][1])
        True

        It is made in the caller's thread, of this rank's part; running loops and the state stay as they are. Code that
        draws from elsewhere than `headrace.rng` repeats itself only where one thread at a time made batches. Any place
        of the dataset's own order, or of a planned sampler's, can be replayed. Without a ``seed``, and of any other
        sampler, only the newest epoch, or that of a loaded state, is known; samplers and streams are read up to there.
        Raises `ArgumentError` for a step, an index or an epoch that is not known, for an iterable dataset that can be
        read only once or keeps a state of its own, and with ``on_error="skip"``; and what the dataset raises.
        """
        session = self._current()
        work, _ = past.work_at(session, epoch, step)
        maker = session.maker()
        return lineage.batch(maker, work) if index is None else lineage.traced(maker, work, index)[0]

    def lineage(self, *, epoch: int, step: int, index: int) -> Lineage:
        """Return where a sample of a batch came from and what was done to it, as far as `replay` can make it again.

        >>> import numpy as np
        >>> from headrace import ArrayDataset, DataLoader
        >>> noisy = ArrayDataset(np.arange(9.0)).map(lambda x, rng: x + rng.random())
        >>> lineage = DataLoader(noisy, 2, shuffle=True, seed=0).lineage(epoch=0, step=3, index=1)
        >>> lineage.dataset, lineage.position, [str(draw) for draw in lineage.steps[0].draws]
        ((('Mapped', 5), ('ArrayDataset', 5)), 7, ['random() = 0.7845'])
        """
        return past.lineage_of(self._current(), epoch, step, index)

    def statistics(self) -> Statistics:
        """Return what the newest loop has done so far; cheap, and safe from another thread."""
        return self._session.statistics()

    def trace(self, path: str | os.PathLike[str], *, max_bytes: int = MOST_BYTES) -> Timeline:
        """Write what happens to each batch into a file that https://ui.perfetto.dev and chrome://tracing open.

        >>> import tempfile
        >>> from headrace import DataLoader
        >>> loader = DataLoader(range(100), batch_size=10, num_workers=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with loader.trace(folder + "/epoch.json"):
        ...         for batch in loader:
        ...             pass

        For each batch it shows the thread and the process that made it, and when it was requested, made, sent and
        delivered. For each sample it shows the stages (read, decode, transform, collate). It records the loops that
        begin while it is open. The end of its block, ``close()`` or the next ``trace`` closes it. The file takes at
        most ``max_bytes``, and memory does not grow with the loop. Raises `ArgumentError` for a file that cannot be
        written.
        """
        timeline = Timeline(path, max_bytes)
        before, self._session.timeline = self._session.timeline, timeline
        if before is not None:
            before.close()
        return timeline

    def close(self) -> None:
        """End all running loops and their workers; a new loop may begin afterwards."""
        self._session.close()

    def __enter__(self) -> DataLoader[T_co]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        found = self._session.settings
        of = "" if found.samples is None else f" of {found.samples}"
        return (
            f"{type(self).__name__}(<{type(self.dataset).__qualname__}{of}>, batch_size={self.batch_size}, "
            f"shuffle={found.shuffle}, num_workers={self.num_workers})"
        )

    def _repr_html_(self) -> str:
        found = self._session.settings
        of = "" if found.samples is None else f" of {count(found.samples, 'sample')}"
        rows = [
            ("dataset", f"{type(self.dataset).__qualname__}{of}"),
            ("batch size", str(self.batch_size)),
            ("order", "shuffled" if found.shuffle else type(self.sampler).__name__),
            ("workers", f"{found.num_workers} {found.kind}" if found.num_workers else "none: the loop's own thread"),
            ("seed", "drawn for each epoch" if self.seed is None else str(self.seed)),
        ]
        statistics = self.statistics()
        return html_table(rows, left=2, title=type(self).__name__, heading=False) + (
            statistics._repr_html_() if statistics.batches else ""
        )
