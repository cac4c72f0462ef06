"""The executor of processes: for datasets whose time goes into Python itself.

                 ┌─ channel ─> worker 0 ─┐
    submit ──────┼─ channel ─> worker 1 ─┼──> next (waits on all channels at once)
                 └─ channel ─> worker n ─┘

Each worker has one channel, two slots more than it may have works in flight, and knows nothing of the others. Closing
its channel is the whole shutdown; the channel closing by itself is the worker's death, noticed at once. Because a work
says all, what a dead worker had in hand is made again by the one that takes its place, each batch exactly once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import select
import selectors
import signal
import threading
import warnings
import weakref
from collections import Counter, deque
from dataclasses import dataclass, field
from mmap import PAGESIZE, mmap
from time import monotonic
from typing import TYPE_CHECKING, Any

from headrace.errors import LoaderClosed, RemoteTraceback, WorkerDied, WorkerTimeout
from headrace.executors import worker
from headrace.transport import shared
from headrace.transport.channel import Channel
from headrace.transport.slots import Inbox
from headrace.work import Done, Ended, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.maker import Maker
    from headrace.work import Outcome, Work

PATIENCE = 5.0
"""Seconds that closing waits for the samples at hand to end before it kills their workers."""

STUCK = 30.0
"""Seconds without any batch after which a warning says what the workers are doing."""

DEADLY = 3
"""Workers that one batch may kill before it is held to be the cause."""

_ends: weakref.WeakSet[Channel | worker.Handle] = weakref.WeakSet()
"""What only this process may hold open of all its executors: a worker that is forked closes its copies."""


@dataclass(eq=False, slots=True)
class _Worker:
    number: int
    process: Any
    channel: Channel
    inbox: Inbox
    board: mmap
    stack: worker.Handle
    alive: worker.Handle
    """Our end of its life pipe: nothing is ever written; it closes with us."""
    waiting: deque[Work] = field(default_factory=deque)
    """Works that are not sent yet: no more are under way than have slots, and no channel is ever filled."""
    flying: deque[tuple[Work, int]] = field(default_factory=deque)
    """Works that are sent, each with the slot for its batch; answered in this order."""
    ready: bool = False

    def sample(self) -> str:
        """Say what it is, or was, working on."""
        if not self.flying:
            return "idle" if self.ready else "starting"
        work, _ = self.flying[0]
        step, row = worker.PLACE.unpack_from(self.board, 0)
        if step != work.step or not 0 <= row < len(work.keys):
            return f"batch {work.step}"
        return f"sample {work.keys[row]!r} of batch {work.step}"


class Processes:
    """Makes batches in ``workers`` processes, at most ``workers * prefetch`` ahead of the consumer."""

    def __init__(
        self,
        maker: Maker,
        workers: int,
        prefetch: int = 2,
        *,
        context: Any = None,
        init: Callable[[int], Any] | None = None,
        seed: int = 0,
        restarts: int | None = None,
    ) -> None:
        self.capacity = workers * prefetch
        self._context = context if context is not None else multiprocessing.get_context()
        self._prefetch = prefetch
        self._restarts = restarts
        self._deaths: Counter[int] = Counter()
        self._ready: deque[Outcome] = deque()
        self._turn = 0
        self._pid = os.getpid()
        self._stillborn = 0
        start = worker.Start(workers, seed, maker, init)
        self._forks = self._context.get_start_method() == "fork"
        self._payload = start if self._forks else worker.Payload(start)
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._finish = weakref.finalize(
            self, _finish, self._workers, self._selector, None if self._forks else self._payload
        )
        try:
            for number in range(workers):
                self._workers.append(self._begin(number))
            if init is not None:  # its errors belong here, not to the first batch
                self._await_all()
        except BaseException:
            self._finish()
            raise

    def submit(self, work: Work) -> None:
        """Hand a work to the worker whose turn it is."""
        if not self._finish.alive:
            raise LoaderClosed("a work was submitted to a closed executor")
        chosen = self._workers[self._turn % len(self._workers)]
        self._turn += 1
        chosen.waiting.append(work)
        self._send(chosen)

    def next(self, timeout: float | None = None) -> Outcome:
        """Return the outcome that is ready first."""
        if os.getpid() != self._pid:
            raise LoaderClosed("this loop was begun before the process forked: begin a new one in the child")
        warned = False
        while not self._ready:
            if not self._finish.alive:
                raise LoaderClosed("the loader was closed while a loop was still reading from it")
            events = self._selector.select(timeout if timeout is not None else None if warned else STUCK)
            if not events and timeout is not None:
                raise WorkerTimeout(f"no batch came within {timeout} s. {self._explain()}")
            if not events:
                warned = True
                warnings.warn(f"no batch came within {STUCK:g} s. {self._explain()}", RuntimeWarning, stacklevel=2)
            for key, _ in events:
                self._receive(key.data)
        return self._ready.popleft()

    def close(self) -> None:
        """Close the channels, and wait for the workers to end."""
        if os.getpid() == self._pid:
            self._finish()
        else:
            self._finish.detach()

    def _begin(self, number: int) -> _Worker:
        ours, theirs = Channel.pair()
        # A life pipe for each worker: of a shared one, the kernel would tell one reader only.
        (life, alive), (stack, writer) = (map(worker.Handle, os.pipe()) for _ in range(2))
        board = worker.Handle(shared.create(PAGESIZE))
        _ends.update((ours, alive, stack))
        try:
            process = self._context.Process(
                target=worker.main,
                args=(
                    self._payload,
                    number,
                    theirs.socket,
                    life,
                    board,
                    writer,
                    list(_ends) if self._forks else [],
                    threading.current_thread() is threading.main_thread(),
                ),
                name=f"headrace-{number}",
                daemon=True,
            )
            process.start()
            seen = mmap(board.fd, PAGESIZE)
        except BaseException:
            for each in (ours, alive, stack):
                each.close()
            raise
        finally:
            for each in (theirs, life, writer, board):
                each.close()
        started = _Worker(number, process, ours, Inbox(self._prefetch + 2), seen, stack, alive)
        self._selector.register(ours, selectors.EVENT_READ, started)
        return started

    def _await_all(self) -> None:
        while not all(each.ready for each in self._workers):
            for key, _ in self._selector.select():
                self._receive(key.data)

    def _send(self, to: _Worker) -> None:
        while to.waiting and len(to.flying) < self._prefetch:
            work = to.waiting.popleft()
            slot, fresh = to.inbox.lend()
            to.flying.append((work, slot))
            with contextlib.suppress(OSError):  # its death is noticed, and dealt with, where its channel is read
                to.channel.send(pickle.dumps((work, slot, fresh), protocol=5))

    def _receive(self, sender: _Worker) -> None:
        try:
            message, descriptor = sender.channel.receive()
        except (EOFError, OSError):
            self._bury(sender)
            return
        kind, *rest = pickle.loads(message)  # noqa: S301  from our own worker
        if kind == "ready":
            sender.ready, self._stillborn = True, 0
            return
        if kind == "broken":
            error = _uncarried(*rest)
            error.add_note(f"headrace: worker process {sender.number}, before its first sample")
            raise error
        work, slot = sender.flying.popleft()
        self._deaths.pop(work.step, None)
        if kind != "done":
            sender.inbox.give_back(slot)
        if kind == "ended":
            self._ready.append(Ended(work.step))
        elif kind == "done":
            parcel, bad, seconds = rest
            try:
                self._ready.append(Done(work.step, sender.inbox.open(parcel, descriptor), bad, seconds))
            except Exception as error:  # noqa: BLE001  whatever a user's class does when it is unpickled
                self._ready.append(Failed(work.step, error, f"the finished batch, from worker process {sender.number}"))
        else:
            place, data, text = rest
            self._ready.append(Failed(work.step, _uncarried(data, text), place))
        self._send(sender)

    def _bury(self, dead: _Worker) -> None:
        """Put a new worker in the place of one that died, and give it the works that were in hand."""
        at = dead.sample()
        self._selector.unregister(dead.channel)
        dead.process.join(PATIENCE)
        code = dead.process.exitcode
        _let_go(dead)
        how = f"worker process {dead.number} (pid {dead.process.pid}) {_ended(code)}, at {at}"
        works = deque([*(work for work, _ in dead.flying), *dead.waiting])
        if works:
            self._deaths[works[0].step] += 1
        self._stillborn += not dead.ready
        final = code == 0 or (self._restarts is not None and self._restarts <= 0)
        if not works and (final or self._stillborn >= DEADLY):
            raise WorkerDied(f"{how}. {_hint(code)}")
        if works and (final or self._deaths[works[0].step] >= DEADLY):
            times = self._deaths[works[0].step]
            cause = f"; batch {works[0].step} has ended {times} workers" if times > 1 else ""
            self._ready.append(Failed(works.popleft().step, WorkerDied(f"{how}{cause}. {_hint(code)}"), at))
            how = ""
        if self._restarts is not None:
            self._restarts -= 1
        successor = self._begin(dead.number)
        self._workers[self._workers.index(dead)] = successor
        successor.waiting.extend(works)
        self._send(successor)
        if how:  # last: where warnings are errors, nothing is lost by it
            warnings.warn(f"{how}; a new one makes its {len(works)} batches again", RuntimeWarning, stacklevel=4)

    def _explain(self) -> str:
        lines = ["What the workers are doing:"]
        for each in self._workers:
            lines.append(f"worker process {each.number} (pid {each.process.pid}): {each.sample()}")
            if each.flying and each.ready:
                lines.append(_stack(each))
        return "\n".join(lines)


def _stack(of: _Worker) -> str:
    """Ask a worker for its Python stack; the answer comes from a signal handler, so a worker in C code gives it too."""
    os.kill(of.process.pid, worker.STACK_SIGNAL)
    said, patience = b"", 1.0
    while select.select([of.stack.fd], [], [], patience)[0] and (piece := os.read(of.stack.fd, 1 << 16)):
        said, patience = said + piece, 0.1  # it is written line by line
    return said.decode(errors="replace").rstrip() or "  (no answer)"


def _uncarried(data: bytes | None, text: str) -> BaseException:
    """Return an error that came from a worker, with its traceback there as its cause."""
    try:
        error: BaseException = RuntimeError(text.rstrip().rsplit("\n", 1)[-1]) if data is None else pickle.loads(data)  # noqa: S301
    except Exception:  # noqa: BLE001  whatever a user's exception class does when it is unpickled
        error = RuntimeError(text.rstrip().rsplit("\n", 1)[-1])
    error.__cause__ = RemoteTraceback(text)
    return error


def _ended(code: int | None) -> str:
    if code is None:
        return "closed its channel"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _hint(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "Where nobody killed it, the kernel did, for want of memory: use fewer workers or smaller batches."
    if code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGILL):
        return "A C extension crashed: read that sample with num_workers=0 to see it."
    if code == 0:
        return "Something in the dataset ended the process in silence (os._exit, exec)."
    return (
        "A script that starts processes must do so under `if __name__ == '__main__':` unless they are forked; "
        "what else it said stands above."
    )


def _let_go(of: _Worker) -> None:
    of.channel.close()
    of.alive.close()
    of.stack.close()
    of.board.close()


def _finish(workers: list[_Worker], selector: selectors.BaseSelector, payload: Any) -> None:
    for each in workers:
        each.channel.close()
    deadline = monotonic() + PATIENCE
    for each in workers:
        each.process.join(max(0.0, deadline - monotonic()))
        if each.process.exitcode is None:
            each.process.kill()
            each.process.join()
        each.process.close()
        _let_go(each)
    selector.close()
    if payload is not None:
        payload.close()
