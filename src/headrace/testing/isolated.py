"""One check in a process of its own: whatever it hangs in, crashes or changes, the caller only reads its report."""

from __future__ import annotations

import faulthandler
import gc
import mmap
import os
import pickle
import select
import signal
import tempfile
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic, monotonic_ns, sleep
from typing import TYPE_CHECKING, Any

from headrace.testing.source_lines import Frame, frames_of_dump, frames_of_error

if TYPE_CHECKING:
    from collections.abc import Callable

_POLL = 0.02


class Pulse:
    """What a check says of its reading, in memory that it shares with the process that watches it."""

    def __init__(self) -> None:
        # Since when (ns, 0 where nothing is read), and the key: each is stored at once, so a reader sees no half of it.
        self._memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    def beat(self, key: int, *, reading: bool = True) -> None:
        """Note that a sample is being read now, or that nothing is."""
        self._memory[1] = key
        self._memory[0] = monotonic_ns() if reading else 0

    def stuck(self, patience: float) -> bool:
        """Say whether the same sample has been read for longer than ``patience`` seconds."""
        since = self._memory[0]
        return since > 0 and monotonic_ns() - since > patience * 1e9

    @property
    def key(self) -> int | None:
        """The sample that is being read; None where none is."""
        return self._memory[1] if self._memory[0] else None


@dataclass(slots=True)
class Ran:
    """How a check ended: with a value, an error, a hang, the death of its process, or out of time."""

    value: Any = None
    error: str = ""
    hang: bool = False
    died: int = 0
    """The signal or the status that ended the process; 0: it ended by itself."""
    late: bool = False
    key: int | None = None
    frames: tuple[Frame, ...] = ()


def isolated(check: Callable[[], Any], pulse: Pulse, *, seconds: float, patience: float) -> Ran:
    """Run a check in a forked process and return how it ended, after ``seconds`` at the latest.

    >>> isolated(lambda: 1 + 1, Pulse(), seconds=10, patience=10).value
    2
    """
    pulse.beat(0, reading=False)
    receive, send = os.pipe()
    with tempfile.TemporaryFile() as stacks:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of other threads: this child only reads samples
            child = os.fork()
        if not child:
            os.close(receive)
            _run(check, send, stacks.fileno())
        os.close(send)
        with suppress(OSError):
            os.setpgid(child, child)
        try:
            ran = _watched(receive, pulse, monotonic() + seconds, patience)
            if ran.hang:
                ran.frames = _stacks(child, stacks.fileno())
        finally:
            os.close(receive)
            for kill in (os.killpg, os.kill):
                with suppress(OSError):
                    kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
    if ran.value is None and not (ran.error or ran.hang or ran.late):
        ran.died = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status) or -1
        ran.key = pulse.key
    return ran


def _run(check: Callable[[], Any], send: int, stacks: int) -> None:
    """Be the child: never return."""
    status = 1
    try:
        os.setpgid(0, 0)
        faulthandler.register(signal.SIGUSR1, file=stacks, all_threads=True, chain=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        warnings.simplefilter("ignore")
        gc.freeze()  # what the caller has is not looked at again
        nowhere = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        try:
            answer = pickle.dumps((check(), "", ()))
        except BaseException as error:  # noqa: BLE001  whatever a user's code raises is the answer
            text = "".join(traceback.format_exception_only(error)).strip()
            answer = pickle.dumps((None, text, frames_of_error(error)))
        rest = memoryview(answer)
        while rest:
            rest = rest[os.write(send, rest) :]
        status = 0
    finally:
        os._exit(status)


def _watched(receive: int, pulse: Pulse, deadline: float, patience: float) -> Ran:
    received = bytearray()
    while True:
        ready, _, _ = select.select([receive], [], [], _POLL)
        if ready:
            part = os.read(receive, 1 << 20)
            if not part:
                break
            received += part
        elif pulse.stuck(patience):
            return Ran(hang=True, key=pulse.key)
        elif monotonic() > deadline:
            return Ran(late=True, key=pulse.key)
    if not received:
        return Ran()
    try:
        value, error, frames = pickle.loads(received)  # noqa: S301  from our own child
    except (EOFError, pickle.UnpicklingError):
        return Ran()
    return Ran(value=value, error=error, frames=frames, key=pulse.key)


def _stacks(child: int, file: int) -> tuple[Frame, ...]:
    """Ask a process for the stacks of its threads; also one that never gives up the GIL answers."""
    with suppress(OSError):
        os.kill(child, signal.SIGUSR1)
    text = b""
    for _ in range(50):
        sleep(0.01)
        now = os.pread(file, 1 << 20, 0)
        if now and now == text:
            break
        text = now
    return frames_of_dump(text.decode(errors="replace"))
