"""A sample of `python -m tests.chaos.closes`: any method, from any thread, on every executor."""

from __future__ import annotations

import pytest

from tests.chaos.closes import HOW, run


@pytest.mark.parametrize("how", [*HOW, "ahead", "prefetch"])
def test_any_method_from_any_thread_gives_its_result_or_says_that_the_loader_is_closed(how: str) -> None:
    """Let eight threads pull from one iterator while others close it and ask for state, length and replays."""
    tally = run(how, 3 if "process" in how else 8, seed=1)
    assert (dict(tally.wrong), tally.hung) == ({}, 0)
    assert tally.results
