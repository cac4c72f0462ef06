"""What this process may use of the machine, and what became of others on it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
MEMORY_PRESSURE = Path("/proc/pressure/memory")
UPTIME = Path("/proc/uptime")
SCHEDSTAT = "/proc/thread-self/schedstat"
GIL_PAUSE = 5e-5
SMALL = 1 << 14
"""Bytes; more than any of these files has."""


def cpus() -> int:
    """Return how many CPUs this process may use: its affinity, and no more than its control group's share of time.

    >>> 1 <= cpus() <= (os.cpu_count() or 1)
    True

    The share is read from Linux's control groups, version 2 (``cpu.max``) or 1 (``cpu.cfs_quota_us``); a fraction of a
    CPU counts as one.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = _share()
    return count if share is None else max(1, min(count, int(share)))


def in_notebook() -> bool:
    """Say whether this process runs the cells of a notebook, and has threads of its server.

    >>> in_notebook()
    False
    """
    application = sys.modules.get("ipykernel.kernelapp")
    return application is not None and bool(application.IPKernelApp.initialized())


def oom_kills() -> int | None:
    """Return how many processes of this control group the kernel killed because memory ran out; None if unknown."""
    for line in _words(CGROUP / "memory.events", "\n"):
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return None


def run_queue_seconds() -> float:
    """Return how long this thread has waited for a CPU since it began; negative where the system does not say.

    >>> waited = run_queue_seconds()
    >>> waited == -1.0 or waited >= 0.0
    True
    """
    words = (_read(SCHEDSTAT) or b"").split()
    return int(words[1]) / 1e9 if len(words) == 3 else -1.0


def gil_seconds() -> float:
    """Give up the GIL for a moment, and return how long this thread then waited to get it back.

    >>> gil_seconds() >= 0.0
    True

    Waiting for a CPU is not counted, where the system tells how long that was.
    """
    queued, began = run_queue_seconds(), time.perf_counter()
    # A shorter pause ends before another thread is awake to take the GIL.
    time.sleep(GIL_PAUSE)
    waited = time.perf_counter() - began - GIL_PAUSE
    return max(0.0, waited - (run_queue_seconds() - queued if queued >= 0.0 else 0.0))


def idle_seconds() -> float | None:
    """Return how long CPUs of this machine have been idle, all in sum; None where the system does not say.

    >>> idle = idle_seconds()
    >>> idle is None or idle >= 0.0
    True
    """
    words = _words(UPTIME)
    return float(words[1]) if len(words) == 2 else None


def memory_stall_seconds() -> float:
    """Return how long processes have stood still because memory is short, in this control group or on the machine.

    >>> memory_stall_seconds() >= 0.0
    True
    """
    for path in (CGROUP / "memory.pressure", MEMORY_PRESSURE):
        for word in _words(path)[:5]:
            name, _, total = word.partition("=")
            if name == "total":
                return int(total) / 1e6
    return 0.0


def free_memory() -> int | None:
    """Return how many bytes of memory this process and the page cache may still take; None where nobody says.

    >>> free = free_memory()
    >>> free is None or free > 0
    True

    On Linux: what is available, and no more than the control group's limit less what is not cache.
    """
    found = [int(words[1]) << 10 for words in map(str.split, _words(MEMINFO, "\n")) if words[:1] == ["MemAvailable:"]]
    limit, current = (_words(CGROUP / name) for name in ("memory.max", "memory.current"))
    if limit and current and limit[0].isdigit():
        pairs = (line.partition(" ") for line in _words(CGROUP / "memory.stat", "\n"))
        cache = sum(int(value) for name, _, value in pairs if name == "file")
        found.append(max(0, int(limit[0]) - int(current[0]) + cache))
    return min(found, default=None)


def _share() -> float | None:
    unified = _words(CGROUP / "cpu.max")
    quota, period = unified if len(unified) == 2 else ("max", "1")
    if not unified:
        quota, period = ((_words(CGROUP / "cpu" / f"cpu.cfs_{name}_us") or ["-1"])[0] for name in ("quota", "period"))
    return float(quota) / float(period) if quota.isdigit() and int(period) > 0 else None


def _words(path: Path, separator: str | None = None) -> list[str]:
    data = _read(path)
    return [] if data is None else data.decode("ascii", "replace").split(separator)


def _read(path: str | Path) -> bytes | None:
    """Return what a small file of the kernel's holds; None where there is none.

    A file object would take ten times as long, and give up the GIL six times: a thread may have to queue each time.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(descriptor, SMALL)
    except OSError:
        return None
    finally:
        os.close(descriptor)
