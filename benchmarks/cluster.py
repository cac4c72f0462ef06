"""Workers on a Ray cluster beside one process worker and Ray Data: `python benchmarks/cluster.py` prints a table.

Needs Ray (`make ray` makes .venv-ray; pip install pyarrow there). Each measurement is an interpreter of its own, in
turn, round by round; ratios are taken within each round. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter, thread_time
from typing import Any

import numpy as np

SHAPE = (224, 224, 3)
BATCH = 32
NODE = {"num_cpus": 3, "object_store_memory": 200 << 20, "include_dashboard": False}
KINDS = ("process-1", "ray-1", "ray-2", "ray-data-1", "ray-data-2")
CALLS = ("calls-2", "calls-512")
"""What the loop itself costs, with so many works in flight: the figures of cluster_model.py."""


class Work:
    """Samples of 150 KB that each take so many milliseconds of CPU time."""

    def __init__(self, samples: int, milliseconds: float) -> None:
        self.samples, self.milliseconds = samples, milliseconds

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> np.ndarray:
        began = thread_time()
        while thread_time() - began < self.milliseconds / 1000:
            pass
        return np.full(SHAPE, index % 256, np.uint8)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"image": self[int(row["id"])]}


class Tiny:
    def __len__(self) -> int:
        return 4000

    def __getitem__(self, index: int) -> int:
        return index


def headrace_batches(work: Any, workers: int, backend: str, **more: Any) -> Any:
    from headrace import DataLoader

    return DataLoader(work, BATCH, seed=0, num_workers=workers, backend=backend, **more)


def ray_data_batches(work: Work, actors: int) -> Any:
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    blocks = max(1, len(work) // BATCH)
    rows = ray.data.range(len(work), override_num_blocks=blocks)
    made = rows.map(Work, fn_constructor_args=(work.samples, work.milliseconds), concurrency=actors)
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        return made.iter_batches(batch_size=BATCH, batch_format="numpy")
    return made.iter_torch_batches(batch_size=BATCH)


def measure(kind: str, samples: int, milliseconds: float) -> dict[str, float]:
    """Read an epoch: seconds to the first batch and to the last, the rate, and the most that the object store held.

    The rate is that of the middle half of the epoch. Where the first batch comes late, others were made before it: a
    rate from the first batch on is higher than the workers' own.
    """
    name, _, number = kind.rpartition("-")
    if name != "process":
        import ray

        ray.init(address="local", log_to_driver=False, logging_level="ERROR", **NODE)
    began = perf_counter()
    work = Work(samples, milliseconds)
    if name == "calls":
        return {"seconds a batch": _calls(int(number))}
    batches = ray_data_batches(work, int(number)) if name == "ray-data" else _headrace(work, name, int(number))
    arrived, seen, stored = [], [0], 0.0
    for batch in batches:
        arrived.append(perf_counter() - began)
        array = batch["image"] if isinstance(batch, dict) else batch
        seen.append(seen[-1] + len(array))
        stored = max(stored, 0.0 if name == "process" else _stored())
        del batch, array
    middle = slice(len(arrived) // 4, 3 * len(arrived) // 4)
    rate = np.polyfit(arrived[middle], seen[1:][middle], 1)[0]
    return {"first": arrived[0], "whole": arrived[-1], "rate": float(rate), "stored": stored / 1e6}


def _headrace(work: Work, name: str, workers: int) -> Any:
    return headrace_batches(work, workers, "ray" if name == "ray" else "processes")


def _calls(in_flight: int) -> float:
    loop = iter(headrace_batches(Tiny(), 1, "ray", prefetch_factor=in_flight))
    next(loop)
    began, count = perf_counter(), 0
    for _ in loop:
        count += 1
    return (perf_counter() - began) / count


def _stored() -> float:
    import ray

    whole, free = ray.cluster_resources(), ray.available_resources()
    return float(whole["object_store_memory"] - free.get("object_store_memory", 0))


def in_turn(
    kinds: tuple[str, ...], samples: int, milliseconds: float, rounds: int
) -> dict[str, list[dict[str, float]]]:
    """Measure each kind in an interpreter of its own, round by round."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for turn in range(rounds):
        for kind in kinds:
            command = [sys.executable, __file__, "--one", kind, "--samples", str(samples), "--ms", str(milliseconds)]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if run.returncode:
                raise SystemExit(f"{kind} failed:\n{run.stderr}")
            found[kind].append(json.loads(run.stdout.splitlines()[-1]))
            print(f"[{turn + 1}/{rounds}] {kind}: {found[kind][-1]}", file=sys.stderr, flush=True)
    return found


def table(found: dict[str, list[dict[str, float]]], milliseconds: float) -> str:
    """Return the medians as Markdown; ratios are to one process worker, and of two to one."""
    lines = [
        f"{milliseconds:g} ms of CPU time a sample, 150 KB, batches of {BATCH}.",
        "",
        "The rate is that of the middle half of an epoch: no worker starts, and none has run out of work.",
        "",
        "| workers | samples/s | of one process | of one such worker | first batch s | epoch s | object store MB |",
        f"| --- |{' ---: |' * 6}",
    ]
    for kind, runs in found.items():
        ratio = median(run["rate"] / other["rate"] for run, other in zip(runs, found["process-1"], strict=True))
        single = found[f"{kind.rpartition('-')[0]}-1"]
        alone = median(run["rate"] / other["rate"] for run, other in zip(runs, single, strict=True))
        made, *seconds, stored = (median(run[name] for run in runs) for name in ("rate", "first", "whole", "stored"))
        cells = [f"{made:.1f}", f"{ratio:.3f}", f"{alone:.3f}", *(f"{each:.2f}" for each in seconds), f"{stored:.1f}"]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--ms", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(given.one, given.samples, given.ms)))
        return
    lines = table(in_turn(KINDS, given.samples, given.ms, given.rounds), given.ms)
    calls = in_turn(CALLS, given.samples, given.ms, given.rounds)
    lines += "\n\n" + "\n".join(
        f"The loop spends {median(run['seconds a batch'] for run in runs) * 1000:.2f} ms on a batch with "
        f"{kind.rpartition('-')[2]} works in flight."
        for kind, runs in calls.items()
    )
    print(lines)
    if given.output is not None:
        given.output.write_text(f"# Workers on a cluster\n\n{lines}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
