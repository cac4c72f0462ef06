"""A worker process, from its first line to its last.

    loader ──(ticket, work, slot)──> receive ─> maker.make ─> box.pack ──(ticket, message)──> loader

It ends when its channel closes, and there is no other way: no flag, no queue that another could spoil, no polling. When
the loader's process is killed, a pipe that only that process held open closes too, and the kernel kills the worker, in
the middle of C code as well.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import faulthandler
import fcntl
import mmap
import os
import pickle
import queue
import select
import signal
import struct
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing import process, reduction, resource_tracker
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.context import seeds, worker_info
from headrace.context.memory import Recycler, recycling
from headrace.context.seeds import Here
from headrace.errors import ArgumentTypeError
from headrace.executors import inherited
from headrace.executors.base import SCRATCH
from headrace.executors.inherited import Inherited
from headrace.interop.calls import article
from headrace.make.maker import Stop
from headrace.plan.work import Ended, Failed
from headrace.transport import shared
from headrace.transport.channel import LOST, Channel, close_quietly
from headrace.transport.slots import Box, Outbox

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from contextlib import AbstractContextManager
    from socket import socket

    from headrace.make.maker import Maker
    from headrace.plan.work import Outcome

STACK_SIGNAL = signal.SIGUSR2
"""Makes a worker write its Python stack, for the error that names it; does not interrupt what it does."""

PLACE = struct.Struct("<qq")
"""What a worker writes before each sample where the loader may read it: the step, and the row within the batch."""

PR_SET_PDEATHSIG = 1

NAME = "headrace-"
"""What the names of our workers begin with."""

UNGUARDED = 113
"""The exit code of a worker that has found the script it imports to start workers again."""

GUARD = "a script that starts processes must do so under `if __name__ == '__main__':` unless they are forked"

DEEPEST = 20
"""Levels of attributes that are looked through for what cannot be pickled."""


@dataclass(frozen=True, slots=True)
class Start:
    """What every worker is started with."""

    workers: int
    threads: int
    seed: int
    maker: Maker
    init: Callable[[int], Any] | None


class Payload:
    """What every worker needs, pickled once and handed to all of them in shared memory.

    Large arrays in it are not copied by anyone: workers map them, each page its own once written to.
    """

    def __init__(self, thing: Any) -> None:
        self._fd, self._spans = -1, [(0, 0)]
        self._inherited = Inherited()
        buffers: list[pickle.PickleBuffer] = []
        try:
            head = self._inherited.dumps(thing, buffers.append)
        except Exception as error:
            self._inherited.close()
            raise _unpicklable(thing, error) from error
        pieces = [memoryview(head), *(buffer.raw() for buffer in buffers)]
        starts = np.cumsum([0, *(-(-piece.nbytes // 64) * 64 for piece in pieces)]).tolist()
        self._size = max(starts[-1], 1)
        self._fd = shared.create(self._size)
        try:
            memory = shared.mapped(self._fd, self._size)
        except BaseException:
            self.close()
            raise
        self._spans = [(start, start + piece.nbytes) for start, piece in zip(starts, pieces, strict=False)]
        for (start, stop), piece in zip(self._spans, pieces, strict=True):
            memory[start:stop] = np.frombuffer(piece, np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        handed = [reduction.DupFd(fd) for fd in self._inherited.fds]
        return _payload, (reduction.DupFd(self._fd), self._size, self._spans, handed)

    def open(self) -> Any:
        """Load the thing, in the worker."""
        memory = mmap.mmap(self._fd, self._size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        os.close(self._fd)
        self._fd = -1
        view = memoryview(memory)
        pieces = [view[start:stop] for start, stop in self._spans]
        token = inherited.handed.set(self._inherited.fds)
        try:
            return pickle.loads(pieces[0], buffers=pieces[1:])  # noqa: S301  written by our own parent
        finally:
            inherited.handed.reset(token)

    def close(self) -> None:
        """Let go of the memory, in the loader's process: workers that were started have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._inherited.close()


