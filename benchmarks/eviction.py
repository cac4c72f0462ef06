"""Hit rates of a cache that evicts by the next use in the plan, and by the last use: `python benchmarks/eviction.py`.

The traces are two epochs of real samplers over a dataset of shards whose samples have log-normal sizes, batch by batch.
The cache decides with headrace's own code; nothing is read.
"""

from __future__ import annotations

import argparse
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headrace.context.seeds import key_of
from headrace.formatting import table
from headrace.plan.order import Sequential, Shuffled
from headrace.samplers import MixtureSampler, ReplacementSampler, ShardSampler
from headrace.storage.block_cache import Entry, least_recent
from headrace.storage.next_use import NextUses, PlannedEviction, PlannedUses

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from headrace.plan.order import Order

    Step = NDArray[np.int64]

PARTS = (0.1, 0.25, 0.5, 0.75)
OBJECT = "0" * 32


def names_of(blocks: Sequence[int]) -> list[str]:
    return [f"{OBJECT}-{block:08x}.block" for block in blocks]


def hit_rate(
    steps: Sequence[Step], capacity: int, *, planned: bool, slack: int = 64, plan: Sequence[Step] | None = None
) -> float:
    """Return the part of all uses of blocks that finds them in a cache of ``capacity`` blocks.

    Room is made for one block in ``slack`` of the cache at once, as the cache on disk does. ``plan``: the blocks that
    steps are thought to use, where they are others.
    """
    eviction: Callable[[Sequence[Entry]], Sequence[Entry]] = least_recent
    uses = PlannedUses(lambda: {OBJECT: 0})
    if planned:
        uses.uses, order = NextUses(steps if plan is None else plan), PlannedEviction()
        order.add(uses)
        eviction = order
    held: dict[int, int] = {}
    hits = used = 0
    for number, step in enumerate(steps):
        uses.step = number
        for block in step.tolist():
            used += 1
            if block in held:
                hits += 1
            elif len(held) >= capacity:
                entries = [Entry(name, 1, held[each]) for name, each in zip(names_of(list(held)), held, strict=True)]
                for gone in eviction(entries)[: max(1, capacity // slack)]:
                    del held[int(gone.name[33:41], 16)]
            held[block] = used
    return hits / used


def steps_of(orders: Sequence[Order], block_of: NDArray[np.int64], batch: int, epochs: int = 2) -> list[Step]:
    """Return the blocks of each batch: of one order, epoch by epoch."""
    found = []
    for epoch in range(epochs):
        for order in orders:
            keys = np.asarray(order.keys(epoch, 0, len(order)), np.int64)
            found += [np.unique(block_of[keys[begin : begin + batch]]) for begin in range(0, len(keys), batch)]
    return found


def traces(samples: int, shards: int, block: int, batch: int) -> tuple[dict[str, list[Step]], int]:
    """Return the traces by name, and how many blocks the dataset has."""
    sizes = np.random.default_rng(0).lognormal(np.log(block / 10), 0.6, samples)
    block_of = (np.cumsum(sizes) // block).astype(np.int64)
    key, per_shard = key_of(0), [samples // shards] * shards
    shard = ShardSampler(per_shard, window=4)
    half = samples // 2
    orders: dict[str, list[Order]] = {
        "in order": [Sequential(samples)],
        "exact shuffle": [Shuffled(samples, key)],
        "shards shuffled, window 4": [shard.order(key)],
        "with replacement": [ReplacementSampler(samples).order(key)],
        "two datasets, 4 : 1": [MixtureSampler([half, samples - half], weights=[4, 1]).order(key)],
        "training and validation": [Shuffled(half, key), Sequential(samples)],
    }
    return {name: steps_of(each, block_of, batch) for name, each in orders.items()}, int(block_of[-1]) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    found, count = traces(options.samples, 24, 1 << 20, options.batch)
    rows = [("trace", *chain.from_iterable((f"{part:.0%} plan", f"{part:.0%} LRU") for part in PARTS))]
    for name, steps in found.items():
        rates = [
            f"{hit_rate(steps, max(1, int(part * count)), planned=planned):.3f}"
            for part in PARTS
            for planned in (True, False)
        ]
        rows.append((name, *rates))
    said = f"{options.samples:,} samples in {count:,} blocks, batches of {options.batch}, two epochs"
    text = table(rows)
    print(f"{said}\n\n{text}")
    if options.output is not None:
        command = "python benchmarks/eviction.py --output benchmarks/EVICTION.md"
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "| --- |" + " ---: |" * (len(rows[0]) - 1))
        head = (
            "# Eviction by the plan, and by the last use\n"
            "The part of all uses of blocks that finds the block in a cache that holds 10 to 75 % of the data.\n"
            f"{said}. A block that several samples of one batch share counts once.\n\n"
            f"`{command}` makes this page. Nothing is read: the orders are those of the samplers, and the\n"
            "decisions those of the cache.\n\n"
        )
        options.output.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
