"""A worker on a node of the cluster: an actor that makes the batches it is asked for.

    loader ──Work──> maker.make ─> pickled, arrays apart ──Made──> the node's object store ──> loader

Nothing is raised here: an error is an answer, so that what Ray raises is always the end of an actor or of an object.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import socket
import threading
from time import perf_counter, process_time, thread_time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import ray

from headrace.context import worker_info
from headrace.context.memory import Recycler, recycling
from headrace.context.seeds import GLOBALS, Here, key_of
from headrace.executors.base import SCRATCH
from headrace.executors.not_sent import batch_not_sent
from headrace.executors.processes.messages import Broken, RemoteError
from headrace.executors.processes.preparing import one_thread_each, prepare
from headrace.interop.own_states import keeps_state
from headrace.make.source import Streamed
from headrace.plan.work import Ended, Failed, MadeOn, Making, Work
from headrace.transport.out_of_band import dumped

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from headrace.executors.processes.payload import Startup
    from headrace.make.maker import Maker
    from headrace.plan.work import BadSample, Outcome

IN_BAND = 1024
"""Bytes; smaller buffers stay in the pickle."""


class Opened(NamedTuple):
    """The worker is prepared, here."""

    node: str
    """Ray's id of its node."""
    host: str
    pid: int


class Batch(NamedTuple):
    """A batch on its way: its pickle, and its buffers, which Ray carries apart."""

    head: bytes
    buffers: list[Any]
    bad: tuple[BadSample, ...]
    seconds: dict[str, float]
    stream: tuple[int, Any] | None
    tokens: tuple[int, int] | None
    made_on: MadeOn
    making: Making | None
    packed: float
    """When, by this machine's ``time.perf_counter``."""


class NoBatch(NamedTuple):
    """The stream had nothing left for the batch."""

    stream: tuple[int, Any] | None


class NotMade(NamedTuple):
    """The batch failed."""

    place: str
    error: RemoteError


