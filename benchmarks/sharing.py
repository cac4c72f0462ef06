"""Processes that share batches: CPU time per sample for 1, 2 and 4 of them: `python benchmarks/sharing.py`.

Work: JPEG photographs of 500x375, random resized crop 224, flip, normalize, float32 NCHW, batches of 64. All processes
begin together, and each reads all epochs. CPU time is that of all processes and their workers, from the first batch to
the last, divided by the samples of one process. "alone" is one process that shares nothing. Each batch is touched once
a page, so that the cost of mapping it counts.

A second table is what it costs to take one batch: to map it, to read a byte of each page, and to unmap it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from packed import CROP, MEAN, STD, crops, machine, photos_in

import headrace
from headrace import DataLoader, ImageFiles, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToCHW, ToFloat
from headrace.transport.batch_store import BatchStore, store_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = 4096
PATIENCE = 300
"""Seconds; then a process has failed."""
SIZES = (10, 40, 160)
"""MB of the batches that are taken one by one."""
TIMES = 50


class Run(NamedTuple):
    """What one process reports."""

    cpu: float
    seconds: float
    samples: int
    taken: float


def cpu_seconds() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def touch(array: Any) -> None:
    """Read a byte of each page."""
    array.reshape(-1).view("u1")[::PAGE].sum()


def cost_of_taking(megabytes: int) -> tuple[float, float]:
    """Return the CPU milliseconds to take a batch of so many MB, and to make a copy of it; medians."""
    store = BatchStore(store_folder("benchmark-taking"), megabytes * 4_000_000)
    peer, name = store.join({}), f"{0:016x}-{0:016x}-{0:016x}"
    batch = np.ones(megabytes * 250_000, np.float32)
    with store.write(name) as writer:
        if not writer.publish([batch], None):
            raise SystemExit(f"there is no room for a batch of {megabytes} MB in {store.folder.parent.parent}")

    def take() -> None:
        taken = store.take(name)
        assert taken is not None
        touch(taken.batch[0])

    costs = []
    for work in (take, batch.copy):
        spent = []
        for _ in range(TIMES):
            before = process_time()
            work()  # what it returns is dropped here, in the time
            spent.append(1e3 * (process_time() - before))
        costs.append(median(spent))
    peer.leave()
    return costs[0], costs[1]


def read(paths: Sequence[Path], options: dict[str, Any], name: str | None, barrier: Any, results: Any) -> None:
    """Read all epochs, and report."""
    tail = (ToFloat(), Normalize(MEAN, STD), ToCHW())
    dataset = ImageFiles(paths).map(RandomResizedCrop(CROP), RandomHorizontalFlip(), *tail)
    shared = {} if name is None else {"backend": headrace.share(name, backend=options["backend"])}
    loader = DataLoader(
        dataset,
        options["batch"],
        shuffle=True,
        seed=0,
        num_workers=options["workers"],
        **{"backend": options["backend"], **shared},
    )
    taken = samples = 0
    for epoch in range(options["epochs"] + 1):
        if epoch < 2:  # the first one warms up; nobody is ahead after it
            barrier.wait()
            before, begun, taken, samples = cpu_seconds(), perf_counter(), 0, 0
        for batch in loader:
            touch(batch[0])
        statistics = loader.statistics()
        taken, samples = taken + statistics.taken, samples + statistics.samples
    loader.close()
    batches = options["epochs"] * len(loader)
    results.put(Run(cpu_seconds() - before, perf_counter() - begun, samples, taken / batches))
    barrier.wait()


def run(count: int, paths: Sequence[Path], options: dict[str, Any], *, shared: bool) -> list[Run]:
    """Run so many processes, and return what they report."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count, timeout=PATIENCE), context.Queue()
    name = f"benchmark-{count}" if shared else None
    processes = [
        context.Process(target=read, args=(paths, options, name, barrier, results), daemon=False) for _ in range(count)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=PATIENCE) for _ in processes]
    for process in processes:
        process.join()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files; by default crops of headrace's own")
    parser.add_argument("--images", type=int, default=4000, help="how many photographs, the files repeated")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backend", default="threads", choices=("threads", "processes", "inline"))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--output", type=Path, help="a Markdown file for the tables")
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("workers", "backend", "epochs", "batch")}
    said = machine()
    with tempfile.TemporaryDirectory() as place:
        found = photos_in(arguments.photos) if arguments.photos else []
        paths = found or crops(Path(headrace.__file__).parent / "demo", Path(place), min(arguments.images, 250))
        paths = [paths[number % len(paths)] for number in range(arguments.images)]
        rows: dict[tuple[int, bool], list[list[Run]]] = {}
        for _ in range(arguments.rounds):
            for count, shared in [(1, False), *((count, True) for count in arguments.processes)]:
                rows.setdefault((count, shared), []).append(run(count, paths, options, shared=shared))
    page = (
        f"- {said}\n"
        f"- {len(paths):,} photographs, {arguments.epochs} epochs, {arguments.workers} workers ({arguments.backend}) "
        f"in each process, batches of {arguments.batch}, medians of {arguments.rounds} rounds\n\n"
        f"{table_of(rows)}\n\n## Taking one batch\n{table_of_taking()}\n"
    )
    print(page)
    if arguments.output is not None:
        arguments.output.write_text(HEAD + page, encoding="utf-8")


def table_of(rows: dict[tuple[int, bool], list[list[Run]]]) -> str:
    """Return the table of all rounds; ratios are those within a round."""
    lines = [
        "| processes | CPU ms per sample, all together | times alone | images/s of each | taken from others |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    costs = {
        key: [1e3 * sum(one.cpu for one in runs) / runs[0].samples for runs in rounds] for key, rounds in rows.items()
    }
    for (count, shared), rounds in rows.items():
        mine = costs[count, shared]
        times = median(cost / alone for cost, alone in zip(mine, costs[1, False], strict=True))
        speed = median(one.samples / one.seconds for runs in rounds for one in runs)
        taken = median(one.taken for runs in rounds for one in runs)
        name = f"{count}, sharing" if shared else "1, alone"
        lines.append(f"| {name} | {median(mine):.3f} | {times:.2f} | {speed:,.0f} | {taken:.0%} |")
    return "\n".join(lines)


def table_of_taking() -> str:
    """Return the table of what taking a batch costs."""
    lines = ["| MB | CPU ms to take it, and read a byte of each page | CPU ms to copy it |", "| ---: | ---: | ---: |"]
    lines += [f"| {size} | {taken:.2f} | {copied:.2f} |" for size in SIZES for taken, copied in [cost_of_taking(size)]]
    return "\n".join(lines)


HEAD = """# Processes that share batches
What a sample costs where 1, 2 and 4 processes share their batches by a name, beside one process that shares nothing.
Each process trains on nothing: it reads a byte of each page of a batch, and drops it.

`python benchmarks/sharing.py --output benchmarks/SHARING.md` makes this page.

"""


if __name__ == "__main__":
    main()
