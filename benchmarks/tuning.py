"""What ``num_workers="auto"`` finds on eight workloads, beside the best of a full grid of settings.

``python benchmarks/tuning.py --output benchmarks/TUNING.md`` takes about 11 minutes on two quiet cores. Each workload
runs in a process of its own. Its limit is constructed: samples compute without the GIL (`hashlib`), compute in Python,
or sleep as storage with a latency does. The grid is measured first. Then a loader with ``num_workers="auto"`` trains
until it has chosen. At the end, its choice and the best of the grid are measured in turns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnosis import in_python, without_gil

import headrace
from headrace import DataLoader, timed
from headrace.formatting import count, percent
from headrace.interop.machine import cpus
from headrace.run.tuning import space
from headrace.run.tuning.worker_setting import WorkerSetting

if TYPE_CHECKING:
    from collections.abc import Iterator

EPOCH = 1 << 16
"""Samples."""
MOST_SEARCH = 40.0
"""Seconds after which an unfinished search counts as failed: 30 are promised."""
SMALL = 1 << 20
"""Bytes of an array that is compared as a whole."""
CHECKED = 400
"""Batches whose bytes are compared."""


class Samples(headrace.Dataset[Any]):
    """Samples that cost milliseconds of reading, decoding and Python; what they are does not depend on that."""

    def __init__(self, *, threads: bool, nbytes: int = 64, **stages: float) -> None:
        self._threads = threads
        self.nbytes, self.stages = nbytes, stages

    @property
    def suits_threads(self) -> bool:
        """What the workload says."""
        return self._threads

    def __len__(self) -> int:
        return EPOCH

    def __getitem__(self, index: int) -> Any:
        stages = {name: value / 1000 for name, value in self.stages.items()}
        if "read" in stages:
            with timed("read"):
                time.sleep(stages["read"])
        if "decode" in stages:
            with timed("decode"):
                without_gil(stages["decode"])
        if "python" in stages:
            in_python(stages["python"])
        sample = np.zeros(self.nbytes // 8)
        sample[:4] = headrace.rng().random(4)
        return index, sample


@dataclass(frozen=True)
class Workload:
    """A loop that trains; times in milliseconds."""

    name: str
    about: str
    stages: dict[str, float]
    train: float = 0.0
    batch_size: int = 4
    threads: bool = True
    """Whether the dataset says that threads suit it."""
    one_cpu: bool = False
    memory: int | None = None
    """Bytes that are said to be free."""
    nbytes: int = 64

    def dataset(self, *, quick: bool = False) -> Samples:
        """Return its dataset; ``quick``: the same samples without what they cost."""
        return Samples(threads=self.threads, nbytes=self.nbytes, **({} if quick else self.stages))

    def loader(self, setting: WorkerSetting | None, *, quick: bool = False) -> DataLoader[Any]:
        """Return a loader with these workers; None: with those that it finds."""
        how: dict[str, Any] = {"num_workers": "auto"}
        if setting is not None:
            how = {"num_workers": setting.workers, "backend": setting.kind}
            if setting.workers:
                how |= {"prefetch_factor": setting.prefetch, "threads_per_worker": setting.threads}
                how |= {"threads_per_batch": setting.together}
        return DataLoader(self.dataset(quick=quick), self.batch_size, shuffle=True, seed=1, **how)

    def step(self) -> None:
        """Do what training does between two batches: wait for a device."""
        if self.train:
            time.sleep(self.train / 1000)

    def grid(self) -> Iterator[WorkerSetting]:
        """Yield all settings that are measured."""
        yield WorkerSetting("inline")
        most = self._most()
        for kind in ("threads", "processes") if self.threads else ("processes",):
            for workers in (1, 2, 3, 4, 8, 16, 32, 64) if kind == "threads" else (1, 2, 3, 4, 8):
                fewest = max(1, min(2, most // workers))
                for prefetch in (fewest, 4) if workers in (2, 4) else (fewest,):
                    if workers * prefetch <= most:
                        yield WorkerSetting(kind, workers, prefetch)
        for threads in (2, 8) if self.threads else ():
            if 2 * threads <= most:
                yield WorkerSetting("processes", 1, 2, threads)
        for workers, together in ((2, 2), (4, 2), (4, 4), (8, 4), (16, 4), (32, 4)) if self.threads else ():
            setting = WorkerSetting("threads", workers, 1 if workers // together == most else 2, together=together)
            if setting.ahead <= most:
                yield setting

    def _most(self) -> int:
        """Return how many batches may be under way: of the grid, too, nothing is measured that has no room."""
        if self.memory is None:
            return 1 << 16
        room = space.Room(cpus(), self.memory, None)
        start = WorkerSetting("threads", cpus())
        how: dict[str, Any] = {"batches": None, "prefetch": None, "threads": None, "under_way": start.ahead}
        return room.space(("threads",), batch_bytes=self.nbytes * self.batch_size, **how).most_ahead


WORKLOADS = [
    Workload("decode", "CPU-bound decode: 2 ms a sample without the GIL", {"decode": 2}),
    Workload("Python", "GIL-bound Python: 2 ms a sample, in a dataset that says it suits threads", {"python": 2}),
    Workload("tiny", "tiny samples: nothing to do for them, 32 in a batch", {}, batch_size=32),
    Workload("storage", "storage with 50 ms latency; a step of 4 ms", {"read": 50}, train=4),
    Workload("slow consumer", "1 ms of decoding a sample; a step of 25 ms", {"decode": 1}, train=25),
    Workload(
        "memory-tight",
        "batches of 8 MiB, 80 MiB of memory (said to be free); storage with 10 ms latency",
        {"read": 10},
        memory=80 << 20,
        nbytes=2 << 20,
    ),
    Workload(
        "one core", "one CPU: 2 ms of storage and 1 ms of decoding a sample", {"read": 2, "decode": 1}, one_cpu=True
    ),
    Workload(
        "mixed",
        "2 ms of storage, 1 ms of decoding and 0.5 ms of Python a sample; a step of 5 ms",
        {"read": 2, "decode": 1, "python": 0.5},
        train=5,
        threads=False,
    ),
]


def rate(workload: Workload, setting: WorkerSetting, seconds: float) -> float:
    """Return the batches a second of a loop, once its pipeline is full."""
    with workload.loader(setting) as loader:
        steps: Any = loader.batches(endless=True)
        began = time.perf_counter()
        for taken, batch in enumerate(steps, 1):
            del batch
            workload.step()
            if taken > setting.ahead and time.perf_counter() - began > seconds / 4:
                break
        began = time.perf_counter()
        for taken, batch in enumerate(steps, 1):
            del batch
            workload.step()
            if taken >= 2 * setting.at_once and time.perf_counter() - began >= seconds:
                break
        lasted = time.perf_counter() - began
        steps.close()
    return taken / lasted


def digest(batch: Any) -> str:
    """Return what tells the bytes of a batch: of rows of megabytes, every 1,009th number, so that it takes no time."""
    parts = (part[:, :: 1009 if part.nbytes > SMALL else 1] if part.ndim > 1 else part for part in batch)
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts)).hexdigest()


def searched(workload: Workload) -> dict[str, Any]:
    """Train until the workers are chosen; return the choice, and whether the batches are those of an untuned run."""
    found: list[str] = []
    with workload.loader(None) as loader:
        steps: Any = loader.batches(endless=True)
        began = time.perf_counter()
        for batch in steps:
            if len(found) < CHECKED:
                found.append(digest(batch))
            del batch
            workload.step()
            if loader.statistics().tuned is not None or time.perf_counter() - began > MOST_SEARCH:
                break
        lasted = time.perf_counter() - began
        steps.close()
        chosen = loader._session._auto.now  # type: ignore[union-attr]
        tuner = loader._session._auto._tuner  # type: ignore[union-attr]
        over = loader.statistics().tuned is not None
    untuned = workload.loader(WorkerSetting("inline"), quick=True)
    same = found == [digest(batch) for batch in islice(untuned.batches(endless=True), len(found))]
    trials = (
        [] if tuner._search is None else [(str(one.setting), one.period, one.waiting) for one in tuner._search.trials]
    )
    return {"chosen": chosen, "seconds": lasted, "over": over, "same": same, "batches": len(found), "trials": trials}


def measured(workload: Workload, *, seconds: float, rounds: int) -> dict[str, Any]:
    """Measure a workload: the grid, the search, and both results in turns."""
    warnings.filterwarnings("ignore", message="This DataLoader will create")
    if workload.one_cpu:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if workload.memory is not None:
        space.free_memory = lambda: workload.memory  # type: ignore[attr-defined]
    rates = {setting: rate(workload, setting, seconds) for setting in workload.grid()}
    best = max(rates, key=lambda setting: rates[setting])
    search = searched(workload)
    chosen: WorkerSetting = search.pop("chosen")
    pairs = []
    for number in range(rounds):
        turn = [best, chosen] if number % 2 else [chosen, best]
        seen = {setting: rate(workload, setting, 1.5 * seconds) for setting in turn}
        pairs.append((seen[best], seen[chosen]))
    return {
        **search,
        "best": str(best),
        "chosen": str(chosen),
        "grid": {str(setting): value for setting, value in rates.items()},
        "best_rate": statistics.median(one for one, _ in pairs),
        "rate": statistics.median(other for _, other in pairs),
        "ratio": statistics.median(other / one for one, other in pairs),
    }


def report(results: dict[str, dict[str, Any]]) -> str:
    """Return the page."""
    rows = []
    for workload in WORKLOADS:
        found = results.get(workload.name)
        if found is None:
            continue
        same = f"{found['batches']} of {found['batches']}" if found["same"] else "**no**"
        seconds = f"{found['seconds']:.0f}" if found["over"] else f"not in {found['seconds']:.0f}"
        rows.append(
            f"| {workload.name} | {_shown(found['best'])} | {found['best_rate']:.1f} | {_shown(found['chosen'])} | "
            f"{found['rate']:.1f} | {found['ratio']:.2f} | {len(found['trials'])} | {seconds} | {same} |"
        )
    worst = min((found["ratio"] for found in results.values()), default=0.0)
    grids = [len(found["grid"]) for found in results.values()]
    lines = [
        '# What num_workers="auto" finds',
        f"""Eight constructed workloads on {count(cpus(), "CPU")}, by `python benchmarks/tuning.py`. The grid has
{min(grids)} to {max(grids)} settings of inline, threads, processes, one process with threads, and threads that make
each batch together (threads_per_batch). Rates are batches a
second. Choice and best of the grid were measured in turns. The smallest ratio is {worst:.2f}:
{percent(max(0.0, 1 - worst))} below the best.
""",
        "| workload | best of the grid | rate | chosen | rate | ratio | tried | seconds of training | same bytes |",
        "| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | --- |",
        *rows,
        "",
        *(f"- *{workload.name}*: {workload.about}." for workload in WORKLOADS),
        """
