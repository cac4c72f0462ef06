"""``headrace bench SCRIPT --free``: loops beside a loader that costs nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headrace import ArrayDataset, DataLoader
from headrace.cli.free_loops import KEPT, Spent, free_loops
from headrace.run.session import Session
from tests.cli.conftest import Call

SCRIPT = """
import sys
from pathlib import Path
from headrace import DataLoader

if __name__ == "__main__":
    loader = DataLoader(range(400), 4, shuffle=True, seed=0, num_workers=1)
    sizes = [len(list(loader)) for epoch in range(2)]
    Path("sizes.txt").write_text(str(sizes))
    {last}
"""


def script(folder: Path, last: str = "pass") -> Path:
    """Write a training script."""
    path = folder / "train.py"
    path.write_text(SCRIPT.format(last=last))
    return path


@pytest.mark.parametrize("last", ["pass", "sys.exit(0)"])
def test_a_script_is_run_and_its_loops_compared(call: Call, tmp_path: Path, last: str) -> None:
    """Each loop gets 64 batches from its loader and 64 again; the script sees no other difference."""
    script(tmp_path, last)
    status, out, err = call("bench", "train.py", "--free")
    assert (status, err) == (0, "")
    assert "the loops alone take" in out
    assert (tmp_path / "sizes.txt").read_text() == "[128, 128]"
    status, out, _ = call("bench", "train.py", "--free", "--json")
    found = json.loads(out)["result"]
    assert [loop["loop"] for loop in found["loops"]] == [0, 1]
    assert all(loop["free_seconds_a_batch"] > 0.0 for loop in found["loops"])
    assert 0.0 <= found["below_free"] < 1.0


@pytest.mark.parametrize(
    ("arguments", "last", "status", "said"),
    [
        (("missing.py", "--free"), "pass", 2, "--free runs a script"),
        ((".", "--free"), "pass", 2, "--free runs a script"),
        (("train.py", "--free", "--workers", "2"), "pass", 2, "the script says how its loaders work"),
        (("train.py", "--free"), "raise ValueError('no data')", 3, "line 10: ValueError: no data. Fix the script."),
        (("train.py", "--free"), "sys.exit(3)", 3, "SystemExit: 3"),
    ],
)
def test_what_cannot_be_measured_is_said(
    call: Call, tmp_path: Path, arguments: tuple[str, ...], last: str, status: int, said: str
) -> None:
    """Name what is wrong, with the line of the script."""
    script(tmp_path, last)
    found, _, err = call("bench", *arguments)
    assert found == status
    assert said in err


def test_a_script_without_loops_is_said(call: Call, tmp_path: Path) -> None:
    """Nothing was measured, so there is nothing to report."""
    (tmp_path / "empty.py").write_text("print(1)")
    status, _, err = call("bench", "empty.py", "--free")
    assert status == 2
    assert "no loop took enough batches" in err


@pytest.mark.parametrize("workers", [0, 2])
def test_the_newest_batches_come_again_in_turns(workers: int) -> None:
    """An epoch that is shorter than the first part is read to its end; the loader is stopped before the second."""
    loader = DataLoader(ArrayDataset(np.arange(40)), 4, num_workers=workers)
    with free_loops(measured=64) as begun:
        batches = [batch.tolist() for batch in loader]
    assert batches[:10] == [list(range(first, first + 4)) for first in range(0, 40, 4)]
    assert batches[10:] == [batches[2 + step % KEPT] for step in range(10)]
    assert [(len(spent.loader), len(spent.free)) for spent in begun] == [(10, 10)]
    assert [batch.tolist() for batch in loader] == batches[:10], "after the block, loops are as before"
    assert Session.loop.__name__ == "loop"


def test_a_loop_that_was_left_says_nothing() -> None:
    """A first batch is no interval."""
    loader = DataLoader(range(40), 4)
    with free_loops() as begun:
        next(iter(loader))
    assert begun[0].seconds() is None
    assert Spent([0.0, 1.0, 3.0], [5.0, 6.0, 7.0, 8.0]).seconds() == (2.0, 1.0)
