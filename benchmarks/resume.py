"""Measure states, resuming, ledgers and fingerprints: `python benchmarks/resume.py` (medians of several rounds).

It saves and loads a state. It resumes a dataset of a billion samples at several steps, each in its own interpreter. It
delivers batches with and without a ledger, in turn.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import ArrayDataset, DataLoader, ImageFiles, Ledger, Normalize, RandomResizedCrop, ToCHW, ToFloat
from headrace.ledger.fingerprint import of_batch, of_keys

if TYPE_CHECKING:
    from collections.abc import Callable

BILLION = 10**9
STEPS = (1, 10_000, 1_000_000)


class Numbers:
    """A billion samples that take no memory."""

    def __len__(self) -> int:
        return BILLION

    def __getitem__(self, index: int) -> int:
        return index


def resumed(step: int) -> None:
    """Resume at a step in a new interpreter; print seconds to the first batch, and peak memory in MiB."""
    loader = DataLoader(Numbers(), 64, shuffle=True, seed=1)
    next(iter(loader))  # what is made once only is made before
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    state = {**loader.state_dict(), "step": step, "batches": step, "samples": step * 64}
    began = perf_counter()
    loader.load_state_dict(state)
    batches = iter(loader)
    next(batches)
    took = perf_counter() - began
    for _ in islice(batches, 200):
        pass
    print(json.dumps([took, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))


def micro(function: Callable[[], Any], times: int) -> float:
    began = perf_counter()
    for _ in range(times):
        function()
    return (perf_counter() - began) / times * 1e6


def rounds_of(functions: dict[str, Callable[[], Any]], rounds: int, times: int) -> dict[str, float]:
    """Give the median of microseconds of each, taken in turn."""
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            taken[name].append(micro(function, times))
    return {name: median(each) for name, each in taken.items()}


def states(rounds: int) -> None:
    loader = DataLoader(Numbers(), 64, shuffle=True, seed=1, rank=2, world_size=8)
    loop = iter(loader)
    next(loop)
    state = loader.state_dict()
    took = rounds_of(
        {"state_dict": loader.state_dict, "load_state_dict": lambda: loader.load_state_dict(state)}, rounds, 2000
    )
    print(f"state_dict()        {took['state_dict']:6.1f} µs, {len(json.dumps(state))} bytes as JSON")
    print(f"load_state_dict()   {took['load_state_dict']:6.1f} µs")


def far_places(rounds: int) -> None:
    found: dict[int, list[list[float]]] = {step: [] for step in STEPS}
    for _ in range(rounds):
        for step in STEPS:
            command = [sys.executable, __file__, "--resumed", str(step)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            found[step].append(json.loads(run.stdout))
    print(f"\nfrom load_state_dict to the first batch of 64, of {BILLION:,} shuffled samples")
    for step, each in found.items():
        seconds, memory = (median(column) for column in zip(*each, strict=True))
        print(f"step {step:>9,}      {seconds * 1e3:6.2f} ms, {memory:5.1f} MiB more")


def images() -> Any:
    import headrace

    folder = Path(headrace.__file__).parent / "demo"
    files = [str(folder / f"{name}.jpg") for name in ("astronaut", "coffee", "rocket")] * 200
    return ImageFiles(files).map(
        RandomResizedCrop(224), ToFloat(), Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)), ToCHW()
    )


def handed_over(dataset: Any, batch_size: int, steps: int, workers: int, rounds: int, name: str) -> None:
    """Compare loops with a ledger, with one of keys only, and with none; and a fingerprint with making a batch."""
    with tempfile.TemporaryDirectory() as folder:
        ledgers = {
            "no ledger": None,
            "keys": Ledger(Path(folder) / "keys.ledger", fingerprints=False),
            "keys and bytes": Ledger(Path(folder) / "all.ledger"),
        }
        loaders = {
            name: DataLoader(dataset, batch_size, shuffle=True, seed=1, num_workers=workers, ledger=ledger)
            for name, ledger in ledgers.items()
        }
        took: dict[str, list[float]] = {name: [] for name in loaders}
        batch: Any = None
        for _ in range(rounds):
            for kind, loader in loaders.items():
                batches = iter(loader)
                next(batches)
                began = perf_counter()
                batch = list(islice(batches, steps))[-1]
                took[kind].append((perf_counter() - began) / steps * 1e6)
                loader.close()
        size = sum(part.nbytes for part in batch) if isinstance(batch, list) else batch.nbytes
        base = median(took["no ledger"])
        print(f"\n{name}: {base:,.0f} µs a batch of {size / 1e6:.1f} MB")
        for kind in ("keys", "keys and bytes"):
            ratio = median(a / b for a, b in zip(took[kind], took["no ledger"], strict=True))
            print(f"  with a ledger of {kind:<14} {(ratio - 1) * 100:+.1f} %")
        own = rounds_of(
            {"bytes": lambda: of_batch(batch), "keys": lambda: of_keys(list(range(batch_size)))}, rounds, 50
        )
        recorded = own["bytes"] + own["keys"]
        print(
            f"  the fingerprints by themselves: {own['bytes']:.0f} µs of the bytes, {own['keys']:.0f} µs of the keys: "
            f"{recorded / base * 100:.2f} %"
        )
        for ledger in ledgers.values():
            if ledger is not None:
                ledger.close()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--resumed", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.resumed is not None:
        resumed(given.resumed)
        return
    states(given.rounds)
    far_places(given.rounds)
    handed_over(images(), 64, 6, 2, given.rounds, "images, cropped to 224 and normalized, 2 threads")
    pixels = np.random.default_rng(0).integers(0, 256, (20_000, 32, 32, 3), np.uint8)
    handed_over(ArrayDataset(pixels, np.arange(20_000)), 128, 100, 0, given.rounds, "arrays of 32x32x3, inline")


if __name__ == "__main__":
    main()
