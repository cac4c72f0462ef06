"""A loader's arguments, read once: what can be used is returned, all else is an error that says what would do.

Where torch has words for an error, they are in ours: people search for them, and test suites match them.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING, Any

from headrace.checks import as_integer, integer, kind_of, non_negative, one_of, positive, shown
from headrace.datasets.protocol import suits_threads
from headrace.errors import ArgumentError, ArgumentTypeError
from headrace.executors import registry
from headrace.executors.shared_preparation import SharedPreparation
from headrace.interop import ranks as find_ranks
from headrace.interop.machine import cpus
from headrace.interop.user_line import user_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.make.maker import OnError

Backend = str | Callable[..., Any]
"""The name of an executor, "auto", or a factory of executors (`headrace.executors.registry.Factory`)."""
Kind = str
"""What a backend comes to: the name of an executor, or "custom" for the user's own factory."""
WITH_COPIES = ("processes", "ray")
"""The kinds whose workers each have their own copy of the dataset."""
POLICIES: tuple[OnError, ...] = ("raise", "skip", "replace")
UNEVEN = ("pad", "drop", "repeat")
PREFETCH_FACTOR = 2
MOST_THREADS = 64


def worker_count(value: Any, *, streams: bool, dataset: Any, batch_size: Any) -> int:
    """Return how many workers there are to be; for ``"auto"`` by the rule that `DataLoader` states."""
    if not isinstance(value, str):
        return non_negative("num_workers", value, "use num_workers=0 to make batches in the loop's own thread")
    if value != "auto":
        expected = 'a number from 0 up, or "auto"'
        cure = 'use num_workers="auto" to have the best number measured, or 0 for no workers'
        what = f"num_workers must be {expected}; got {shown(value)}"
        raise ArgumentTypeError(what, found=value, expected=expected, cure=cure)
    if streams:
        return 1
    size = batch_size if isinstance(batch_size, int) and batch_size > 0 else 1
    samples = length(dataset)
    return min(cpus(), cpus() if samples is None else ceil(samples / size))


def prefetch_factor(value: Any, num_workers: int) -> int | None:
    """Return how many batches each worker runs ahead; None where there is no worker."""
    if value is None:
        return PREFETCH_FACTOR if num_workers else None
    if num_workers == 0:
        raise ArgumentError(
            f"prefetch_factor option could only be specified in multiprocessing; got {shown(value)} with num_workers=0",
            found=value,
            expected="workers that run ahead",
            cure="let num_workers > 0, or leave prefetch_factor None",
        )
    return non_negative("prefetch_factor", value, "leave it None for the default")


def start_method(context: Any, num_workers: int) -> Any:
    """Return the multiprocessing context that workers are to be started by."""
    if context is None:
        return None
    if num_workers == 0:
        raise ArgumentError(
            "multiprocessing_context can only be used with multi-process loading (num_workers > 0), but got "
            f"num_workers={num_workers}",
            found=context,
            expected="worker processes",
            cure="give num_workers=1 or more, or leave multiprocessing_context None",
        )
    import multiprocessing
    from multiprocessing.context import BaseContext

    if isinstance(context, str):
        methods = multiprocessing.get_all_start_methods()
        if context not in methods:
            raise ArgumentError(
                f"multiprocessing_context option should specify a valid start method in {methods}, but got "
                f"multiprocessing_context={context!r}",
                found=context,
                expected=f"one of {', '.join(map(repr, methods))}",
                cure="leave it None for the platform's default",
            )
        return multiprocessing.get_context(context)
    if not isinstance(context, BaseContext):
        raise ArgumentTypeError(
            "multiprocessing_context option should be a valid context object or a string specifying the start method, "
            f"but got multiprocessing_context={shown(context)}",
            found=context,
            expected="a valid context object or a string specifying the start method",
            cure='give "fork", "spawn" or "forkserver", or what multiprocessing.get_context() returns',
        )
    if starts_threads(context):
        raise ArgumentError(
            f"multiprocessing_context={shown(context)} starts threads in the place of processes",
            found=context,
            expected="a context whose Process is a process",
            cure='pass backend="threads", without a multiprocessing_context',
        )
    return context


