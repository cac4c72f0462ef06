"""Masks, boxes, keypoints and crops on the sheets of `headrace show SCRIPT:NAME` and `headrace replay`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

pytest.importorskip("click")
pytest.importorskip("PIL")

from click.testing import CliRunner
from PIL import Image

from headrace import ArrayDataset, Compose, DataLoader, RandomCrop, RandomHorizontalFlip, Resize, ToFloat
from headrace.cli.app import commands
from headrace.cli.preview import _kept, evaluation, training
from headrace.cli.replay_command import _pair
from headrace.transforms import Boxes, CenterCrop, ColorJitter, RandomApply, RandomRotation, RandomZoomOut

if TYPE_CHECKING:
    from pathlib import Path

ORANGE, YELLOW = (230, 97, 1), (255, 214, 0)
SCRIPT = """
import numpy as np
from headrace import Compose, DataLoader, Dataset, Normalize, RandomCrop, ToCHW, ToFloat
from headrace.transforms import Boxes, ColorJitter

class Photos(Dataset):
    classes = ["none", "cat"]
    def __len__(self):
        return 3
    def __getitem__(self, index):
        image = np.full((60, 80, 3), 90, np.uint8)
        return {"image": image, "bbox": np.array([[5.0, 5, 60, 40]]), "labels": np.array([1])}

kinds = {"bbox": Boxes("xywh")}
chain = Compose(ColorJitter(0.1), RandomCrop(50), ToFloat(), Normalize(0.5, 0.2), ToCHW(), kinds=kinds)
photos = Photos().map(chain)
loader = DataLoader(photos, 2, seed=1, collate_fn=lambda samples: {
    "image": np.stack([one["image"] for one in samples]),
    "bbox": [one["bbox"] for one in samples],
    "labels": [one["labels"] for one in samples],
})
nothing = None
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    return tmp_path


def painted(path: Path, color: tuple[int, int, int]) -> int:
    with Image.open(path) as sheet:
        return int((np.asarray(sheet.convert("RGB")) == color).all(axis=2).sum())


@pytest.mark.parametrize("name", ["loader", "photos"])
def test_a_script_is_shown_with_its_boxes(script: Path, name: str) -> None:
    """Draw what the loader, or the dataset, of a script gives, after its own transforms."""
    done = CliRunner().invoke(commands, ["show", f"train.py:{name}", "-o", "sheet.png"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.output.endswith("contact sheet: sheet.png\n")
    assert painted(script / "sheet.png", ORANGE) > 300


def test_what_a_script_has_not_is_reported(script: Path) -> None:
    """Name the loaders that there are."""
    for name in ("nothing", "other"):
        done = CliRunner().invoke(commands, ["show", f"train.py:{name}"])
        assert "expected one of photos, loader" in str(done.exception) + done.output


def test_a_replay_draws_targets_and_the_crop(script: Path) -> None:
    """Draw the boxes before and after, and outline the crop, though a transform of colors comes first."""
    done = CliRunner().invoke(commands, ["replay", "train.py:loader", "-o", "sheet.png"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert painted(script / "sheet.png", ORANGE) > 300
    assert painted(script / "sheet.png", YELLOW) > 300


@pytest.mark.parametrize(
    ("transform", "words", "outlined"),
    [
        (RandomRotation(20), "RandomRotation angle ", False),
        (RandomZoomOut(p=0), "no RandomZoomOut", False),
        (RandomZoomOut(p=1), "RandomZoomOut ", True),
        (RandomApply([RandomHorizontalFlip(p=1)], p=0), "no RandomApply", False),
        (Compose(ColorJitter(0.2), RandomCrop(20)), "RandomCrop 20 x 20", True),
        (Compose(RandomHorizontalFlip(p=1), RandomCrop(20)), "flipped, RandomCrop 20 x 20", False),
        (CenterCrop(20), "nothing drawn", False),
    ],
)
def test_what_was_drawn_is_written_below_a_pair(transform: Any, words: str, outlined: bool) -> None:
    """Say it of every transform, and outline the crop only where it is the first that moves pixels."""
    images = ArrayDataset(np.full((3, 40, 50, 3), 80, np.uint8)).map(Compose(transform, ToFloat()))
    pair = _pair(DataLoader(images, 3, seed=0).lineage(epoch=0, step=0, index=1), images)
    assert pair is not None
    assert words in pair.detail
    assert (pair.drawn[0].outline is not None) == outlined


def test_kinds_of_a_chain_hold_before_it_too() -> None:
    """Read boxes as the chain's kinds say, before and after."""
    sample = {"image": np.full((40, 40, 3), 80, np.uint8), "bbox": np.array([[10.0, 10, 20, 20]])}

    class One(ArrayDataset):
        def __getitem__(self, index: Any) -> Any:
            return sample

    dataset = One(np.zeros(2)).map(Compose(Resize(80), kinds={"bbox": Boxes("xywh")}))
    pair = _pair(DataLoader(dataset, 1, seed=0, collate_fn=list).lineage(epoch=0, step=0, index=0), dataset)
    assert pair is not None
    assert [one.boxes.tolist() for one in pair.drawn] == [[[10, 10, 30, 30]], [[20, 20, 60, 60]]]


@pytest.mark.parametrize("size", [(40, 60), (60, 40), (5, 300), (1, 1)])
def test_the_part_that_show_outlines_is_the_part_that_is_kept(size: tuple[int, int]) -> None:
    """Mark a random crop by the numbers that it draws, and the middle of an evaluation in pixels before scaling."""
    image = np.zeros((*size, 3), np.uint8)
    top, left, height, width = _kept(training(24), image, np.random.default_rng(3))
    assert (top, left, height, width) == training(24).transforms[0].box(*size, np.random.default_rng(3))  # type: ignore[attr-defined]
    top, left, height, width = _kept(evaluation(224), image, None)
    short = min(size) * 224 / 256
    np.testing.assert_allclose([height, width], short, rtol=0.01)
    np.testing.assert_allclose([top + height / 2, left + width / 2], np.array(size) / 2, atol=1)
