"""Transforms of detection recipes: sizes, places, and which boxes are left."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import Compose, DataLoader, RandomHorizontalFlip
from headrace.errors import ArgumentError
from headrace.testing import TransformTests
from headrace.testing.transforms import Samples
from headrace.transforms import (
    Boxes,
    ConvertBoundingBoxFormat,
    FixedSizeCrop,
    LetterBox,
    RandomIoUCrop,
    RandomShortestSize,
    RandomVerticalFlip,
    RandomZoomOut,
    SanitizeBoundingBoxes,
    ScaleJitter,
)
from tests.transforms.test_carried_targets import drawn, extent, rectangles

EXACT = [
    RandomVerticalFlip(1),
    RandomZoomOut(p=1, fill=3),
    FixedSizeCrop((6, 9), fill=1),
    LetterBox((20, 21), scale_up=False, fill=0),
    RandomIoUCrop(),
]


@settings(max_examples=60, deadline=None)
@given(
    transform=st.sampled_from(EXACT),
    height=st.integers(1, 14),
    width=st.integers(1, 14),
    seed=st.integers(0, 99),
)
def test_boxes_and_masks_are_where_the_pixels_are(transform, height, width, seed):
    """Find each box that is left around the pixels of its mask."""
    boxes = rectangles(height, width, 4, seed)
    image = np.zeros((height, width, 3), np.uint8)
    sample = {"image": image, "boxes": boxes, "masks": drawn(height, width, boxes), "labels": np.arange(4)}
    out = transform(sample, np.random.default_rng(seed))
    assert out["image"].shape[:2] == out["masks"].shape[1:]
    assert len(out["boxes"]) == len(out["labels"]) == len(out["masks"])
    for box, mask in zip(out["boxes"], out["masks"], strict=True):
        np.testing.assert_allclose(box, extent(mask), atol=1e-5)


def test_an_overlap_crop_holds_what_it_says() -> None:
    """Keep a part within its limits that overlaps a box enough, and exactly the boxes with their center in it."""
    boxes = np.array([[10.0, 10, 60, 50], [70, 5, 90, 20], [30, 30, 35, 35]])
    sample = {"image": np.zeros((80, 100), np.uint8), "boxes": boxes, "labels": np.arange(3)}
    crop = RandomIoUCrop(sampler_options=(0.3,))
    for seed in range(60):
        out = crop(sample, np.random.default_rng(seed))
        part = crop.drawn(sample, np.random.default_rng(seed))
        top, left, rows, columns = part.values()
        assert out["image"].shape == (rows, columns)
        assert 0.5 <= columns / rows <= 2
        assert rows >= 24 - 1
        assert columns >= 30 - 1
        centers = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = [left < x < left + columns and top < y < top + rows for x, y in centers]
        assert out["labels"].tolist() == np.flatnonzero(inside).tolist()
        shares = []
        for box in boxes[inside]:
            common = (min(box[2], left + columns) - max(box[0], left)) * (min(box[3], top + rows) - max(box[1], top))
            shares.append(common / ((box[2] - box[0]) * (box[3] - box[1]) + rows * columns - common))
        assert max(shares) >= 0.3
    assert RandomIoUCrop(sampler_options=(2,))(sample, np.random.default_rng(0))["boxes"].shape == (3, 4)
    none = RandomIoUCrop(sampler_options=(0.5,))({**sample, "boxes": [], "labels": []}, np.random.default_rng(0))
    assert none["image"].shape == (80, 100)
    for without in (sample["image"], {"image": sample["image"], "label": 3}):
        with pytest.raises(ArgumentError, match="RandomIoUCrop got a sample without boxes"):
            RandomIoUCrop()(without)


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_sizes_are_torchvisions(height, width, seed):
    """Follow the formulas, from 1 x 1 up."""
    image = np.zeros((height, width), np.uint8)
    rng = np.random.default_rng(seed)
    length = [5, 9][int(np.random.default_rng(seed).integers(2))]
    factor = min(length / min(height, width), 20 / max(height, width))
    expected = max(1, int(height * factor)), max(1, int(width * factor))
    assert RandomShortestSize((5, 9), max_size=20)(image, rng).shape == expected
    factor = min(12 / height, 10 / width) * (0.1 + 1.9 * np.random.default_rng(seed).random())
    expected = max(1, int(height * factor)), max(1, int(width * factor))
    assert ScaleJitter((12, 10))(image, np.random.default_rng(seed)).shape == expected
    assert FixedSizeCrop((3, 50))(image, rng).shape == (3, 50)
    boxed = LetterBox((16, 24), fill=7)({"image": image + 9, "boxes": [[0, 0, width, height]]})
    assert boxed["image"].shape == (16, 24)
    x0, y0, x1, y1 = boxed["boxes"][0].astype(int)
    assert (boxed["image"][y0:y1, x0:x1] == 9).all()
    assert (boxed["image"] == 9).sum() == (y1 - y0) * (x1 - x0)


def test_formats_are_converted_and_later_transforms_know_it() -> None:
    """Convert by name, as declared, and in tuples; flip boxes right in the new format."""
    image = np.zeros((10, 20), np.uint8)
    chain = Compose(ConvertBoundingBoxFormat("xywh"), RandomHorizontalFlip(1))
    assert chain({"image": image, "boxes": [[0, 0, 4, 2]]})["boxes"].tolist() == [[16, 0, 4, 2]]
    assert chain((image, {"boxes": np.array([[0.0, 0, 4, 2]])}))[1]["boxes"].tolist() == [[16, 0, 4, 2]]
    chain = Compose(
        ConvertBoundingBoxFormat("cxcywh", normalized=True),
        RandomVerticalFlip(1),
        ConvertBoundingBoxFormat("xyxy"),
        kinds={"where": Boxes("xywh", min_area=3)},
    )
    assert chain({"image": image, "where": np.array([[0.0, 0, 4, 2], [0, 0, 1, 1]])})["where"].tolist() == [
        [0, 8, 4, 10]
    ]
    assert chain({"image": image})["image"].shape == (10, 20)
    nested = Compose(Compose(ConvertBoundingBoxFormat("xywh"), kinds={"b": "boxes"}), RandomHorizontalFlip(1))
    assert nested({"image": image, "b": [[0, 0, 4, 2]]})["b"].tolist() == [[16, 0, 4, 2]]


def test_small_boxes_are_dropped_and_the_image_stays() -> None:
    """Drop by side and by area, after clipping."""
    image = np.zeros((10, 20), np.uint8)
    sample = {
        "image": image,
        "boxes": [[0, 0, 3, 3], [0, 0, 1, 9], [18, 8, 40, 40], [3, 3, 3, 9]],
        "labels": [1, 2, 3, 4],
    }
    assert SanitizeBoundingBoxes()(sample)["labels"] == [1, 2, 3]
    assert SanitizeBoundingBoxes(min_size=2)(sample)["labels"] == [1, 3]
    assert SanitizeBoundingBoxes(min_area=5)(sample)["labels"] == [1, 2]
    assert SanitizeBoundingBoxes()(sample)["image"] is image


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: RandomZoomOut(side_range=(0.5, 2)), "side_range must be factors from 1 up"),
        (lambda: RandomShortestSize([]), "min_size must be one length"),
        (lambda: RandomIoUCrop(max_scale=2), "max_scale must be a fraction"),
        (lambda: RandomIoUCrop(sampler_options=()), "at least one overlap"),
        (lambda: RandomIoUCrop(sampler_options=0.5), "at least one overlap"),
        (lambda: ConvertBoundingBoxFormat("yxyx"), "format must be one of 'xyxy'"),
        (lambda: SanitizeBoundingBoxes(-1), "min_size must be"),
        (lambda: LetterBox(0), "LetterBox: size must be"),
    ],
)
def test_what_cannot_be_used_is_refused(make: Any, match: str) -> None:
    """Name the transform, the argument and the value."""
    with pytest.raises(ArgumentError, match=match):
        make()


class DetectionTests(TransformTests):
    """On samples with boxes."""

    def samples(self) -> list[Any]:
        boxes = np.array([[1, 2, 30, 20], [40, 20, 45, 25]])
        return [{"image": image, "boxes": boxes, "labels": [1, 2]} for image in super().samples()]

    def test_lineage_names_what_is_drawn(self) -> None:
        """Show numbers by name, where the transform draws."""
        loader: DataLoader[Any] = DataLoader(Samples(self.samples()).map(self.make()), 4, seed=5, collate_fn=list)
        steps = loader.lineage(epoch=0, step=1, index=2).steps
        assert all(bool(step.parameters) == step.transform.draws for step in steps)


class TestZoom(DetectionTests):
    def make(self) -> Any:
        return RandomZoomOut()


class TestOverlap(DetectionTests):
    def make(self) -> Any:
        return RandomIoUCrop()


class TestShortest(DetectionTests):
    def make(self) -> Any:
        return RandomShortestSize((20, 30), max_size=40)


class TestJitter(DetectionTests):
    def make(self) -> Any:
        return ScaleJitter(32)


class TestFixed(DetectionTests):
    def make(self) -> Any:
        return FixedSizeCrop((50, 30))


class TestLetterBox(DetectionTests):
    def make(self) -> Any:
        return LetterBox(32)


class TestVertical(DetectionTests):
    def make(self) -> Any:
        return RandomVerticalFlip()


class TestSanitize(DetectionTests):
    def make(self) -> Any:
        return SanitizeBoundingBoxes(6)


class TestConvert(DetectionTests):
    def make(self) -> Any:
        return ConvertBoundingBoxFormat("cxcywh")


del DetectionTests
