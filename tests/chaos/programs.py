"""Whole programs that use a loader, to be killed, interrupted, and left to end: each is run as `python -m`.

python -m tests.chaos.programs NAME HOW
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from headrace import DataLoader

ROOT = Path(__file__).parents[2]
MARK = "HEADRACE_CHAOS"

HOW: dict[str, dict[str, Any]] = {
    "inline": {},
    "thread": {"num_workers": 2, "backend": "threads"},
    "fork": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
    "forkserver": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "forkserver"},
    "spawn": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "spawn"},
}
alive: list[Any] = []

HOW["persistent"] = {**HOW["fork"], "persistent_workers": True}
HOW["spawn persistent"] = {**HOW["spawn"], "persistent_workers": True}
HOW["fork, 2 threads each"] = {**HOW["fork"], "threads_per_worker": 2}


class Arrays:
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> np.ndarray:
        return np.full(50_000, index, np.float32)


class Stuck(Arrays):
    """Quick at first; then one sample that takes an hour."""

    def __getitem__(self, index: int) -> np.ndarray:
        if index == 20:
            print("stuck", flush=True)
            threading.Event().wait(3600)
        return super().__getitem__(index)


class StuckInC(Stuck):
    def __getitem__(self, index: int) -> np.ndarray:
        if index == 20:
            print("stuck", flush=True)
            sum(range(10**12))
        return super().__getitem__(index)


def epochs(how: str) -> None:
    """Loop for ever."""
    loader = DataLoader(Arrays(), 4, **HOW[how])
    print("begun", flush=True)
    next(batches := loader.batches(endless=True))
    print("running", flush=True)
    for _ in batches:
        pass


def waiting(how: str) -> None:
    """Wait for a batch that does not come."""
    for _ in DataLoader(Stuck(), 4, **HOW[how]):
        pass


def waiting_in_c(how: str) -> None:
    for _ in DataLoader(StuckInC(), 4, **HOW[how]):
        pass


def training(how: str) -> None:
    """Be busy with a batch for ever, while a worker is busy with another."""
    for batch in DataLoader(Stuck(), 4, **HOW[how]):
        if batch[0, 0] == 8:
            time.sleep(3600)


def training_in_a_function(how: str) -> None:
    """The same, in a program that closes up, and ends by itself with an exit code."""
    try:
        with DataLoader(Stuck(), 4, **HOW[how]) as loader:
            for batch in loader:
                if batch[0, 0] == 8:
                    time.sleep(3600)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def left_open(how: str) -> None:
    """End in the middle of an epoch, the iterator alive."""
    iterator = iter(DataLoader(Arrays(), 4, **HOW[how]))
    alive.append(iterator)
    next(iterator)


def left_open_in_a_cycle(how: str) -> None:
    """End with an iterator that only a cycle, and a frame of its own, still hold."""
    iterator = iter(DataLoader(Arrays(), 4, **HOW[how]))
    cycle: list[Any] = [iterator, next(iterator)]
    cycle.append(cycle)


class Program:
    """A program under way, its processes found by a mark in their environment."""

    def __init__(self, name: str, how: str) -> None:
        self._mark = uuid.uuid4().hex
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.programs", name, how],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, MARK: self._mark},
            start_new_session=True,
        )

    def says(self, word: str) -> None:
        """Wait until it has said a word."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip() == word:
                return
        raise AssertionError(f"the program ended before it said {word!r}: {self.process.communicate()}")

    def end(self, patience: float = 250) -> tuple[str, float]:
        """Wait for its end; return what it said on stderr, and how many seconds that took."""
        began = time.monotonic()
        _, said = self.process.communicate(timeout=patience)
        return said, time.monotonic() - began

    def processes(self) -> list[int]:
        """Return all processes that it has started, and theirs, as long as they live."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self._mark}".encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def seconds_to_be_gone(self, patience: float = 250) -> float:
        """Wait until no process of it is left; return how many seconds that took."""
        began = time.monotonic()
        while left := self.processes():
            if time.monotonic() - began > patience:
                raise AssertionError(f"processes left after {patience:g} s: {left}")
            time.sleep(0.01)
        return time.monotonic() - began


PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if sys.platform == "linux":  # it ends with the test, whoever ends that
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    globals()[sys.argv[1]](sys.argv[2])
