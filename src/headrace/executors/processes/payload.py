"""What every worker of a pool needs, pickled once: dataset, transforms, collate function."""

from __future__ import annotations

import dataclasses
import mmap
import os
import pickle
from dataclasses import dataclass, field
from multiprocessing import reduction
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import kind_of
from headrace.errors import ArgumentTypeError, BadFile
from headrace.executors.processes import inherited
from headrace.executors.processes.inherited import Inherited
from headrace.storage import mapped_samples
from headrace.storage.mapped_samples import OwnMemory
from headrace.storage.signed_urls import KnownSecrets
from headrace.transport import shared

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.make.maker import Maker

ALIGNMENT = 64
"""Bytes."""

DEEPEST = 20
"""Levels of attributes that are searched for what cannot be pickled."""


@dataclass(frozen=True, slots=True)
class Startup:
    """What every worker is started with."""

    secrets: KnownSecrets = field(default_factory=KnownSecrets, init=False)
    """First, so that a dataset that is unpickled after it may read signed URLs."""
    workers: int
    threads: int
    seed: int
    maker: Maker
    init: Callable[[int], Any] | None


class Payload:
    """A `Startup` in shared memory, for all workers.

    Nobody copies large arrays in it: workers map them, and a page becomes a worker's own when it writes to it.
    """

    def __init__(self, thing: Startup) -> None:
        self._fd, self._spans = -1, [(0, 0)]
        self._inherited = Inherited()
        buffers: list[pickle.PickleBuffer] = []
        try:
            head = self._inherited.dumps(thing, buffers.append)
        except BadFile:  # a memory-mapped file, cut short
            self._inherited.close()
            raise
        except Exception as error:
            self._inherited.close()
            raise unpicklable(thing, error) from error
        pieces = [memoryview(head), *(buffer.raw() for buffer in buffers)]
        starts = np.cumsum([0, *(-(-piece.nbytes // ALIGNMENT) * ALIGNMENT for piece in pieces)]).tolist()
        self._size = max(starts[-1], 1)
        self._fd = shared.create(self._size)
        try:
            memory = shared.mapped(self._fd, self._size)
        except BaseException:
            self.close()
            raise
        self._spans = [(start, start + piece.nbytes) for start, piece in zip(starts, pieces, strict=False)]
        try:
            for (start, stop), piece in zip(self._spans, pieces, strict=True):
                mapped_samples.copy_guarded(memory[start:stop], np.frombuffer(piece, np.uint8))
        except BaseException:
            self.close()
            raise

    def __reduce__(self) -> tuple[Any, ...]:
        handed = [reduction.DupFd(fd) for fd in self._inherited.fds]
        return _received, (reduction.DupFd(self._fd), self._size, self._spans, handed)

    def open(self) -> Startup:
        """Unpickle it, in the worker."""
        memory = OwnMemory(self._fd, self._size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        os.close(self._fd)
        self._fd = -1
        view = memoryview(memory)
        pieces = [view[start:stop] for start, stop in self._spans]
        token = inherited.handed.set(self._inherited.fds)
        try:
            startup: Startup = pickle.loads(pieces[0], buffers=pieces[1:])  # noqa: S301  written by our own parent
        finally:
            inherited.handed.reset(token)
        return startup

    def close(self) -> None:
        """Let go of the memory, in the loader's process: workers that were started have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._inherited.close()


def _received(duplicate: Any, size: int, spans: list[tuple[int, int]], handed: list[Any]) -> Payload:
    payload = Payload.__new__(Payload)
    payload._fd, payload._size, payload._spans = duplicate.detach(), size, spans
    payload._inherited = Inherited()
    payload._inherited.fds = [each.detach() for each in handed]
    return payload


def unpicklable(thing: Any, error: Exception) -> ArgumentTypeError:
    """Name the innermost part of what a worker needs that cannot be pickled."""
    path, part = "", thing
    for _ in range(DEEPEST):
        found = next(_failing(part), None)
        if found is None:
            break
        name, part, error = found
        path += name
    path = path.replace(".maker.source._dataset", "dataset").replace(".maker.collate._function", "collate_fn")
    path = path.replace(".init", "worker_init_fn").replace(".maker.", "")
    return ArgumentTypeError(
        f"{path or 'the dataset'} ({kind_of(part)}) cannot be sent to a worker process: {error}",
        found=kind_of(part),
        expected="an object that can be pickled",
        cure="Leave it out of what is pickled (__getstate__) and make it where it is used, start workers by fork, or "
        "use threads.",
    )


def _failing(thing: Any) -> Iterator[tuple[str, Any, Exception]]:
    for name, part in _parts(thing):
        trial = Inherited()
        try:
            trial.dumps(part)
        except Exception as error:  # noqa: BLE001  whatever a user's class does when it is pickled
            yield name, part, error
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
