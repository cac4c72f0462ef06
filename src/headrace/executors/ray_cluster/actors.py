"""The executor of actors: makes batches on the nodes of a Ray cluster.

    submit ──> works ──> actor 0 … n-1, on any node ──> object store ──> next (ray.wait on what is in flight)

A work says everything, so any actor may make it, and a lost one is made again. An actor that dies (killed, with its
node, or preempted) is replaced; what was in hand goes to whoever is free. Ray's reference to a batch is its ticket:
the answer of an actor that was given up is never looked at, so no batch comes twice. An actor that finds no room waits
in Ray's queue, where an autoscaler sees it, and takes part once a node has room.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import threading
import warnings
import weakref
from collections import deque
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.context.memory import Recycler
from headrace.errors import CollateTypeError
from headrace.executors.lifecycle import ForkGuard, closed_while_reading, submitted_after_closing, timed_out
from headrace.executors.processes.deaths import DEADLY, Death, Deaths
from headrace.executors.processes.messages import Broken, RemoteError
from headrace.executors.processes.payload import Startup, unpicklable
from headrace.executors.ray_cluster import connection
from headrace.executors.ray_cluster.remote_worker import Batch, NoBatch, NotMade, Opened, RemoteWorker
from headrace.plan.work import Done, Ended, Failed
from headrace.transport.out_of_band import reducers

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from headrace.executors.worker_options import Options
    from headrace.make.maker import Maker
    from headrace.plan.work import Outcome, Work

STUCK = 30.0
"""Seconds without any batch after which a warning says what the workers are doing."""

STARTING = 60.0
"""Seconds that a loop waits for actors that should have room, before it begins with those that it has."""

TICK = 1.0
"""Seconds after which a wait looks whether the executor was closed."""


@dataclass(eq=False, slots=True)
class _Actor:
    """One actor, as the loader sees it."""

    number: int
    handle: Any
    threads: int
    opened: Opened | None = None
    """None before it has read its sample."""
    waiting: deque[Work] = field(default_factory=deque)
    """Works that only this one can make: it has the copy of the stream."""
    in_flight: dict[Any, Work] = field(default_factory=dict)
    """By Ray's reference to the answer, in the order in which it makes them."""

    def __str__(self) -> str:
        if self.opened is None:
            return f"Ray worker {self.number}"
        return f"Ray worker {self.number} (pid {self.opened.pid} on {self.opened.host})"

    def making(self) -> list[Work]:
        """Return the works that it is making."""
        return list(self.in_flight.values())[: self.threads]

    def doing(self) -> str:
        """Say in words what it is, or was, working on."""
        if self.opened is None:
            return "starting, or waiting for a node with room"
        return " and ".join(_named(work) for work in self.making()) or "idle"


@dataclass(slots=True)
class _ActorDeath(Death):
    """An actor that ended by itself."""

    name: str = ""
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} died {f'at {self.at}' if self.ready else 'before its first sample'}: {self.reason}"


@dataclass(slots=True)
class _State:
    """All that closing has to let go of."""

    actors: list[_Actor] = field(default_factory=list)
    refs: dict[Any, _Actor] = field(default_factory=dict)
    """Whose answer each reference is: to being prepared, or to a work."""
    works: deque[Work] = field(default_factory=deque)
    """Works for whoever is free first."""
    ready: deque[Outcome] = field(default_factory=deque)
    payload: list[Any] = field(default_factory=list)
    """Ray's reference to the dataset."""


