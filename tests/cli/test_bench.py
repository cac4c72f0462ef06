"""`headrace bench`: the rate, and where the time goes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from headrace.run.report import longest_stage, stage_table

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_report_tells_rate_stages_and_memory(run: Run, photos: Path, workers: str) -> None:
    """Give a line an epoch, a line a stage, the peak of memory and a diagnosis."""
    done = run("bench", photos, "-w", workers, "-b", "5", "-e", "2", "-s", "32")
    assert (done.returncode, done.stderr) == (0, "")
    *report, verdict = done.stdout.splitlines()
    rows = {line.split()[0]: line.split() for line in report if line.strip()}
    assert rows["0"][1] == rows["1"][1] == "12"
    for stage in ("reading", "decoding", "transforming", "collating"):
        assert float(rows[stage][1]) >= 0
        assert rows[stage][3] == "%"
    assert "peak memory " in done.stdout
    assert "first batch" in done.stdout
    assert "waiting" in done.stdout
    assert "of the workers' time" in verdict


def test_a_number_of_images_can_be_asked_for(run: Run, photos: Path) -> None:
    """Read so many images, beginning again as often as it takes."""
    done = run("bench", photos, "--images", "30", "-b", "3", "-s", "16", "-w", "1")
    epochs = [re.split(r"  +", line)[:2] for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert epochs == [["0", "12"], ["1", "12"], ["2 (50 %)", "6"]]


def test_epochs_and_images_exclude_each_other(run: Run, photos: Path) -> None:
    """Refuse two answers to one question."""
    done = run("bench", photos, "--images", "30", "--epochs", "2")
    assert done.returncode == 2
    assert "not both" in done.stderr


def test_bad_images_are_replaced_and_counted(run: Run, photos: Path, tmp_path: Path) -> None:
    """Measure on, and name the command that lists the bad ones."""
    (tmp_path / "list.txt").write_text("gone.jpg 3\n" + f"{photos}/cat/0.jpg 7\n" * 7)
    done = run("bench", "list.txt", "-s", "16")
    assert done.returncode == 0
    assert done.stdout.endswith("1 bad image was replaced by others: headrace check list.txt\n")


def test_stages_stand_in_the_order_of_the_work() -> None:
    """Put a stage of the dataset's own before what is left over."""
    table = stage_table({"other": 1.0, "tokenize": 2.0, "collate": 1.0, "read": 4.0}, images=8)
    names = [line.split("  ")[0] for line in table.splitlines()]
    assert names == ["stage", "reading", "collating", "tokenize", "everything else"]


def test_one_line_of_stages_names_what_takes_the_most() -> None:
    """Give the share and the cure, where one is known; and say so where nothing was measured."""
    assert longest_stage({"read": 3.0, "decode": 1.0}).startswith("reading takes 75 % of the workers' time: ")
    assert longest_stage({"tokenize": 1.0}) == "tokenize takes 100 % of the workers' time"
    assert longest_stage({}) == "the workers did nothing that could be measured"
