"""Programs that use a loader and exit at random moments: none may abort, crash or hang, whatever its threads are at.

python -m tests.chaos.exits [--times 1000] [--seed N]
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from headrace import DataLoader, ImageFiles, Resize

ROOT = Path(__file__).parents[2]
PATIENCE = 250.0
"""Seconds until an exit counts as a hang; closing waits for 10 at the most."""

kept: list[Any] = []
"""Iterators that are alive at exit."""

Expected = tuple[int, ...]


def negative(sample: Any) -> Any:
    """Stand for a user's transform, which the native extension cannot run."""
    image, label = sample
    return np.subtract(255, image), label


def loader_of(executor: str, folder: str) -> DataLoader[Any]:
    files = sorted(Path(folder).iterdir())
    images: Any = ImageFiles(files * 8).map(Resize((32, 32)))
    options: dict[str, dict[str, Any]] = {
        "inline": {},
        "threads": {"num_workers": 2, "backend": "threads"},
        "native": {"num_workers": 2, "backend": "threads"},
        "processes": {"num_workers": 2, "backend": "processes", "multiprocessing_context": "fork"},
    }
    return DataLoader(images.map(negative) if executor == "threads" else images, 4, **options[executor])


def to_the_end(loader: DataLoader[Any], _: random.Random) -> None:
    for _batch in loader:
        pass


def leaves(loader: DataLoader[Any], chance: random.Random) -> None:
    kept.append(iter(loader))
    for number, _batch in enumerate(kept[0]):
        if number == chance.randrange(8):
            break
    spin(chance)


def raises(loader: DataLoader[Any], chance: random.Random) -> None:
    leaves(loader, chance)
    raise ValueError("an error of the program's own")


def is_interrupted(loader: DataLoader[Any], _: random.Random) -> None:
    print("ready", flush=True)
    while True:
        for _batch in loader:
            pass


def has_a_daemon_thread(loader: DataLoader[Any], chance: random.Random) -> None:
    begun = threading.Event()

    def read() -> None:
        try:
            while True:
                for _batch in loader:
                    begun.set()
        finally:
            begun.set()

    threading.Thread(target=read, daemon=True).start()
    begun.wait()
    spin(chance)


def spin(chance: random.Random) -> None:
    ends = time.perf_counter() + chance.random() * 0.01
    while time.perf_counter() < ends:
        pass


SITUATIONS: dict[str, tuple[Callable[[DataLoader[Any], random.Random], None], Expected]] = {
    "end": (to_the_end, (0,)),
    "break": (leaves, (0,)),
    "exception": (raises, (1,)),
    "SIGINT": (is_interrupted, (-signal.SIGINT, 128 + signal.SIGINT)),
    "daemon thread": (has_a_daemon_thread, (0,)),
}
EXECUTORS = ("inline", "threads", "native", "processes")


def exit_of(executor: str, situation: str, seed: int, folder: str) -> tuple[int | None, str]:
    """Run a program; return its exit status (None: it hung) and what it said."""
    command = [sys.executable, "-m", "tests.chaos.exits", "--one", executor, situation, str(seed), folder]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    with process:
        if situation == "SIGINT":
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random.Random(seed).random() * 0.2)
            process.send_signal(signal.SIGINT)
        try:
            said = process.communicate(timeout=PATIENCE)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            return None, process.communicate()[1]
        return process.returncode, said


def images(folder: Path) -> str:
    """Write two images for the native extension, and one that it gives up."""
    from tests.image_files import encoded, photo

    folder.mkdir(exist_ok=True)
    for number, form in enumerate(("JPEG", "BMP", "JPEG")):
        (folder / f"{number}.img").write_bytes(encoded(photo(number, 64, 48), form))
    return str(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.exits", description=__doc__)
    parser.add_argument("--times", type=int, default=1000, help="exits of each executor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=4, help="programs that run at the same time")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        executor, situation, seed, folder = arguments.one
        SITUATIONS[situation][0](loader_of(executor, folder), random.Random(int(seed)))
        return 0
    failed = False
    print(
        "| executor | situation | exits | as expected | other statuses | hangs |\n| --- | --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(arguments.at_once) as pool:
        of = images(Path(folder))
        for executor in EXECUTORS:
            for number, (situation, (_, expected)) in enumerate(SITUATIONS.items()):
                times = range(number, arguments.times, len(SITUATIONS))
                runs = [pool.submit(exit_of, executor, situation, arguments.seed + each, of) for each in times]
                ends = Counter(run.result()[0] for run in runs)
                good = sum(ends[status] for status in expected)
                others = {status: many for status, many in ends.items() if status not in (*expected, None)}
                failed |= good < len(times)
                said = ", ".join(f"{status}: {many}" for status, many in others.items()) or "none"
                print(f"| {executor} | {situation} | {len(times)} | {good} | {said} | {ends[None]} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