def starts_threads(context: Any) -> bool:
    """Return whether the processes of a multiprocessing context are threads, as those of MONAI may be."""
    process = getattr(context, "Process", None)
    return isinstance(process, type) and issubclass(process, threading.Thread)


def check_order(
    batch_size: Any, shuffle: Any, sampler: Any, batch_sampler: Any, drop_last: Any, on_error: OnError
) -> None:
    """Refuse two answers to the question which samples make which batch."""
    if sampler is not None and shuffle:
        raise ArgumentError(
            f"sampler option is mutually exclusive with shuffle; got shuffle={shown(shuffle)} and {kind_of(sampler)}",
            found=shuffle,
            expected="either a sampler, which decides the order, or shuffle=True",
            cure="leave shuffle out, or give a sampler that shuffles",
        )
    if batch_sampler is not None:
        if batch_size != 1 or shuffle or sampler is not None or drop_last:
            raise ArgumentError(
                "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, and drop_last; got "
                f"{kind_of(batch_sampler)} with {_given(batch_size, shuffle, sampler, drop_last)}",
                found=_given(batch_size, shuffle, sampler, drop_last),
                expected="a batch_sampler alone, which decides what is in each batch",
                cure="leave the other arguments out",
            )
        if on_error == "skip":
            raise ArgumentError(
                'on_error="skip" refills batches of one size, but batch_sampler decides what is in each batch',
                found="skip",
                expected="batches of one batch_size",
                cure='use on_error="replace", or a sampler with batch_size',
            )
    elif batch_size is None and drop_last:
        raise ArgumentError(
            "batch_size=None option disables auto-batching and is mutually exclusive with drop_last",
            found=drop_last,
            expected="drop_last=False, because single samples have no short last batch",
            cure="leave drop_last out, or give a batch_size",
        )


def check_stream(shuffle: Any, sampler: Any, batch_sampler: Any, on_error: OnError) -> None:
    """Refuse what needs an index."""
    for name, value in (("shuffle", shuffle or None), ("sampler", sampler), ("batch_sampler", batch_sampler)):
        if value is not None:
            raise ArgumentError(
                f"DataLoader with IterableDataset: expected unspecified {name} option, but got {name}={shown(value)}",
                found=value,
                expected=f"unspecified {name} option",
                cure=f"leave {name} out; an iterable dataset yields its samples in its own order",
            )
    if on_error == "replace":
        raise ArgumentError(
            'on_error="replace" needs a dataset with an index, to draw another sample from',
            found="replace",
            expected="a dataset with an index",
            cure='use on_error="skip"',
        )


def backend(value: Any) -> None:
    """Refuse what is neither the name of an executor, nor "auto", nor a factory."""
    if not callable(value):
        one_of("backend", value, ("auto", *registry.names()))


def processes_only(given: Mapping[str, Any]) -> list[str]:
    """Return the names of the arguments given that mean something to processes alone."""
    found = ["persistent_workers"] if given["persistent_workers"] else []
    found += [name for name in ("worker_init_fn", "multiprocessing_context") if given[name] is not None]
    found += ["threads_per_worker"] if given["threads_per_worker"] > 1 else []
    return found + (["restart_workers"] if given["restart_workers"] is not None else [])


def threads_per_worker(value: Any, *, restarts: Any, streams: bool, read_once: bool) -> dict[str, Any]:
    """Return the settings about threads and restarts of worker processes."""
    threads = integer("threads_per_worker", value, least=1, most=MOST_THREADS)
    if threads > 1 and streams and not read_once:
        raise ArgumentError(
            f"threads_per_worker={threads} was given for an iterable dataset, which one thread reads",
            found=threads,
            expected="a dataset with an index, or read_once=True",
            cure="use threads_per_worker=1, or pass read_once=True",
        )
    most = None if restarts is None else integer("restart_workers", restarts, least=0)
    return {"threads_per_worker": threads, "restart_workers": most}