class Handle:
    """A descriptor to be taken along by a worker, whichever way it is started."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _handle, (reduction.DupFd(self.fd),)

    def close(self) -> None:
        """Close it, once."""
        fd, self.fd = self.fd, -1  # first: another thread may fork meanwhile, and the number be somebody else's by then
        if fd >= 0:
            os.close(fd)


def _unpicklable(thing: Any, error: Exception) -> ArgumentTypeError:
    """Name the innermost part of what a worker needs that cannot be pickled."""
    path, part, seen = "", thing, 0
    while seen < DEEPEST:
        seen += 1
        for name, inner in _parts(part):
            try:
                _try_to_pickle(inner)
            except Exception as inner_error:  # noqa: BLE001  this one
                path, part, error = path + name, inner, inner_error
                break
        else:
            break
    path = path.replace(".maker.source._dataset", "dataset").replace(".maker.collate._function", "collate_fn")
    path = path.replace(".init", "worker_init_fn").replace(".maker.", "")
    return ArgumentTypeError(
        f"{path or 'the dataset'} ({article(type(part).__qualname__)}) cannot be sent to a worker process: {error}. "
        "Leave it out of what is pickled (__getstate__) and make it where it is used, start workers by fork, or use "
        "threads"
    )


def _try_to_pickle(thing: Any) -> None:
    trial = Inherited()
    try:
        trial.dumps(thing)
    finally:
        trial.close()


def _parts(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, dict):
        yield from ((f"[{key!r}]", value) for key, value in thing.items())
    elif isinstance(thing, list | tuple | set | frozenset):
        yield from ((f"[{number}]", value) for number, value in enumerate(thing))
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        yield from ((f".{field.name}", getattr(thing, field.name)) for field in dataclasses.fields(thing))
    elif not isinstance(thing, type | ModuleType):
        try:
            state = thing.__getstate__()
        except Exception:  # noqa: BLE001  a user's own, which may do anything
            return
        for attributes in state if isinstance(state, tuple) else (state,):
            if isinstance(attributes, dict):
                yield from ((f".{name}", value) for name, value in attributes.items())
        for cell, name in zip(getattr(thing, "__closure__", None) or (), _free(thing), strict=False):
            yield f" -> {name}", cell.cell_contents


def _free(function: Any) -> tuple[str, ...]:
    return tuple(getattr(getattr(function, "__code__", None), "co_freevars", ()))


def end_where_unguarded() -> None:
    """End this process where it is importing the script that has started it: a worker of ours, or the fork server.

    At once, whatever the script would make of an error: the loader says it, once.
    """
    here = process.current_process()
    if not getattr(here, "_inheriting", False):
        return
    if here.name == "MainProcess":  # the fork server, which may be another's
        sys.stderr.write(f"headrace: {GUARD}\n")
        sys.stderr.flush()
    elif not here.name.startswith(NAME):
        return
    os._exit(UNGUARDED)


@contextlib.contextmanager
def uninterrupted(method: str) -> Iterator[None]:
    """Start a process so that Ctrl-C cannot end it before it has said, in `main`, that it is not its to handle."""
    if method == "forkserver":  # it would pass that on to whatever else it starts for this program
        yield
        return
    if method == "spawn":
        resource_tracker.ensure_running()  # starting it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handle(duplicate: Any) -> Handle:
    return Handle(duplicate.detach())


def _payload(duplicate: Any, size: int, spans: list[tuple[int, int]], handed: list[Any]) -> Payload:
    payload = Payload.__new__(Payload)
    payload._fd, payload._size, payload._spans = duplicate.detach(), size, spans
    payload._inherited = Inherited()
    payload._inherited.fds = [each.detach() for each in handed]
    return payload


class _Desk(Here):
    """A place that the loader can see: which sample a worker was at when it died, or hung."""

    __slots__ = ("_at", "_board", "_start", "_step")

    def __init__(self, board: mmap.mmap, number: int) -> None:
        super().__init__()
        self._board, self._at, self._start, self._step = board, number * PLACE.size, 0, 0

    def begin(self, step: int, start: int) -> None:
        self._step, self._start = step, start

    def move(self, position: int, *, reading: bool = False, begun: np.random.Generator | None = None) -> None:
        Here.move(self, position, reading=reading, begun=begun)
        PLACE.pack_into(self._board, self._at, self._step, position - self._start)


def main(
    start: Start | Payload,
    number: int,
    end: socket,
    life: Handle,
    board: Handle,
    stack: Handle,
    by_thread: bool,
) -> None:
    """Serve works until the channel closes.

    ``by_thread``: the thread that starts this process lives as long as its own process, so that the kernel's notice of
    that thread's end may be taken for its process's.
    """
    threading.current_thread().name = process.current_process().name  # for notes on errors
    # Ctrl-C is the loader's to handle: it closes the channel. The worker only lets it know that this was the reason.
    os.set_blocking(stack.fd, False)
    faulthandler.register(signal.SIGINT, file=stack.fd, all_threads=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see `uninterrupted`
    if by_thread:
        _die_with_the_starting_thread()
    _die_with_the_parent(life.fd)
    # A worker may have loaders, and so processes, of its own; multiprocessing forbids that to daemons.
    process.current_process()._config["daemon"] = False  # type: ignore[attr-defined]
    with contextlib.closing(Channel(end)) as channel:
        try:
            ready = start.open() if isinstance(start, Payload) else start
            faulthandler.register(STACK_SIGNAL, file=stack.fd, all_threads=ready.threads > 1)
            worker_info.set_current(
                worker_info.WorkerInfo(number, ready.workers, ready.seed + number, ready.maker.source.dataset)
            )
            _one_thread_each()
            seeding = _begun(ready, number)
        except BaseException as error:  # noqa: BLE001  whatever a user's import, dataset or init raises, the loader says it
            with contextlib.suppress(OSError):  # the loader has heard it of another worker, and is gone
                channel.send(_message(None, "broken", *_carried(error)))
            return
        memory = mmap.mmap(board.fd, mmap.PAGESIZE)
        board.close()
        desks = [_Desk(memory, number) for number in range(ready.threads)]
        with contextlib.suppress(EOFError, OSError):  # the channel closed: all is done
            channel.send(_message(None, "ready"))
            if ready.threads == 1:
                _serve(channel, ready.maker, desks[0], seeding)
            else:
                _serve_on_threads(channel, ready.maker, desks)


def _begun(start: Start, number: int) -> set[str]:
    """Let the user's function prepare this worker; return which global generators are ours to seed for each batch.

    Those that the function has seeded are its own from then on. It finds them seeded as torch's workers have them:
    another for each worker, and from the loop's own seed.
    """
    words = np.random.SeedSequence((start.seed, number)).generate_state(8).astype(np.uint32)
    ours = set(seeds.global_states())
    seeds.seed_globals(words, ours - {"torch"})
    torch = sys.modules.get("torch")
    if "torch" in ours:
        torch.manual_seed(start.seed + number)  # type: ignore[union-attr]  # loaded: its state is among them
    if start.init is None:
        return {*ours, "torch"}  # which may be loaded later
    before = seeds.global_states()
    start.init(number)
    return {*ours, "torch"} - seeds.moved(before, seeds.global_states())


def _serve(channel: Channel, maker: Maker, desk: _Desk, seeding: set[str]) -> None:
    outbox = Outbox()
    with recycling(Recycler(keep=SCRATCH)):
        while True:
            _make(channel, maker, outbox, desk, _received(channel), seeding)


def _serve_on_threads(channel: Channel, maker: Maker, desks: list[_Desk]) -> None:
    """Make as many batches at once as there are desks; each is answered when it is made, in any order."""
    outbox, stop, lock = Outbox(), Stop(), threading.Lock()
    orders: queue.SimpleQueue[tuple[Any, ...] | None] = queue.SimpleQueue()

    def serve(desk: _Desk) -> None:
        with recycling(Recycler(keep=SCRATCH)), contextlib.suppress(OSError):
            while (order := orders.get()) is not None:
                _make(channel, maker, outbox, desk, order, (), lock, stop)

    name = threading.current_thread().name
    threads = [
        threading.Thread(target=serve, args=(desk,), name=f"{name}.{number}", daemon=True)
        for number, desk in enumerate(desks)
    ]
    for thread in threads:
        thread.start()
    try:
        while True:
            orders.put(_received(channel))
    finally:
        stop.set()
        for _ in threads:
            orders.put(None)
        for thread in threads:
            thread.join()


def _received(channel: Channel) -> tuple[Any, ...]:
    message, descriptor = channel.receive()
    if descriptor == LOST:
        raise RuntimeError("a worker process has too many files open to receive an order: raise the limit (ulimit -n)")
    order: tuple[Any, ...] = pickle.loads(message if descriptor is None else shared.taken(descriptor))  # noqa: S301  from our own parent
    return order


def _make(
    channel: Channel,
    maker: Maker,
    outbox: Outbox,
    desk: _Desk,
    order: tuple[Any, ...],
    seeding: Collection[str],
    lock: AbstractContextManager[Any] = contextlib.nullcontext(),  # noqa: B008  holds nothing
    stop: Stop | None = None,
) -> None:
    ticket, work, slot, fresh = order
    worker_info.tell_torch()  # a dataset may load it with its first sample
    box = outbox.begin(slot, fresh=fresh)
    desk.begin(work.step, work.start)
    outcome = maker.make(work, here=desk, empty=box.empty, stop=stop, seeding=seeding)
    message, descriptor = _packed(ticket, outcome, box)
    del outcome
    with lock:
        _answer(channel, message, descriptor)


def _packed(ticket: int, outcome: Outcome, box: Box) -> tuple[bytes, int | None]:
    if isinstance(outcome, Ended):
        return _message(ticket, "ended"), None
    if isinstance(outcome, Failed):
        return _message(ticket, "failed", outcome.place, *_carried(outcome.error)), None
    try:
        message, descriptor = box.pack(outcome.batch)
        # With a descriptor it is short; without memory for the batch there may be none for a message with it either.
        return _message(ticket, "done", message, outcome.bad, outcome.seconds, outcome.stream), descriptor
    except Exception as error:  # noqa: BLE001  whatever a user's __reduce__ raises
        unsent: Exception = error
        if not isinstance(error, MemoryError):
            unsent = TypeError(
                f"the batch cannot be sent from a worker process: {error}; give samples and batches that pickle can "
                "carry (arrays, numbers, strings, containers of them), or use threads"
            )
            unsent.__cause__ = error
        return _message(ticket, "failed", "the finished batch", *_carried(unsent)), None


def _message(*answer: Any) -> bytes:
    return pickle.dumps(answer, protocol=5)


def _answer(channel: Channel, message: bytes, descriptor: int | None) -> None:
    try:
        channel.send(message, descriptor)
    finally:
        close_quietly(descriptor)


def _carried(error: BaseException) -> tuple[bytes | None, str]:
    """Return an error as pickled bytes, if it survives the way there and back, and as the text of its traceback."""
    text = "".join(traceback.format_exception(error))
    try:
        data = pickle.dumps(error, protocol=5)
        same = type(pickle.loads(data)) is type(error)  # noqa: S301  what was just pickled
    except Exception:  # noqa: BLE001  whatever a user's exception class does when it is pickled
        return None, text
    return (data if same else None), text


def _die_with_the_parent(life: int) -> None:
    """Ask the kernel for SIGKILL when the other end of the life pipe closes; only the loader's process holds it."""
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(life, fcntl.F_GETFL)
        fcntl.fcntl(life, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    else:
        threading.Thread(target=_wait_for_death, args=(life,), daemon=True, name="headrace-life").start()
    poll = select.poll()
    poll.register(life, select.POLLHUP)
    if poll.poll(0):  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def _wait_for_death(life: int) -> None:
    os.read(life, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def _die_with_the_starting_thread() -> None:
    """Ask the kernel for SIGKILL when the thread that started this process ends (Linux's PR_SET_PDEATHSIG).

    It serves where somebody else holds the life pipe too: a process that the user has forked off the loader's.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _one_thread_each() -> None:
    """As many workers as cores, each with a thread pool as wide as the machine, would only get in each other's way."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)
