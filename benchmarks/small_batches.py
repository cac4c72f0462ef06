"""Small batches beside torch's loader: `python benchmarks/small_batches.py` (medians of one run, in microseconds).

All loaders read the same samples in one process, epoch by epoch in turn, without workers and with two. Without workers
the CPU time of the thread counts, with workers the time on the clock. It runs in the environment of torch's runners
(`make bench-peers`), or in its own if torch is installed there.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import os
import platform
import subprocess
import sys
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np
from registry import HERE, PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PYTHON = PEERS / "torch" / "bin" / "python"
BATCHES = {1: 300, 10: 300, 16: 300, 32: 100, 128: 20, 256: 25, None: 300}
"""How many batches an epoch has, by the size of a batch."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is read, and how; ``make`` takes the number of samples, and NumPy's loader reads ``arrays`` if given."""

    name: str
    make: Callable[[int], Any]
    sizes: tuple[int | None, ...]
    arrays: Callable[[int], Any] | None = None
    how: dict[str, Any] = field(default_factory=dict)


def cases() -> list[Case]:
    import torch
    from torch.utils.data import IterableDataset, TensorDataset

    import headrace

    class Stream(IterableDataset[int]):
        def __init__(self, count: int) -> None:
            self.count = count

        def __iter__(self) -> Any:
            return iter(range(self.count))

    def pair(count: int) -> TensorDataset:
        return TensorDataset(torch.randn(count, 20), torch.arange(count))

    def arrays(count: int) -> Any:
        return headrace.TensorDataset(*(tensor.numpy() for tensor in pair(count).tensors))

    def pictured(count: int) -> TensorDataset:
        return TensorDataset(torch.randn(count, 3, 32, 32), torch.arange(count))

    def images(count: int) -> list[Any]:
        return [(torch.randn(3, 32, 32), label) for label in range(count)]

    def tokens(count: int) -> list[Any]:
        return [{"input_ids": torch.arange(512), "attention_mask": torch.ones(512).long()} for _ in range(count)]

    def token_arrays(count: int) -> list[Any]:
        return [{name: tensor.numpy() for name, tensor in sample.items()} for sample in tokens(count)]

    def floats(count: int) -> list[Any]:
        return [np.float32(number) for number in range(count)]

    two = {"num_workers": 2, "persistent_workers": True}
    return [
        Case("TensorDataset", pair, (1, 10, 32, 256), arrays),
        Case("TensorDataset, shuffled", pair, (1, 32, 256), arrays, {"shuffle": True}),
        Case("range", range, (1, 16, 256, None)),
        Case("list of float32", floats, (1, 10, 32, 256, None)),
        Case("iterable dataset", Stream, (1, 16, None)),
        Case("dicts of 512 int64", tokens, (1, 32), token_arrays),
        Case("TensorDataset of 3x32x32", pictured, (128,)),
        Case("list of 3x32x32", images, (10, 128)),
        Case("dicts of 512 int64, 2 workers", tokens, (32,), token_arrays, two),
        Case("TensorDataset of 3x32x32, 2 workers", pictured, (128,), None, two),
    ]


def epoch(loader: Any, clock: Callable[[], float]) -> float:
    """Return the microseconds that a batch takes, the start of the epoch included."""
    began, batches = clock(), 0
    for _ in loader:
        batches += 1
    return (clock() - began) / batches * 1e6


def measure(case: Case, size: int | None, rounds: int) -> list[list[float]]:
    """Return the times of torch's loader, of headrace.torch's, and of headrace's where it reads arrays of its own."""
    import torch.utils.data

    import headrace.torch

    samples = BATCHES[size] * (size or 1)
    loaders = [
        kind(case.make(samples), batch_size=size, **case.how)
        for kind in (torch.utils.data.DataLoader, headrace.torch.DataLoader)
    ]
    if case.arrays is not None or "3x32x32" not in case.name:
        loaders.append(headrace.DataLoader((case.arrays or case.make)(samples), size, **case.how))
    clock = perf_counter if case.how.get("num_workers") else process_time
    found: list[list[float]] = [[] for _ in loaders]
    for turn in range(rounds + 1):
        for loader, times in zip(loaders, found, strict=True):
            spent = epoch(loader, clock)
            if turn:  # the first epoch starts workers, and fills caches
                times.append(spent)
    return found


def cells(times: Sequence[Sequence[float]]) -> list[str]:
    torchs, *ours = times
    found = [f"{median(torchs):,.0f}"]
    for mine in ours:
        ratios = [theirs / own for theirs, own in zip(torchs, mine, strict=True)]
        found += [f"{median(mine):,.0f}", f"{median(ratios):.2f}"]
    return found + [""] * (5 - len(found))


def document(rounds: int, names: Sequence[str]) -> str:
    import torch

    machine = (
        f"{len(os.sched_getaffinity(0))} cores, Linux {platform.release()}, Python {platform.python_version()}, "
        f"torch {torch.__version__}, numpy {np.__version__}; load average before: {os.getloadavg()[0]:.1f}"
    )
    protocol = (
        f"microseconds a batch: medians of {rounds} epochs, the loaders in turn; CPU time without workers, time on the "
        "clock with them"
    )
    lines = [
        "# Small batches",
        "",
        f"Made on {datetime.now(UTC):%Y-%m-%d} by `python benchmarks/small_batches.py --rounds {rounds}`.",
        "",
        f"- {machine}",
        f"- {protocol}",
        "- times torch: how many batches a loader makes while torch's makes one; the median of the epochs' ratios",
        "",
        "| samples | batch | torch | headrace.torch | times torch | headrace | times torch |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for case in cases():
        if not names or any(name in case.name for name in names):
            for size in case.sizes:
                row = [case.name, str(size), *cells(measure(case, size, rounds))]
                print(*row, sep=" | ", file=sys.stderr, flush=True)
                lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="epochs of each loader (15)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="of the names of samples")
    parser.add_argument("--output", type=Path, help="write the table to this file too")
    given = parser.parse_args()
    if importlib.util.find_spec("torch") is None:
        if not PYTHON.exists():
            print("small batches: skipped: torch is not installed (make bench-peers)", file=sys.stderr)
            return 0
        environment = {**os.environ, "PYTHONPATH": str(HERE.parent / "src"), "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.run([str(PYTHON), *sys.argv], env=environment, check=False).returncode
    import torch

    gc.disable()  # what it costs depends on how many objects the cases before have left
    torch.set_num_threads(1)  # as in a worker; threads of one batch would wait for each other
    warnings.simplefilter("ignore")
    text = document(given.rounds, given.only)
    print(text)
    if given.output:
        given.output.write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
