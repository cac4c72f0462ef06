"""The executor of actors: makes batches on the nodes of a Ray cluster.

    submit ──> works ──> actor 0 … n-1, on any node ──> object store ──> next (ray.wait on what is in flight)

A work says everything, so any actor may make it, and a lost one is made again. An actor that dies (killed, with its
node, or preempted) is replaced; what was in hand goes to whoever is free. Ray's reference to a batch is its ticket:
the answer of an actor that was given up is never looked at, so no batch comes twice. An actor that finds no room waits
in Ray's queue, where an autoscaler sees it, and takes part once a node has room.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import pickle
import threading
import uuid
import warnings
import weakref
from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass, field
from time import monotonic, perf_counter, sleep
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.context.memory import Recycler
from headrace.errors import ArgumentError
from headrace.executors import lifecycle
from headrace.executors.lifecycle import ForkGuard, closed_while_reading, submitted_after_closing, timed_out
from headrace.executors.not_sent import keys_not_sent
from headrace.executors.processes.deaths import DEADLY, Deaths
from headrace.executors.processes.messages import Broken, RemoteError
from headrace.executors.processes.payload import Startup, unpicklable
from headrace.executors.ray_cluster import connection
from headrace.executors.ray_cluster.remote_actor import ActorDeath, RemoteActor, reason
from headrace.executors.ray_cluster.remote_worker import Batch, NoBatch, NotMade, Opened, Unprepared
from headrace.interop.user_line import user_line
from headrace.plan.work import Carried, Done, Ended, Failed
from headrace.transport.out_of_band import reducers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.executors.ray_cluster.actor_sources import ActorSource
    from headrace.executors.worker_options import Options
    from headrace.make.maker import Maker
    from headrace.plan.work import Outcome, Work

IN_HAND = 2
"""Works for each thread of an actor: one that it makes, and one that hides the way to it."""

NODE_DIED = "its node has died"
"""Ray's words, where an actor died before anything is known of its node."""

RESTARTING = "The actor is restarting"
"""Ray's words for what it did not even send."""

RESTART_LOOKS = 0.2
"""Seconds between two looks whether Ray has restarted an actor."""

STARTING = 60.0
"""Seconds that a loop waits for actors that should have room, before it begins with those that it has."""

TICK = 1.0
"""Seconds after which a wait looks whether the executor was closed."""


@dataclass(slots=True)
class _State:
    """All that closing has to let go of."""

    actors: list[RemoteActor] = field(default_factory=list)
    refs: dict[Any, RemoteActor] = field(default_factory=dict)
    """Whose answer each reference is: to being prepared, or to a work."""
    works: deque[Work] = field(default_factory=deque)
    """Works for whoever is free first."""
    ready: deque[Outcome] = field(default_factory=deque)
    payload: list[Any] = field(default_factory=list)
    """Ray's reference to the dataset."""
    key: tuple[str, str] = ("", "")
    """What names the dataset, and this loop, in actors that others use too."""


