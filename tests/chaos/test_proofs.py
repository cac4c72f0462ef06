"""Proofs of epochs drawn at random: a sample of those that ``python -m tests.chaos.proofs`` makes."""

from __future__ import annotations

import pytest

from tests.chaos.proofs import ORDERS, Tally, one


@pytest.mark.parametrize("kind", ORDERS)
def test_a_proof_says_what_the_loops_received(kind: str) -> None:
    """Draw sizes, bad samples, policies, ranks and restarts; find what was taken out of a ledger or put in twice."""
    tally = Tally()
    for number in range(12):
        one(kind, f"suite-{number}", tally)
    assert tally.trials
    assert tally.spoiled
