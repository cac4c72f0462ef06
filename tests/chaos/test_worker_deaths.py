"""A few of the kills of `make chaos`, drawn anew in each run; a failure says the seed."""

from __future__ import annotations

import os
import random
import signal
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace import DataLoader
from tests.chaos.killing import CASES, Case, Tally, end, survive

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*")
SEED = random.SystemRandom().randrange(2**32)


@pytest.fixture(scope="module", autouse=True)
def helpers_of_multiprocessing() -> None:
    """Start the two processes that multiprocessing starts once and leaves running, before leaks are counted."""
    forkserver.ensure_running()
    resource_tracker.ensure_running()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_epochs_are_whole_whoever_is_killed(case: Case) -> None:
    """Kill workers at random moments: each sample comes once, in order, byte for byte."""
    survive(case, 5 if "fork," in case.name else 2, SEED, Tally())


@pytest.mark.parametrize("case", [case for case in CASES if case.how.get("in_order", True)], ids=lambda case: case.name)
def test_without_restarts_a_killed_worker_is_an_error(case: Case) -> None:
    """Name the process and the signal; end neither in silence nor never."""
    end(case, 3 if "fork," in case.name else 1, SEED, Tally())


class Deadly:
    """Kills the worker, once, while its batch is pickled: in the middle of being written."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return str, ("written",)


def test_a_worker_may_be_killed_while_it_writes_a_result(tmp_path: Path) -> None:
    """Make the batch again, with all that it holds."""

    def collate(samples: list[int]) -> Any:
        return np.full(100_000, samples[0]), Deadly(tmp_path / "killed"), np.full(100_000, samples[0])

    loader = DataLoader(
        range(4), 1, num_workers=1, backend="processes", multiprocessing_context="fork", collate_fn=collate
    )
    with pytest.warns(RuntimeWarning, match="killed by signal: SIGKILL"):
        batches = [(set(one.tolist()), word, set(other.tolist())) for one, word, other in loader]
    assert batches == [({n}, "written", {n}) for n in range(4)]
