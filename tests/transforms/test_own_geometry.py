"""Geometry of users: a matrix, ours in turn, or an object of their own moves all parts of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from headrace.errors import ArgumentError
from headrace.testing import TransformTests
from headrace.transforms import (
    Compose,
    Cut,
    GeometricTransform,
    InTurn,
    Keypoints,
    Mask,
    Mirror,
    RandomHorizontalFlip,
    ScalePart,
    Stay,
    matrix_move,
)
from tests.transforms.test_carried_targets import drawn, extent, rectangles


@dataclass(frozen=True)
class Lean(GeometricTransform):
    """By a matrix."""

    most: float = 0.3

    def move(self, height: int, width: int, rng: Any) -> Any:
        lean = rng.uniform(-self.most, self.most)
        matrix = [[1, lean, -lean * height / 2], [0, 1, 0]]
        return matrix_move(matrix, (height, width), interpolation="nearest")


class Shuffled:
    """Halves that change places: what no matrix does."""

    mirrors = False

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def image(self, image: Any) -> Any:
        return np.roll(image, image.shape[1] // 2, axis=1)

    def mask(self, mask: Any, fill: float) -> Any:
        return self.image(mask)

    def points(self, points: Any) -> Any:
        return (points + np.array([self.size[1] // 2, 0])) % (self.size[1], np.inf)

    def boxes(self, corners: Any) -> Any:
        parts = drawn(*self.size, corners.astype(int).tolist())
        return np.array([extent(self.image(mask)) for mask in parts]).reshape(-1, 4)


class RandomHalves(GeometricTransform):
    def move(self, height: int, width: int, rng: Any) -> Any:
        return Shuffled((height, width)) if rng.random() < 0.5 else Stay((height, width))


class Corner(GeometricTransform):
    """Ours in turn; draws nothing."""

    draws = False

    def move(self, height: int, width: int, rng: Any) -> Any:
        half = Cut((0, 0, max(1, height // 2), max(1, width // 2)))
        return InTurn((half, ScalePart((0, 0, *half.size), (20, 30)), Mirror((20, 30))))


OWN: list[Any] = [Lean(), RandomHalves(), Corner()]


@pytest.mark.parametrize("transform", OWN, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("size", [(24, 40), (7, 3), (1, 1)])
def test_boxes_and_points_go_where_the_pixels_go(transform: Any, size: tuple[int, int]) -> None:
    """Find each box and each keypoint in the mask that was moved beside it."""
    for seed in range(6):
        boxes = rectangles(*size, 3, seed)
        sample = {
            "image": np.arange(size[0] * size[1]).reshape(size).astype(np.float32),
            "boxes": boxes,
            "labels": [0, 1, 2],
            "masks": drawn(*size, boxes),
            "keypoints": np.array([[left + right, top + bottom] for left, top, right, bottom in boxes]) / 2 - 0.5,
            "mask": np.ones(size, np.uint8),
        }
        out = Compose(transform, kinds={"mask": Mask(fill=9)})(sample, np.random.default_rng(seed))
        assert out["image"].shape == out["mask"].shape == out["masks"].shape[1:]
        assert set(np.unique(out["mask"])) <= {1, 9}
        for mask, box, label in zip(out["masks"], out["boxes"], out["labels"], strict=True):
            if mask.any():
                assert np.abs(np.array(extent(mask)) - box).max() <= 1.01
            place = out["keypoints"][label].round().astype(int)
            if mask.sum() > 8 and not isinstance(transform, RandomHalves):
                assert mask[place[1].clip(0, out["mask"].shape[0] - 1), place[0].clip(0, out["mask"].shape[1] - 1)]


def test_a_matrix_that_mirrors_swaps_left_and_right() -> None:
    """Do what `RandomHorizontalFlip` does, to pixels, boxes and keypoints."""

    class Own(GeometricTransform):
        def move(self, height: int, width: int, rng: Any) -> Any:
            return matrix_move([[-1, 0, width], [0, 1, 0], [0, 0, 1]], (height, width), interpolation="nearest")

    image = np.random.default_rng(0).integers(0, 255, (9, 12, 3), np.uint8)
    sample = {"image": image, "boxes": [[1, 2, 5, 6]], "keypoints": np.array([[3.0, 3, 2], [8, 1, 1]])}
    kinds = {"keypoints": Keypoints(swaps=((0, 1),))}
    own, ours = Compose(Own(), kinds=kinds)(sample), Compose(RandomHorizontalFlip(p=1), kinds=kinds)(sample)
    for name in sample:
        np.testing.assert_allclose(own[name], ours[name])


def test_a_matrix_can_give_another_size() -> None:
    """Transpose an image, and fill what lies outside of it for each channel."""
    image = np.random.default_rng(0).integers(0, 255, (5, 8, 3), np.uint8)
    move = matrix_move([[0, 1, 0], [1, 0, 0]], (5, 8), (8, 6), fill=(1, 2, 3))
    out = move.image(image)
    np.testing.assert_array_equal(out[:, :5], image.transpose(1, 0, 2))
    assert out[:, 5].tolist() == [[1, 2, 3]] * 8


@pytest.mark.parametrize(
    "matrix", [np.eye(2), np.zeros((3, 3)), [[1, 0, np.nan], [0, 1, 0]], "eye", None, [[1, 0, 0], [2, 0, 0]]]
)
def test_what_is_no_matrix_is_refused(matrix: Any) -> None:
    """Say what was given, and what a matrix is."""
    with pytest.raises(ArgumentError, match=r"\(2, 3\) or \(3, 3\), that can be inverted"):
        matrix_move(matrix, (4, 4))


def test_another_interpolation_is_refused() -> None:
    """Name those that there are."""
    with pytest.raises(ArgumentError, match="interpolation must be one of 'nearest', 'bilinear'"):
        matrix_move(np.eye(3), (4, 4), interpolation="cubic")  # type: ignore[arg-type]


class TestLean(TransformTests):
    def make(self) -> Any:
        return Lean()


class TestRandomHalves(TransformTests):
    def make(self) -> Any:
        return RandomHalves()


class TestCorner(TransformTests):
    def make(self) -> Any:
        return Corner()
