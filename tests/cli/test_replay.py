"""`headrace replay`: a saved state and a script's loader, and the sample before and after."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from headrace import ArrayDataset, DataLoader, ImageFolder, RandomResizedCrop, ToFloat
from headrace.cli.replay_command import viewable
from headrace.image.sheet import sheet_size

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Run

SCRIPT = """
from headrace import DataLoader, ImageFolder, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToCHW, ToFloat

images = ImageFolder({photos!r}).map(
    RandomResizedCrop(40), RandomHorizontalFlip(), ToFloat(), Normalize(0.5, 0.2), ToCHW()
)
loader = DataLoader(images, 5, shuffle=True, seed=3, num_workers=2)
numbers = DataLoader(range(40), 30, seed=1)

def made():
    return loader

def wrong():
    raise ValueError("no data today")

if __name__ == "__main__":
    raise SystemExit("what trains is not to be run")
"""


@pytest.fixture
def script(photos: Path, tmp_path: Path) -> Path:
    """A training script, and the state of its loader after two batches."""
    path = tmp_path / "train.py"
    path.write_text(SCRIPT.format(photos=str(photos)))
    loader = DataLoader(ImageFolder(photos).map(RandomResizedCrop(40)), 5, shuffle=True, seed=3)
    list(islice(loader, 2))
    (tmp_path / "state.json").write_text(json.dumps(loader.state_dict()))
    return path


def test_the_last_batch_before_the_state_is_shown(run: Run, script: Path, tmp_path: Path) -> None:
    """List its samples with their files, and save them before and after."""
    done = run("replay", "train.py:loader", "--state", "state.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("epoch 0, step 1, 5 samples, seed 3\n")
    assert done.stdout.count(".jpg") + done.stdout.count(".png") >= 5
    with Image.open(tmp_path / "headrace-replay.png") as sheet:
        assert sheet.size == sheet_size(5)
        assert len(sheet.convert("RGB").getcolors(1 << 24) or ()) > 1000


def test_a_sample_is_reported_with_what_its_transforms_drew(run: Run, script: Path, tmp_path: Path) -> None:
    """Print the lineage that the loader gives, and save one pair."""
    done = run("replay", "train.py:made", "--state", "state.json", "--step", "0", "--index", "2", "--out", "one.png")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "epoch 0, step 0, index 2: position 2 of the epoch, seed 3"
    assert lines[1].startswith("Mapped[")
    assert "RandomResizedCrop((40, 40)): top " in done.stdout
    assert "RandomHorizontalFlip(): flipped " in done.stdout
    assert lines[-1] == "before and after: one.png"
    with Image.open(tmp_path / "one.png") as sheet:
        assert sheet.size == sheet_size(1)


def test_samples_that_are_no_images_are_reported_anyway(run: Run, script: Path, tmp_path: Path) -> None:
    """Say so, and save nothing."""
    done = run("replay", "train.py:numbers", "--epoch", "4", "--step", "0")
    assert done.returncode == 0
    assert "and 6 more" in done.stdout
    assert "no image" in done.stdout
    assert not (tmp_path / "headrace-replay.png").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["train.py"], 2, "expected a script and a name in it"),
        (["gone.py:loader"], 2, "gone.py: there is no such file"),
        (["train.py:nothing"], 2, "no loader of headrace is named nothing; expected one of loader, numbers"),
        (["train.py:wrong"], 3, "train.py, line 14: ValueError: no data today"),
        (["broken.py:loader"], 3, "broken.py, line 2: ZeroDivisionError"),
        (["ends.py:loader"], 3, "SystemExit: 3"),
        (["syntax.py:loader"], 3, "syntax.py, line 1: SyntaxError"),
        (["train.py:loader", "--state", "broken.py"], 2, "not JSON"),
        (["train.py:loader", "--state", "list.json"], 2, "this is a list, not a state"),
        (["train.py:loader", "--state", "other.json"], 3, "samples=7, but this loader has samples=12"),
        (["train.py:loader", "--step", "99"], 2, "step 99 is not in epoch 0"),
        (["train.py:loader", "--index", "5"], 2, "index must be an integer from 0 to 4"),
        (["train.py:loader", "--state", "gone.json"], 2, "does not exist"),
        (["train.py:loader", "--out", "gone/x.png"], 3, "No such file or directory"),
    ],
    ids=str,
)
def test_what_cannot_be_replayed_is_reported_in_a_line(
    run: Run, script: Path, tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    """Name the file, the line, or what would do."""
    (tmp_path / "broken.py").write_text("loader = 1\n1 / 0\n")
    (tmp_path / "ends.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "syntax.py").write_text("loader = = 1\n")
    (tmp_path / "list.json").write_text("[1]")
    state = json.loads((tmp_path / "state.json").read_text())
    state["plan"]["samples"] = 7
    (tmp_path / "other.json").write_text(json.dumps(state))
    done = run("replay", *arguments)
    assert (done.returncode, words in done.stderr) == (status, True), done.stderr
    assert len(done.stderr.strip().splitlines()) <= 4


def test_images_of_any_kind_can_be_looked_at() -> None:
    """Bring them to three bytes a pixel; leave alone what is no image."""
    kinds: list[Any] = [
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 1)),
        np.zeros((4, 5, 4), np.uint16),
        np.full((3, 4, 5), np.nan, np.float32),
        np.ones((3, 4, 5), ml_dtypes.bfloat16),
    ]
    for image in kinds:
        seen = viewable(image)
        assert seen is not None
        assert (seen.shape, seen.dtype) == ((4, 5, 3), np.uint8)
    for nothing in (None, np.zeros((0, 5)), np.zeros((7, 9, 9)), np.array([["a"]])):
        assert viewable(nothing) is None


def test_the_pixels_shown_are_those_of_the_batch() -> None:
    """Undo what was normalized, exactly enough to see no difference."""
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), np.uint8)
    loader = DataLoader(ArrayDataset(images).map(ToFloat()), 2, shuffle=True, seed=0)
    for step, batch in enumerate(islice(loader, 3)):
        for index in range(2):
            lineage = loader.lineage(epoch=0, step=step, index=index)
            seen = viewable(batch[index], lineage)
            assert seen is not None
            assert np.array_equal(seen, images[lineage.key])
