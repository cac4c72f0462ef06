"""What the loader and a worker process say to each other over their channel.

The worker sends `Ready` once, or `Broken` if it could not be prepared. The loader sends an `Order` for each work, under
a ticket, with the slot for its batch. The worker answers each order under its ticket, in any order: `Made`, `Exhausted`
or `NotMade`.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import traceback
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from headrace.errors import RemoteTraceback, WorkerDied
from headrace.transport import shared
from headrace.transport.channel import LOST, Channel, close_quietly

if TYPE_CHECKING:
    from headrace.plan.work import BadSample, Making, Work
    from headrace.transport.slots import Message

STACK_SIGNAL = signal.SIGUSR2
"""Makes a worker write its Python stack, for the error that names it, without interrupting its work."""

DESCRIPTORS_CLOSED = 114
"""The exit code of a worker that finds its own file descriptors closed."""

LARGE = 1 << 12
"""Bytes; a larger order travels in shared memory, because only a short one is sure to fit into the channel."""


class Order(NamedTuple):
    """A work to be made."""

    ticket: int
    work: Work
    slot: int
    fresh: bool
    """Whether the slot needs new memory, because the user still holds the last batch in it."""


class RemoteError(NamedTuple):
    """An exception on its way from a worker."""

    pickled: bytes | None
    """None where pickle cannot carry it."""
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> RemoteError:
        """Pack an exception, as itself if it survives the way there and back, else as text."""
        text = "".join(traceback.format_exception(error))
        return cls(_pickled(error) or _pickled_without_constructor(error), text)

    def open(self) -> BaseException:
        """Return the exception, with the traceback in the worker as its cause."""
        try:
            error: BaseException = pickle.loads(self.pickled or b"")  # noqa: S301  from our own worker
        except Exception:  # noqa: BLE001  whatever a user's exception class does when it is unpickled
            error = RuntimeError(self.traceback.rstrip().rsplit("\n", 1)[-1])
        error.__cause__ = RemoteTraceback(self.traceback)
        return error


class Ready(NamedTuple):
    """The worker is prepared."""


class Broken(NamedTuple):
    """The worker could not be prepared."""

    error: RemoteError


class Made(NamedTuple):
    """A batch is made."""

    ticket: int
    message: Message
    bad: tuple[BadSample, ...]
    seconds: dict[str, float]
    stream: tuple[int, Any] | None
    tokens: tuple[int, int] | None
    making: Making | None
    packed: float
    """When, by ``time.perf_counter``."""


class Exhausted(NamedTuple):
    """The stream had nothing left for the batch."""

    ticket: int
    stream: tuple[int, Any] | None
    """A copy, and what its dataset keeps of itself, if it does."""


class NotMade(NamedTuple):
    """The batch failed."""

    ticket: int
    place: str
    error: RemoteError


Answer = Ready | Broken | Made | Exhausted | NotMade


def packed(message: Order | Answer) -> bytes:
    """Pickle a message; raises whatever a user's key does when it is pickled."""
    return pickle.dumps(message, protocol=5)


def send_order(channel: Channel, order: bytes) -> None:
    """Send an order to a worker, which may be dead: its death is noticed where its answers are read."""
    descriptor = None
    if len(order) > LARGE:
        with contextlib.suppress(OSError):  # no shared memory: the channel carries it, if slowly
            order, descriptor = b"", shared.store(order)
    with contextlib.suppress(OSError):
        channel.send(order, descriptor)
    close_quietly(descriptor)


def receive_order(channel: Channel) -> Order:
    """Wait for an order, in the worker; raises EOFError at the end."""
    message, descriptor = channel.receive()
    if descriptor == LOST:
        raise WorkerDied(
            "a worker process has too many files open to receive an order",
            expected="a free file descriptor",
            cure="raise the limit (ulimit -n)",
        )
    order: Order = pickle.loads(message if descriptor is None else shared.load(descriptor))  # noqa: S301  from our own parent
    return order


def receive_answer(channel: Channel) -> tuple[Answer, int | None] | None:
    """Wait for an answer, and the descriptor that comes with it; None at the worker's end."""
    try:
        message, descriptor = channel.receive()
    except (EOFError, OSError):
        return None
    return pickle.loads(message), descriptor  # noqa: S301  from our own worker


def _pickled(error: BaseException) -> bytes | None:
    try:
        data = pickle.dumps(error, protocol=5)
        return data if type(pickle.loads(data)) is type(error) else None  # noqa: S301  what was just pickled
    except Exception:  # noqa: BLE001  whatever a user's exception class does when it is pickled
        return None


def _pickled_without_constructor(error: BaseException) -> bytes | None:
    """Pickle an exception whose constructor needs other arguments than ``args`` holds: it is then not called."""
    if isinstance(type(error).__reduce__, FunctionType):
        return None  # the class has a way of its own, which failed
    try:
        data = pickle.dumps(_Rebuilt(error), protocol=5)
        same = str(pickle.loads(data)) == str(error)  # noqa: S301  as above
    except Exception:  # noqa: BLE001  as above
        return None
    return data if same else None


class _Rebuilt:
    """Pickles as an exception's class, ``args`` and attributes."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        state = self._error.__getstate__()
        attributes, slots = state if isinstance(state, tuple) else (state, None)
        args: Any = self._error.__reduce__()[1]  # with the file name of an OSError, which ``args`` lacks
        return _rebuilt, (type(self._error), args, {**(attributes or {}), **(slots or {})})


def _rebuilt(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    base: Any = next(each for each in kind.__mro__ if each.__module__ == "builtins")
    error: BaseException = base.__new__(kind, *args)
    base.__init__(error, *args)  # Python's own, which sets ``args``, and ``errno`` and the like
    for name, value in state.items():
        setattr(error, name, value)
    return error
