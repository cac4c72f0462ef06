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
from time import process_time, thread_time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import ray

from headrace.context import worker_info
from headrace.context.memory import Recycler, recycling
from headrace.context.seeds import GLOBALS, Here, key_of
from headrace.errors import CollateTypeError
from headrace.executors.base import SCRATCH
from headrace.executors.processes.messages import Broken, RemoteError
from headrace.executors.processes.preparing import one_thread_each, prepare
from headrace.interop.own_states import keeps_state
from headrace.make.source import Streamed
from headrace.plan.work import Ended, Failed, MadeOn, Work
from headrace.transport.out_of_band import dumped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.executors.processes.payload import Startup
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


class NoBatch(NamedTuple):
    """The stream had nothing left for the batch."""

    stream: tuple[int, Any] | None


class NotMade(NamedTuple):
    """The batch failed."""

    place: str
    error: RemoteError


class RemoteWorker:
    """The class of the actors. Its methods run on as many threads as ``threads_per_worker`` says."""

    def __init__(self) -> None:
        self._batches = Recycler(keep=2)
        self._local = threading.local()
        self._host = socket.gethostname()

    def prepare(self, payload: tuple[bytes, Sequence[Any]], number: int, probe: bool) -> Opened | Broken:
        """Open the dataset, call the user's ``worker_init_fn``, and read a sample."""
        threading.current_thread().name = self._name = f"headrace-{number} on {self._host}"
        try:
            startup: Startup = pickle.loads(payload[0], buffers=payload[1])  # noqa: S301  from our own loader
            self._maker = maker = startup.maker
            worker_info.set_current(
                worker_info.WorkerInfo(number, startup.workers, startup.seed + number, maker.source.dataset)
            )
            one_thread_each()
            maker.ambient.enter_process()
            seeding = prepare(startup, number)
            self._alone = startup.threads == 1
            self._seeding = seeding if self._alone else ()
            self._local.scratch = Recycler(keep=SCRATCH)
            if probe:
                _probe(startup)
        except BaseException as error:  # noqa: BLE001  whatever a user's import, dataset or init raises
            return Broken(RemoteError.of(error))
        return Opened(ray.get_runtime_context().get_node_id(), self._host, os.getpid())

    def make(self, work: Work) -> Batch | NoBatch | NotMade:
        """Make a batch; never raises."""
        clock = process_time if self._alone else thread_time
        began = clock()
        worker_info.tell_torch()  # a dataset may load it with its first sample
        with recycling(self._scratch()):
            outcome = self._maker.make(
                work, here=Here(), empty=self._batches.empty, seeding=self._seeding, gives_back=False
            )
        return self._answer(outcome, clock, began)

    def _scratch(self) -> Recycler:
        if not hasattr(self._local, "scratch"):  # a thread of Ray's that is new here
            threading.current_thread().name = self._name
            self._maker.ambient.enter_thread()
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
            return NotMade("the finished batch", RemoteError.of(_not_sent(error)))
        nbytes = len(head) + sum(each.nbytes for each in buffers)
        made_on = MadeOn(self._host, clock() - began, nbytes)
        return Batch(head, buffers, outcome.bad, outcome.seconds, outcome.stream, outcome.tokens, made_on)


def _stays(buffer: pickle.PickleBuffer, buffers: list[Any]) -> bool:
    raw = buffer.raw()
    if raw.nbytes < IN_BAND:
        return True
    buffers.append(np.frombuffer(raw, np.uint8))
    return False


def _not_sent(error: Exception) -> Exception:
    if isinstance(error, MemoryError):
        return error
    ours = CollateTypeError(
        f"the batch cannot be sent from a node of the cluster: {error}",
        expected="what pickle can send: arrays, numbers, strings and containers of them",
        cure="convert the samples or the batches, or use threads",
    )
    ours.__cause__ = error
    return ours


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
