"""One worker process, as the loader sees it: what it was asked for, what it is doing, how it ends."""

from __future__ import annotations

import os
import select
from collections import deque
from dataclasses import dataclass, field
from multiprocessing import process
from typing import TYPE_CHECKING, Any

from headrace.executors.processes import current_sample
from headrace.executors.processes.messages import STACK_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from mmap import mmap

    from headrace.executors.processes.descriptors import Descriptor
    from headrace.plan.work import Work
    from headrace.transport.channel import Channel
    from headrace.transport.slots import SlotReader

PATIENCE = 5.0
"""Seconds that closing waits for the samples at hand before it kills their workers."""

AFTER_CTRL_C = 0.2
"""Seconds that it waits once somebody has pressed Ctrl-C."""

FIRST_LINE, NEXT_LINE = 1000, 100
"""Milliseconds to wait for a worker's stack, which it writes line by line."""


@dataclass(eq=False, slots=True)
class WorkerProcess:
    """A worker process, with all that the loader holds of it."""

    number: int
    process: Any
    channel: Channel
    slots: SlotReader
    memory: mmap
    """Where the worker writes down its progress."""
    threads: int
    stack: Descriptor
    """Where the worker writes its Python stack when asked to."""
    alive: Descriptor
    """Our end of its life pipe: nothing is ever written to it, and it closes with us."""
    ended: Descriptor
    """Becomes readable when the process ends, even where a process that it forked holds its end of the channel."""
    waiting: deque[Work] = field(default_factory=deque)
    """Works that are not sent yet: no more are sent than there are slots, so that no channel is ever full."""
    in_flight: dict[int, tuple[Work | None, int]] = field(default_factory=dict)
    """By ticket, works that are sent (None: nobody waits for it any more), each with the slot for its batch."""
    ready: bool = False

    @property
    def load(self) -> int:
        """How many works it has to answer."""
        return len(self.waiting) + len(self.in_flight)

    def works(self) -> list[Work]:
        """Return the works that it was sent."""
        return [work for work, _ in self.in_flight.values() if work is not None]

    def making(self) -> list[tuple[Work, int]]:
        """Return the works that it is making, each with the row that it is at; -1 where it has not said so yet."""
        if not self.ready:
            return []
        found = []
        for thread in range(self.threads):
            step, row = current_sample.read(self.memory, thread)
            found += [(work, row) for work in self.works() if work.step == step]
        return found or [(work, -1) for work in self.works()[: self.threads]]

    def doing(self) -> str:
        """Say in words what it is, or was, working on."""
        places = [work.place(row) for work, row in self.making()]
        return " and ".join(places) or ("idle" if self.ready else "starting")

    def forget_works(self) -> None:
        """Drop what it was asked for; answers that still come are thrown away."""
        self.waiting.clear()
        self.in_flight = {ticket: (None, slot) for ticket, (_, slot) in self.in_flight.items()}

    def stack_trace(self) -> str:
        """Ask for its Python stack; a signal handler answers, so that a worker in C code does too."""
        text, patience = b"", FIRST_LINE
        poll = select.poll()
        poll.register(self.stack.fd, select.POLLIN)
        while poll.poll(0) and os.read(self.stack.fd, 1 << 16):
            pass  # from a Ctrl-C that the program survived
        if not self.has_ended(0):
            os.kill(self.process.pid, STACK_SIGNAL)
        while poll.poll(patience) and (piece := os.read(self.stack.fd, 1 << 16)):
            text, patience = text + piece, NEXT_LINE
        return text.decode(errors="replace").rstrip() or "  (no answer)"

    def has_ended(self, seconds: float) -> bool:
        """Wait for its end, so many seconds at most, and return whether it came."""
        poll = select.poll()
        poll.register(self.ended.fd, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def await_end(self, seconds: float) -> None:
        """Wait for its end, but not for long once Ctrl-C has reached it: it then writes its stack unasked."""
        poll = select.poll()
        poll.register(self.ended.fd, select.POLLIN)
        poll.register(self.stack.fd, select.POLLIN)
        if poll.poll(max(0.0, seconds) * 1000):
            self.has_ended(AFTER_CTRL_C)

    def end(self, seconds: float) -> int | None:
        """Wait for its end, kill it if that does not come, and close all that it had; return its exit code."""
        if self.ended.fd < 0:  # done already
            return None
        code = None
        if self.has_ended(seconds):
            code = self._exit_code()
        else:
            self.process.kill()
            self.has_ended(PATIENCE)
            self._exit_code()
        popen = self.process._popen
        if popen.returncode is None:  # it has ended, but how cannot be known where SIGCHLD is ignored
            popen.returncode = 0
        popen.close()  # its descriptors; the process object stays open to whoever asks it how it ended
        self.process.is_alive()  # which makes multiprocessing forget it
        process._dangling.discard(self.process)  # type: ignore[attr-defined]  # a WeakSet: see context/dropped.py
        for each in (self.channel, self.alive, self.stack, self.memory, self.ended):
            each.close()
        return code

    def _exit_code(self) -> int | None:
        if self.process.exitcode is None:  # a fork server tells it a moment later
            self.process.join(1)
        code: int | None = self.process.exitcode
        return code


def explain(workers: Sequence[WorkerProcess]) -> str:
    """Say what each worker is doing, with its Python stack if it has work."""
    lines = []
    for each in workers:
        lines.append(f"worker process {each.number} (pid {each.process.pid}): {each.doing()}")
        if each.in_flight and each.ready:
            lines.append(each.stack_trace())
    return "\n".join(lines)
