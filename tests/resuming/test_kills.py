"""A little of `make resume-proof`: training that is killed goes on as if nothing had happened."""

from __future__ import annotations

import random

from tests.resuming.killing import killed

SEED = random.SystemRandom().randrange(2**32)


def test_what_a_killed_training_receives_in_the_end_is_what_it_would_have_received() -> None:
    """Kill it at random moments, go on from its last state on other workers and ranks: nothing lost, nothing twice."""
    tally = killed(5, SEED)
    assert tally.kills >= 5