def threads_per_batch(value: Any, kind: Kind, *, workers: Any, threads: int) -> int:
    """Return how many threads make a batch together, which must be of one process."""
    together = integer("threads_per_batch", value, least=1, most=MOST_THREADS)
    if together == 1 or kind == "custom" or workers == "auto":
        return together
    most, of = {
        "inline": (1, "there are no workers"),
        "threads": (workers, f"there are num_workers={workers} threads"),
        "processes": (threads, f"worker processes have threads_per_worker={threads}"),
    }.get(kind, (1, f"the workers are those of backend={kind!r}"))
    if together > most:
        raise ArgumentError(
            f"threads_per_batch={together} was given, but {of}",
            found=together,
            expected="at most as many as there are threads in one process",
            cure='use backend="threads" with more num_workers, or raise threads_per_worker',
        )
    return together


def own_workers(backend: Backend) -> Backend:
    """Return what the workers of this process are, where it may share its batches with others."""
    return backend.backend if isinstance(backend, SharedPreparation) else backend


def kind_of_workers(
    backend: Backend, num_workers: int, dataset: Any, *, processes_only: Sequence[str], collates: bool
) -> Kind:
    """Return where batches are made; for ``"auto"`` by the rule that `DataLoader` states.

    ``processes_only`` names the arguments given that mean something to processes alone; ``collates``: whether a
    function of the user's puts batches together.
    """
    backend = own_workers(backend)
    kind = getattr(backend, "kind", None)
    if callable(backend) and kind is None:
        return "custom"
    if num_workers == 0 or backend == "inline":
        return "inline"
    if callable(backend):  # one of ours with options of its own
        return str(kind)
    if backend != "auto":
        return backend
    if processes_only or not suits_threads(dataset, collates=collates):
        return "processes"
    return "threads"


def free_kinds(
    given: Mapping[str, Any], kind: Kind, num_workers: int, *, only: Sequence[str], streams: bool
) -> tuple[Kind, ...]:
    """Return which kinds of workers ``num_workers="auto"`` may choose from, its first choice first; none without it.

    All make the same bytes. ``only`` names the arguments given that mean something to processes alone.
    """
    own_order = streams and not given["read_once"]  # the samples of a stream depend on who reads it
    if given["num_workers"] != "auto" or not num_workers or kind not in ("threads", "processes") or own_order:
        return ()
    if given["backend"] != "auto":
        return (kind,) if given["backend"] == kind else ()
    if only:
        return (kind,)
    found = ("threads", "inline", "processes") if kind == "threads" else ("processes", "inline")
    return tuple(each for each in found if each != "inline" or not given["timeout"])


def remember_tuning(value: Any, num_workers: Any) -> bool | str | os.PathLike[str]:
    """Return whether the setting that a search finds is kept, or in which folder."""
    if not isinstance(value, bool | str | os.PathLike):
        raise ArgumentTypeError(
            f"remember_tuning must be True, False or a folder; got {kind_of(value)}",
            found=value,
            expected="True, False or the path of a folder",
            cure="pass remember_tuning=True for a file in the user's cache",
        )
    if value is not False and num_workers != "auto":
        raise ArgumentError(
            f'remember_tuning={shown(value)} needs num_workers="auto"; got num_workers={shown(num_workers)}',
            found=num_workers,
            expected='num_workers="auto", which measures what is to be remembered',
            cure='pass num_workers="auto", or leave remember_tuning out',
        )
    return value


def ranks(rank: Any, world_size: Any) -> tuple[int, int]:
    """Return this process's rank and how many there are; ``"auto"`` asks whoever knows."""
    if rank == "auto":
        if world_size is not None:
            raise ArgumentError(
                f'rank="auto" also sets world_size, but world_size={shown(world_size)} was given',
                found=world_size,
                expected='rank="auto" alone, or two numbers',
                cure='leave world_size out with rank="auto"',
            )
        return find_ranks.found()
    if (rank is None) != (world_size is None):
        given = f"rank={shown(rank)}, world_size={shown(world_size)}"
        raise ArgumentError(
            f"rank and world_size must be given together; got {given}",
            found=given,
            expected="both rank and world_size, or neither",
            cure='give both, or rank="auto"',
        )
    if rank is None:
        return 0, 1
    return find_ranks.checked(integer("rank", rank, least=0), integer("world_size", world_size, least=1))


