"""Methods of a loader and its iterator, called by other threads at random moments, on every executor.

python -m tests.chaos.closes [--times 200] [--seed N]: each call must give its documented result or `LoaderClosed`.
"""

from __future__ import annotations

import argparse
import functools
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
import warnings
import weakref
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from headrace import DataLoader, ImageFiles, Resize, prefetch
from headrace.errors import LoaderClosed
from headrace.run.ahead import Ahead
from headrace.samplers import RandomSampler

if TYPE_CHECKING:
    from collections.abc import Callable

SAMPLES, BATCH = 96, 4
PATIENCE = 250.0
"""Seconds after which a call that has not come back hangs."""


class Numbers:
    """Its samples are made in Python, one by one."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        return np.full(8, index)


@functools.cache
def images(mode: str) -> Any:
    """Return a dataset whose batches the native extension makes; images of 1 bit it leaves to Python's threads."""
    folder = Path(tempfile.mkdtemp(prefix="headrace-closes-"))
    weakref.finalize(images, shutil.rmtree, folder, ignore_errors=True)
    Image.new(mode, (64, 64)).save(folder / "image.png")
    return ImageFiles([folder / "image.png"] * SAMPLES).map(Resize((32, 32)))


HOW: dict[str, Callable[[], DataLoader[Any]]] = {
    "inline": lambda: DataLoader(Numbers(), BATCH, shuffle=True, seed=0),
    "sampler, inline": lambda: DataLoader(Numbers(), BATCH, sampler=RandomSampler(range(SAMPLES))),
    "thread": lambda: DataLoader(Numbers(), BATCH, seed=0, num_workers=2, backend="threads"),
    "thread, skip": lambda: DataLoader(Numbers(), BATCH, seed=0, num_workers=2, backend="threads", on_error="skip"),
    "native": lambda: DataLoader(images("RGB"), BATCH, shuffle=True, seed=0, num_workers=2),
    "native, gives up": lambda: DataLoader(images("1"), BATCH, shuffle=True, seed=0, num_workers=2),
    "process": lambda: DataLoader(Numbers(), BATCH, seed=0, num_workers=2, backend="processes", in_order=False),
    "process, kept": lambda: DataLoader(
        Numbers(), BATCH, seed=0, num_workers=2, backend="processes", persistent_workers=True
    ),
}

UNPLAYED = ("sampler, inline", "thread, skip")
"""Those whose batches cannot be replayed, or only those of the loop begun last."""


@dataclass
class Tally:
    """What calls came to, over all trials with one executor."""

    trials: int = 0
    results: int = 0
    closed: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    hung: int = 0

    def call(self, function: Callable[[], Any]) -> bool:
        """Call something, count what came of it, and return whether it is of use to call it again."""
        try:
            function()
        except LoaderClosed:
            self.closed += 1
            return False
        except StopIteration:
            self.results += 1
            return False
        except BaseException as error:  # noqa: BLE001
            self.wrong[f"{type(error).__name__}: {error}"[:100]] += 1
            traceback.print_exc()
            return False
        self.results += 1
        return True


def methods(loader: DataLoader[Any], iterator: Any, replays: bool) -> dict[str, Callable[[], Any]]:
    """Return the calls that another thread may make at any moment."""
    calls: dict[str, Callable[[], Any]] = {
        "close": loader.close,
        "close iterator": iterator.close,
        "state_dict": loader.state_dict,
        "statistics": loader.statistics,
        "len": lambda: len(loader),
        "iter": lambda: next(iter(loader)),
        "set_epoch": lambda: loader.set_epoch(3),
        "load_state_dict": lambda: loader.load_state_dict(loader.state_dict()),
    }
    return {**calls, "replay": lambda: loader.replay(epoch=0, step=1)} if replays else calls


def trial(how: str, draws: random.Random, tally: Tally) -> None:
    """Let eight threads share an iterator while two more call what they like."""
    tally.trials += 1
    loader = HOW[how]()
    iterator = iter(loader)
    calls = methods(loader, iterator, how not in UNPLAYED)
    chosen = [draws.choice(list(calls)) for _ in range(2)] + [draws.choice(["close", "close iterator"])]
    waits = [draws.uniform(0, 0.02) for _ in chosen]
    begin = threading.Barrier(len(chosen) + 8)

    def pull() -> None:
        begin.wait()
        while tally.call(lambda: next(iterator)):
            pass

    def disturb(name: str, wait: float) -> None:
        begin.wait()
        time.sleep(wait)
        tally.call(calls[name])

    threads = [threading.Thread(target=pull, daemon=True) for _ in range(8)]
    threads += [threading.Thread(target=disturb, args=each, daemon=True) for each in zip(chosen, waits, strict=True)]
    finish(threads, tally)
    loader.close()


def trial_ahead(how: str, draws: random.Random, tally: Tally) -> None:
    """Close what is read ahead while eight threads pull from it."""
    tally.trials += 1
    numbers = iter(range(SAMPLES))
    ahead: Any = Ahead(numbers, float, 2) if how == "ahead" else prefetch(numbers, 2)
    wait = draws.uniform(0, 0.002)

    def pull() -> None:
        while tally.call(lambda: next(ahead)):
            pass

    def close() -> None:
        time.sleep(wait)
        tally.call(ahead.close)

    threads = [threading.Thread(target=pull, daemon=True) for _ in range(8)]
    finish([*threads, threading.Thread(target=close, daemon=True)], tally)


def finish(threads: list[threading.Thread], tally: Tally) -> None:
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
        tally.hung += thread.is_alive()


def run(how: str, times: int, seed: int) -> Tally:
    """Run so many trials on one executor."""
    tally, draws = Tally(), random.Random(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of forks beside threads, which this is about
        for _ in range(times):
            (trial if how in HOW else trial_ahead)(how, draws, tally)
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.closes", description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=int, default=200, help="trials on each executor (200)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    failed = False
    print("| executor | trials | results | LoaderClosed | other errors | hung |")
    print("| --- | --- | --- | --- | --- | --- |")
    for how in (*HOW, "ahead", "prefetch"):
        tally = run(how, given.times, given.seed)
        wrong = "; ".join(f"{count} of {what}" for what, count in tally.wrong.items()) or "0"
        print(f"| {how} | {tally.trials} | {tally.results} | {tally.closed} | {wrong} | {tally.hung} |", flush=True)
        failed |= bool(tally.wrong or tally.hung)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
