"""All of the proof that resuming is exact: `make resume-proof` (python -m tests.resuming [--steps N] [--kills N])."""

from __future__ import annotations

import argparse
import random
import warnings
from time import perf_counter

from tests.resuming.killing import killed
from tests.resuming.machine import proven


def main() -> None:
    """Run both parts and say what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000, help="steps of the machine beside its model")
    parser.add_argument("--kills", type=int, default=200, help="times that a training script is killed")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    warnings.simplefilter("ignore")  # more workers than processors, and forks beside threads
    began = perf_counter()
    proven(given.steps)
    print(f"{given.steps:,} steps without a difference from the model, {perf_counter() - began:.0f} s", flush=True)
    began = perf_counter()
    tally = killed(given.kills, given.seed)
    took = perf_counter() - began
    print(f"{tally.kills} kills in {tally.runs} runs of training: each received what one left alone receives,")
    print(f"and the ledgers prove each of its epochs, over {tally.sessions} sessions in all; {took:.0f} s")


if __name__ == "__main__":
    main()
