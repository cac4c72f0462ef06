"""A loader's settings: its arguments, read and checked once, and what follows from them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from headrace.checks import flag, function, kind_of, one_of, seconds, shown
from headrace.context import seeds
from headrace.datasets.protocol import batch_reader, is_iterable
from headrace.datasets.torchvision_datasets import NativeReading
from headrace.errors import ArgumentError, NotNativeWarning
from headrace.interop.generators import GeneratorLike, Stateful, resolve
from headrace.interop.keys import check_no_mask
from headrace.interop.user_line import user_line
from headrace.ledger.store import Ledger, open_ledger
from headrace.plan.batch_plan import RankShare, Uneven
from headrace.plan.order import BatchOrdered, Ordered
from headrace.run import arguments

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from headrace.make.maker import OnError
    from headrace.run.adapter import Adapter


@dataclass(frozen=True)
class Settings:
    """The arguments of a loader, checked; nothing of them changes later.

    ``shuffle`` is what the loader itself does. ``given_sampler`` is the user's sampler or batch sampler; ``sampler``
    and ``batch_sampler`` are what torch shows under these names. ``kind`` is the backend that ``backend`` came to.
    """

    adapter: Adapter
    dataset: Any
    streams: bool
    """Whether the dataset is read by iterating."""
    batch_size: int | None
    shuffle: bool
    sampler: Any
    batch_sampler: Any
    given_sampler: Any
    given_batches: bool
    """Whether ``given_sampler`` gives whole batches of keys."""
    num_workers: int
    collate_fn: Callable[..., Any]
    pin_memory: bool
    pin_memory_device: str
    drop_last: bool
    timeout: float
    worker_init_fn: Callable[[int], Any] | None
    multiprocessing_context: Any
    generator: GeneratorLike
    draws_from: Stateful | None
    """Where seeds are drawn from, if there is no ``seed``; None: the global generators."""
    prefetch_factor: int | None
    persistent_workers: bool
    in_order: bool
    seed: int | None
    backend: arguments.Backend
    kind: arguments.Kind
    free_kinds: tuple[arguments.Kind, ...]
    """The kinds that ``num_workers="auto"`` may choose from while loops run; none where the workers stay."""
    sets_prefetch: bool
    """Whether the user has set ``prefetch_factor``."""
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
    reading: NativeReading | None
    """What the native extension reads in place of ``dataset``; None without ``native``, or where it needs none."""
    given: Mapping[str, Any]
    """The constructor's arguments, which `changed` reads again."""

    @cached_property
    def key(self) -> seeds.Key | None:
        """The key of the seed; None without one."""
        return None if self.seed is None else seeds.key_of(self.seed)

    @property
    def share(self) -> RankShare:
        """This rank's part of every global batch."""
        return RankShare(self.batch_size or 1, self.rank, self.world_size, self.uneven)

    @property
    def single(self) -> bool:
        """Whether samples come one by one, not collated."""
        return self.batch_size is None and self.batch_sampler is None

    @property
    def own_collate(self) -> bool:
        """Whether the adapter's own function puts batches together."""
        return self.collate_fn is self.adapter.collate

    @property
    def ordered(self) -> bool:
        """Whether batches come in the order of their steps.

        Where they come as they are made, which steps are behind a loop depends on its own timing, and a state of one
        rank could not say what the others have had. BatchPlan that are refilled are cut from one order, too.
        """
        return self.in_order or self.on_error == "skip" or self.world_size > 1

    @property
    def drops_short(self) -> bool:
        """Whether a short last batch is known to be short beforehand, and dropped; refilling finds out at the end."""
        return self.drop_last and self.on_error != "skip"

    @property
    def shares_stream(self) -> bool:
        """Whether a stream is read here, once, shared between ranks and workers, and finished by the workers."""
        return self.read_once

    @property
    def has_copies(self) -> bool:
        """Whether each worker has its own copy of the dataset."""
        return self.kind in arguments.WITH_COPIES

    @property
    def workers_stay(self) -> bool:
        """Whether processes, each with its copy of the dataset, stay for the next epoch."""
        return self.persistent_workers and self.has_copies

    @property
    def readers(self) -> int:
        """How many copies of a stream are read: one for each process, as in torch, else one."""
        return self.num_workers if self.streams and not self.shares_stream and self.has_copies else 1

    def readable(self) -> Any:
        """Return what a loop reads: the dataset, or what the native extension reads in its place."""
        return _read(self.dataset, self.reading)

    @property
    def samples(self) -> int | None:
        """How many samples the dataset says it has now; None if it cannot say."""
        return arguments.length(self.dataset)

    def most_samples(self, sampler: Any = None) -> int | None:
        """Return how many samples an epoch has at most; None if nobody says, or nobody counts bad samples."""
        if self.on_error == "raise":  # a dataset's length may be slow to find out, or unknown
            return None
        return arguments.length(self.dataset if sampler is None else sampler)

    def allowed(self, samples: int | None) -> int | None:
        """Return how many bad samples an epoch of so many samples may have; None for any number."""
        if isinstance(self.max_errors, float):
            if samples is None:
                raise ArgumentError(
                    f"max_errors={self.max_errors:g} is a fraction of the dataset, but the dataset has no len()",
                    found=self.max_errors,
                    expected="a count, or a dataset with a length",
                    cure="give a count (an integer)",
                )
            return int(self.max_errors * samples)
        return self.max_errors

    @property
    def fixed(self) -> dict[str, Any]:
        """What a loader shows as its attributes and nobody may replace: all but the samplers."""
        return {name: value for name, value in self.shown().items() if name not in ("sampler", "batch_sampler")}

    def shown(self) -> dict[str, Any]:
        """Return what a loader shows as its attributes."""
        return {name: getattr(self, name) for name in SHOWN}


