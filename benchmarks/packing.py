"""Packing many documents: time and padding beside first fit, best fit and a bound: `python benchmarks/packing.py`.

The documents have log-normal lengths. Times are the processor's, medians of a few rounds; the bound is the smallest
number of rows that could hold all tokens.
"""

from __future__ import annotations

import argparse
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import DataLoader
from headrace.context.seeds import key_of
from headrace.plan.packing import best_fit_by_steps, first_fit
from headrace.samplers import MixtureSampler, PackingBatchSampler, TokenBatchSampler

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Lengths = NDArray[np.int64]


def documents(count: int, row: int) -> Lengths:
    """Return log-normal lengths, the median a fifth of a row."""
    drawn = np.random.default_rng(0).lognormal(np.log(row / 5), 1.0, count)
    return drawn.clip(1, row).astype(np.int64)


def seconds(function: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    took = []
    for _ in range(rounds):
        began = process_time()
        found = function()
        took.append(process_time() - began)
    return median(took), found


def rows_of(batches: Any) -> int:
    """Return how many rows an epoch has, by planning all of it."""
    order = batches.batch_order(key_of(0))
    walk = order.walk(0)
    return int(walk.position(walk.count()))


def decreasing(pack: Callable[[Lengths, int], Lengths], lengths: Lengths, row: int) -> int:
    """Pack all documents at once, the longest first."""
    return int(pack(np.sort(lengths)[::-1].copy(), row).max()) + 1


def table(count: int, row: int, rounds: int) -> None:
    lengths = documents(count, row)
    tokens, bound = int(lengths.sum()), -(-int(lengths.sum()) // row)
    print(f"{count:,} documents, {tokens:,} tokens, rows of {row:,}: at least {bound:,} rows")
    ways: list[tuple[str, Callable[[], int]]] = [
        ("PackingBatchSampler", lambda: rows_of(PackingBatchSampler(lengths, row, 8))),
        ('PackingBatchSampler, fit="first"', lambda: rows_of(PackingBatchSampler(lengths, row, 8, fit="first"))),
        ("PackingBatchSampler, split at a quarter", lambda: split(lengths, row)),
        ("best fit decreasing, all at once, in Python", lambda: decreasing(best_fit_by_steps, lengths, row)),
        ("first fit decreasing, all at once, in Python", lambda: decreasing(first_fit, lengths, row)),
    ]
    for name, way in ways:
        took, rows = seconds(way, rounds)
        print(f"{name:>46}  {took:7.2f} s  {rows:9,} rows  {1 - tokens / (rows * row):8.4%} padding")


def split(lengths: Lengths, row: int) -> int:
    """Pack rows of a quarter of the length, into which long documents are split; return their number as whole rows."""
    return -(-rows_of(PackingBatchSampler(lengths, row // 4, 8, longer="split")) // 4)


def budget(count: int, row: int, rounds: int) -> None:
    lengths = documents(count, row)
    took, batches = seconds(lambda: list(TokenBatchSampler(lengths, 8 * row)), rounds)
    padded = sum(int(lengths[batch].max()) * len(batch) for batch in batches)
    name, share = "TokenBatchSampler, as many tokens a batch", 1 - lengths.sum() / padded
    print(f"{name:>46}  {took:7.2f} s  {share:22.4%} padding")


def start(row: int, rounds: int) -> None:
    print("\nfirst batch of a packed mixture, at its beginning and from a state at step 1,000: milliseconds")
    for count in (10**5, 10**6, 10**9):
        lengths = documents(count, row) if count < 10**9 else np.broadcast_to(np.int32(row // 3), count)
        begins, resumes = [], []
        state: Any = None
        for _ in range(rounds):
            begins.append(first_batch(lengths, row, None))
            if state is None:
                loader = loader_of(lengths, row)
                for _ in zip(range(1000), loader, strict=False):
                    state = loader.state_dict()
            resumes.append(first_batch(lengths, row, state))
        print(f"{count:>13,} documents  {median(begins) * 1e3:6.1f}  {median(resumes) * 1e3:6.1f}")


def first_batch(lengths: Any, row: int, state: Any) -> float:
    began = perf_counter()
    loader = loader_of(lengths, row)
    if state is not None:
        loader.load_state_dict(state)
    next(iter(loader))
    return perf_counter() - began


def loader_of(lengths: Any, row: int) -> DataLoader[Any]:
    half = len(lengths) // 2
    mixture = MixtureSampler([half, len(lengths) - half], [0.8, 0.2])
    batches = PackingBatchSampler(lengths, row, 8, sampler=mixture)
    return DataLoader(Keys(), batch_sampler=batches, collate_fn=list, seed=0)


class Keys:
    """A dataset whose samples are its keys."""

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, key: Any) -> Any:
        return key


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=10**6)
    parser.add_argument("--row", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    table(given.documents, given.row, given.rounds)
    budget(given.documents, given.row, given.rounds)
    start(given.row, given.rounds)


if __name__ == "__main__":
    main()
