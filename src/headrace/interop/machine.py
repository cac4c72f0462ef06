"""What this process may use of the machine, and what became of others on it."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


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


def oom_kills() -> int | None:
    """Return how many processes of this control group the kernel killed because memory ran out; None if unknown."""
    for line in _words(CGROUP / "memory.events", "\n"):
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return None


def _share() -> float | None:
    unified = _words(CGROUP / "cpu.max")
    quota, period = unified if len(unified) == 2 else ("max", "1")
    if not unified:
        quota, period = ((_words(CGROUP / "cpu" / f"cpu.cfs_{name}_us") or ["-1"])[0] for name in ("quota", "period"))
    return float(quota) / float(period) if quota.isdigit() and int(period) > 0 else None


def _words(path: Path, separator: str | None = None) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split(separator)
    except (OSError, ValueError):
        return []
