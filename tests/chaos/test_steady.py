"""Epoch upon epoch, nothing grows; `make chaos` does fifty, with every kind of worker."""

from __future__ import annotations

from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from tests.chaos.steady import BATCH_MIB, epochs

pytestmark = [
    pytest.mark.skipif(not Path("/proc").exists(), reason="looks at what is held in /proc"),
    pytest.mark.filterwarnings("ignore:.*use of fork.*"),
]


@pytest.fixture(scope="module", autouse=True)
def helper_of_multiprocessing() -> None:
    """Start the process that multiprocessing starts once and leaves running, before leaks are counted."""
    resource_tracker.ensure_running()


@pytest.mark.parametrize("how", ["thread", "fork", "persistent", "spawn persistent"])
def test_fifteen_epochs_hold_no_more_than_five(how: str) -> None:
    """Keep as many descriptors, files and threads; of the memory of all those batches, not even one for an epoch."""
    after = list(epochs(how, 15))
    early, late = after[4], after[-1]
    assert (late.descriptors, late.threads, late.shared) == (early.descriptors, early.threads, early.shared)
    assert late.mebibytes - early.mebibytes < 5 * BATCH_MIB
