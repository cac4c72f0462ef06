"""The cache of remote data under kills, full disks and deleted folders: ``python -m tests.chaos.remote_cache``.

Jobs stream a dataset of URLs through a cache that holds half of it, and compare each sample.
"""

from __future__ import annotations

import argparse
import io
import itertools
import multiprocessing
import os
import random
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import DataLoader
from headrace.datasets import WebDataset
from headrace.formatting import table
from headrace.storage.block_cache import SUM, BlockCache
from headrace.storage.blocks import BLOCK, FOLDER, MOST
from tests.storage.object_server import object_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection

SHARDS, EACH, NBYTES = 3, 80, 100_000
CAP = 12 * (BLOCK + SUM)
HANG = 60.0
"""Seconds without a batch that count as a hang."""


def read_for_ever(root: str, variables: dict[str, str], seed: int, backend: str, clock: str, out: Connection) -> None:
    """Read epoch after epoch, and write a byte for each batch, or what went wrong."""
    os.environ |= variables
    warnings.simplefilter("ignore")
    if clock == "jumps":
        real, turn = time.time_ns, itertools.count()
        time.time_ns = lambda: real() + (-1) ** next(turn) * 10**9 * 86400 * 365
    try:
        dataset = WebDataset(f"{root}/{{0..{SHARDS - 1}}}.tar")
        workers: dict[str, Any] = {} if backend == "inline" else {"num_workers": 2}
        if backend == "processes":
            workers["multiprocessing_context"] = "fork"
        loader: DataLoader[Any] = DataLoader(
            dataset, 8, shuffle=True, seed=seed, collate_fn=are_right, backend=backend, **workers
        )
        for right in loader.batches(endless=True):
            os.write(out.fileno(), b"." if right else b"!")
    except Exception as error:  # noqa: BLE001  it is told
        os.write(out.fileno(), f"\n{type(error).__name__}: {error}".encode()[:300])


def are_right(samples: list[dict[str, Any]]) -> bool:
    """Say whether each sample has the bytes that its key says."""
    return all(sample["bin"] == content(int(sample["__key__"])) for sample in samples)


def content(number: int) -> bytes:
    """Return the bytes of a sample."""
    return np.random.default_rng(number).bytes(NBYTES)


@dataclass
class Row:
    """What came of a way to break things."""

    name: str
    events: int = 0
    batches: int = 0
    wrong: int = 0
    hangs: int = 0
    failed: int = 0
    most: int = 0
    notes: list[str] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        counts = (self.events, self.batches, self.wrong, self.hangs, self.failed)
        above = max(0, self.most - CAP)
        return self.name, *(f"{count:,}" for count in counts), f"{above:,}", "; ".join(self.notes)


class Job:
    """A process that reads for ever, forked from one that has imported what it needs."""

    def __init__(self, root: str, folder: Path, home: Path, seed: int, backend: str, clock: str = "") -> None:
        variables = {FOLDER: str(folder), MOST: str(CAP), "XDG_CACHE_HOME": str(home)}
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["headrace.datasets", "tests.storage.object_server"])
        self._line, theirs = context.Pipe(duplex=False)
        arguments = (root, variables, seed, backend, clock, theirs)
        self.process = context.Process(target=read_for_ever, args=arguments)
        self.process.start()
        theirs.close()
        self.killed = False

    def read(self, row: Row, wanted: int) -> bool:
        """Wait for batches; say whether they came."""
        file, got = self._line.fileno(), 0
        while got < wanted:
            if not select.select([file], [], [], HANG)[0]:
                row.hangs += 1
                return False
            found = os.read(file, 4096)
            if not found or b"\n" in found:
                row.failed += 1
                row.notes.append(found.decode(errors="replace").strip(".!\n")[:200])
                return False
            got += len(found)
            row.batches += len(found)
            row.wrong += found.count(b"!")
        return True

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join()
        self._line.close()
        self.killed = True


def tars() -> dict[str, bytes]:
    """Return the shards, each sample of bytes that its key says."""
    found = {}
    for shard in range(SHARDS):
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w") as archive:
            for number in range(shard * EACH, (shard + 1) * EACH):
                member = tarfile.TarInfo(f"{number:05}.bin")
                member.size = NBYTES
                archive.addfile(member, io.BytesIO(content(number)))
        found[f"/{shard}.tar"] = held.getvalue()
    return found