HIDDEN = {
    "adapter",
    "streams",
    "shuffle",
    "given_sampler",
    "given_batches",
    "draws_from",
    "kind",
    "free_kinds",
    "sets_prefetch",
    "reading",
    "given",
}
SHOWN = frozenset(one.name for one in fields(Settings)) - HIDDEN
"""The settings that a loader shows as attributes."""

CHANGEABLE = frozenset(
    {
        "num_workers",
        "collate_fn",
        "pin_memory",
        "pin_memory_device",
        "timeout",
        "worker_init_fn",
        "multiprocessing_context",
        "generator",
        "prefetch_factor",
        "in_order",
    }
)
"""Those that may be set later, as in torch: they say how batches are made, and not which."""


def changed(settings: Settings, name: str, value: Any) -> Settings:
    """Return the settings of a loader with another value of an argument; the samplers and the ledger stay."""
    found = read(settings.adapter, {**settings.given, name: value, "ledger": settings.ledger})
    stays = ("sampler", "batch_sampler", "given_sampler", "given_batches")
    return replace(found, **{each: getattr(settings, each) for each in stays})


def read(adapter: Adapter, given: dict[str, Any]) -> Settings:
    """Return the settings that a constructor's arguments stand for; raises `ArgumentError` for those unfit."""
    shuffle = None if given["shuffle"] is None else flag("shuffle", given["shuffle"])
    given["dataset"], given["shuffle"] = dataset, shuffle = adapter.receive(given["dataset"], shuffle)
    drop_last = flag("drop_last", given["drop_last"])
    persistent_workers = flag("persistent_workers", given["persistent_workers"])
    streams = is_iterable(dataset)
    if not streams and not hasattr(dataset, "__getitem__"):
        raise ArgumentError(
            f"dataset is {kind_of(dataset)}, which can be neither indexed nor iterated over",
            found=kind_of(dataset),
            expected="an object with __getitem__ and __len__, or with __iter__",
            cure="pass a dataset, a sequence or an iterable",
        )
    on_error, seed, generator = given["on_error"], given["seed"], given["generator"]
    one_of("on_error", on_error, arguments.POLICIES)
    arguments.backend(given["backend"])
    read_once = flag("read_once", given["read_once"])
    if seed is not None and generator is not None:
        raise ArgumentError(
            f"seed={shown(seed)} and generator= were both given",
            found=seed,
            expected="a seed, which fixes all epochs, or a generator, which each epoch draws its seed from",
            cure="leave one of them out",
        )
    if seed is not None:
        seeds.key_of(seed)
    workers = _workers(given, dataset, streams=streams, persistent=persistent_workers)
    order = _order(adapter, given, dataset, shuffle=shuffle, drop_last=drop_last, streams=streams)
    threads = arguments.threads_per_worker(
        given["threads_per_worker"], restarts=given["restart_workers"], streams=streams, read_once=read_once
    )
    rank, world_size = arguments.ranks(given["rank"], given["world_size"])
    one_of("uneven", given["uneven"], arguments.UNEVEN)
    if world_size > 1:
        by_itself = isinstance(given["sampler"], Ordered) or isinstance(given["batch_sampler"], BatchOrdered)
        planned = read_once if streams else (by_itself or order["given_sampler"] is None)
        arguments.check_ranks(seed, on_error, planned=planned, streams=streams)
    return Settings(
        adapter=adapter,
        dataset=dataset,
        streams=streams,
        **order,
        **workers,
        **threads,
        **_collating(adapter, given, dataset, order, workers["num_workers"]),
        drop_last=drop_last,
        generator=generator,
        draws_from=resolve(generator),
        seed=seed,
        read_once=read_once,
        rank=rank,
        world_size=world_size,
        uneven=given["uneven"],
        on_error=on_error,
        max_errors=arguments.max_errors(given["max_errors"], on_error),
        ledger=open_ledger(given["ledger"], rank),
        remember_tuning=arguments.remember_tuning(given["remember_tuning"], given["num_workers"]),
        given=given,
    )


