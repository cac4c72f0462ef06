"""Actors and nodes of a local Ray cluster killed at random: `make ray` writes a table of what became of the samples.

python -m tests.ray_cluster [--kills 100] [--removals 20] [--seed N] [--output FILE]
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path
from typing import Any

from tests.ray_cluster.conftest import HEAD, QUIET, left, settled
from tests.ray_cluster.killing import ROWS, survive


def main() -> None:
    """Start a cluster, kill what the arguments say, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--removals", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    os.environ.update(QUIET)
    import ray
    from ray.cluster_utils import Cluster

    print(f"seed {given.seed}", flush=True)
    cluster: Any = Cluster(initialize_head=True, head_node_args=HEAD)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        tally = survive(cluster, given.kills, given.removals, given.seed)
        settled()
        kept = ", ".join(left()) or "nothing"
    finally:
        ray.shutdown()
        cluster.shutdown()
    cells = (tally.kills, tally.removals, tally.epochs, tally.made_again, 0, 0, kept, round(tally.seconds))
    lines = [
        f'Workers of `backend="ray"` on a local cluster of three raylets, Ray {ray.__version__}, seed {given.seed}.',
        f"Each epoch has {ROWS} samples. Each was whole, in order, and proven by its ledger.",
        "",
        "| actors killed | raylets removed | epochs | warnings | lost | repeated | left behind | seconds |",
        f"|{' --- |' * 8}",
        f"| {' | '.join(map(str, cells))} |",
    ]
    print("\n".join(lines))
    if given.output is not None:
        given.output.write_text("\n".join(["# Kills on a Ray cluster", "", *lines, ""]))


if __name__ == "__main__":
    main()
