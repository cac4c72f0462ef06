"""The suites of resuming, ledgers and proofs, with workers on a cluster of two nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from headrace.executors import RayCluster, RayPool
from tests.chaos.proofs import ORDERS, STREAMS, Tally, one
from tests.resuming import oracle
from tests.resuming.machine import KINDS, Resuming, proven

if TYPE_CHECKING:
    from collections.abc import Iterator

OWN: dict[str, Any] = {"num_workers": 1, "backend": RayCluster(worker_resources={"CPU": 0.1}, probe=False)}


@pytest.fixture(name="pool", scope="module")
def two_actors(cluster: Any) -> Iterator[RayPool]:
    """Actors that stay, so that a loop begins at once."""
    with RayPool(2, RayCluster(worker_resources={"CPU": 0.5}, probe=False)) as pool:
        yield pool


@pytest.fixture(autouse=True)
def nothing_leaks() -> None:
    """The pool stays to the end of this file."""


def test_a_run_resumes_on_the_cluster_and_without_it(pool: RayPool) -> None:
    """Save, load, break off, and change ranks and workers at random: every batch is the model's."""

    class OnCluster(Resuming):
        kinds = [{}, OWN, KINDS[2], OWN, {"num_workers": 2, "backend": pool}, {"num_workers": 1, "backend": pool}]

        def make(self, kind: dict[str, Any], world: int) -> None:
            shared = kind.get("backend") is pool
            super().make(OWN if shared and self.order == "stream" else kind, world)

    proven(steps=60, each=20, machine=OnCluster)


def test_ranks_that_share_a_pool_get_what_the_model_says(pool: RayPool) -> None:
    """Change ranks, batch size, workers and order of delivery in the middle of epochs that have bad samples."""
    oracle.proven(10, seed=1, backend=pool)


@pytest.mark.parametrize("kind", [kind for kind in ORDERS if kind not in STREAMS])
def test_a_proof_says_what_the_loops_received(pool: RayPool, kind: str) -> None:
    """Find what was taken out of a ledger or put in twice."""
    tally = Tally()
    for number in range(12):
        one(kind, f"suite-{number}", tally, {"num_workers": 2, "backend": pool})
    assert tally.spoiled
