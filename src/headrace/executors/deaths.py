"""What the end of a worker process means, in words."""

from __future__ import annotations

import contextlib
import signal

from headrace.executors.worker import GUARD


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
        return "Where nobody killed it, the kernel did, for want of memory: use fewer workers or smaller batches."
    if code == -signal.SIGBUS:  # which would end the trainer as well
        return (
            "A file was cut short while it was memory-mapped, or /dev/shm is full. Leave files as they are while they "
            "are read; give arrays as ArrayDataset(path), which raises an error that names the file."
        )
    if code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGILL):
        return "A C extension crashed: read that sample with num_workers=0 to see it."
    if code == 0:
        return "Something in the dataset ended the process in silence (os._exit, exec)."
    return f"What it said stands above; {GUARD}."
