"""What every test must give back, and what the tests share."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import Counter
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests.leaks import named_memory

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

SETTLE_SECONDS = 60.0

FOLLOWED = (
    "tests/cli/",
    "tests/executors/",
    "tests/parity/test_script",
    "tests/storage/",
    "tests/test_loader",
    "tests/test_main_guard",
)
"""Tests whose processes coverage follows. In others it would see nothing new there, and take a third of the time."""
_VARIABLE = "COVERAGE_PROCESS_CONFIG"
_followed = True

# How long an example takes says more about what else the machine does than about the code. The same examples in every
# run, so that a red one is the change's own; `--hypothesis-profile=random` looks for others.
settings.register_profile("headrace", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)
settings.load_profile("headrace")

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _children() -> Counter[str]:
    found: Counter[str] = Counter()
    for children in Path("/proc/self/task").glob("*/children"):
        try:
            found.update(f"process {pid}" for pid in children.read_text().split())
        except OSError:  # the thread has ended meanwhile
            continue
    return found


def _descriptors() -> Counter[str]:
    folder = Path("/proc/self/fd")
    found: Counter[str] = Counter()
    for entry in folder.iterdir() if folder.exists() else ():
        try:
            target = str(entry.readlink())
        except OSError:  # the one that listed the folder
            continue
        found[f"descriptor of {target}"] += 1
    return found


def _pools() -> Counter[str]:
    """Find the threads of the native extension, of which Python knows nothing."""
    found: Counter[str] = Counter()
    for name in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            thread = name.read_text().strip()
            found[f"thread {thread} of the native extension"] += thread.startswith("headrace-pool")
    return +found


def _shared_memory() -> Counter[str]:
    return Counter(f"shared memory {entry}" for entry in named_memory(["self"]))


def _held() -> Counter[str]:
    # What a framework's own thread leaves in Python's list by calling Python stays there for good, and is none of ours.
    threads = Counter(
        f"thread {thread.name}" for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)
    )
    return threads + _pools() + _children() + _descriptors() + _shared_memory()


def pytest_sessionstart() -> None:
    """Start what multiprocessing starts once and keeps, where worker processes usually come from it (Python 3.14)."""
    if multiprocessing.get_all_start_methods()[0] == "forkserver":
        forkserver.ensure_running()
        resource_tracker.ensure_running()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let coverage follow the processes of some tests only."""
    global _followed  # noqa: PLW0603  for forked processes, which inherit it
    _followed = item.nodeid.startswith(FOLLOWED)
    config = None if _followed else os.environ.pop(_VARIABLE, None)
    try:
        return (yield)
    finally:
        _followed = True
        if config is not None:
            os.environ[_VARIABLE] = config


def _forget_coverage() -> None:
    """Stop measuring in a forked process, and save nothing at its end: not its parent's measurements again either."""
    coverage = sys.modules.get("coverage")
    current = None if coverage is None or _followed else coverage.Coverage.current()
    if current is not None:
        current.stop()
        current.save = lambda: None


os.register_at_fork(after_in_child=_forget_coverage)


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves a thread, a process, a descriptor or shared memory behind."""
    before = _held()
    yield
    deadline = time.monotonic() + SETTLE_SECONDS
    while left := _held() - before:
        if time.monotonic() > deadline:
            pytest.fail("left behind: " + ", ".join(sorted(left.elements())))
        gc.collect()  # what only a cycle still holds is not a leak
        time.sleep(0.001)  # threads that end need the GIL too
