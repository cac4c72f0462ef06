"""`headrace show|bench|check SCRIPT:NAME`: a user's own loader or dataset."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Call

SCRIPT = """
import numpy as np
from headrace import ArrayDataset, DataLoader, Dataset, IterableDataset

class Odd(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index % 4 == 3:
            raise ValueError(f"no sample {index}")
        return np.zeros((8, 8, 3), np.uint8), index

class Stream(IterableDataset):
    def __iter__(self):
        yield from range(20)

class Ends(Stream):
    def __iter__(self):
        yield 1
        raise ValueError("the line is cut")

numbers = ArrayDataset(np.arange(20).reshape(10, 2))
loader = DataLoader(numbers, 4, shuffle=True, seed=0)
odd, stream, ends = Odd(), Stream(), Ends()

def made():
    return loader

def wrong():
    raise ValueError("no data today")

if __name__ == "__main__":
    raise SystemExit("what trains is not to be run")
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A training script with loaders and datasets."""
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("name", ["numbers", "loader", "made", "stream", "odd"])
def test_a_batch_of_it_is_shown(call: Call, script: Path, name: str) -> None:
    """Show shapes and dtypes of the first batch; run nothing of what trains."""
    assert script.exists()
    status, out, err = call("show", f"train.py:{name}", "-b", "2")
    assert (status, err) == (0, "")
    assert ("2 samples of 10" in out) if name in ("numbers", "odd") else ("int64" in out)
    assert ("contact sheet: headrace-show.png" in out) == (name == "odd")


@pytest.mark.parametrize("backend", ["inline", "threads"])
def test_its_rate_is_measured_on_any_backend(call: Call, script: Path, backend: str) -> None:
    """Count the samples of whole epochs, in a loader made from the options."""
    assert script.exists()
    status, out, err = call("bench", "train.py:numbers", "--backend", backend, "-b", "4", "-e", "2", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)["result"]
    assert [(each["epoch"], each["samples"], each["complete"]) for each in found["epochs"]] == [
        (0, 10, True),
        (1, 10, True),
    ]
    assert (found["workers"] == 0) == (backend == "inline")


def test_an_epoch_that_was_left_is_counted_as_a_part(call: Call, script: Path) -> None:
    """Say how much of the last epoch was read: 4 of 10 samples are one batch of three."""
    assert script.exists()
    status, out, _ = call("bench", "train.py:loader", "-n", "14")
    assert status == 0
    assert [line.split("  ")[0] for line in out.splitlines() if line[:1].isdigit()] == ["0", "1 (33 %)"]


def test_every_bad_sample_is_listed(call: Call, script: Path) -> None:
    """Read all samples of a dataset; read a stream up to its error."""
    assert script.exists()
    status, out, err = call("check", "train.py:odd")
    bad = [f"sample {index}: ValueError: no sample {index}" for index in (3, 7)]
    assert (status, out.splitlines()) == (1, bad)
    assert err == "10 samples checked, 2 bad\n"
    assert call("check", "train.py:stream")[::2] == (0, "20 samples checked, all good\n")
    status, out, _ = call("check", "train.py:ends")
    assert (status, out) == (1, "sample 1: ValueError: the line is cut; the stream ended there\n")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("show", "gone.py:loader"), 2, "gone.py: there is no such file"),
        (("show", "train.py:nothing"), 2, "expected one of numbers, loader, odd, stream, ends"),
        (("show", "train.py:np"), 2, "is named np; np is a module"),
        (("bench", "train.py:wrong"), 3, "line 31: ValueError: no data today. Fix the script."),
        (("bench", "train.py:odd", "--backend", "inline"), 3, "line 11: ValueError: no sample"),
        (
            ("bench", "train.py:loader", "-b", "3"),
            2,
            "--batch-size was given, but the script says how its loader works",
        ),
        (("bench", "train.py:numbers", "--size", "3"), 2, "--size was given, but the script says what its samples are"),
        (("check", "train.py:numbers", "--root", "."), 2, "--root was given, but train.py:numbers is no list file"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    call: Call, script: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    """Name what is wrong and what would do, with the line of the script."""
    assert script.exists()
    found, _, err = call(*arguments)
    assert found == status
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["show", "bench", "check"])
def test_a_script_without_a_name_in_it_says_how_one_is_given(call: Call, script: Path, command: str) -> None:
    """Know a Python file from a damaged image."""
    assert script.exists()
    status, _, err = call(command, "train.py")
    assert status == 2
    assert "name a loader or a dataset in it, as in train.py:loader" in err
