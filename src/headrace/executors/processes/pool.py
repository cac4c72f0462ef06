"""The executor of processes: for datasets whose time goes into Python itself.

                 ┌─ channel ─> worker 0 ─┐
    submit ──────┼─ channel ─> worker 1 ─┼──> next (waits on all channels at once)
                 └─ channel ─> worker n ─┘

Each worker has one channel and knows nothing of the others. Closing its channel is the whole shutdown. If the channel
closes by itself, the worker has died, which is noticed at once. Because a work says everything, a new worker makes
again what a dead one had in hand, each batch exactly once.

A work travels under a ticket, and its answer comes under the same ticket. So a worker may answer in any order (it may
run threads), and an answer to what was asked for before a `reset` is not taken for a later one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import selectors
import threading
import warnings
import weakref
from collections import deque
from dataclasses import dataclass
from itertools import count
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

from headrace.executors import lifecycle
from headrace.executors.lifecycle import ForkGuard, closed_while_reading, submitted_after_closing, timed_out
from headrace.executors.not_sent import keys_not_sent
from headrace.executors.processes import messages, start, warm_server
from headrace.executors.processes.deaths import Death, Deaths
from headrace.executors.processes.main_guard import exit_where_unguarded
from headrace.executors.processes.messages import Broken, Exhausted, Made, NotMade, Order, Ready, packed
from headrace.executors.processes.payload import Payload, Startup
from headrace.executors.processes.process import AFTER_CTRL_C, PATIENCE, WorkerProcess, explain
from headrace.executors.processes.schedule import FirstFree, RoundRobin, Schedule
from headrace.executors.worker_options import groups
from headrace.interop.user_line import user_line
from headrace.plan.work import Carried, Done, Ended, Failed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.make.maker import Maker
    from headrace.plan.work import Outcome, Work


@dataclass(slots=True)
class _GracePeriod:
    """How long closing waits for the samples at hand; less once somebody has pressed Ctrl-C."""

    seconds: float = PATIENCE


class Processes:
    """Makes batches in ``workers`` processes, at most ``workers * threads * prefetch`` ahead of the consumer.

    ``threads`` is how many threads each has; ``together``, how many of them make one batch together, so that fewer
    batches are ahead; ``init(number)`` prepares it; ``restarts`` is how many workers may be replaced (any number if
    None). With ``round_robin``, worker ``i`` makes the works ``i``, ``i + workers``, …, however busy it is; otherwise a
    work goes to a worker that has room for it.
    """

    def __init__(
        self,
        maker: Maker,
        workers: int,
        prefetch: int = 2,
        *,
        threads: int = 1,
        together: int = 1,
        context: Any = None,
        init: Callable[[int], Any] | None = None,
        seed: int = 0,
        restarts: int | None = None,
        round_robin: bool = True,
    ) -> None:
        self._limit = groups(threads, together) * prefetch
        self.capacity = workers * self._limit
        if together > 1:
            maker = dataclasses.replace(maker, together=together)
        self._context = context if context is not None else multiprocessing.get_context()
        self._threads = threads
        self._schedule: Schedule = RoundRobin(workers) if round_robin else FirstFree(workers, self._limit)
        self._deaths = Deaths(restarts)
        self._tickets = count()
        self._ready: deque[Outcome] = deque()
        self._guard = ForkGuard()
        startup = Startup(workers, threads, seed, maker, init)
        forks = self._context.get_start_method() == "fork"
        if forks:
            start.warn_of_threads()
        else:
            exit_where_unguarded()
        if self._context.get_start_method() == "forkserver":
            warm_server.warm(startup)
        payload = None if forks else Payload(startup)
        self._startup = startup if payload is None else payload
        self._workers: list[WorkerProcess] = []
        self._selector = selectors.DefaultSelector()
        self._grace = _GracePeriod()
        self._reading = threading.RLock()
        self._finish = weakref.finalize(
            self, _finish, self._workers, self._selector, self._reading, payload, self._grace, self._guard
        )
        try:
            with lifecycle.paused() if forks else contextlib.nullcontext():
                for number in range(workers):
                    self._workers.append(self._start(number))
            if init is not None:  # its errors belong here, not to the first batch
                while not all(each.ready for each in self._workers):
                    self._handle(self._selector.select())
        except BaseException:
            self._finish()
            raise

    @property
    def closed(self) -> bool:
        """Whether its workers are gone, or belong to another process."""
        return self._guard.in_child or not self._finish.alive

    @property
    def processes(self) -> list[Any]:
        """The workers, as multiprocessing's objects; when they are gone these still say how they ended."""
        return [each.process for each in self._workers]

    def submit(self, work: Work) -> None:
        """Hand a work to the worker that the schedule chooses."""
        self._guard.check()
        with self._reading, self._closing_on_ctrl_c():
            if not self._finish.alive:
                raise submitted_after_closing()
            chosen = self._workers[self._schedule.choose(work, lambda number: self._workers[number].load)]
            chosen.waiting.append(work)
            self._send(chosen)

    def reset(self) -> None:
        """Forget all works that were submitted, so that the workers can serve another epoch."""
        for each in self._workers:
            each.forget_works()
        self._ready.clear()
        self._deaths.forget_batches()
        self._schedule.reset()

    def next(self, timeout: float | None = None) -> Outcome:
        """Return the outcome that is ready first."""
        self._guard.check()
        warned = False
        with self._reading, self._closing_on_ctrl_c():
            while not self._ready:
                self._check_open()
                events = self._selector.select(timeout if timeout is not None else None if warned else lifecycle.STUCK)
                self._check_open()
                if not events and timeout is not None:
                    raise timed_out(timeout, explain(self._workers))
                if not events:
                    warned = True
                    lifecycle.warn_of_wait(explain(self._workers))
                self._handle(events)
            return self._ready.popleft()

    def close(self) -> None:
        """Close the channels, and wait for the workers to end; another thread that waits for a batch is woken."""
        self._finish()

    @contextlib.contextmanager
    def _closing_on_ctrl_c(self) -> Iterator[None]:
        """Close everything if Ctrl-C interrupts what cannot be resumed, such as reading a message."""
        try:
            yield
        except KeyboardInterrupt:
            self._grace.seconds = AFTER_CTRL_C
            self._finish()
            raise

    def _check_open(self) -> None:
        if not self._finish.alive:
            raise closed_while_reading()

    def _start(self, number: int) -> WorkerProcess:
        started = start.start_worker(self._context, self._startup, number, self._threads, self._limit)
        self._selector.register(started.channel, selectors.EVENT_READ, started)
        self._selector.register(started.ended.fd, selectors.EVENT_READ, started)
        return started

    def _send(self, to: WorkerProcess) -> None:
        """Send a worker what waits for it, as far as it may have that in flight.

        A work that is suspected of killing workers goes alone, so that the next death shows whether it was the cause.
        None is sent that would have to wait for the worker to read: it may be waiting for us to read its answers.
        """
        while to.waiting and to.channel.has_room:
            suspect = self._deaths.is_suspect((*to.works(), to.waiting[0]))
            if len(to.in_flight) >= (1 if suspect else self._limit):
                break
            work = to.waiting.popleft()
            slot, fresh = to.slots.lend()
            order = Order(next(self._tickets), work, slot, fresh)
            try:
                pickled = packed(order)
            except Exception as error:  # noqa: BLE001  whatever a user's key does when it is pickled
                to.slots.give_back(slot)
                self._ready.append(
                    Failed(work.step, keys_not_sent(error, "a worker process"), "what it is to be made of")
                )
                continue
            to.in_flight[order.ticket] = (work, slot)
            messages.send_order(to.channel, pickled)

    def _handle(self, events: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, _ in events:
            sender: WorkerProcess = key.data
            if sender not in self._workers:  # replaced because of an event before this one
                continue
            if key.fileobj is sender.channel:
                self._receive(sender)
            else:  # it has ended: what it sent can still be read, then comes the end, whoever holds copies of its end
                self._selector.unregister(sender.ended.fd)
                sender.channel.shut()

    def _receive(self, sender: WorkerProcess) -> None:
        received = messages.receive_answer(sender.channel)
        if received is None:
            self._check_open()  # otherwise closing is what ended it
            self._replace(sender)
            return
        answer, descriptor = received
        if isinstance(answer, Ready):
            sender.ready = True
            self._deaths.started()
            return
        if isinstance(answer, Broken):
            error = answer.error.open()
            error.add_note(f"headrace: worker process {sender.number}, before its first sample")
            raise error
        work, slot = sender.in_flight.pop(answer.ticket)
        if not isinstance(answer, Made):
            sender.slots.give_back(slot)
        elif work is None:
            sender.slots.refuse(answer.message, descriptor)
        if work is not None:
            self._deaths.clear(work.step)
            self._ready.append(_outcome(work, answer, descriptor, sender))
        self._send(sender)

    def _replace(self, dead: WorkerProcess) -> None:
        """Start a new worker in the place of one that died, and give it the works that were in hand."""
        try:
            death = Death.of(dead)
            self._selector.unregister(dead.channel)
            with contextlib.suppress(KeyError):  # if its end was noticed first
                self._selector.unregister(dead.ended.fd)
            death.code = dead.end(PATIENCE)
            self._workers.remove(dead)
            culprit = self._deaths.judge(death)
            if culprit is not None:
                death.works = [work for work in death.works if work.step != culprit[0]]
                self._ready.append(Failed(*culprit, death.at))
            try:
                with lifecycle.paused() if isinstance(self._startup, Startup) else contextlib.nullcontext():
                    successor = self._start(dead.number)
            except OSError as error:
                more = f", and no other could be started: {error}"
                raise death.error(more, cure="Stop other programs, or use fewer workers.") from error
            self._workers.insert(dead.number, successor)
            successor.waiting.extend(death.works)
            self._send(successor)
        except BaseException:
            self._finish()
            raise
        if culprit is None:  # last: where warnings are errors, nothing is lost by it
            said = f"{death}; a new one makes its {len(death.works)} batches again"
            warnings.warn(said, RuntimeWarning, stacklevel=user_line())


def _outcome(work: Work, answer: Made | Exhausted | NotMade, descriptor: int | None, sender: WorkerProcess) -> Outcome:
    if isinstance(answer, Exhausted):
        return Ended(work.step, answer.stream)
    if isinstance(answer, NotMade):
        return Failed(work.step, answer.error.open(), answer.place)
    opening = perf_counter()
    try:
        batch = sender.slots.open(answer.message, descriptor)
    except Exception as error:  # noqa: BLE001  whatever a user's class does when it is unpickled
        return Failed(work.step, error, f"the finished batch, from worker process {sender.number}")
    carried = Carried(answer.packed, opening, perf_counter())
    return Done(
        work.step,
        batch,
        answer.bad,
        answer.seconds,
        answer.stream,
        answer.tokens,
        making=answer.making,
        carried=carried,
    )


def _finish(
    workers: list[WorkerProcess],
    selector: selectors.BaseSelector,
    reading: threading.RLock,
    payload: Payload | None,
    grace: _GracePeriod,
    guard: ForkGuard,
) -> None:
    if guard.in_child:
        return  # a fork took the executor along, but its workers are not that process's
    for each in list(workers):
        each.channel.shut()
    with reading:  # what another thread waits on is closed when it has seen the end
        deadline = monotonic() + grace.seconds
        try:
            for each in workers:
                each.await_end(deadline - monotonic())
        finally:  # at once, if Ctrl-C is pressed meanwhile
            for each in workers:
                each.end(0)
            selector.close()
            if payload is not None:
                payload.close()