def check_ranks(seed: Any, on_error: OnError, *, planned: bool, streams: bool) -> None:
    """Refuse what would let ranks disagree about which sample is whose, or about the number of steps."""
    if seed is None:
        raise ArgumentError(
            "world_size above 1 needs a seed, so that all ranks have one order; got seed=None",
            found=None,
            expected="a seed, the same for all ranks",
            cure="pass seed=0, or any other integer, to the loader of every rank",
        )
    if on_error == "skip":
        cure = (
            "leave bad samples out in the dataset itself, before ranks share it, or yield others in their place"
            if streams
            else 'use on_error="replace", which keeps the number of batches, or make the dataset without the bad '
            "samples (`headrace check` lists them)"
        )
        raise ArgumentError(
            'on_error="skip" cannot be used with world_size above 1: each rank skips its own bad samples, so ranks '
            "would get different numbers of batches",
            found="skip",
            expected="the same number of batches for every rank",
            cure=cure,
        )
    if not planned:
        raise ArgumentError(
            "rank and world_size cannot split an iterable dataset that every worker reads"
            if streams
            else "rank and world_size cannot split the order of a sampler that can only be iterated",
            found="an iterable dataset" if streams else "a sampler",
            expected="the loader's own order, or that of a planned sampler (ShardSampler, BucketBatchSampler, …)",
            cure="pass read_once=True, or split the dataset by rank in its __iter__"
            if streams
            else "use DistributedSampler without rank and world_size, or a planned sampler",
        )


def batch_size(value: Any) -> int | None:
    """Return the size of a batch; None for samples one by one."""
    return None if value is None else positive("batch_size", value)


def max_errors(value: Any, on_error: OnError) -> int | float | None:
    """Return how many bad samples an epoch may have: a count, or a fraction."""
    if value is None:
        return None
    if on_error == "raise":
        raise ArgumentError(
            f'max_errors={shown(value)} was given, but with on_error="raise" the first error ends the loop',
            found=value,
            expected='on_error="skip" or "replace"',
            cure='pass on_error="skip" or "replace", or leave max_errors out',
        )
    if isinstance(value, float) and 0 <= value < 1:
        return value
    count = as_integer(value)
    if count is not None and count >= 0:
        return count
    expected = "a count (an integer from 0 up) or a fraction of the dataset (a float from 0 up, under 1)"
    raise ArgumentError(
        f"max_errors must be {expected}; got {shown(value)}",
        found=value,
        expected=expected,
        cure="give 0 to allow no bad sample, or None to allow any number",
    )


def _given(batch_size: Any, shuffle: Any, sampler: Any, drop_last: Any) -> str:
    """Name the arguments that were given."""
    found = {
        "batch_size": None if batch_size == 1 else batch_size,
        "shuffle": shuffle or None,
        "sampler": sampler,
        "drop_last": drop_last or None,
    }
    return ", ".join(f"{name}={shown(value)}" for name, value in found.items() if value is not None)


def length(dataset: Any) -> int | None:
    """Return how many samples a dataset says it has; None if it cannot say, for whatever reason."""
    try:
        return len(dataset)
    except Exception:  # noqa: BLE001  a length that nobody needs must not end a run; who needs it calls len itself
        return None


def check_count(kind: Kind, num_workers: int) -> None:
    """Warn of more worker processes than there are CPUs."""
    if kind == "processes" and num_workers > (most := cpus()):
        warnings.warn(
            f"This DataLoader will create {num_workers} worker processes in total, more than the {most} CPUs "
            "that this process may use: excessive worker creation might get DataLoader running slow or even freeze",
            UserWarning,
            stacklevel=user_line(),
        )
