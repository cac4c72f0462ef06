"""The executor of processes: for datasets whose time goes into Python itself.

                 ┌─ channel ─> worker 0 ─┐
    submit ──────┼─ channel ─> worker 1 ─┼──> next (waits on all channels at once)
                 └─ channel ─> worker n ─┘

Each worker has one channel, two slots more than it may have works in flight, and knows nothing of the others. Closing
its channel is the whole shutdown; the channel closing by itself is the worker's death, noticed at once. Because a work
says all, what a dead worker had in hand is made again by the one that takes its place, each batch exactly once.

A work travels under a ticket, and its answer comes under the same: so a worker may answer in any order (it may run
threads), and what was asked for before a `reset` is told from what was asked for after it.
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
from itertools import count
from mmap import PAGESIZE, mmap
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.errors import RemoteTraceback, WorkerDied, WorkerTimeout
from headrace.executors import deaths, worker
from headrace.executors.lifecycle import ForkGuard, closed_while_reading, submitted_after_closing
from headrace.interop.machine import oom_kills
from headrace.plan.work import Done, Ended, Failed
from headrace.transport import shared
from headrace.transport.channel import Channel, close_quietly
from headrace.transport.slots import Inbox

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.make.maker import Maker
    from headrace.plan.work import Outcome, Work

End = TypeVar("End", Channel, worker.Handle)

PATIENCE = 5.0
"""Seconds that closing waits for the samples at hand to end before it kills their workers."""

HURRY = 0.2
"""Seconds that it waits once somebody has pressed Ctrl-C."""

STUCK = 30.0
"""Seconds without any batch after which a warning says what the workers are doing."""

DEADLY = 3
"""Workers that one batch may kill before it is held to be the cause."""

HARMLESS = ("tqdm._monitor",)
"""Modules whose threads hold no lock that a child would ever want."""

LARGE = 1 << 12
"""Bytes; a larger order goes through shared memory: what a channel has room for is told without a doubt."""

_ends: weakref.WeakSet[Channel | worker.Handle] = weakref.WeakSet()
"""What only this process may hold open of all its executors: held open elsewhere, it would hide our death."""


def _close_copies() -> None:
    for each in list(_ends):
        with contextlib.suppress(OSError):
            each.close()


os.register_at_fork(after_in_child=_close_copies)


@dataclass(slots=True)
class _Patience:
    """How long closing waits; less once somebody has pressed Ctrl-C."""

    seconds: float = PATIENCE


@dataclass(eq=False, slots=True)
class _Worker:
    number: int
    process: Any
    channel: Channel
    inbox: Inbox
    board: mmap
    threads: int
    stack: worker.Handle
    alive: worker.Handle
    """Our end of its life pipe: nothing is ever written; it closes with us."""
    ended: worker.Handle
    """Becomes readable with its end, also where a process that it has forked still holds its end of the channel."""
    waiting: deque[Work] = field(default_factory=deque)
    """Works that are not sent yet: no more are under way than have slots, and no channel is ever filled."""
    flying: dict[int, tuple[Work | None, int]] = field(default_factory=dict)
    """By ticket, works that are sent (None: nobody waits for it any more), each with the slot for its batch."""
    ready: bool = False

    @property
    def load(self) -> int:
        """How many works it has to answer."""
        return len(self.waiting) + len(self.flying)

    def works(self) -> list[Work]:
        """Return what it has in hand."""
        return [work for work, _ in self.flying.values() if work is not None]

    def at(self) -> list[tuple[Work, int]]:
        """Return the works that it is making, each with the row that it is at, as far as it has said so."""
        if not self.ready:
            return []
        found = []
        for thread in range(self.threads):
            step, row = worker.PLACE.unpack_from(self.board, thread * worker.PLACE.size)
            found += [(work, row) for work in self.works() if work.step == step]
        return found or [(work, -1) for work in self.works()[: self.threads]]

    def sample(self) -> str:
        """Say what it is, or was, working on."""
        places = [
            f"{work.name(row)} of batch {work.step}" if 0 <= row < work.rows else f"batch {work.step}"
            for work, row in self.at()
        ]
        return " and ".join(places) or ("idle" if self.ready else "starting")


class Processes:
    """Makes batches in ``workers`` processes, at most ``workers * threads * prefetch`` ahead of the consumer.

    ``threads`` is how many batches each makes at once; ``init(number)`` prepares it; ``restarts`` is how many workers
    may be replaced (any number if None); ``turns`` says that worker ``i`` makes the works ``i``, ``i + workers``, …,
    whatever the others do: without, a work goes to whoever has the least to do.
    """

    def __init__(
        self,
        maker: Maker,
        workers: int,
        prefetch: int = 2,
        *,
        threads: int = 1,
        context: Any = None,
        init: Callable[[int], Any] | None = None,
        seed: int = 0,
        restarts: int | None = None,
        turns: bool = True,
    ) -> None:
        self.capacity = workers * threads * prefetch
        self._context = context if context is not None else multiprocessing.get_context()
        self._limit = threads * prefetch
        self._threads = threads
        self._restarts = restarts
        self._turns = turns
        self._tickets = count()
        self._deaths: Counter[int] = Counter()
        self._ready: deque[Outcome] = deque()
        self._turn = 0
        self._guard = ForkGuard()
        self._stillborn = 0
        self._oom_kills = oom_kills()
        start = worker.Start(workers, threads, seed, maker, init)
        self._method = self._context.get_start_method()
        forks = self._method == "fork"
        if forks:
            _warn_of_threads()
        else:
            worker.end_where_unguarded()
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._patience = _Patience()
        self._reading = threading.RLock()
        try:
            payload = None if forks else worker.Payload(start)
        except BaseException:
            self._selector.close()
            raise
        self._payload = start if payload is None else payload
        self._finish = weakref.finalize(
            self, _finish, self._workers, self._selector, self._reading, payload, self._patience, self._guard
        )
        try:
            for number in range(workers):
                self._workers.append(self._begin(number))
            if init is not None:  # its errors belong here, not to the first batch
                self._await_all()
        except BaseException:
            self._finish()
            raise

    @property
    def closed(self) -> bool:
        """Whether its workers are gone."""
        return not self._finish.alive

    @property
    def processes(self) -> list[Any]:
        """The workers, as multiprocessing's objects; when they are gone these still say how they ended."""
        return [each.process for each in self._workers]

    def submit(self, work: Work) -> None:
        """Hand a work to the worker whose turn it is: of a stream, the one that reads its replica."""
        with self._reading, self._whole():
            if not self._finish.alive:
                raise submitted_after_closing()
            to = self._next_worker(work)
            to.waiting.append(work)
            self._send(to)

    def _next_worker(self, work: Work) -> _Worker:
        workers = self._workers
        number = self._turn % len(workers)
        if work.replica is not None and not work.keys:
            number = work.replica.number % len(workers)
        elif not self._turns:
            number = next((n for n in _round(number, len(workers)) if workers[n].load < self._limit), number)
        self._turn = number + 1
        return workers[number]

    def reset(self) -> None:
        """Forget all works that were submitted, so that the workers can serve another epoch."""
        for each in self._workers:
            each.waiting.clear()
            each.flying = {ticket: (None, slot) for ticket, (_, slot) in each.flying.items()}
        self._ready.clear()
        self._deaths.clear()
        self._turn = 0

    def next(self, timeout: float | None = None) -> Outcome:
        """Return the outcome that is ready first."""
        self._guard.check()
        warned = False
        with self._reading, self._whole():
            while not self._ready:
                self._check_open()
                events = self._selector.select(timeout if timeout is not None else None if warned else STUCK)
                self._check_open()
                if not events and timeout is not None:
                    raise WorkerTimeout(f"DataLoader timed out after {timeout:g} seconds. {self._explain()}")
                if not events:
                    warned = True
                    warnings.warn(f"no batch came within {STUCK:g} s. {self._explain()}", RuntimeWarning, stacklevel=2)
                self._heed(events)
            return self._ready.popleft()

    def close(self) -> None:
        """Close the channels, and wait for the workers to end; another thread that waits for a batch is woken."""
        self._finish()

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Close all where Ctrl-C breaks off what cannot be gone on with: a message half read, say."""
        try:
            yield
        except KeyboardInterrupt:
            self._patience.seconds = HURRY
            self._finish()
            raise

    def _check_open(self) -> None:
        if not self._finish.alive:
            raise closed_while_reading()

    def _begin(self, number: int) -> _Worker:
        """Start a worker; where that fails, nothing is left of it."""
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            channel, end = _parted(Channel.pair(), ours, theirs)
            # A life pipe for each worker: of a shared one, the kernel would tell one reader only.
            life, alive = _parted(_pipe(), theirs, ours)
            stack, writer = _parted(_pipe(), ours, theirs)
            _ends.update((channel, alive, stack))
            board = worker.Handle(shared.create(PAGESIZE))
            theirs.callback(board.close)
            seen = mmap(board.fd, PAGESIZE)
            ours.callback(seen.close)
            by_thread = threading.current_thread() is threading.main_thread()
            process = self._context.Process(
                target=worker.main,
                args=(self._payload, number, end.socket, life, board, writer, by_thread),
                name=f"{worker.NAME}{number}",
                daemon=True,
            )
            try:
                with worker.uninterrupted(self._method):
                    process.start()
            except (ConnectionError, EOFError):  # the fork server, from Python 3.13 on, imports the script too
                raise WorkerDied(f"a worker process could not be started. {deaths.hint(None)}") from None
            ours.callback(_end, process)
            ended = _ended_by(process)
            ours.callback(ended.close)
            _ends.add(ended)
            started = _Worker(
                number, process, channel, Inbox(self._limit + 2), seen, self._threads, stack, alive, ended
            )
            self._selector.register(channel, selectors.EVENT_READ, started)
            self._selector.register(ended.fd, selectors.EVENT_READ, started)
            ours.pop_all()
        return started

    def _await_all(self) -> None:
        while not all(each.ready for each in self._workers):
            self._heed(self._selector.select())

    def _heed(self, events: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in events:
            sender: _Worker = key.data
            if sender not in self._workers:  # an event before this one was its end
                continue
            if key.fileobj is sender.channel:
                self._receive(sender)
            else:  # what it sent can still be read; then comes the end, whoever else holds a copy of its end
                self._selector.unregister(sender.ended.fd)
                sender.channel.shut()

    def _send(self, to: _Worker) -> None:
        # What is suspected of killing workers goes alone, so that the next death shows whether it was that. And none is
        # sent that would have to wait for the worker to read: it may be waiting for us to read what it has answered.
        while to.waiting and len(to.flying) < (1 if self._suspect(to) else self._limit) and to.channel.has_room:
            work = to.waiting.popleft()
            slot, fresh = to.inbox.lend()
            ticket = next(self._tickets)
            try:
                order = pickle.dumps((ticket, work, slot, fresh), protocol=5)
            except Exception as error:  # noqa: BLE001  whatever a user's key does when it is pickled
                to.inbox.give_back(slot)
                self._ready.append(Failed(work.step, _unsent(error), "what it is to be made of"))
                continue
            to.flying[ticket] = (work, slot)
            descriptor = None
            if len(order) > LARGE:
                with contextlib.suppress(OSError):  # no such memory: the channel carries it, if slowly
                    order, descriptor = b"", shared.given(order)
            with contextlib.suppress(OSError):  # its death is noticed, and dealt with, where its channel is read
                to.channel.send(order, descriptor)
            close_quietly(descriptor)

    def _suspect(self, of: _Worker) -> bool:
        return bool(self._deaths) and any(self._deaths[work.step] for work in (*of.works(), of.waiting[0]))

    def _receive(self, sender: _Worker) -> None:
        message = None
        with contextlib.suppress(EOFError, OSError):
            message, descriptor = sender.channel.receive()
        if message is None:
            self._check_open()  # else closing is what ended it
            self._bury(sender)
            return
        ticket, kind, *rest = pickle.loads(message)  # noqa: S301  from our own worker
        if kind == "ready":
            sender.ready, self._stillborn = True, 0
            return
        if kind == "broken":
            error = _uncarried(*rest)
            error.add_note(f"headrace: worker process {sender.number}, before its first sample")
            raise error
        work, slot = sender.flying.pop(ticket)
        if work is not None:
            self._deaths.pop(work.step, None)
        if kind != "done":
            sender.inbox.give_back(slot)
        elif work is None:
            sender.inbox.refuse(rest[0], descriptor)
        if work is not None:
            self._ready.append(_outcome(work, kind, rest, descriptor, sender))
        self._send(sender)

    def _bury(self, dead: _Worker) -> None:
        """Put a new worker in the place of one that died, and give it the works that were in hand."""
        try:
            said = self._replace(dead)
        except BaseException:
            self._finish()
            raise
        if said is not None:  # last: where warnings are errors, nothing is lost by it
            warnings.warn(said, RuntimeWarning, stacklevel=5)

    def _replace(self, dead: _Worker) -> str | None:
        at = dead.sample()
        suspects = [work.step for work, _ in dead.at()]
        works = deque([*dead.works(), *dead.waiting])
        self._selector.unregister(dead.channel)
        with contextlib.suppress(KeyError):  # where its end was told first
            self._selector.unregister(dead.ended.fd)
        pid = dead.process.pid
        code = _let_go(dead, PATIENCE)
        self._workers.remove(dead)
        if code == worker.UNGUARDED and not dead.ready:
            raise WorkerDied(
                f"a worker process imported the script that has started it, and was to start others: {worker.GUARD}"
            )
        # torch's words to begin with: people search for them, and test suites match them.
        how = f"DataLoader worker (pid {pid}) {deaths.ended(code)} (worker process {dead.number}, at {at})"
        hint = self._hint(code)
        self._deaths.update(suspects)
        self._stillborn += not dead.ready
        if self._restarts is not None:
            self._restarts -= 1
        lost = self._restarts is not None and self._restarts < 0
        if lost or self._stillborn >= DEADLY or (code == 0 and not suspects):
            in_hand = f"; it had the batches {[work.step for work in works]} in hand" if works else ""
            raise WorkerDied(f"{how}{in_hand}. {hint}")
        guilty = next((step for step in suspects if code == 0 or self._deaths[step] >= DEADLY), None)
        if guilty is not None:
            times = self._deaths.pop(guilty)
            cause = f"; batch {guilty} has ended {times} workers" if times > 1 else ""
            works = deque(work for work in works if work.step != guilty)
            self._ready.append(Failed(guilty, WorkerDied(f"{how}{cause}. {hint}"), at))
        try:
            successor = self._begin(dead.number)
        except OSError as error:
            raise WorkerDied(f"{how}, and no other could be started: {error}") from error
        self._workers.insert(dead.number, successor)
        successor.waiting.extend(works)
        self._send(successor)
        return f"{how}; a new one makes its {len(works)} batches again" if guilty is None else None

    def _hint(self, code: int | None) -> str:
        kills = oom_kills()
        if code == -signal.SIGKILL and kills is not None and self._oom_kills is not None and kills > self._oom_kills:
            return "The kernel killed it for want of memory (oom_kill has risen): use fewer workers or smaller batches."
        return deaths.hint(code)

    def _explain(self) -> str:
        lines = ["What the workers are doing:"]
        for each in self._workers:
            lines.append(f"worker process {each.number} (pid {each.process.pid}): {each.sample()}")
            if each.flying and each.ready:
                lines.append(_stack(each))
        return "\n".join(lines)


def _outcome(work: Work, kind: str, rest: list[Any], descriptor: int | None, sender: _Worker) -> Outcome:
    if kind == "ended":
        return Ended(work.step)
    if kind == "failed":
        place, data, text = rest
        return Failed(work.step, _uncarried(data, text), place)
    message, *told = rest
    try:
        return Done(work.step, sender.inbox.open(message, descriptor), *told)
    except Exception as error:  # noqa: BLE001  whatever a user's class does when it is unpickled
        return Failed(work.step, error, f"the finished batch, from worker process {sender.number}")


def _round(first: int, count: int) -> Iterator[int]:
    return (number % count for number in range(first, first + count))


def _warn_of_threads() -> None:
    """Warn of a known danger: a lock that another thread holds in this moment is never released in the child."""
    ours = (threading.current_thread(), threading.main_thread())
    others = [
        thread.name
        for thread in threading.enumerate()
        if thread not in ours and not thread.name.startswith("headrace") and type(thread).__module__ not in HARMLESS
    ]
    if others:
        warnings.warn(
            f"worker processes are forked while other threads run ({', '.join(others[:5])}): this use of fork() may "
            "lead to deadlocks in the workers; multiprocessing_context='forkserver' has no such risk",
            RuntimeWarning,
            stacklevel=2,
        )


def _stack(of: _Worker) -> str:
    """Ask a worker for its Python stack; the answer comes from a signal handler, so a worker in C code gives it too."""
    said, patience = b"", 1000
    poll = select.poll()
    poll.register(of.stack.fd, select.POLLIN)
    while poll.poll(0) and os.read(of.stack.fd, 1 << 16):
        pass  # of a Ctrl-C that the program has lived through
    if not _has_ended(of, 0):
        os.kill(of.process.pid, worker.STACK_SIGNAL)
    while poll.poll(patience) and (piece := os.read(of.stack.fd, 1 << 16)):
        said, patience = said + piece, 100  # it is written line by line
    return said.decode(errors="replace").rstrip() or "  (no answer)"


def _unsent(error: Exception) -> TypeError:
    unsent = TypeError(
        f"a batch's keys, or the samples that were read for it, cannot be sent to a worker process: {error}; give "
        "what pickle can carry, or use threads"
    )
    unsent.__cause__ = error
    return unsent


def _uncarried(data: bytes | None, text: str) -> BaseException:
    """Return an error that came from a worker, with its traceback there as its cause."""
    try:
        error: BaseException = RuntimeError(text.rstrip().rsplit("\n", 1)[-1]) if data is None else pickle.loads(data)  # noqa: S301
    except Exception:  # noqa: BLE001  whatever a user's exception class does when it is unpickled
        error = RuntimeError(text.rstrip().rsplit("\n", 1)[-1])
    error.__cause__ = RemoteTraceback(text)
    return error


def _parted(pair: tuple[End, End], one: contextlib.ExitStack, other: contextlib.ExitStack) -> tuple[End, End]:
    """Have each of a pair closed by a stack of its own."""
    one.callback(pair[0].close)
    other.callback(pair[1].close)
    return pair


def _pipe() -> tuple[worker.Handle, worker.Handle]:
    read, write = os.pipe()
    return worker.Handle(read), worker.Handle(write)


def _ended_by(process: Any) -> worker.Handle:
    """Return a descriptor that becomes readable when a process ends, and is held open by nobody else."""
    try:
        return worker.Handle(os.pidfd_open(process.pid))
    except (AttributeError, OSError):  # elsewhere than on Linux, or it has ended already
        return worker.Handle(os.dup(process.sentinel))


def _end(process: Any) -> None:
    process.kill()
    process.join(PATIENCE)
    process.close()


def _has_ended(of: _Worker, patience: float) -> bool:
    poll = select.poll()
    poll.register(of.ended.fd, select.POLLIN)
    return bool(poll.poll(max(0.0, patience) * 1000))


def _await_end(of: _Worker, patience: float) -> None:
    """Wait for a worker's end, but not for long once Ctrl-C has reached it: it then says, unasked, where it is."""
    poll = select.poll()
    poll.register(of.ended.fd, select.POLLIN)
    poll.register(of.stack.fd, select.POLLIN)
    if poll.poll(max(0.0, patience) * 1000):
        _has_ended(of, HURRY)


