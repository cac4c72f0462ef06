"""Shuffling without memory, shard by shard, and batches by length: `python benchmarks/batches.py` (medians).

What docs/guide/batches.md quotes. Times are the processor's, in turn, and ratios within each round.
"""

from __future__ import annotations

import argparse
import tracemalloc
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import DataLoader
from headrace.context.seeds import key_of
from headrace.plan.order import Shuffled
from headrace.plan.permutation import Permutations
from headrace.samplers import BucketBatchSampler, PackingBatchSampler, ShardSampler, TokenBatchSampler

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 256
STRETCH = 2**13


def keyed(size: int) -> None:
    family = Permutations(key_of(0), epoch=0)
    for start in range(0, size, STRETCH):
        family.at(np.arange(start, min(start + STRETCH, size)), size)


def permuted(size: int) -> None:
    np.random.default_rng(0).permutation(size)


def indexed(size: int) -> None:
    """Read a shuffled array of indices, as a subset does."""
    indices = np.arange(size)
    order = np.random.default_rng(0).permutation(size)
    for start in range(0, size, STRETCH):
        indices[order[start : start + STRETCH]]


def seconds(function: Callable[[int], Any], size: int) -> float:
    """Of the processor, which does one thing at a time here: what else the machine does is left out."""
    began = process_time()
    function(size)
    return process_time() - began


def memory(function: Callable[[int], Any], size: int) -> int:
    tracemalloc.start()
    function(size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def keys(size: int) -> None:
    """Ask for a million keys in batches, as a loader does, or for all where there are fewer."""
    order = Shuffled(size, key_of(0))
    for start in range(0, min(size, 10**6), BATCH):
        order.keys(0, start, min(start + BATCH, size))


def middle(size: int) -> str:
    """Say how long one key from the middle of an epoch takes, in milliseconds."""

    def one(size: int) -> None:
        Shuffled(size, key_of(0)).keys(0, size // 2, size // 2 + 1)

    return f"{median(seconds(one, size) for _ in range(9)) * 1e3:6.2f}"


def speed(sizes: list[int], rounds: int) -> None:
    print("an epoch's keys: nanoseconds each; how many times as fast; peak of memory, MB; ms to a key in the middle")
    titles = {"n": 12, "keyed": 6, "permutation": 18, "and indexing": 18, "memory": 6, "NumPy": 6, "middle": 6}
    print("  ".join(f"{title:>{width}}" for title, width in titles.items()))
    for size in sizes:
        runs = [[seconds(f, size) / size * 1e9 for f in (keyed, permuted, indexed)] for _ in range(rounds)]
        own, bare, full = (median(column) for column in zip(*runs, strict=True))
        over_bare, over_full = median(run[1] / run[0] for run in runs), median(run[2] / run[0] for run in runs)
        peaks = memory(keys, size) / 1e6, memory(permuted, size) / 1e6
        print(
            f"{size:>12,}  {own:6.1f}  {bare:9.1f} ({over_bare:5.2f}x)  {full:9.1f} ({over_full:5.2f}x)  "
            f"{peaks[0]:6.2f}  {peaks[1]:6.1f}  {middle(size)}"
        )
    for size in (10**9, 2**62):
        print(f"{size:>12.1e}  {'':6}  {'':18}  {'':18}  {memory(keys, size) / 1e6:6.2f}  {'':6}  {middle(size)}")


def shards(count: int, size: int) -> None:
    print(
        f"\n{count} shards of {size} samples, batches of {BATCH}: shards in a batch (mean), and how many times likelier"
    )
    print("two samples of one shard meet in a batch than any two")
    every = np.repeat(np.arange(count), size)
    windows: list[tuple[str, Any]] = [
        (f"window {window}", np.array(list(ShardSampler([size] * count, window=window, seed=0))))
        for window in (1, 4, 16, 64, 256)
    ]
    for name, order in [*windows, ("full shuffle", np.random.default_rng(0).permutation(count * size))]:
        batches = every[order[: len(order) // BATCH * BATCH]].reshape(-1, BATCH)
        distinct = float(np.mean([len(np.unique(batch)) for batch in batches]))
        pairs = float(np.mean([(np.bincount(batch) * (np.bincount(batch) - 1)).sum() for batch in batches]))
        chance = BATCH * (BATCH - 1) * (size - 1) / (count * size - 1)
        print(f"{name:>12}  {distinct:6.1f}  {pairs / chance:6.1f}")


def padding(samples: int) -> None:
    print(f"\n{samples:,} samples of log-normal lengths (median 100, up to 1,024): padding, and batches of an epoch")
    lengths = np.random.default_rng(0).lognormal(np.log(100), 0.8, samples).clip(1, 1024).astype(int)
    order = np.random.default_rng(1).permutation(samples)
    rows: list[tuple[str, list[Any]]] = [
        ("batches of 64, shuffled", [order[start : start + 64] for start in range(0, samples, 64)]),
        ("BucketBatchSampler(lengths, 64)", list(BucketBatchSampler(lengths, 64, seed=0))),
        ("TokenBatchSampler(lengths, 8192)", list(TokenBatchSampler(lengths, 8192, seed=0))),
    ]
    for name, batches in rows:
        padded = sum(lengths[batch].max() * len(batch) for batch in batches)
        print(f"{name:>40}  {1 - lengths.sum() / padded:6.2%}  {len(batches):6,}")
    for fit in ("first", "best"):
        packing = PackingBatchSampler(lengths, 1024, 8, fit=fit, seed=0)
        count = sum(len(batch) for batch in packing)
        name = f'PackingBatchSampler(…, fit="{fit}")'
        print(f"{name:>40}  {1 - lengths.sum() / (count * 1024):6.2%}  {len(packing):6,}")


def resuming(rounds: int) -> None:
    print("\nfirst batch of 256 after loading a state, 1,000,000,000 samples, shuffled: milliseconds")
    size = 10**9
    for step in (1, 10**4, 10**6):
        took = []
        for _ in range(rounds):
            loader = DataLoader(range(size), BATCH, shuffle=True, seed=0)
            state = {**loader.state_dict(), "step": step, "batches": step, "samples": step * BATCH}
            began = perf_counter()
            loader.load_state_dict(state)
            next(iter(loader))
            took.append(perf_counter() - began)
        print(f"step {step:>9,}  {median(took) * 1e3:6.2f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10**5, 10**6, 10**7])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--samples", type=int, default=100_000, help="samples of the tables of lengths (100,000)")
    given = parser.parse_args()
    speed(given.sizes, given.rounds)
    shards(1000, 1000)
    padding(given.samples)
    resuming(max(given.rounds, 9))


if __name__ == "__main__":
    main()
