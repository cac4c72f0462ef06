"""A worker process, from its first line to its last.

    loader ──Order──> receive ─> maker.make ─> writer.pack ──Made──> loader

It ends when its channel closes, and in no other way: no flag, no queue that another process could spoil, no polling.
When the loader's process is killed, the kernel kills the worker, even in the middle of C code (see parent_death).
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import mmap
import os
import signal
import sys
import threading
import traceback
from multiprocessing import process
from time import perf_counter
from typing import TYPE_CHECKING, Any

from headrace.context import seeds, worker_info
from headrace.context.memory import Recycler, recycling
from headrace.context.sharing import sharing
from headrace.executors.base import SCRATCH
from headrace.executors.not_sent import batch_not_sent
from headrace.executors.processes import current_sample, messages
from headrace.executors.processes.current_sample import ReportedHere
from headrace.executors.processes.messages import (
    DESCRIPTORS_CLOSED,
    STACK_SIGNAL,
    Answer,
    Broken,
    Exhausted,
    Made,
    NotMade,
    Order,
    Ready,
    RemoteError,
    packed,
)
from headrace.executors.processes.parent_death import die_with_the_loader, die_with_the_starting_thread
from headrace.executors.processes.payload import Payload, Startup
from headrace.executors.processes.preparing import one_thread_each, prepare
from headrace.executors.thread_tasks import ThreadTasks
from headrace.make.maker import Stop
from headrace.plan.work import Ended, Failed
from headrace.storage.request_loop import stoppable
from headrace.transport.channel import Channel, close_quietly
from headrace.transport.slots import SlotAllocator

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from contextlib import AbstractContextManager
    from socket import socket

    from headrace.executors.processes.descriptors import Descriptor
    from headrace.make.maker import Maker
    from headrace.plan.work import Outcome
    from headrace.transport.slots import SlotWriter


def main(
    startup: Startup | Payload,
    number: int,
    end: socket,
    life: Descriptor,
    board: Descriptor,
    stack: Descriptor,
    by_main_thread: bool,
) -> None:
    """Serve works until the channel closes.

    ``by_main_thread``: the thread that starts this process lives as long as its own process, so that the kernel's
    notice of that thread's end is as good as a notice of its process's.
    """
    threading.current_thread().name = process.current_process().name  # for notes on errors
    # Ctrl-C is for the loader, which then closes the channel. The worker only lets it know that this was the reason.
    os.set_blocking(stack.fd, False)
    faulthandler.register(signal.SIGINT, file=stack.fd, all_threads=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by whoever started this process
    if by_main_thread:
        die_with_the_starting_thread()
    die_with_the_loader(life.fd)
    # A worker may have loaders, and so processes, of its own; multiprocessing forbids that to daemons.
    process.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    with contextlib.closing(Channel(end)) as channel, _ending_with_the_channel():
        try:
            ready = startup.open() if isinstance(startup, Payload) else startup
            faulthandler.register(STACK_SIGNAL, file=stack.fd, all_threads=ready.threads > 1)
            worker_info.set_current(
                worker_info.WorkerInfo(number, ready.workers, ready.seed + number, ready.maker.source.dataset)
            )
            one_thread_each()
            ready.maker.ambient.enter_process()
            seeding = prepare(ready, number)
        except BaseException as error:  # noqa: BLE001  whatever a user's import, dataset or init raises
            channel.send(packed(Broken(RemoteError.of(error))))
            return
        memory = mmap.mmap(board.fd, current_sample.SIZE)
        board.close()
        places = [ReportedHere(memory, thread) for thread in range(ready.threads)]
        channel.send(packed(Ready()))
        service = _Service(channel, ready.maker)
        if ready.threads == 1:
            service.run(places[0], seeding)
        else:
            service.run_threads(places)


@contextlib.contextmanager
def _ending_with_the_channel() -> Iterator[None]:
    """Leave a block quietly when the loader is gone; end the process if the user's code closed its descriptors.

    At once then, because other threads may wait on descriptors that are closed for ever.
    """
    try:
        yield
    except (EOFError, ConnectionError):
        return
    except OSError as error:
        if error.errno in (errno.EBADF, errno.ENOTSOCK):  # the second where a file has the number now
            os._exit(DESCRIPTORS_CLOSED)
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


class _Service:
    """Makes the batches that are ordered, in one thread or several."""

    def __init__(self, channel: Channel, maker: Maker) -> None:
        self._channel = channel
        self._maker = maker
        self._slots = SlotAllocator()
        self._sending: AbstractContextManager[Any] = contextlib.nullcontext()

    def run(self, here: ReportedHere, seeding: Collection[str]) -> None:
        """Make batches until the channel closes, one after the other."""
        with recycling(Recycler(keep=SCRATCH)):
            while True:
                self._make(messages.receive_order(self._channel), here, seeding)

    def run_threads(self, places: list[ReportedHere]) -> None:
        """Make as many batches at once as there are places; each is answered when it is made, in any order."""
        self._sending = threading.Lock()
        stop = Stop()
        tasks: ThreadTasks[Order] = ThreadTasks(len(places), stop)

        def serve(here: ReportedHere) -> None:
            self._maker.ambient.enter_thread()
            shares = sharing(tasks.share) if self._maker.together > 1 else contextlib.nullcontext()
            with (
                recycling(Recycler(keep=SCRATCH)),
                shares,
                stoppable(stop.requests),
                _ending_with_the_channel(),
            ):
                while (order := tasks.next()) is not None:
                    if isinstance(order, Order):
                        self._make(order, here, (), stop)
                    else:
                        with seeds.at(here):
                            order.run()
                    del order  # a job holds the rows of a batch

        name = threading.current_thread().name
        threads = [
            threading.Thread(target=serve, args=(here,), name=f"{name}.{number}", daemon=True)
            for number, here in enumerate(places)
        ]
        for thread in threads:
            thread.start()
        try:
            while True:
                tasks.put(messages.receive_order(self._channel))
        except EOFError:
            stop.set()
            tasks.close()
            for thread in threads:
                thread.join()

    def _make(self, order: Order, here: ReportedHere, seeding: Collection[str], stop: Stop | None = None) -> None:
        ticket, work, slot, fresh = order
        worker_info.tell_torch()  # a dataset may load it with its first sample
        writer = self._slots.begin(slot, fresh=fresh)
        here.begin(work.step, work.start)
        # Nothing but batches runs in this process.
        outcome = self._maker.make(work, here=here, empty=writer.empty, stop=stop, seeding=seeding, gives_back=False)
        message, descriptor = _answered(ticket, outcome, writer)
        del outcome
        try:
            with self._sending:
                self._channel.send(message, descriptor)
        finally:
            close_quietly(descriptor)


def _answered(ticket: int, outcome: Outcome, writer: SlotWriter) -> tuple[bytes, int | None]:
    """Return an answer, and the descriptor to send with it."""
    answer: Answer
    if isinstance(outcome, Ended):
        answer = Exhausted(ticket, outcome.stream)
    elif isinstance(outcome, Failed):
        answer = NotMade(ticket, outcome.place, RemoteError.of(outcome.error))
    else:
        try:
            message, descriptor = writer.pack(outcome.batch)
            # With a descriptor it is short; without memory for the batch it may have no descriptor, however long.
            made = Made(
                ticket,
                message,
                outcome.bad,
                dict(outcome.seconds),
                outcome.stream,
                outcome.tokens,
                outcome.making,
                perf_counter(),
            )
            return packed(made), descriptor
        except Exception as error:  # noqa: BLE001  whatever a user's __reduce__ raises
            answer = NotMade(ticket, "the finished batch", RemoteError.of(batch_not_sent(error, "a worker process")))
    return packed(answer), None
