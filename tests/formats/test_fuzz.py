"""A small sample of `make fuzz`: spoiled shards of every format give data or an error of ours."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.formats import fuzz
from tests.formats.shards_to_spoil import SHARDS

from headrace.datasets import saved_arrays


@pytest.fixture(autouse=True)
def _mapped_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give back what one of the formats sets, for the tests that come after."""
    monkeypatch.setattr(saved_arrays, "MAPPED_FROM", saved_arrays.MAPPED_FROM)


@pytest.mark.parametrize("name", SHARDS)
def test_spoiled_shards_give_data_or_an_error(name: str, tmp_path: Path) -> None:
    """Read twelve of each format, each with up to eight faults."""
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        fuzz.case(name, number, folder)


def test_whole_shards_are_read(tmp_path: Path) -> None:
    """Open what nothing spoils: the cases are spoiled shards, not junk from the beginning."""
    for name in SHARDS:
        folder = tmp_path / name
        folder.mkdir()
        dataset = SHARDS[name](folder, lambda whole, often=1: whole)()
        assert len(dataset) > 1
        assert dataset.fields


def test_a_crash_and_a_raw_error_are_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the case that ended the process, and run those after it."""
    crash = "import os; print(3, flush=True); os.abort()"
    commands = {3: crash, 4: "print(4); print('[]')"}
    monkeypatch.setattr(fuzz, "command", lambda _name, seed, _cases: [sys.executable, "-c", commands[seed]])
    [(number, what)] = fuzz.run("tar", 3, 4)
    assert (number, "SIGABRT" in what) == (3, True)
    with pytest.raises(ZeroDivisionError):
        fuzz.ours(lambda: 1 / 0)


def test_the_command_says_what_it_ran() -> None:
    """Count cases and findings."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.formats.fuzz", "--formats", "npy", "--cases", "2", "--seed", "5"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout == "2 spoiled shards from seed 5 on: 0 findings\n"
