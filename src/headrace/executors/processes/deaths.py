"""What the end of a worker process means: what caused it, whether another takes its place, and what to do."""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headrace.errors import WorkerDied
from headrace.executors.processes.main_guard import GUARD, UNGUARDED
from headrace.executors.processes.messages import DESCRIPTORS_CLOSED
from headrace.interop.machine import oom_kills

if TYPE_CHECKING:
    from collections.abc import Collection

    from headrace.executors.processes.process import WorkerProcess
    from headrace.plan.work import Work

DEADLY = 3
"""Workers that one batch may end before it is held to be the cause."""

AT_ONCE = (0, DESCRIPTORS_CLOSED)
"""Exit codes that only the user's code can cause: if one batch was being made, it is blamed for the first one."""

FEWER = "use fewer workers or smaller batches"


@dataclass(slots=True)
class Death:
    """A worker that ended by itself, as it was before the loader let go of it."""

    number: int
    pid: int
    ready: bool
    """Whether it had been prepared."""
    at: str
    """What it was working on."""
    suspects: list[int]
    """The steps of the batches that it was making."""
    works: list[Work]
    """What it had in hand, in order."""
    code: int | None = None
    """Its exit code; None where it lives, or lived, without its channel."""

    @classmethod
    def of(cls, worker: WorkerProcess) -> Death:
        """Take down what a worker was doing."""
        suspects = [work.step for work, _ in worker.making()]
        works = [*worker.works(), *worker.waiting]
        return cls(worker.number, worker.process.pid, worker.ready, worker.doing(), suspects, works)

    def __str__(self) -> str:
        # torch's words to begin with: people search for them, and test suites match them.
        return f"DataLoader worker (pid {self.pid}) {ended(self.code)} (worker process {self.number}, at {self.at})"


class Deaths:
    """Counts the deaths of a pool's workers; ``restarts`` is how many may be replaced, any number if None."""

    def __init__(self, restarts: int | None) -> None:
        self._restarts = restarts
        self._by_batch: Counter[int] = Counter()
        self._before_ready = 0
        """Workers in a row that died before their first sample."""
        self._oom_kills = oom_kills()

    def is_suspect(self, works: Collection[Work]) -> bool:
        """Return whether a worker died while it was making one of these."""
        return bool(self._by_batch) and any(self._by_batch[work.step] for work in works)

    def clear(self, step: int) -> None:
        """Take the suspicion from a batch: it was made."""
        self._by_batch.pop(step, None)

    def started(self) -> None:
        """Say that a worker is prepared."""
        self._before_ready = 0

    def forget_batches(self) -> None:
        """Begin another epoch."""
        self._by_batch.clear()

    def judge(self, death: Death) -> tuple[int, WorkerDied] | None:
        """Return the step of the batch that caused a death, with its error, or None where that is not known.

        Raises `WorkerDied` where no other worker may take its place.
        """
        if death.code == UNGUARDED and not death.ready:
            raise WorkerDied(
                f"a worker process re-imported the main script, which tried to start more workers: {GUARD}"
            )
        hint = self._hint(death.code)
        self._by_batch.update(death.suspects)
        self._before_ready += not death.ready
        if self._restarts is not None:
            self._restarts -= 1
        spent = self._restarts is not None and self._restarts < 0
        if spent or self._before_ready >= DEADLY or (death.code in AT_ONCE and not death.suspects):
            in_hand = f"; it had the batches {[work.step for work in death.works]} in hand" if death.works else ""
            raise WorkerDied(f"{death}{in_hand}. {hint}")
        for step in death.suspects:
            if (death.code in AT_ONCE and len(death.suspects) == 1) or self._by_batch[step] >= DEADLY:
                times = self._by_batch.pop(step)
                cause = f"; batch {step} has ended {times} workers" if times > 1 else ""
                return step, WorkerDied(f"{death}{cause}. {hint}")
        return None

    def _hint(self, code: int | None) -> str:
        kills = oom_kills()
        if code == -signal.SIGKILL and kills is not None and self._oom_kills is not None and kills > self._oom_kills:
            return f"The operating system killed it: out of memory (oom_kill has risen). To need less, {FEWER}."
        return hint(code)


def ended(code: int | None) -> str:
    """Say how a worker ended, by its exit code."""
    if code is None:
        return "closed its channel"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"is killed by signal: {signal.Signals(-code).name}"
    return f"exited unexpectedly with exit code {code}"


def hint(code: int | None) -> str:
    """Say what probably ended it, and what to do."""
    if code == -signal.SIGKILL:
        return f"The operating system probably killed it: out of memory. To need less, {FEWER}."
    if code == -signal.SIGBUS:  # which would end the trainer as well
        return (
            "A file was cut short while it was memory-mapped, or /dev/shm is full. Leave files as they are while they "
            "are read; pass arrays as ArrayDataset(path), which raises an error that names the file."
        )
    if code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGILL):
        return "A C extension crashed: read that sample with num_workers=0 to see where."
    if code == 0:
        return "Something in the dataset ended the process without an error (os._exit, exec)."
    if code == DESCRIPTORS_CLOSED:
        return (
            "Something in the dataset closed file descriptors that belong to the worker (os.closerange). Close only "
            "what the dataset has opened."
        )
    return f"Its own output may say more. If it re-imported the main script, {GUARD}."