def size_of(folder: Path) -> int:
    """Return the bytes of all files of the cache, counted while nobody renames one."""
    try:
        with BlockCache(folder, CAP)._locked():
            return sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".block", ".part"))
    except OSError:  # the folder is deleted just now
        return 0


def run(
    name: str,
    root: str,
    folder: Path,
    home: Path,
    events: int,
    event: Callable[[list[Job], Row], None],
    clock: str = "",
    seed: int = 0,
) -> Row:
    """Let two jobs read, and something happen to them at random moments."""
    row, draw = Row(name), random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    backends = ("threads", "processes", "inline")
    jobs = [Job(root, folder, home, seed + number, backends[number % 3], clock) for number in range(2)]
    for number in range(events):
        for place, job in enumerate(jobs):
            if not job.read(row, draw.randrange(1, 12)):
                job.kill()
                jobs[place] = Job(root, folder, home, draw.randrange(1 << 30), backends[number % 3], clock)
        row.most = max(row.most, size_of(folder))
        event(jobs, row)
        row.events += 1
        if row.events % 20 == 0:
            print(f"{name}: {row.events}", file=sys.stderr, flush=True)
        for place, job in enumerate(jobs):
            if job.killed:
                jobs[place] = Job(root, folder, home, draw.randrange(1 << 30), backends[number % 3], clock)
    for job in jobs:
        job.read(row, 5)
        job.kill()
    print("; ".join(row.cells()), file=sys.stderr, flush=True)
    return row


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[bool]:
    """Mount a file system of a few bytes, where that is allowed."""
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
    )
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(place)], check=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--others", type=int, default=20, help="events of each other kind")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    rows = list[Row]()
    draw = random.Random(options.seed)

    def killed(jobs: list[Job], _row: Row) -> None:
        draw.choice(jobs).kill()

    def nothing(_jobs: list[Job], _row: Row) -> None:
        pass

    with tempfile.TemporaryDirectory() as held, object_server() as server:
        server.objects |= tars()
        base, home = Path(held), Path(held, "home")
        home.mkdir()
        folder = base / "cache"
        folder.mkdir()
        stranger = folder / "notes.txt"
        stranger.write_text("mine")
        rows.append(run("SIGKILL, two jobs", server.url, folder, home, options.kills, killed, seed=options.seed))
        sound, damaged = BlockCache(folder, CAP).verify()
        rows[-1].notes.append(f"{sound} sound blocks, {len(damaged)} damaged")
        rows[-1].notes.append(
            "a file of others is untouched" if stranger.read_text() == "mine" else "A FILE WAS CHANGED"
        )

        def deleted(_jobs: list[Job], _row: Row) -> None:
            shutil.rmtree(base / "deleted", ignore_errors=True)

        others = options.others
        rows.append(run("folder deleted", server.url, base / "deleted", home, others, deleted, seed=options.seed))
        rows.append(
            run("clock jumps by a year", server.url, base / "clock", home, others, nothing, "jumps", options.seed)
        )
        with small_disk(base / "full", f"size={5 * BLOCK}") as mounted:
            if mounted:
                rows.append(run("disk full (ENOSPC)", server.url, base / "full" / "cache", home, others, nothing))
        with small_disk(base / "read-only", "ro") as mounted:
            if mounted:
                rows.append(run("read-only file system", server.url, base / "read-only", home, others, nothing))
    heading = ("what happens", "times", "batches", "wrong", "hangs", "failed", "bytes above the cap", "")
    print(table([heading, *(row.cells() for row in rows)]))
    if options.output is not None:
        lines = ["| " + " | ".join(cells) + " |" for cells in (heading, *(row.cells() for row in rows))]
        lines.insert(1, "| --- |" + " ---: |" * 6 + " --- |")
        size = SHARDS * EACH * NBYTES / 1e6
        told = (
            "# The cache of remote data under faults\n"
            f"Made by `make chaos-remote`, seed {options.seed}. Two jobs share a cache of {CAP / 1e6:.1f} MB.\n"
            f"The dataset has {size:.0f} MB. Jobs run inline, in threads and in forked processes, and compare each\n"
            "sample. Wrong batches, a minute without a batch, failed jobs, a block above the cap: all are errors.\n\n"
        )
        options.output.write_text(told + "\n".join(lines) + "\n", encoding="utf-8")
    return any(row.wrong or row.hangs or row.failed or row.most > CAP + BLOCK + SUM for row in rows)


if __name__ == "__main__":
    sys.exit(main())
