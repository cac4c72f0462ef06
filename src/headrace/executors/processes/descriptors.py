"""File descriptors of the loader and its workers: who gets which, and which must be held open by nobody else."""

from __future__ import annotations

import contextlib
import os
from multiprocessing import process, reduction
from typing import TYPE_CHECKING, Any, TypeVar

from headrace.context.dropped import WeakRefs
from headrace.transport.channel import Channel

if TYPE_CHECKING:
    from contextlib import ExitStack


class Descriptor:
    """A file descriptor that a worker process takes along, whichever way it is started."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self.fd),)

    def close(self) -> None:
        """Close it, once."""
        fd, self.fd = self.fd, -1  # first: another thread may fork meanwhile, and the number belong to another file
        if fd >= 0:
            os.close(fd)


End = TypeVar("End", Channel, Descriptor)

_private: WeakRefs[Channel | Descriptor] = WeakRefs()
"""What only the loader's process may hold open: a copy elsewhere would hide the loader's death from its workers."""

_workers: WeakRefs[Any] = WeakRefs()


def keep_from_children(*ends: Channel | Descriptor) -> None:
    """Close these in every process that is forked from now on."""
    for each in ends:
        _private.add(each)


def disown_in_children(worker: Any) -> None:
    """Let forked processes forget a worker: multiprocessing would end it when such a process exits."""
    _workers.add(worker)


def _after_fork() -> None:
    for each in _private:
        with contextlib.suppress(OSError):
            each.close()
    for worker in _workers:
        process._children.discard(worker)  # type: ignore[attr-defined]  # as multiprocessing does in its own children


os.register_at_fork(after_in_child=_after_fork)


def split(pair: tuple[End, End], first: ExitStack, second: ExitStack) -> tuple[End, End]:
    """Have the first of a pair closed by one stack, and the second by another."""
    first.callback(pair[0].close)
    second.callback(pair[1].close)
    return pair


def pipe() -> tuple[Descriptor, Descriptor]:
    """Return the reading and the writing end of a pipe."""
    read, write = os.pipe()
    return Descriptor(read), Descriptor(write)


def end_of(worker: Any) -> Descriptor:
    """Return a descriptor that becomes readable when a process ends, and that nobody else holds open."""
    try:
        return Descriptor(os.pidfd_open(worker.pid))
    except (AttributeError, OSError):  # not on Linux, or it has ended already
        return Descriptor(os.dup(worker.sentinel))


def _received(duplicate: Any) -> Descriptor:
    return Descriptor(duplicate.detach())
