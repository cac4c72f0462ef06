"""A worker process dies with its loader's process, however that ends, and whatever the worker is doing."""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import sys
import threading

PR_SET_PDEATHSIG = 1


def die_with_the_loader(life: int) -> None:
    """Ask the kernel for SIGKILL when the other end of the life pipe closes; only the loader's process holds it."""
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(life, fcntl.F_GETFL)
        fcntl.fcntl(life, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    else:
        threading.Thread(target=_wait, args=(life,), daemon=True, name="headrace-life").start()
    poll = select.poll()
    poll.register(life, select.POLLHUP)
    if poll.poll(0):  # it died before we asked
        os.kill(os.getpid(), signal.SIGKILL)


def die_with_the_starting_thread() -> None:
    """Ask the kernel for SIGKILL when the thread that started this process ends (Linux's PR_SET_PDEATHSIG).

    It helps where somebody else holds the life pipe too: a process that the user has forked off the loader's.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _wait(life: int) -> None:
    os.read(life, 1)
    os.kill(os.getpid(), signal.SIGKILL)
