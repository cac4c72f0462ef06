"""Batches made by one thread each, or by several threads together: first batch, rate, and batches in memory.

``python benchmarks/split_batches.py`` takes about half a minute. A sample sleeps for 10 ms, as storage with a latency
does; a batch has 32 of them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

import headrace
from headrace import DataLoader
from headrace.formatting import duration, table

LATENCY = 0.01
"""Seconds."""
SETTINGS = [
    {"num_workers": 16, "prefetch_factor": 1},
    {"num_workers": 16, "prefetch_factor": 1, "threads_per_batch": 4},
    {"num_workers": 16, "prefetch_factor": 1, "threads_per_batch": 16},
    {"num_workers": 16, "prefetch_factor": 2, "threads_per_batch": 16},
    {"num_workers": 2, "prefetch_factor": 1},
    {"num_workers": 1, "prefetch_factor": 1, "threads_per_worker": 16, "threads_per_batch": 8, "backend": "processes"},
]


class Slow(headrace.Dataset[Any]):
    """Samples that take 10 ms to read."""

    suits_threads = True

    def __len__(self) -> int:
        return 1 << 16

    def __getitem__(self, index: int) -> Any:
        time.sleep(LATENCY)
        return np.full(1000, index, np.float32)


def measured(batches: int, how: dict[str, Any]) -> tuple[float, float]:
    """Return the seconds to the first batch, and the batches a second once the pipeline is full."""
    with DataLoader(Slow(), 32, **how) as loader:
        times: list[float] = []
        for batch in loader:
            del batch
            times.append(time.perf_counter())
            if len(times) == batches:
                break
        first = loader.statistics().first_batch_seconds or 0.0
    full = batches // 3
    return first, (batches - 1 - full) / (times[-1] - times[full])


def main() -> None:
    """Measure all settings in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    found: list[list[tuple[float, float]]] = [[] for _ in SETTINGS]
    for _ in range(given.rounds):
        for how, runs in zip(SETTINGS, found, strict=True):
            runs.append(measured(given.batches, how))
    rows = [("setting", "batches in memory", "first batch", "batches/s")]
    for how, runs in zip(SETTINGS, found, strict=True):
        pool = how.get("threads_per_worker", how["num_workers"])
        ahead = -(-pool // how.get("threads_per_batch", 1)) * how["prefetch_factor"]  # type: ignore[operator]
        first, rate = (statistics.median(one[part] for one in runs) for part in (0, 1))
        said = ", ".join(f"{name}={value}" for name, value in how.items())
        rows.append((said, str(ahead), duration(first), f"{rate:.1f}"))
    print(table(rows))


if __name__ == "__main__":
    main()
