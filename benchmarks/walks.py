"""Random walks, the loop beside the array: `python benchmarks/walks.py` (medians; nanoseconds for one value of a walk).

Each row makes the same numbers twice, and checks that they are identical. A hand-written loop is timed too.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.datasets import random_walk, random_walk_array, random_walks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MU, X0, SIGMA2 = 0.1, 3.0, 1.69
COVARIANCE = np.array([[1.69, 0.8, 0.1], [0.8, 2.0, 0.3], [0.1, 0.3, 1.0]])


def by_hand(mu: float, x0: float, sigma2: float, n: int, rng: np.random.Generator) -> Iterator[float]:
    """Yield the process as its formula is typed in."""
    x = x0
    for _ in range(n):
        yield x
        x = mu + x + rng.normal(0, np.sqrt(sigma2))


def correlated_by_hand(n: int, rng: np.random.Generator) -> Iterator[Any]:
    x = np.full(3, X0)
    for _ in range(n):
        yield x
        x = MU + x + rng.multivariate_normal(np.zeros(3), COVARIANCE)


def nanoseconds(function: Callable[[], Any], values: int, rounds: int) -> float:
    took = []
    for _ in range(rounds):
        began = perf_counter()
        function()
        took.append(perf_counter() - began)
    return median(took) / values * 1e9


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=20_000, help="values of each walk (20,000)")
    parser.add_argument("--walks", type=int, default=64, help="walks of a batch (64)")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    n, count = given.n, given.walks

    def one_each(rngs: list[np.random.Generator]) -> list[list[float]]:
        return [list(random_walk(MU, X0, SIGMA2, n, rng=rng)) for rng in rngs]

    def trio() -> list[random_walk]:
        return [random_walk(MU, X0, COVARIANCE[i, i], n) for i in range(3)]

    def spawned() -> list[np.random.Generator]:
        return np.random.default_rng(0).spawn(count)

    rows: list[tuple[str, int, Callable[[], Any], Callable[[], Any], Callable[[], Any]]] = [
        (
            "one walk",
            n,
            lambda: list(by_hand(MU, X0, SIGMA2, n, np.random.default_rng(0))),
            lambda: list(random_walk(MU, X0, SIGMA2, n, rng=0)),
            lambda: random_walk_array(MU, X0, SIGMA2, n, rng=0),
        ),
        (
            f"a batch of {count} walks",
            n * count,
            lambda: [list(by_hand(MU, X0, SIGMA2, n, rng)) for rng in spawned()],
            lambda: one_each(spawned()),
            lambda: random_walk_array(MU, X0, SIGMA2, n, rng=spawned()),
        ),
        (
            "three correlated walks",
            n * 3,
            lambda: list(correlated_by_hand(n, np.random.default_rng(0))),
            lambda: list(random_walks(*trio(), covariance=COVARIANCE, rng=0)),
            lambda: random_walk_array([MU] * 3, [X0] * 3, COVARIANCE, n, rng=0),
        ),
    ]
    sys.stdout.write(
        f"walks of {n:,} values, {len(os.sched_getaffinity(0))} cores, medians of {given.rounds} rounds\n\n"
    )
    heads = ("", "by hand ns", "loop ns", "array ns", "array / by hand", "array / loop")
    sys.stdout.write("{:24}{:>12}{:>12}{:>12}{:>18}{:>16}\n".format(*heads))
    for name, values, hand, loop, array in rows:
        if np.array(loop()).tobytes() != array().tobytes():
            sys.exit(f"{name}: the loop and the array differ")
        rounds = max(1, math.ceil(given.rounds / 2)) if values > 10 * n else given.rounds
        slow, lazy, fast = (
            nanoseconds(f, values, r) for f, r in ((hand, rounds), (loop, rounds), (array, given.rounds))
        )
        sys.stdout.write(f"{name:24}{slow:12.1f}{lazy:12.1f}{fast:12.1f}{slow / fast:17.0f}x{lazy / fast:15.0f}x\n")


if __name__ == "__main__":
    main()
