"""Measure how long a dataset of many indexed shards takes to open, and the memory that its workers share.

`python benchmarks/opening.py` makes 1,000 sparse tar shards with 10 million samples, which take a few MB, and an index
of some 500 MB. It opens them in new interpreters, and reads shuffled batches with 4 worker processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

import headrace
from headrace import CenterCrop, DataLoader, ToCHW
from headrace.datasets import WebDataset
from headrace.datasets.packed_list import PackedList
from headrace.datasets.shards import KIND
from headrace.datasets.span_table import ShardColumns, indexed

if TYPE_CHECKING:
    from headrace.formats.shard import Shard

SIZE = 1 << 30
"""Bytes of a shard: a hole with some images, to which the samples point in turn."""

FEW = 10_000
METHODS = ("fork", "forkserver", "spawn")


def make(folder: Path, shards: int, samples: int) -> None:
    """Write sparse shards, and their index by headrace's own writer: members that share bytes, as no archive has."""
    photos = Path(headrace.__file__).parent.joinpath("demo").glob("*.jpg")
    images = sorted((path.read_bytes() for path in photos), key=len)[:2]
    places = [SIZE // len(images) * number + 512 for number in range(len(images))]
    paths = [str(folder / f"train-{shard:06}.tar") for shard in range(shards)]
    for path in paths:
        with open(path, "wb") as file:  # noqa: PTH123
            for place, image in zip(places, images, strict=True):
                file.seek(place)
                file.write(image)
            file.truncate(SIZE)
    each = samples // shards
    turn = np.arange(each) % len(images)
    offset, length = np.array(places, np.int64)[turn], np.array([len(image) for image in images], np.int64)[turn]

    def columns(path: str) -> tuple[Shard | ShardColumns, tuple[int, int]]:
        stem = Path(path).stem
        found = os.stat(path)  # noqa: PTH116
        return (
            ShardColumns(
                PackedList(f"{stem}/{row:06}" for row in range(each)),
                {"jpg": offset, "cls": offset},
                {"jpg": length, "cls": np.ones(each, np.int64)},
                {"cls": np.arange(each, dtype=np.int64) % 1000},
                {},
            ),
            (found.st_size, found.st_mtime_ns),
        )

    indexed(paths, columns, KIND, folder)


def opened(folder: str) -> None:
    """Open the shards in this interpreter; print seconds, and the time of the first sample."""
    began = perf_counter()
    dataset = WebDataset(folder, index=folder)
    took = perf_counter() - began
    dataset.tuple("jpg", "cls")[len(dataset) // 2]
    print(json.dumps([took, perf_counter() - began, len(dataset)]))


def shared(folder: str, method: str, workers: int) -> None:
    """Read batches in worker processes; print their memory in MiB, and that of the process that opened the shards."""
    dataset = WebDataset(folder, index=folder).tuple("jpg", "cls").map(CenterCrop(32), ToCHW())
    loader = DataLoader(
        dataset,
        64,
        shuffle=True,
        seed=1,
        num_workers=workers,
        backend="processes",
        multiprocessing_context=method,
    )
    batches = iter(loader)
    for _ in islice(batches, 8 * workers):
        pass
    own = os.getpid()
    children = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if descends(pid, own)]  # noqa: PTH208
    print(json.dumps([sum(map(pss, children)), pss(own), len(children)]))


def descends(pid: int, ancestor: int) -> bool:
    """Say whether a process was started by another, or by one that it started."""
    while pid > 1:
        try:
            status = Path("/proc", str(pid), "status").read_text()
        except OSError:
            return False
        pid = int(next(line for line in status.splitlines() if line.startswith("PPid")).split()[1])
        if pid == ancestor:
            return True
    return False


def pss(pid: int) -> float:
    """Return the proportional set size of a process in MiB: memory that several share counts once."""
    lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def run(*arguments: str) -> Any:
    """Call a function of this script in a new interpreter."""
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def measure(shards: int, samples: int, rounds: int, workers: int) -> None:
    """Make shards, measure, and print a table; a dataset of a few samples shows what the workers take anyway."""
    with tempfile.TemporaryDirectory() as root:
        large, small = Path(root, "large"), Path(root, "small")
        for folder, counts in ((large, (shards, samples)), (small, (1, FEW))):
            folder.mkdir()
            make(folder, *counts)
        index = sum(path.stat().st_size for path in large.glob("*.index"))
        times = [run("--opened", str(large)) for _ in range(rounds)]
        print(f"{shards:,} shards, {times[0][2]:,} samples, an index of {index / 1e6:,.0f} MB")
        print(f"opened in {median(each[0] for each in times):.2f} s, the first sample after")
        print(f"{median(each[1] for each in times):.2f} s (medians of {rounds})\n")
        print(
            f"| start method | PSS of {workers} workers, MiB | the same for few samples | the loader's process, MiB |"
        )
        print("| --- | ---: | ---: | ---: |")
        for method in METHODS:
            found, least = (run("--shared", str(folder), method, str(workers)) for folder in (large, small))
            print(f"| {method} | {found[0]:,.0f} | {least[0]:,.0f} | {found[1]:,.0f} |", flush=True)


def main() -> None:
    """Run the benchmark, or a part of it in this interpreter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--opened", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--shared", nargs=3, metavar="X", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.opened:
        opened(options.opened)
    elif options.shared:
        folder, method, workers = options.shared
        shared(folder, method, int(workers))
    else:
        measure(options.shards, options.samples, options.rounds, options.workers)


if __name__ == "__main__":
    main()
