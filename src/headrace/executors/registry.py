"""Executors by name: which there are, and how each is made of a loader's settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from headrace.checks import kind_of, shown
from headrace.context.seeds import GLOBALS
from headrace.errors import ArgumentError, UnusableArgument
from headrace.executors.base import Executor
from headrace.executors.inline import Inline
from headrace.executors.native import Native
from headrace.executors.ray_cluster.cluster_options import RayCluster
from headrace.executors.threads import Threads
from headrace.executors.worker_options import Options
from headrace.interop.interrupt import held_back
from headrace.interop.machine import in_notebook

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

    from headrace.make.maker import Maker


Factory = Callable[["Maker", Options], "Executor"]
"""Makes an executor that makes batches by a maker: what ``backend=`` takes beside a name."""


def inline(maker: Maker, options: Options) -> Executor:
    """Make the executor that makes batches in the loop's own thread."""
    seeding: Collection[str] = GLOBALS if options.seeds_globals else ()
    return Inline(maker, seeding, leftover=options.leftover)


def threads(maker: Maker, options: Options) -> Executor:
    """Make the executor of threads: the native extension's own, where it makes whole batches."""
    if maker.begins:
        return Native(maker, options.workers, options.prefetch, leftover=options.leftover)
    return Threads(maker, options.workers, options.prefetch, together=options.together, leftover=options.leftover)


def processes(maker: Maker, options: Options) -> Executor:
    """Make the executor of worker processes."""
    with held_back():
        import multiprocessing  # only where it is used

        from headrace.executors.processes.pool import Processes

    context = options.context or multiprocessing.get_context(options.start_method or usual_start())
    check_processes(context)
    return Processes(
        maker,
        options.workers,
        options.prefetch,
        threads=options.threads,
        together=options.together,
        context=context,
        init=options.init,
        seed=options.seed,
        restarts=options.restarts,
        round_robin=options.in_turns,
    )


_factories: dict[str, Factory] = {
    "inline": inline,
    "threads": threads,
    "processes": processes,
    "ray": RayCluster(),
}


def usual_start() -> str | None:
    """Return how workers start if nothing else is given: not by fork in a notebook, whose process has threads."""
    import multiprocessing

    # Once a context exists, nothing says whether set_start_method chose "fork" or the platform did.
    return "forkserver" if in_notebook() and multiprocessing.get_start_method() == "fork" else None


def register(name: str, factory: Factory) -> None:
    """Let loaders find an executor by a name: ``DataLoader(..., backend=name)``.

    >>> from headrace.executors import registry
    >>> registry.register("same-thread", registry.inline)
    >>> "same-thread" in registry.names()
    True

    ``factory(maker, options)`` returns an `Executor` (`headrace.executors.base`). Raises `ArgumentError` for a name
    that is taken by another factory, or is no text, and for a factory that cannot be called.
    """
    if not isinstance(name, str) or not name or name == "auto":
        expected = "a text other than 'auto'"
        what = f"name must be {expected}; got {shown(name)}"
        raise ArgumentError(what, found=name, expected=expected, cure="give a short name, such as 'cluster'")
    if not callable(factory):
        raise ArgumentError(
            f"factory must be callable as factory(maker, options); got {shown(factory)}",
            found=factory,
            expected="callable as factory(maker, options)",
            cure="pass the class or the function that makes the executor",
        )
    if _factories.get(name, factory) is not factory:
        raise ArgumentError(
            f"an executor named {name!r} is registered already",
            found=name,
            expected=f"a name other than {', '.join(map(repr, _factories))}",
            cure="choose another name",
        )
    _factories[name] = factory


def names() -> list[str]:
    """Return the names of all executors."""
    return list(_factories)


def made(backend: str | Factory, maker: Maker, options: Options) -> Executor:
    """Make an executor, by its name or by a factory; raises `ArgumentError` for a factory that makes none."""
    executor = (backend if callable(backend) else _factories[backend])(maker, options)
    if not isinstance(executor, Inline) and not isinstance(executor, Executor):  # asking a protocol takes 30 µs
        raise ArgumentError(
            f"backend={shown(backend)} made {kind_of(executor)}",
            found=kind_of(executor),
            expected="an executor, with capacity, submit(), next() and close()",
            cure="see headrace.executors.Executor",
        )
    return executor


def check_processes(context: BaseContext) -> None:
    """Refuse worker processes where none can start: in a daemonic process, or without a script to import."""
    import multiprocessing

    if multiprocessing.current_process().daemon:
        raise UnusableArgument(
            "worker processes cannot be started here: this process is daemonic (as in multiprocessing.Pool), and "
            "daemonic processes are not allowed to have children",
            found="a daemonic process",
            expected="a process that may start others",
            cure='use threads: backend="threads", or num_workers=0',
        )
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if script is not None and context.get_start_method() != "fork" and not os.path.exists(script):  # noqa: PTH110
        raise UnusableArgument(
            f"worker processes cannot be started by {context.get_start_method()!r} here: each imports the main script "
            f"again, and there is no file {script!r} (the script came from standard input, or the file is gone)",
            found=script,
            expected="the file of the main script",
            cure='save it as a file, use multiprocessing_context="fork", or use threads: backend="threads"',
        )
