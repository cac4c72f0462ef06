"""Workers and programs killed at random moments, and epochs without end: `make chaos` prints what became of it all.

python -m tests.chaos [--kills 1000] [--programs 100] [--epochs 50] [--seed N] [--output FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import signal
import sys
import time
import traceback
from datetime import UTC, datetime
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import headrace
from tests.chaos.killing import CASES, Tally, end, survive
from tests.chaos.programs import HOW, Program
from tests.chaos.steady import HEADS, epochs, held
from tests.leaks import named_memory

ROUNDS = 10
PROCESSES = [how for how in HOW if how not in ("inline", "thread")]


class Report:
    """Lines of Markdown, shown as they come."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failed = False

    def say(self, line: str = "") -> None:
        self.lines.append(line)
        print(line, flush=True)

    def heads(self, *names: str) -> None:
        self.say(f"| {' | '.join(names)} |")
        self.say(f"|{' --- |' * len(' | '.join(names).split(' | '))}")

    def row(self, *cells: Any) -> None:
        self.say(f"| {' | '.join(map(str, cells))} |")

    def went_wrong(self) -> None:
        """Show the error at hand, and go on."""
        self.failed = True
        traceback.print_exc()


def kill_workers(report: Report, kills: int, seed: int) -> None:
    """Kill workers in every way that there is to run them, in rounds, so that what grows is seen to grow."""
    shares = sum(case.share for case in CASES)
    replacing = {case.name: Tally() for case in CASES}
    ending = {case.name: Tally() for case in CASES if case.how.get("in_order", True)}
    holds = []
    for turn in range(ROUNDS):
        for case in CASES:
            number = max(1, round(kills * case.share / shares / ROUNDS))
            try:
                survive(case, number, seed + turn, replacing[case.name])
                if case.name in ending:
                    end(case, max(1, number // 4), seed + turn, ending[case.name])
            except BaseException:  # noqa: BLE001  the other cases go on
                report.went_wrong()
        holds.append((sum(each.kills for each in (*replacing.values(), *ending.values())), held()))
        print(f"[{turn + 1}/{ROUNDS}] {holds[-1][0]} kills: {holds[-1][1]}", file=sys.stderr, flush=True)
    report.say("## Workers killed, and replaced")
    report.say()
    report.heads("workers", "kills", "epochs", "replaced", "samples lost", "samples repeated")
    for name, tally in replacing.items():
        report.row(name, tally.kills, tally.epochs, tally.replaced, tally.lost, tally.repeated)
    every = list(replacing.values())
    sums = [
        sum(getattr(tally, name) for tally in every) for name in ("kills", "epochs", "replaced", "lost", "repeated")
    ]
    report.row("*all*", *sums)
    report.say()
    report.say("A worker killed when all of its batches had arrived needs no replacing.")
    report.say()
    report.say("## Workers killed, with `restart_workers=0`")
    report.say()
    report.heads("workers", "kills", "epochs", "raised", "ended whole", "from kill to error s (largest)")
    for name, tally in ending.items():
        late = f"{median(tally.late):.3f} ({max(tally.late):.3f})"
        report.row(name, tally.kills, tally.epochs, tally.raised, tally.epochs - tally.raised, late)
    report.say()
    report.say("## The program that they were killed in")
    report.say()
    report.heads("kills so far", HEADS)
    for number, (so_far, what) in enumerate(holds):
        if number in (0, 1, ROUNDS // 2, ROUNDS - 1):
            report.row(so_far, what)
    report.say()


def kill_programs(report: Report, kills: int, seed: int) -> None:
    """Kill whole programs, and see when the last of their processes is gone."""
    draws = random.Random(seed)
    report.say("## Programs killed")
    report.say()
    report.heads(
        "workers", "killed", "kills", "processes left after 1 s", "slowest to be gone s", "files left in /dev/shm"
    )
    cases = [(how, word) for how in PROCESSES for word in ("begun", "running")]
    for number, (how, word) in enumerate(cases):
        orphans, slowest, left = 0, 0.0, 0
        count = len(range(number, kills, len(cases)))
        for _ in range(count):
            program = Program("epochs", how)
            program.says(word)
            time.sleep(draws.uniform(0, 1))
            memory = named_memory(program.processes())
            program.process.send_signal(signal.SIGKILL)
            try:
                seconds = program.seconds_to_be_gone()
            except AssertionError:
                report.went_wrong()
                seconds = float("inf")
            program.end()
            orphans += seconds > 1
            slowest = max(slowest, seconds)
            left += sum(file.exists() for file in memory)
        report.failed |= bool(left)
        when = "from its start on" if word == "begun" else "from its first batch on"
        report.row(how, when, count, orphans, f"{slowest:.3f}", left)
    report.say()
    report.say(
        "A worker that is starting ends when it has started: while it imports, Python gives it no way to hear of the "
        "program's end. That takes a fraction of a second on a quiet machine, and as long as the start on a busy one."
    )
    report.say()


def run_epochs(report: Report, count: int) -> None:
    """Run many epochs with every kind of worker."""
    report.say(f"## {count} epochs")
    report.say()
    report.heads("workers", "after epoch", HEADS)
    for how in HOW:
        after = list(epochs(how, count))
        for number in sorted({min(5, count), count}):
            report.row(how, number, after[number - 1])
        report.failed |= after[-1].descriptors > after[min(5, count) - 1].descriptors
    report.say()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000, help="of workers that are replaced (1000)")
    parser.add_argument("--programs", type=int, default=100, help="programs to kill (100)")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--output", type=Path, help="write what is printed to this file too")
    given = parser.parse_args()
    forkserver.ensure_running()  # what multiprocessing starts once, before what is held is counted
    resource_tracker.ensure_running()
    report = Report()
    began = time.monotonic()
    cores = len(os.sched_getaffinity(0))
    report.say("# Chaos results")
    report.say()
    report.say(f"Made on {datetime.now(UTC):%Y-%m-%d} by `make chaos`, seed {given.seed}.")
    report.say()
    report.say(
        f"- {cores} cores, Linux {platform.release()}, Python {platform.python_version()}, NumPy {np.__version__}, "
        f"headrace {headrace.__version__}; load average before: {os.getloadavg()[0]:.1f}"
    )
    report.say(
        "- SIGKILL at random moments: while a worker starts, reads, makes, writes, sends or waits; while a program "
        "starts its workers, loops, or ends an epoch"
    )
    report.say()
    if given.kills:
        kill_workers(report, given.kills, given.seed)
    if given.programs:
        kill_programs(report, given.programs, given.seed)
    if given.epochs:
        run_epochs(report, given.epochs)
    report.say(
        f"{time.monotonic() - began:,.0f} seconds; {'SOMETHING WENT WRONG' if report.failed else 'all is well'}."
    )
    if given.output:
        given.output.write_text("\n".join(report.lines) + "\n")
    return int(report.failed)


if __name__ == "__main__":
    sys.exit(main())