def _exit_code(of: _Worker) -> int | None:
    if of.process.exitcode is None:  # a forkserver tells it a moment later
        of.process.join(1)
    return of.process.exitcode  # type: ignore[no-any-return]


def _let_go(of: _Worker, patience: float) -> int | None:
    """Wait for a worker's end, kill it where that does not come, and close all that it had; return its exit code."""
    if of.ended.fd < 0:  # done already
        return None
    code = None
    if _has_ended(of, patience):
        code = _exit_code(of)
    else:
        of.process.kill()
        _has_ended(of, PATIENCE)
        _exit_code(of)
    started = of.process._popen
    if started.returncode is None:  # it has ended, but how cannot be known where SIGCHLD is ignored
        started.returncode = 0
    started.close()  # its descriptors; the process object stays open to who asks it how it ended
    of.process.is_alive()  # which makes multiprocessing forget it
    for each in (of.channel, of.alive, of.stack, of.board, of.ended):
        each.close()
    return code


def _finish(
    workers: list[_Worker],
    selector: selectors.BaseSelector,
    reading: threading.RLock,
    payload: worker.Payload | None,
    patience: _Patience,
    guard: ForkGuard,
) -> None:
    if guard.in_child:
        return  # a fork took the executor along, but its workers are not that process's
    for each in list(workers):
        each.channel.shut()
    with reading:  # what another thread waits on is closed when it has seen the end
        deadline = monotonic() + patience.seconds
        try:
            for each in workers:
                _await_end(each, deadline - monotonic())
        finally:  # at once, where Ctrl-C is pressed meanwhile
            for each in workers:
                _let_go(each, 0)
            selector.close()
            if payload is not None:
                payload.close()
