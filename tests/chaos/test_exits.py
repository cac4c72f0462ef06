"""A sample of the exits at random moments: `python -m tests.chaos.exits` makes a thousand of each executor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.exits import EXECUTORS, SITUATIONS, exit_of, images


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("executor", EXECUTORS)
def test_a_program_exits_with_the_status_that_python_gives_it(executor: str, situation: str, tmp_path: Path) -> None:
    """End with 0, 1 or the signal: never by an abort, a crash or a hang."""
    folder = images(tmp_path / "images")
    status, said = exit_of(executor, situation, 1, folder)
    assert status in SITUATIONS[situation][1], said