*memory-tight*: the search is told so much free memory; no limit of the system is set. No setting of the grid has more
batches under way than the search may have. *Same bytes*: batches of the search's run, compared with those of a loader
without workers: in full, of *memory-tight* every 1,009th number.""",
    ]
    return "\n".join(lines) + "\n"


def _shown(setting: str) -> str:
    return (
        setting.replace("num_workers=", "")
        .replace('backend="', "")
        .replace('"', "")
        .replace("0", "inline", setting == "num_workers=0")
    )


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[one.name for one in WORKLOADS], help="names of workloads")
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each setting of the grid is measured")
    parser.add_argument("--rounds", type=int, default=3, help="how often the choice is compared with the best")
    parser.add_argument("--output", type=Path, help="a file for the page")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        workload = next(one for one in WORKLOADS if one.name == given.one)
        print(json.dumps(measured(workload, seconds=given.seconds, rounds=given.rounds)))
        return
    results = {}
    for name in given.only:
        began = time.perf_counter()
        command = [
            sys.executable,
            __file__,
            "--one",
            name,
            "--seconds",
            str(given.seconds),
            "--rounds",
            str(given.rounds),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        found = results[name] = json.loads(done.stdout)
        said = (
            f"{name}: best {found['best']}, chosen {found['chosen']}, ratio {found['ratio']:.3f}, same {found['same']}"
        )
        print(f"{said}, search {found['seconds']:.1f} s, in all {time.perf_counter() - began:.0f} s", flush=True)
        for setting, period, waiting in found["trials"]:
            print(f"    {setting}: {1 / period:.1f} batches/s, waiting {waiting:.2f}", flush=True)
    page = report(results)
    if given.output is not None:
        given.output.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
