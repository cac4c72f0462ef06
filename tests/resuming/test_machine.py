"""A little of `make resume-proof`: saving, loading, breaking off, failing, on workers and ranks that change."""

from __future__ import annotations

import pytest

from tests.resuming import oracle
from tests.resuming.machine import proven

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*")


def test_what_comes_is_what_the_model_says() -> None:
    """Do what may happen to a run, in any order, and compare every batch with the model."""
    proven(steps=300, each=20)


def test_ranks_that_resume_from_the_state_of_any_one_get_what_the_model_says() -> None:
    """Change ranks, batch size, workers and order of delivery in the middle of epochs that have bad samples."""
    oracle.proven(60, seed=0)
