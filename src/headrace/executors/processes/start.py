"""How a worker process is started, and what it takes along."""

from __future__ import annotations

import contextlib
import signal
import threading
import warnings
from mmap import mmap
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from headrace.errors import WorkerDied
from headrace.executors.processes import current_sample, deaths, descriptors, worker
from headrace.executors.processes.descriptors import Descriptor
from headrace.executors.processes.main_guard import WORKER_NAME
from headrace.executors.processes.process import PATIENCE, WorkerProcess
from headrace.transport import shared
from headrace.transport.channel import Channel
from headrace.transport.slots import SlotReader

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.executors.processes.payload import Payload, Startup

HARMLESS = ("tqdm._monitor",)
"""Modules whose threads hold no lock that a child would ever want."""


def start_worker(context: Any, startup: Startup | Payload, number: int, threads: int, limit: int) -> WorkerProcess:
    """Start a worker process that gets at most ``limit`` works at once; if that fails, nothing is left of it.

    Raises `WorkerDied` where it cannot be started.
    """
    with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
        channel, end = descriptors.split(Channel.pair(), ours, theirs)
        # A life pipe for each worker: of a shared one, the kernel would notify a single reader.
        life, alive = descriptors.split(descriptors.pipe(), theirs, ours)
        stack, writer = descriptors.split(descriptors.pipe(), ours, theirs)
        descriptors.keep_from_children(channel, alive, stack)
        board = Descriptor(shared.create(current_sample.SIZE))
        theirs.callback(board.close)
        memory = mmap(board.fd, current_sample.SIZE)
        ours.callback(memory.close)
        current_sample.clear(memory)
        by_main_thread = threading.current_thread() is threading.main_thread()
        process = context.Process(
            target=worker.main,
            args=(startup, number, end.socket, life, board, writer, by_main_thread),
            name=f"{WORKER_NAME}{number}",
            daemon=True,
        )
        try:
            with _without_ctrl_c(context.get_start_method()):
                process.start()
        except (ConnectionError, EOFError):  # from Python 3.13 on, the fork server imports the script too
            raise WorkerDied("a worker process could not be started", cure=deaths.cause_and_cure(None)[1]) from None
        descriptors.disown_in_children(process)
        ours.callback(_kill, process)
        ended = descriptors.end_of(process)
        ours.callback(ended.close)
        descriptors.keep_from_children(ended)
        # Two slots more than it may have works in flight: for the batches that the user holds.
        started = WorkerProcess(number, process, channel, SlotReader(limit + 2), memory, threads, stack, alive, ended)
        ours.pop_all()
    return started


def other_threads() -> list[str]:
    """Name the threads that may hold a lock which a forked child never sees released."""
    ours = (threading.current_thread(), threading.main_thread())
    return [
        thread.name
        for thread in threading.enumerate()
        if thread not in ours and not thread.name.startswith("headrace") and type(thread).__module__ not in HARMLESS
    ]


def warn_of_threads() -> None:
    """Warn that a child never sees a lock released that another thread holds at the fork."""
    others = other_threads()
    if others:
        warnings.warn(
            f"worker processes are forked while other threads run ({', '.join(others[:5])}): this use of fork() may "
            "lead to deadlocks in the workers; multiprocessing_context='forkserver' has no such risk",
            RuntimeWarning,
            stacklevel=2,
        )


@contextlib.contextmanager
def _without_ctrl_c(method: str) -> Iterator[None]:
    """Block Ctrl-C in a new process until it has left that, in `worker.main`, to the loader."""
    if method == "forkserver":  # it would pass the block on to whatever else it starts for this program
        yield
        return
    if method == "spawn":
        resource_tracker.ensure_running()  # starting it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(process: Any) -> None:
    process.kill()
    process.join(PATIENCE)
    process.close()
