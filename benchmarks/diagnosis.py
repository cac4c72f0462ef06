"""Twenty constructed bottlenecks: what the diagnosis says of each, and its predictions beside measurements.

``python benchmarks/diagnosis.py --output benchmarks/DIAGNOSIS.md``. Each is made so that its limit is known: samples
that compute without the GIL (`hashlib`), compute in Python, or sleep as storage with a latency does. For each, one
change that the diagnosis has predicted is made, and the rate is measured again, in turns with the unchanged loop.
The rate of a loop is the median over windows of it, so that another program that runs for a moment changes nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import sys
import time
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import headrace
from headrace import DataLoader, timed
from headrace.interop.machine import cpus, run_queue_seconds
from headrace.make.maker import making_here
from headrace.plan.work import QUEUE, Done, Work
from headrace.run.lives import Lives

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = b"x" * (1 << 20)
WINDOW = 12
"""Batches whose mean period is one measurement: whole turns of 1, 2, 3, 4 or 6 workers, which may end together."""


@cache
def rates() -> tuple[float, float]:
    """Return the bytes a second that one CPU hashes, without the GIL, and the steps of Python that it takes."""
    hashing = min(_timed(lambda: hashlib.sha256(BLOCK).digest()) for _ in range(20))
    python = min(_timed(lambda: _loop(200_000)) for _ in range(10))
    return len(BLOCK) / hashing, 200_000 / python


def _timed(function: Callable[[], Any]) -> float:
    began = time.thread_time()
    function()
    return time.thread_time() - began


def _loop(times: int) -> int:
    total = 0
    for number in range(times):
        total += number
    return total


OBJECTS = [Decimal(number) for number in range(5_000)]
"""Take long to pickle, and are soon freed: what the loop frees is its own time."""


def without_gil(seconds: float) -> None:
    """Compute so long, on a free CPU, without the GIL."""
    left = int(seconds * rates()[0])
    while left > 0:
        hashlib.sha256(BLOCK[:left]).digest()
        left -= len(BLOCK)


def in_python(seconds: float) -> None:
    """Compute so long, on a free CPU, with the GIL."""
    _loop(int(seconds * rates()[1]))


class Samples(headrace.Dataset[Any]):
    """Samples of stages that take so many seconds each."""

    suits_threads = True

    def __init__(self, *, batches: int, **stages: float) -> None:
        self.batches, self.stages = batches, stages
        rates()  # before workers are forked

    def __len__(self) -> int:
        return self.batches * 4

    def __getitem__(self, index: int) -> Any:
        stages = {name: value if name == "objects" else value / 1000 for name, value in self.stages.items()}
        if "read" in stages:
            with timed("read"):
                time.sleep(stages["read"])
        for name in ("decode", "transform"):
            if name in stages:
                with timed(name):
                    without_gil(stages[name])
        if "sleep" in stages:
            time.sleep(stages["sleep"])
        if "python" in stages:
            in_python(stages["python"])
        if "objects" in stages:
            return OBJECTS[: int(stages["objects"])]
        return np.zeros(64, np.uint8)


@dataclass
class Case:
    """A loop whose limit is known, and a change to try; times in milliseconds."""

    name: str
    bound: str
    stages: dict[str, float]
    workers: int
    backend: str
    train: float = 0.0
    change: str = ""
    other: dict[str, Any] = field(default_factory=dict)
    """What is other in the changed loop: stages, workers, train, backend."""
    burns: bool = False
    """Whether the loop computes between batches, without the GIL, and does not sleep as it does for a GPU."""


def cases() -> list[Case]:
    """Return the table."""
    threads, processes, inline = "threads", "processes", "inline"
    step, train, more = "decode -20 %", "training -20 %", "+2 workers"
    return [
        Case("slow training, threads", "consumer", {"decode": 1}, 2, threads, 20, train, {"train": 16}),
        Case("slow training, processes", "consumer", {"decode": 1}, 2, processes, 20, more, {"workers": 4}),
        Case("slow training, storage", "consumer", {"read": 2}, 2, threads, 20, train, {"train": 16}),
        Case("slow training on a CPU", "consumer", {"read": 1}, 1, threads, 15, more, {"workers": 3}, burns=True),
        Case("decode, inline", "decode", {"decode": 4}, 0, inline, 5, step, {"stages": {"decode": 3.2}}),
        Case("decode, one thread", "decode", {"decode": 4}, 1, threads, 5, step, {"stages": {"decode": 3.2}}),
        Case("decode, one process", "decode", {"decode": 4}, 1, processes, 5, step, {"stages": {"decode": 3.2}}),
        _transform("decode and transform", "decode", {"decode": 3, "transform": 2}, 1, threads),
        _transform("transform, one thread", "transform", {"transform": 4}, 1, threads),
        _transform("transform, inline", "transform", {"decode": 1, "transform": 4}, 0, inline),
        _python("the dataset's Python, inline", "dataset", 0, inline),
        _python("the dataset's Python, a process", "dataset", 1, processes),
        Case("storage, inline", "storage", {"read": 5}, 0, inline, 5, "1 worker", {"workers": 1, "backend": threads}),
        Case("storage, one thread", "storage", {"read": 5}, 1, threads, 5, more, {"workers": 3}),
        Case("storage, two threads", "storage", {"read": 10, "decode": 0.5}, 2, threads, 2, more, {"workers": 4}),
        Case("storage, two processes", "storage", {"read": 10}, 2, processes, 2, "read -20 %", {"stages": {"read": 8}}),
        Case("storage, no stage named", "storage", {"sleep": 10}, 2, threads, 2, more, {"workers": 4}),
        _python("the GIL, two threads", "GIL", 2, threads),
        Case("the GIL, four threads", "GIL", {"python": 4}, 4, threads, 1, more, {"workers": 6}),
        Case("objects to pickle", "transport", {"objects": 5_000}, 1, processes, 0, more, {"workers": 3}),
    ]


def _python(name: str, bound: str, workers: int, backend: str) -> Case:
    changed = {"stages": {"python": 3.2}}
    return Case(name, bound, {"python": 4}, workers, backend, 1 if bound == "GIL" else 5, "dataset -20 %", changed)


def _transform(name: str, bound: str, stages: dict[str, float], workers: int, backend: str) -> Case:
    changed = {"stages": stages | {"transform": 0.8 * stages["transform"]}}
    return Case(name, bound, stages, workers, backend, 5, "transform -20 %", changed)


def run(case: Case, batches: int, changed: dict[str, Any]) -> tuple[float, Any]:
    """Return the seconds a batch after the start, and the diagnosis."""
    stages = changed.get("stages", case.stages)
    workers, backend = changed.get("workers", case.workers), changed.get("backend", case.backend)
    train = changed.get("train", case.train) / 1000
    loader: DataLoader[Any] = DataLoader(
        Samples(batches=batches, **stages),
        4,
        num_workers=workers,
        backend=backend,
        collate_fn=list if "objects" in stages else None,
    )
    times = []
    with loader:
        for batch in loader:
            del batch
            times.append(time.perf_counter())
            if train and case.burns:
                without_gil(train)
            elif train:
                time.sleep(train)
        return _period(times[len(times) // 4 :]), loader.statistics().diagnosis


def _period(times: list[float]) -> float:
    """Return the seconds a batch: the median of those of windows."""
    ends = times[::WINDOW]
    return statistics.median((after - before) / WINDOW for before, after in pairwise(ends))


def _cpu(function: Callable[[], Any]) -> float:
    """Return the least CPU time of five calls."""
    return min(_timed(function) for _ in range(5))


def cost() -> str:
    """Say what is spent on noting a batch, without the making of it."""
    lives, steps = Lives(), 5_000

    def noted() -> None:
        work = Work((0, 0), 0, 0, 0, [0])
        lives.submitted(work)
        queued = run_queue_seconds() if work.noted & QUEUE else -1.0
        cpu = time.thread_time()
        done = Done(0, None)
        done.making = making_here({}, 0.0, cpu, queued)
        _pass_on(done)

    def passed_over() -> None:
        lives.submitted(Work((0, 0), 0, 1, 0, [0]))
        _pass_on(Done(1, None))

    def _pass_on(done: Done) -> None:
        lives.received(done)
        lives.made(done)
        lives.delivered(0.0, 1e6)

    without = _cpu(lambda: [(Work((0, 0), 0, 1, 0, [0]), Done(1, None)) for _ in range(steps)]) / steps * 1e6
    each = _cpu(lambda: [noted() for _ in range(steps)]) / steps * 1e6
    lives.every = 2
    other = _cpu(lambda: [passed_over() for _ in range(steps)]) / steps * 1e6
    return f"noting a batch takes {each - without:.1f} µs, passing one over {other - without:.1f} µs"


def main() -> None:
    """Run all, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--cost", action="store_true", help="only say what noting a batch costs")
    given = parser.parse_args()
    if given.cost:
        print(cost())
        return
    lines = [
        "| constructed limit | said | below a free loader | change | predicted | measured | off by (points) | noise |"
    ]
    lines += ["| --- | --- | ---: | --- | ---: | ---: | ---: | ---: |"]
    right, off = 0, []
    chosen = [case for case in cases() if given.only in case.name]
    for case in chosen:
        before, after, said = [], [], []
        for _ in range(given.rounds):
            seconds, diagnosis = run(case, given.batches, {})
            before.append(seconds)
            said.append(diagnosis)
            after.append(run(case, given.batches, case.other)[0])
        bounds = [each.bound for each in said]
        bound = max(set(bounds), key=bounds.count)
        predicted = statistics.median(
            next((gain.gain for gain in each.gains if gain.change == case.change), 0.0) for each in said
        )
        measured = statistics.median(before) / statistics.median(after) - 1.0
        right += bound == case.bound
        off.append(abs(predicted - measured) * 100)
        below = statistics.median(each.below_free for each in said)
        said_of_it = f"| {case.name}: {case.bound} | {bound} | {below:.0%} | {case.change} "
        noise = max(before) / min(before) - 1.0
        lines.append(f"{said_of_it}| {predicted:+.0%} | {measured:+.0%} | {off[-1]:.0f} | {noise:.0%} |")
        print(lines[-1], f"   {said[0]}" if bound != case.bound or off[-1] > 5 else "", flush=True)
    summary = (
        f"{right} of {len(chosen)} limits are named; {sum(each <= 5 for each in off)} of {len(off)} predictions are "
        f"within 5 points of the measurement, the median is {statistics.median(off):.1f} points off."
    )
    print(summary)
    if given.output:
        head = (
            "# Constructed bottlenecks\n\n"
            f"`python benchmarks/{Path(sys.argv[0]).name} --batches {given.batches} --rounds {given.rounds}` on "
            f"{cpus()} CPUs. Each loop is constructed so that its limit is known; it says nothing of real data.\n"
            "A change that the diagnosis has predicted was then made, and the loop measured again. Noise is\n"
            "how much the unchanged loop differs from round to round.\n"
        )
        given.output.write_text("\n".join([head, *lines, "", summary, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