class RayActors:
    """Makes batches in ``options.workers`` actors, at most ``workers * threads * prefetch`` ahead of the consumer.

    ``how`` is what Ray needs to know of each actor, ``needs`` what it takes from its node; the others are those of
    `RayCluster`.
    """

    def __init__(
        self,
        maker: Maker,
        options: Options,
        *,
        address: str | None,
        how: Mapping[str, Any],
        needs: Mapping[str, float],
        copy: bool,
        probe: bool,
    ) -> None:
        self._ray = connection.imported()
        self._threads = options.threads
        self._workers = options.workers
        self._limit = options.threads * options.prefetch
        self.capacity = options.workers * self._limit
        self._copy, self._probe = copy, probe
        self._began = self._pinned = False
        """Whether the nodes have opened the dataset; whether actors have copies that others cannot stand in for."""
        # Nodes may leave while many actors start on them.
        self._deaths = Deaths(options.restarts, DEADLY * options.workers)
        self._batches = Recycler(keep=self.capacity + 2)
        self._guard = ForkGuard()
        self._reading = threading.RLock()
        self._state = state = _State()
        packed = _packed(Startup(options.workers, options.threads, options.seed, maker, options.init))
        connection.connect(address, options.workers, needs["CPU"])
        self._kind = self._ray.remote(RemoteWorker).options(**how)
        self._finish = weakref.finalize(self, _finish, state, self._batches, self._guard)
        try:
            state.payload.append(self._ray.put(packed))
            room = connection.room(needs, options.workers)
            for number in range(options.workers):
                state.actors.append(self._start(number))
            self._await_actors(room)
        except BaseException:
            self._finish()
            raise

    @property
    def closed(self) -> bool:
        """Whether its workers are gone, or belong to another process."""
        return self._guard.in_child or not self._finish.alive

    def submit(self, work: Work) -> None:
        """Hand a work to the actor that is free first, or to the one that has the copy of its stream."""
        self._guard.check()
        with self._reading, self._closing_on_ctrl_c():
            if not self._finish.alive:
                raise submitted_after_closing()
            self._queue(work)
            self._send()

    def next(self, timeout: float | None = None) -> Outcome:
        """Return the outcome that is ready first."""
        self._guard.check()
        began, warned = monotonic(), False
        with self._reading, self._closing_on_ctrl_c():
            while not self._state.ready:
                self._check_open()
                waited = monotonic() - began
                if timeout is not None and waited >= timeout:
                    raise timed_out(timeout, self._explain())
                if not warned and waited >= STUCK:
                    warned = True
                    said = f"no batch came within {STUCK:g} s. What the workers are doing:\n{self._explain()}"
                    warnings.warn(said, RuntimeWarning, stacklevel=2)
                self._receive(TICK if timeout is None else min(TICK, timeout - waited))
            return self._state.ready.popleft()

    def reset(self) -> None:
        """Forget all works that were submitted, so that the workers can serve another epoch."""
        state = self._state
        state.works.clear()
        state.ready.clear()
        for each in state.actors:
            each.waiting.clear()
            for ref in each.in_flight:
                state.refs.pop(ref, None)
            each.in_flight.clear()
        self._deaths.forget_batches()

    def close(self) -> None:
        """End the actors, and let go of all objects in the store."""
        self._finish()

    @contextlib.contextmanager
    def _closing_on_ctrl_c(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            self._finish()
            raise

    def _check_open(self) -> None:
        if not self._finish.alive:
            raise closed_while_reading()

    def _start(self, number: int) -> _Actor:
        actor = _Actor(number, self._kind.remote(), self._threads)
        ref = actor.handle.prepare.remote(self._state.payload[0], number, self._probe)
        self._state.refs[ref] = actor
        return actor

    def _await_actors(self, room: int) -> None:
        """Wait for as many actors as the cluster has room for: a node that cannot open the dataset is an error here."""
        deadline = monotonic() + STARTING
        while sum(each.opened is not None for each in self._state.actors) < room and monotonic() < deadline:
            self._receive(TICK)
        self._began = True

    def _queue(self, work: Work) -> None:
        number = None
        if work.replica is not None and not work.keys:
            number = work.replica.number
        elif work.dataset_copy is not None:
            number = work.dataset_copy.number
        if number is None:
            self._state.works.append(work)
        else:
            self._pinned = True
            self._state.actors[number % self._workers].waiting.append(work)

    def _send(self) -> None:
        """Send works as far as the actors have room, each to the one with the fewest.

        A work that is suspected of killing workers goes alone, so that the next death shows whether it was the cause.
        """
        state = self._state
        opened = [each for each in state.actors if each.opened is not None]
        for actor in opened:
            while actor.waiting and self._has_room(actor, actor.waiting[0]):
                if not self._order(actor, actor.waiting.popleft()):
                    return
        while state.works and opened:
            actor = min(opened, key=lambda each: len(each.in_flight))
            if not self._has_room(actor, state.works[0]):
                break
            if not self._order(actor, state.works.popleft()):
                return

    def _has_room(self, actor: _Actor, work: Work) -> bool:
        suspect = self._deaths.is_suspect((*actor.in_flight.values(), work))
        return len(actor.in_flight) < (1 if suspect else self._limit)

    def _order(self, actor: _Actor, work: Work) -> bool:
        """Send a work; False if the actor is dead, and was replaced."""
        try:
            ref = actor.handle.make.remote(work)
        except self._ray.exceptions.RayError:  # it has died, which its other answers say too
            actor.waiting.appendleft(work)
            self._replace(actor, "it takes no more works")
            return False
        except Exception as error:  # noqa: BLE001  whatever a user's key does when it is pickled
            self._state.ready.append(Failed(work.step, _not_sent(error), "what it is to be made of"))
        else:
            actor.in_flight[ref] = work
            self._state.refs[ref] = actor
        return True

    def _receive(self, seconds: float) -> None:
        """Wait for answers, so many seconds at most, and take those that are there."""
        refs = list(self._state.refs)
        # Ray looks at each of them. So all that are there are taken at once, and a large cluster costs no more a batch.
        done: list[Any] = []
        if refs:
            done, _ = self._ray.wait(refs, num_returns=len(refs), timeout=0)
            if not done:
                done, _ = self._ray.wait(refs, num_returns=1, timeout=seconds)
        else:
            sleep(seconds)  # nothing was submitted
        self._check_open()
        for ref in done:
            actor = self._state.refs.pop(ref, None)
            if actor is None:  # it was given up because of the answer before this one
                continue
            try:
                answer = self._ray.get(ref)
            except self._ray.exceptions.RayTaskError as error:  # what came could not be unpickled there
                self._handle(actor, ref, NotMade("what it is to be made of", RemoteError.of(error)))
            except self._ray.exceptions.ObjectLostError as error:
                self._make_again(actor, ref, error)
            except self._ray.exceptions.RayError as error:
                self._state.refs[ref] = actor
                self._replace(actor, _reason(error))
            else:
                self._handle(actor, ref, answer)
        self._send()

    def _handle(self, actor: _Actor, ref: Any, answer: Any) -> None:
        work = actor.in_flight.pop(ref, None)
        if isinstance(answer, Opened):
            actor.opened = answer
            self._deaths.started()
        elif isinstance(answer, Broken):
            self._give_up(actor, answer)
        elif work is not None:
            self._deaths.clear(work.step)
            self._state.ready.append(self._outcome(work, answer, actor))

    def _outcome(self, work: Work, answer: Batch | NoBatch | NotMade, actor: _Actor) -> Outcome:
        if isinstance(answer, NoBatch):
            return Ended(work.step, answer.stream)
        if isinstance(answer, NotMade):
            return Failed(work.step, answer.error.open(), answer.place)
        buffers = [self._copied(each) for each in answer.buffers] if self._copy else answer.buffers
        try:
            batch = pickle.loads(answer.head, buffers=buffers)  # noqa: S301  made by our own worker
        except Exception as error:  # noqa: BLE001  whatever a user's class does when it is unpickled
            return Failed(work.step, error, f"the finished batch, from {actor}")
        return Done(work.step, batch, answer.bad, answer.seconds, answer.stream, answer.tokens, answer.made_on)

    def _copied(self, buffer: Any) -> Any:
        lent = self._batches.empty(buffer.shape, np.dtype(np.uint8))
        np.copyto(lent, buffer)
        return lent

    def _make_again(self, actor: _Actor, ref: Any, error: Exception) -> None:
        """Make a batch again that was lost with the store of its node, after it was made."""
        work = actor.in_flight.pop(ref, None)
        if work is None:
            return
        if work.replica is not None or work.dataset_copy is not None:
            actor.in_flight[ref] = work  # its copy of the stream is past it: another begins there again
            self._replace(actor, _reason(error))
            return
        self._state.works.appendleft(work)
        said = f"batch {work.step} of {actor} was lost before it arrived: {_reason(error)}; it is made again"
        warnings.warn(said, RuntimeWarning, stacklevel=5)

    def _give_up(self, actor: _Actor, answer: Broken) -> None:
        """Do without an actor whose node came later and cannot open the dataset; at the start, raise its error."""
        state, error = self._state, answer.error.open()
        if not self._began or self._pinned or not any(each.opened for each in state.actors):
            error.add_note(f"headrace: Ray worker {actor.number}, before its first sample")
            self._finish()
            raise error
        said = f"Ray worker {actor.number} cannot open the dataset and takes no part: {type(error).__name__}: {error}"
        self._kill(actor)
        state.actors.remove(actor)
        warnings.warn(said, RuntimeWarning, stacklevel=5)

    def _replace(self, dead: _Actor, reason: str) -> None:
        """Start an actor in the place of one that died, and let its works be made again."""
        self._take_finished(dead)
        state, works = self._state, [*dead.in_flight.values()]
        lost = dead.opened is not None and not connection.is_alive(dead.opened.node)
        death = _ActorDeath(
            number=dead.number,
            pid=0 if dead.opened is None else dead.opened.pid,
            ready=dead.opened is not None,
            at=dead.doing(),
            suspects=[work.step for work in dead.making()],
            works=[*works, *dead.waiting],
            name=str(dead),
            reason="its node left the cluster" if lost else reason,
        )
        self._kill(dead)
        try:
            # With its node, or before it was given a work: no batch is to blame.
            culprit = None if lost else self._deaths.judge(death)
            successor = self._start(dead.number)
        except BaseException:
            self._finish()
            raise
        state.actors[state.actors.index(dead)] = successor
        if culprit is not None:
            works = [work for work in works if work.step != culprit[0]]
            state.ready.append(Failed(*culprit, death.at))
        for work in sorted([*works, *dead.waiting], key=lambda work: work.step):
            self._queue(work)
        state.works = deque(sorted(state.works, key=lambda work: work.step))
        if culprit is None:  # last: where warnings are errors, nothing is lost by it
            said = f"{death}; a new one starts, and {len(death.works)} batches are made again"
            warnings.warn(said, RuntimeWarning, stacklevel=5)

    def _take_finished(self, dead: _Actor) -> None:
        """Take the batches that it made before it died: what it was making is then the first that is left."""
        for ref in list(dead.in_flight):
            try:
                answer = self._ray.get(ref, timeout=0)
            except self._ray.exceptions.RayError:
                continue
            self._state.refs.pop(ref, None)
            self._handle(dead, ref, answer)

    def _kill(self, actor: _Actor) -> None:
        for ref in [ref for ref, whose in self._state.refs.items() if whose is actor]:
            del self._state.refs[ref]
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(actor.handle)

    def _explain(self) -> str:
        return "\n".join(f"{each}: {each.doing()}" for each in self._state.actors)


def _named(work: Work) -> str:
    """Say which samples a work is of: on another machine nobody sees which of them is being read."""
    ends = dict.fromkeys(work.name(row) for row in (0, work.rows - 1)) if work.rows else {}
    return " ".join([" to ".join(ends), f"of batch {work.step}"]).strip()


def _reason(error: Exception) -> str:
    """Return the part of Ray's message that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith("The actor is dead because")), lines[0] if lines else "")
    for rest in ("Some common causes", "There are some potential root causes", "The task may or may not"):
        said = said.partition(rest)[0]
    return said.strip().rstrip(".") or type(error).__name__


def _packed(startup: Startup) -> tuple[bytes, list[Any]]:
    """Pickle what every actor needs, with large arrays apart: the actors of a node map them from its store."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        dispatch_table = {**cloudpickle.Pickler.dispatch_table, **reducers()}

    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    try:
        Pickler(file, protocol=5, buffer_callback=buffers.append).dump(startup)
    except Exception as error:
        raise unpicklable(startup, error) from error
    return file.getvalue(), [np.frombuffer(each.raw(), np.uint8) for each in buffers]


def _not_sent(error: Exception) -> CollateTypeError:
    ours = CollateTypeError(
        f"a batch's keys, or the samples that were read for it, cannot be sent to a node of the cluster: {error}",
        expected="what pickle can send: numbers, strings, arrays and containers of them",
        cure="change what the sampler or the iterable dataset yields, or use threads",
    )
    ours.__cause__ = error
    return ours


def _finish(state: _State, batches: Recycler, guard: ForkGuard) -> None:
    if guard.in_child:
        return  # a fork took the executor along, but its actors are not that process's
    ray = connection.imported()
    if ray.is_initialized():  # otherwise they ended with it, and asking would start another cluster
        for each in state.actors:
            with contextlib.suppress(Exception):
                ray.kill(each.handle)
    for held in (state.refs, state.works, state.ready, state.payload):
        held.clear()
    for each in state.actors:
        each.in_flight.clear()
        each.waiting.clear()
    batches.close()