def _native(adapter: Adapter, given: dict[str, Any], dataset: Any) -> dict[str, Any]:
    """Return the settings about the native extension: what it reads in place of a dataset; warn where it cannot."""
    native = flag("native", given["native"])
    # Where whole batches are made at once anyway, nothing is put in the dataset's place.
    if not native or batch_reader(dataset) is not None or adapter.reader(dataset) is not None:
        return {"native": native, "reading": None}
    reading = NativeReading(dataset, adapter.collate)
    _, refusal = reading.current()
    if refusal:
        _warn(refusal)
    return {"native": native, "reading": None if refusal else reading}


def _read(dataset: Any, reading: NativeReading | None) -> Any:
    """Return the dataset that samples are read from: it may have changed since the loader was made."""
    if reading is None:
        return dataset
    made, refusal = reading.current()
    if made is None:
        _warn(refusal)
        return dataset
    return made


def _warn(refusal: str) -> None:
    warnings.warn(
        f"native=True, but samples are made one by one, as on torch: {refusal}. print(headrace.explain(dataset)) shows "
        "each step; leave native=True out to silence this",
        NotNativeWarning,
        stacklevel=user_line(),
    )


def _collating(
    adapter: Adapter, given: dict[str, Any], dataset: Any, order: dict[str, Any], num_workers: int
) -> dict[str, Any]:
    """Return who puts batches together, on which backend, and what the native extension reads."""
    native = _native(adapter, given, dataset)
    collate_fn = function("collate_fn", given["collate_fn"])
    collate_fn = next((ours for theirs, ours in adapter.defaults if collate_fn is theirs), collate_fn)
    collates = collate_fn not in (None, adapter.collate, adapter.convert)
    single = order["batch_size"] is None and order["batch_sampler"] is None
    if native["reading"] is None:
        only = arguments.processes_only(given)
    else:
        # The extension's threads keep nothing from epoch to epoch that would have to stay. A function such as MixUp
        # draws from torch's global generator, which threads would share with each other and with the training.
        only = arguments.processes_only({**given, "persistent_workers": False}) + ["collate_fn"] * collates
    kind = arguments.kind_of_workers(
        given["backend"],
        num_workers,
        _read(dataset, native["reading"]),
        processes_only=only,
        collates=collates,
    )
    free = arguments.free_kinds(given, kind, num_workers, only=only, streams=is_iterable(dataset))
    default = adapter.convert if single else adapter.collate
    collate_fn = default if collate_fn is None else collate_fn  # one with a length may be empty
    found = {"collate_fn": collate_fn, "backend": given["backend"], "kind": kind, "free_kinds": free}
    together = arguments.threads_per_batch(
        given["threads_per_batch"], kind, workers=given["num_workers"], threads=given["threads_per_worker"]
    )
    return found | native | {"threads_per_batch": together}


