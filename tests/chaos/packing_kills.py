"""Packing, killed at random moments and run again until it is done: the same bytes as without a kill.

python -m tests.chaos.packing_kills [--times 50] [--seed N]
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from headrace import ArrayDataset

ROOT = Path(__file__).parents[2]
MOST_RUNS = 200
SAMPLES, SIDE = 400, 48


def dataset() -> Any:
    images = np.random.default_rng(0).integers(0, 256, (SAMPLES, SIDE, SIDE, 3), dtype=np.uint8)
    return ArrayDataset(images, np.arange(SAMPLES))


def pack(source: Any, folder: Path | str) -> None:
    """Pack in one run."""
    source.pack(folder, store="smart", budget="1MB", max_side=40, shard_size="40kB", workers=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def killed(folder: Path, seconds: float) -> bool:
    """Pack in a process that is killed after so many seconds; say whether it was killed before it was done."""
    command = [sys.executable, "-m", "tests.chaos.packing_kills", "--into", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        status = process.wait()
    assert status in (0, -signal.SIGKILL)
    return status != 0


def try_kills(times: int, seed: int, folder: Path) -> tuple[int, int]:
    """Kill so many runs, over as many datasets as that takes; return kills, and datasets that were finished."""
    source, began = dataset(), time.perf_counter()
    pack(source, folder / "whole")
    whole, once = contents(folder / "whole"), time.perf_counter() - began
    moments, kills, finished = random.Random(seed), 0, 0
    for run in range(MOST_RUNS):
        if kills >= times:
            break
        target = folder / str(run)
        for _ in range(MOST_RUNS):
            if not killed(target, moments.uniform(0, 0.7 * once)):
                break
            kills += 1
            if kills >= times:
                pack(source, target)
                break
        assert contents(target) == whole
        finished += 1
    return kills, finished


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--into", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.into:
        source = dataset()
        print("begins", flush=True)
        pack(source, arguments.into)
        return
    with tempfile.TemporaryDirectory() as folder:
        kills, finished = try_kills(arguments.times, arguments.seed, Path(folder))
    print("| kills of packing | datasets finished | with other bytes than without a kill |")
    print(f"| --- | --- | --- |\n| {kills} | {finished} | 0 |")


if __name__ == "__main__":
    main()
