"""Processes that share batches: CPU time per sample for 1, 2 and 4 of them: `python benchmarks/sharing.py`.

Work: JPEG photographs of 500x375, random resized crop 224, flip, normalize, float32 NCHW, batches of 64. All processes
begin together, and each reads all epochs. CPU time is that of all processes and their workers, from the first batch to
the last, divided by the samples of one process. "alone" is one process that shares nothing. Each batch is touched once
a page, so that the cost of mapping it counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from packed import CROP, MEAN, STD, crops, photos_in

import headrace
from headrace import DataLoader, ImageFiles, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToCHW, ToFloat

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = 4096
PATIENCE = 300
"""Seconds; then a process has failed."""


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
            batch[0].reshape(-1).view("u1")[::PAGE].sum()
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
    parser.add_argument("--images", type=int, default=1500, help="how many photographs, the files repeated")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--backend", default="threads", choices=("threads", "processes", "inline"))
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    options = {name: getattr(arguments, name) for name in ("workers", "backend", "epochs", "batch")}
    with tempfile.TemporaryDirectory() as place:
        found = photos_in(arguments.photos) if arguments.photos else []
        paths = found or crops(Path(headrace.__file__).parent / "demo", Path(place), min(arguments.images, 250))
        paths = [paths[number % len(paths)] for number in range(arguments.images)]
        rows: dict[tuple[int, bool], list[list[Run]]] = {}
        for _ in range(arguments.rounds):
            for count, shared in [(1, False), *((count, True) for count in arguments.processes)]:
                rows.setdefault((count, shared), []).append(run(count, paths, options, shared=shared))
    print(f"{len(paths):,} photographs, {arguments.epochs} epochs, {arguments.workers} workers ({arguments.backend}) ")
    print(f"in each process, medians of {arguments.rounds} rounds\n")
    print("| processes | CPU ms per sample, all together | times alone | images/s of each | taken from others |")
    print("| --- | ---: | ---: | ---: | ---: |")
    alone = None
    for (count, shared), rounds in rows.items():
        cost = median(1e3 * sum(one.cpu for one in runs) / runs[0].samples for runs in rounds)
        alone = cost if alone is None else alone
        speed = median(one.samples / one.seconds for runs in rounds for one in runs)
        taken = median(one.taken for runs in rounds for one in runs)
        name = f"{count}, sharing" if shared else "1, alone"
        print(f"| {name} | {cost:.3f} | {cost / alone:.2f} | {speed:,.0f} | {taken:.0%} |", flush=True)


if __name__ == "__main__":
    main()