class RayActors:
    """Makes batches in actors, at most ``options.workers * threads * prefetch`` ahead of the consumer.

    ``source`` is where the actors come from; ``copy`` and ``probe`` are those of `RayCluster`.
    """

    def __init__(self, maker: Maker, options: Options, source: ActorSource, *, copy: bool, probe: bool) -> None:
        self._ray = connection.imported()
        self._source = source
        self._limit = source.threads * min(options.prefetch, IN_HAND)
        self._most_in_flight = options.workers * source.threads * IN_HAND
        """Works in flight at one actor, and at all of a pool; the rest wait here for whoever is free first."""
        self._in_flight = 0
        self.capacity = options.workers * source.threads * options.prefetch
        self._copy, self._probe = copy, probe
        self._began = self._pinned = False
        """Whether the nodes have opened the dataset; whether actors have copies that others cannot stand in for."""
        self._by_load: list[list[tuple[int, RemoteActor]]] = [[] for _ in range(self._limit)]
        """The actors that have room, by how many works each has in flight, in their order."""
        self._restarting: dict[RemoteActor, float] = {}
        """Actors that Ray restarts and that refuse everything meanwhile; when they are sent the dataset again."""
        self._apart: RemoteActor | None = None
        self._may_start_apart = True
        # Nodes may leave while many actors start on them.
        self._deaths = Deaths(options.restarts, DEADLY * source.count)
        self._batches = Recycler(keep=self.capacity + 2)
        self._guard = ForkGuard()
        self._reading = threading.RLock()
        self._state = state = _State()
        packed = _packed(Startup(source.count, source.threads, options.seed, maker, options.init))
        if source.shared:
            state.key = (_hash(packed), uuid.uuid4().hex)
        source.connect()
        self._connection = connection.Connection()
        self._finish = weakref.finalize(self, _finish, state, source, self._batches, self._guard, self._connection)
        try:
            state.payload.append(self._ray.put(packed))
            expected = source.expected()
            for place, number in enumerate(source.places(options.rank, self._most_in_flight)):
                state.actors.append(self._start(number, place))
            self._await_actors(expected)
        except BaseException:
            self._finish()
            raise

    @property
    def closed(self) -> bool:
        """Whether its workers are gone, or belong to another process."""
        return self._guard.in_child or not self._finish.alive or self._connection.lost

    def submit(self, work: Work) -> None:
        """Hand a work to the actor that is free first, or to the one that has the copy of its stream."""
        self._guard.check()
        with self._reading, self._closing_on_ctrl_c():
            if not self._finish.alive:
                raise submitted_after_closing()
            self._check_connection()
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
                if not warned and waited >= lifecycle.STUCK:
                    warned = True
                    lifecycle.warn_of_wait(self._explain())
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
            self._list(each)
        self._end_apart()
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
        self._check_connection()

    def _check_connection(self) -> None:
        if self._connection.lost:
            self._finish()
            raise self._connection.error()

    def _start(self, number: int, place: int) -> RemoteActor:
        actor = RemoteActor(number, self._source.start(number), self._source.threads, place)
        self._prepare(actor)
        return actor

    def _actor_apart(self) -> RemoteActor | None:
        """Return an actor that makes this rank's batches only; None where that is no different from any other.

        An actor of a pool also dies of the batches of other ranks. So only one that dies apart proves what killed it.
        """
        if self._apart is None and self._may_start_apart:
            opened = [each.opened for each in self._state.actors if each.opened is not None]
            node = opened[0].node if opened else self._ray.get_runtime_context().get_node_id()
            handle = self._source.start_apart(node)
            if handle is None:
                self._may_start_apart = False
            else:
                number = self._source.count
                self._apart = RemoteActor(number, handle, self._source.threads, number, apart=True)
                self._state.actors.append(self._apart)
                self._prepare(self._apart)
        return self._apart

    def _end_apart(self) -> None:
        """End the actor that makes suspicious batches, if it has none left."""
        if self._apart is not None and not self._apart.in_flight and not self._apart.waiting:
            self._kill(self._apart)
            self._remove(self._apart)

    def _remove(self, actor: RemoteActor) -> None:
        self._state.actors.remove(actor)
        if actor is self._apart:
            self._apart = None

    def _prepare(self, actor: RemoteActor) -> None:
        ref = actor.handle.prepare.remote(self._state.key, self._state.payload[0], actor.number, self._probe)
        self._state.refs[ref] = actor

    def _await_actors(self, expected: int) -> None:
        """Wait for the actors that should have room: a node that cannot open the dataset is an error here."""
        deadline = monotonic() + STARTING
        while sum(each.opened is not None for each in self._state.actors) < expected and monotonic() < deadline:
            self._receive(TICK)
        self._began = True

    def _queue(self, work: Work) -> None:
        number = None
        if work.replica is not None and not work.keys:
            number = work.replica.number
        elif work.dataset_copy is not None:
            number = work.dataset_copy.number
        if number is not None:
            if self._source.shared:
                raise _not_shared()
            self._pinned = True
            self._state.actors[number % self._source.count].waiting.append(work)
        elif self._deaths.is_blamed_next(work) and (apart := self._actor_apart()) is not None:
            apart.waiting.append(work)
        else:
            self._state.works.append(work)

    def _send(self) -> None:
        """Send works as far as the actors have room, each to the one with the fewest.

        A work that is suspected of killing workers goes alone, so that the next death shows whether it was the cause.
        """
        state = self._state
        if self._pinned or self._apart is not None:
            for actor in [each for each in state.actors if each.waiting and each.opened is not None]:
                while actor.waiting and self._has_room(actor, actor.waiting[0]):
                    if not self._order(actor, actor.waiting.popleft()):
                        return
        while state.works and self._in_flight < self._most_in_flight:
            free = next((each for each in self._by_load if each), None)
            if free is None:
                break
            _, actor = free[0]
            if not self._has_room(actor, state.works[0]) or not self._order(actor, state.works.popleft()):
                break

    def _list(self, actor: RemoteActor) -> None:
        """List an actor by how many works it has in flight, so that nobody looks at all actors for each batch."""
        load: int | None = len(actor.in_flight)
        counted = 0 if actor.opened is None else len(actor.in_flight)
        self._in_flight += counted - actor.counted
        actor.counted = counted
        if actor.opened is None or actor.apart or load == self._limit:
            load = None
        if actor.load != load:
            if actor.load is not None:
                listed = self._by_load[actor.load]
                del listed[bisect_left(listed, (actor.place,))]
            if load is not None:
                insort(self._by_load[load], (actor.place, actor))
            actor.load = load

    def _has_room(self, actor: RemoteActor, work: Work) -> bool:
        suspect = self._deaths.is_suspect((*actor.in_flight.values(), work))
        return len(actor.in_flight) < (1 if suspect else self._limit)

    def _order(self, actor: RemoteActor, work: Work) -> bool:
        """Send a work; False if the actor is dead, and was replaced."""
        try:
            ref = actor.handle.make.remote(self._state.key[0], work)
        except self._ray.exceptions.RayError:  # it has died, which its other answers say too
            actor.waiting.appendleft(work)
            self._replace(actor, "it takes no more works")
            return False
        except Exception as error:  # noqa: BLE001  whatever a user's key does when it is pickled
            self._state.ready.append(
                Failed(work.step, keys_not_sent(error, "a node of the cluster"), "what it is to be made of")
            )
        else:
            actor.in_flight[ref] = work
            self._state.refs[ref] = actor
            self._list(actor)
        return True

    def _receive(self, seconds: float) -> None:
        """Wait for answers, so many seconds at most, and take those that are there."""
        seconds = min(seconds, self._prepare_restarted())
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
                if RESTARTING in str(error):
                    self._await_restart(actor, ref)
                else:
                    self._state.refs[ref] = actor
                    self._replace(actor, reason(error))
            else:
                self._handle(actor, ref, answer)
            self._list(actor)
        self._send()
        self._end_apart()

    def _handle(self, actor: RemoteActor, ref: Any, answer: Any) -> None:
        work = actor.in_flight.pop(ref, None)
        if isinstance(answer, Opened):
            actor.opened = answer
            self._deaths.started()
        elif isinstance(answer, Broken):
            self._give_up(actor, answer)
        elif isinstance(answer, Unprepared):
            self._prepare_again(actor, work)
        elif work is not None:
            self._deaths.clear(work.step)
            self._state.ready.append(self._outcome(work, answer, actor))

    def _prepare_again(self, actor: RemoteActor, work: Work | None) -> None:
        """Send an actor of a pool the dataset again: it was restarted, or has opened others since."""
        if work is not None:
            self._state.works.appendleft(work)
        if actor.opened is not None:  # its other works come back with the same answer
            actor.opened = None
            self._prepare(actor)

    def _await_restart(self, actor: RemoteActor, ref: Any) -> None:
        """Keep what an actor of a pool refused: it died of another's work, or was found dead, and Ray restarts it."""
        work = actor.in_flight.pop(ref, None)
        if work is not None:
            self._state.works.appendleft(work)
        actor.opened = None
        self._restarting[actor] = monotonic() + RESTART_LOOKS

    def _prepare_restarted(self) -> float:
        """Send the dataset to actors that Ray may have restarted by now; return the seconds until the next are due."""
        for actor in [actor for actor, due in self._restarting.items() if due <= monotonic()]:
            del self._restarting[actor]
            self._prepare(actor)
        return RESTART_LOOKS if self._restarting else TICK

    def _outcome(self, work: Work, answer: Batch | NoBatch | NotMade, actor: RemoteActor) -> Outcome:
        if isinstance(answer, NoBatch):
            return Ended(work.step, answer.stream)
        if isinstance(answer, NotMade):
            return Failed(work.step, answer.error.open(), answer.place)
        opening = perf_counter()
        buffers = [self._copied(each) for each in answer.buffers] if self._copy else answer.buffers
        try:
            batch = pickle.loads(answer.head, buffers=buffers)  # noqa: S301  made by our own worker
        except Exception as error:  # noqa: BLE001  whatever a user's class does when it is unpickled
            return Failed(work.step, error, f"the finished batch, from {actor}")
        return Done(
            work.step,
            batch,
            answer.bad,
            answer.seconds,
            answer.stream,
            answer.tokens,
            answer.made_on,
            answer.making,
            Carried(answer.packed, opening, perf_counter()),
        )

    def _copied(self, buffer: Any) -> Any:
        lent = self._batches.empty(buffer.shape, np.dtype(np.uint8))
        np.copyto(lent, buffer)
        return lent

    def _make_again(self, actor: RemoteActor, ref: Any, error: Exception) -> None:
        """Make a batch again that was lost with the store of its node, after it was made."""
        work = actor.in_flight.pop(ref, None)
        if work is None:
            return
        if work.replica is not None or work.dataset_copy is not None:
            actor.in_flight[ref] = work  # its copy of the stream is past it: another begins there again
            self._replace(actor, reason(error))
            return
        self._state.works.appendleft(work)
        self._list(actor)  # here too: where warnings are errors, nothing else comes after it
        said = f"batch {work.step} of {actor} was lost before it arrived: {reason(error)}; it is made again"
        warnings.warn(said, RuntimeWarning, stacklevel=user_line())

    def _give_up(self, actor: RemoteActor, answer: Broken) -> None:
        """Do without an actor whose node came later and cannot open the dataset; at the start, raise its error."""
        state, error = self._state, answer.error.open()
        if not self._began or self._pinned or not any(each.opened for each in state.actors):
            error.add_note(f"headrace: Ray worker {actor.number}, before its first sample")
            self._finish()
            raise error
        said = f"Ray worker {actor.number} cannot open the dataset and takes no part: {type(error).__name__}: {error}"
        self._kill(actor)
        self._remove(actor)
        self._may_start_apart &= not actor.apart
        for work in actor.waiting:
            self._queue(work)
        warnings.warn(said, RuntimeWarning, stacklevel=user_line())

    def _replace(self, dead: RemoteActor, why: str) -> None:
        """Start an actor in the place of one that died, and let its works be made again."""
        self._take_finished(dead)
        state, works = self._state, [*dead.in_flight.values()]
        lost = NODE_DIED in why or (dead.opened is not None and not connection.is_alive(dead.opened.node))
        death = ActorDeath(
            number=dead.number,
            pid=0 if dead.opened is None else dead.opened.pid,
            ready=dead.opened is not None,
            at=dead.doing(),
            suspects=[work.step for work in dead.making()],
            works=[*works, *dead.waiting],
            name=str(dead),
            reason="its node left the cluster" if lost else why,
        )
        self._kill(dead)
        try:
            # With its node, or before it was given a work: no batch is to blame.
            self._source.check(why)
            culprit = None if lost else self._deaths.judge(death)
            if dead.apart:  # another starts if a batch needs it
                self._remove(dead)
            else:
                state.actors[state.actors.index(dead)] = self._start(dead.number, dead.place)
        except BaseException:
            self._finish()
            raise
        if culprit is not None:
            works = [work for work in works if work.step != culprit[0]]
            state.ready.append(Failed(*culprit, death.at))
        for work in sorted([*works, *dead.waiting], key=lambda work: work.step):
            self._queue(work)
        state.works = deque(sorted(state.works, key=lambda work: work.step))
        if culprit is None:  # last: where warnings are errors, nothing is lost by it
            said = f"{death}; a new one starts, and {len(death.works)} batches are made again"
            warnings.warn(said, RuntimeWarning, stacklevel=user_line())

    def _take_finished(self, dead: RemoteActor) -> None:
        """Take the batches that it made before it died: what it was making is then the first that is left."""
        for ref in list(dead.in_flight):
            try:
                answer = self._ray.get(ref, timeout=0)
            except self._ray.exceptions.RayError:
                continue
            self._state.refs.pop(ref, None)
            self._handle(dead, ref, answer)

    def _kill(self, actor: RemoteActor) -> None:
        for ref in [ref for ref, whose in self._state.refs.items() if whose is actor]:
            del self._state.refs[ref]
        actor.opened = None
        self._list(actor)
        self._restarting.pop(actor, None)
        self._source.end(actor.handle, self._state.key)

    def _explain(self) -> str:
        return "\n".join(f"{each}: {each.doing()}" for each in self._state.actors)


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


def _hash(packed: tuple[bytes, list[Any]]) -> str:
    """Return what names a dataset in an actor: ranks that send the same one share it there."""
    digest = hashlib.blake2b(packed[0], digest_size=16)
    for each in packed[1]:
        digest.update(each)
    return digest.hexdigest()


def _not_shared() -> ArgumentError:
    return ArgumentError(
        "a dataset that is read as a stream, or keeps a state of its own, cannot be read in a RayPool",
        expected="a dataset whose samples any actor can make",
        cure='use actors of this rank alone (backend="ray"), or read_once=True for a stream',
    )


def _finish(
    state: _State, source: ActorSource, batches: Recycler, guard: ForkGuard, connected: connection.Connection
) -> None:
    if guard.in_child:
        return  # a fork took the executor along, but its actors are not that process's
    if not connected.lost:  # otherwise they ended with it, and asking would start another cluster
        for each in state.actors:
            source.end(each.handle, state.key)
    for held in (state.refs, state.works, state.ready, state.payload):
        held.clear()
    for each in state.actors:
        each.in_flight.clear()
        each.waiting.clear()
    batches.close()