def _workers(given: dict[str, Any], dataset: Any, *, streams: bool, persistent: bool) -> dict[str, Any]:
    """Return the settings about workers."""
    num_workers = arguments.worker_count(
        given["num_workers"], streams=streams, dataset=dataset, batch_size=given["batch_size"]
    )
    found = {
        "num_workers": num_workers,
        "timeout": 0 if given["timeout"] is None else seconds("timeout", given["timeout"]),
        "prefetch_factor": arguments.prefetch_factor(given["prefetch_factor"], num_workers),
        "sets_prefetch": given["prefetch_factor"] is not None,
    }
    if persistent and num_workers == 0:
        raise ArgumentError(
            "persistent_workers option needs num_workers > 0; got num_workers=0",
            found=num_workers,
            expected="num_workers > 0",
            cure="leave persistent_workers out, or give num_workers=1 or more",
        )
    return found | {
        "persistent_workers": persistent,
        "in_order": flag("in_order", given["in_order"]),
        "multiprocessing_context": arguments.start_method(given["multiprocessing_context"], num_workers),
        "pin_memory": flag("pin_memory", given["pin_memory"]),
        "pin_memory_device": given["pin_memory_device"],
        "worker_init_fn": function("worker_init_fn", given["worker_init_fn"]),
    }


def _order(
    adapter: Adapter, given: dict[str, Any], dataset: Any, *, shuffle: bool | None, drop_last: bool, streams: bool
) -> dict[str, Any]:
    """Return the settings about which samples make which batch."""
    batch_size, sampler, batch_sampler = given["batch_size"], given["sampler"], given["batch_sampler"]
    on_error = given["on_error"]
    if streams:
        arguments.check_stream(shuffle, sampler, batch_sampler, on_error)
    elif given["read_once"]:
        raise ArgumentError(
            f"read_once=True is for iterable datasets, but {kind_of(dataset)} has an index",
            found=True,
            expected="an iterable dataset",
            cure="leave read_once out; each sample of a dataset with an index is read once anyway",
        )
    check_no_mask("sampler", sampler)
    check_no_mask("the indices of a Subset", getattr(dataset, "indices", None) if _is_subset(dataset) else None)
    arguments.check_order(batch_size, shuffle, sampler, batch_sampler, drop_last, on_error)
    size = None if batch_sampler is not None else arguments.batch_size(batch_size)
    shown = (
        _default_sampler(adapter, dataset, given["generator"], shuffle=bool(shuffle), streams=streams)
        if sampler is None
        else sampler
    )
    batches = batch_sampler
    if batches is None and size is not None and shown is not None:
        batches = adapter.batch_sampler(shown, size, drop_last)
    return {
        "batch_size": size,
        "shuffle": bool(shuffle),
        "sampler": shown,
        "batch_sampler": batches,
        "given_sampler": sampler if batch_sampler is None else batch_sampler,
        "given_batches": batch_sampler is not None,
    }


def _default_sampler(adapter: Adapter, dataset: Any, generator: Any, *, shuffle: bool, streams: bool) -> Any:
    """Return the sampler that says what the order is like; the loader's own order needs none, nor does a stream."""
    if streams:
        return adapter.stream_sampler() if adapter.stream_sampler is not None else None
    if not shuffle:
        return adapter.sequential_sampler(dataset)
    if arguments.length(dataset) == 0:
        raise ArgumentError(
            "num_samples should be a positive integer value, but got num_samples=0: the dataset is empty",
            found=0,
            expected="a positive integer value",
            cure="give a dataset with samples, or shuffle=False",
        )
    if not adapter.takes_generator(generator):
        return adapter.random_sampler(dataset)
    return adapter.random_sampler(dataset, generator=generator)


def _is_subset(dataset: Any) -> bool:
    return any(kind.__name__ == "Subset" for kind in type(dataset).__mro__)  # torch's too, which checks nothing