class Unprepared(NamedTuple):
    """The worker has no such dataset: it was restarted, or has opened others since."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Prepared:
    """A dataset that the worker has opened, with all that belongs to it."""

    maker: Maker
    info: worker_info.WorkerInfo
    seeding: Collection[str]
    alone: bool
    """Whether one batch at a time is made here."""
    users: set[str] = dataclasses.field(default_factory=set)
    """The loops that read it."""


KEPT = 16
"""Datasets that a worker of a pool keeps open at most: ranks that were killed have let go of none."""


class RemoteWorker:
    """The class of the actors. Its methods run on as many threads as ``threads_per_worker`` says."""

    def __init__(self) -> None:
        self._batches = Recycler(keep=2)
        self._local = threading.local()
        self._host = socket.gethostname()
        self._node = ray.get_runtime_context().get_node_id()
        self._name = f"headrace on {self._host}"
        self._preparing = threading.Lock()
        self._prepared: dict[str, _Prepared] = {}

    def prepare(
        self, key: tuple[str, str], payload: tuple[bytes, Sequence[Any]], number: int, probe: bool
    ) -> Opened | Broken:
        """Open the dataset, call the user's ``worker_init_fn``, and read a sample, once for the loops that share it.

        ``key`` names the dataset and the loop.
        """
        dataset, user = key
        try:
            with self._preparing:
                opened = self._prepared.pop(dataset, None) or self._open(payload, number, probe)
                opened.users.add(user)
                for old in list(self._prepared)[: len(self._prepared) + 1 - KEPT]:
                    del self._prepared[old]
                self._prepared[dataset] = opened
        except BaseException as error:  # noqa: BLE001  whatever a user's import, dataset or init raises
            return Broken(RemoteError.of(error))
        return Opened(self._node, self._host, os.getpid())

    def _open(self, payload: tuple[bytes, Sequence[Any]], number: int, probe: bool) -> _Prepared:
        threading.current_thread().name = self._name = f"headrace-{number} on {self._host}"
        startup: Startup = pickle.loads(payload[0], buffers=payload[1])  # noqa: S301  from our own loader
        maker = startup.maker
        info = worker_info.WorkerInfo(number, startup.workers, startup.seed + number, maker.source.dataset)
        worker_info.set_current(info)
        one_thread_each()
        maker.ambient.enter_process()
        seeding = prepare(startup, number)
        alone = startup.threads == 1
        self._local.scratch = Recycler(keep=SCRATCH)
        if probe:
            _probe(startup)
        return _Prepared(maker, info, seeding if alone else (), alone)

    def forget(self, dataset: str, user: str) -> None:
        """Let go of a dataset, if no other loop reads it."""
        with self._preparing:
            opened = self._prepared.get(dataset)
            if opened is not None:
                opened.users.discard(user)
                if not opened.users:
                    del self._prepared[dataset]

    def make(self, dataset: str, work: Work) -> Batch | NoBatch | NotMade | Unprepared:
        """Make a batch of a dataset; never raises."""
        prepared = self._prepared.get(dataset)
        if prepared is None:
            return Unprepared()
        clock = process_time if prepared.alone else thread_time
        began = clock()
        # For each batch: the first sample may import torch, whose get_worker_info then needs it too.
        worker_info.set_current(prepared.info)
        with recycling(self._scratch(prepared.maker)):
            outcome = prepared.maker.make(
                work, here=Here(), empty=self._batches.empty, seeding=prepared.seeding, gives_back=False
            )
        return self._answer(outcome, clock, began)

    def _scratch(self, maker: Maker) -> Recycler:
        if not hasattr(self._local, "scratch"):  # a thread of Ray's that is new here
            threading.current_thread().name = self._name
            maker.ambient.enter_thread()
            self._local.scratch = Recycler(keep=SCRATCH)
        found: Recycler = self._local.scratch
        return found

    def _answer(self, outcome: Outcome, clock: Any, began: float) -> Batch | NoBatch | NotMade:
        if isinstance(outcome, Ended):
            return NoBatch(outcome.stream)
        if isinstance(outcome, Failed):
            return NotMade(outcome.place, RemoteError.of(outcome.error))
        buffers: list[Any] = []
        try:
            head = dumped(outcome.batch, lambda buffer: _stays(buffer, buffers))
        except Exception as error:  # noqa: BLE001  whatever a user's __reduce__ raises
            return NotMade("the finished batch", RemoteError.of(batch_not_sent(error, "a node of the cluster")))
        nbytes = len(head) + sum(each.nbytes for each in buffers)
        made_on = MadeOn(self._host, self._node, clock() - began, nbytes)
        return Batch(
            head,
            buffers,
            outcome.bad,
            dict(outcome.seconds),
            outcome.stream,
            outcome.tokens,
            made_on,
            outcome.making,
            perf_counter(),
        )


def _stays(buffer: pickle.PickleBuffer, buffers: list[Any]) -> bool:
    raw = buffer.raw()
    if raw.nbytes < IN_BAND:
        return True
    buffers.append(np.frombuffer(raw, np.uint8))
    return False


def _probe(startup: Startup) -> None:
    """Read the first sample, or where that is bad another; raises if files or modules are missing for all of them."""
    source = startup.maker.source
    if isinstance(source, Streamed) or source.dataset is None or keeps_state(source.dataset):
        return  # reading it would move it
    try:
        samples = len(source.dataset)
    except Exception:  # noqa: BLE001  a user's own length; who needs it calls it again
        return
    maker = dataclasses.replace(startup.maker, on_error="raise")
    outcome: Outcome | None = None
    for index in dict.fromkeys((0, samples // 2, samples - 1) if samples else ()):
        outcome = maker.make(Work(key_of(startup.seed), 0, 0, 0, [index]), seeding=GLOBALS)
        # Any other error is the sample's own, which comes at its step.
        if not isinstance(outcome, Failed) or not isinstance(outcome.error, OSError | ImportError):
            return
    if isinstance(outcome, Failed):
        raise outcome.error
