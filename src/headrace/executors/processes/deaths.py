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

FEWER = "Use fewer workers or smaller batches, which need less memory."


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
        suspects = list(dict.fromkeys(work.step for work, _ in worker.making()))  # threads may share a batch
        works = [*worker.works(), *worker.waiting]
        return cls(worker.number, worker.process.pid, worker.ready, worker.doing(), suspects, works)

    def __str__(self) -> str:
        # torch's words to begin with: people search for them, and test suites match them.
        return f"DataLoader worker (pid {self.pid}) {ended(self.code)} (worker process {self.number}, at {self.at})"

    def error(self, more: str, *, cure: str) -> WorkerDied:
        """Return the error for this death; ``more`` is what else is known of it."""
        return WorkerDied(
            f"{self}{more}",
            worker=self.number,
            pid=self.pid,
            exit_code=self.code,
            at=self.at,
            found=ended(self.code),
            cure=cure,
        )


class Deaths:
    """Counts the deaths of a pool's workers; ``restarts`` is how many may be replaced, any number if None.

    ``before_ready`` is how many may die in a row before their first sample.
    """

    def __init__(self, restarts: int | None, before_ready: int = DEADLY) -> None:
        self._restarts = restarts
        self._most_before_ready = before_ready
        self._by_batch: Counter[int] = Counter()
        self._before_ready = 0
        """Workers in a row that died before their first sample."""
        self._oom_kills = oom_kills()

    def is_suspect(self, works: Collection[Work]) -> bool:
        """Return whether a worker died while it was making one of these."""
        return bool(self._by_batch) and any(self._by_batch[work.step] for work in works)

    def is_blamed_next(self, work: Work) -> bool:
        """Return whether the next worker that dies while it makes this batch proves that the batch is the cause."""
        return bool(self._by_batch) and self._by_batch[work.step] >= DEADLY - 1

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
                "a worker process re-imported the main script, which tried to start more workers",
                worker=death.number,
                pid=death.pid,
                exit_code=death.code,
                expected="a main script that starts workers only when it is run",
                cure=GUARD,
            )
        cause, cure = self._cause_and_cure(death.code)
        cause = cause and f". {cause}"
        self._by_batch.update(death.suspects)
        self._before_ready += not death.ready
        if self._restarts is not None:
            self._restarts -= 1
        spent = self._restarts is not None and self._restarts < 0
        if spent or self._before_ready >= self._most_before_ready or (death.code in AT_ONCE and not death.suspects):
            in_hand = f"; it had the batches {[work.step for work in death.works]} in hand" if death.works else ""
            raise death.error(in_hand + cause, cure=cure)
        for step in death.suspects:
            if (death.code in AT_ONCE and len(death.suspects) == 1) or self._by_batch[step] >= DEADLY:
                times = self._by_batch.pop(step)
                title = next((work.title for work in death.works if work.step == step), f"batch {step}")
                blamed = f"; {title} has ended {times} workers" if times > 1 else ""
                return step, death.error(blamed + cause, cure=cure)
        return None

    def _cause_and_cure(self, code: int | None) -> tuple[str, str]:
        kills = oom_kills()
        if code == -signal.SIGKILL and kills is not None and self._oom_kills is not None and kills > self._oom_kills:
            return "The operating system killed it: out of memory (oom_kill has risen).", FEWER
        return cause_and_cure(code)


def ended(code: int | None) -> str:
    """Say how a worker ended, by its exit code."""
    if code is None:
        return "closed its channel"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"is killed by signal: {signal.Signals(-code).name}"
    return f"exited unexpectedly with exit code {code}"


def cause_and_cure(code: int | None) -> tuple[str, str]:
    """Return what probably ended it, empty if that is not known, and what to do."""
    if code == -signal.SIGKILL:
        return "The operating system probably killed it: out of memory.", FEWER
    if code == -signal.SIGBUS:  # which would end the trainer as well
        cause = "A file was cut short while it was memory-mapped, or /dev/shm is full."
        return cause, "Do not change files while they are read. ArrayDataset(path) raises an error that names the file."
    if code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGILL):
        return "A C extension crashed.", "Read that sample with num_workers=0 to see where."
    if code == 0:
        cause = "Something in the dataset ended the process without an error (os._exit, exec)."
        return cause, "Raise an error there instead."
    if code == DESCRIPTORS_CLOSED:
        cause = "Something in the dataset closed file descriptors that belong to the worker (os.closerange)."
        return cause, "Close only what the dataset has opened."
    return "", f"Its own output may say more. If it re-imported the main script, {GUARD}."
