"""Random chains of geometry over whole samples: points stay on their pixels and in their boxes, whatever is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import CenterCrop, Compose, Pad, RandomCrop, RandomHorizontalFlip, RandomResizedCrop, Resize
from headrace.transforms import (
    FixedSizeCrop,
    Keypoints,
    LetterBox,
    RandomAffine,
    RandomIoUCrop,
    RandomPerspective,
    RandomRotation,
    RandomShortestSize,
    RandomVerticalFlip,
    RandomZoomOut,
    SanitizeBoundingBoxes,
    ScaleJitter,
)
from tests.transforms.float_reference import moved

SIZES = st.tuples(st.integers(20, 90), st.integers(20, 90))
GEOMETRY: list[st.SearchStrategy[Any]] = [
    st.builds(
        RandomAffine, st.just(25), translate=st.just((0.1, 0.1)), scale=st.just((0.7, 1.4)),
        shear=st.just((-10, 10, -8, 8)), interpolation=st.just("bilinear"),
    ),
    st.builds(RandomRotation, st.just(60), expand=st.booleans(), interpolation=st.just("bilinear")),
    st.builds(RandomPerspective, st.just(0.4), p=st.just(0.8)),
    st.builds(RandomCrop, SIZES, pad_if_needed=st.just(value=True)),
    st.builds(RandomHorizontalFlip),
    st.builds(RandomVerticalFlip),
    st.builds(CenterCrop, SIZES),
    st.builds(Pad, st.integers(0, 9)),
    st.builds(Resize, SIZES),
    st.builds(RandomResizedCrop, SIZES, scale=st.just((0.3, 1))),
    st.builds(ScaleJitter, SIZES, scale_range=st.just((0.6, 1.6))),
    st.builds(FixedSizeCrop, SIZES),
    st.builds(RandomZoomOut, side_range=st.just((1, 2))),
    st.builds(RandomShortestSize, st.just((30, 50)), max_size=st.just(80)),
    st.builds(SanitizeBoundingBoxes),
    st.builds(RandomIoUCrop),
]  # fmt: skip
DROPPING = RandomIoUCrop | SanitizeBoundingBoxes
"""They drop boxes that have pixels left."""
PER_BOX = 40
KINDS = {"inside": Keypoints()}


def sample_of(height: int, width: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return an image whose pixels are their own places, boxes, and points on the image and in each box."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    sides = np.sort(rng.random((4, 2, 2)), axis=1).reshape(4, 4) * 0.8
    boxes = np.concatenate([sides[:, :2], sides[:, 2:] + 0.2], axis=1) * ([width, height] * 2)
    shares = rng.uniform(0.02, 0.98, (4, PER_BOX, 2))
    inside = boxes[:, np.newaxis, :2] + shares * (boxes[:, 2:] - boxes[:, :2])[:, np.newaxis] - 0.5
    return {
        "image": np.stack([x, y, np.ones_like(x)], axis=-1),  # the last channel: how much of the image is there
        "boxes": boxes,
        "labels": np.arange(4),
        "keypoints": rng.uniform(2, (width - 3, height - 3), (12, 2)),
        "inside": np.concatenate([inside, np.ones((4, PER_BOX, 1))], axis=2).reshape(-1, 3),
    }


def places_at(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Return the pixel at a place, weighed by its four neighbors."""
    left, top = int(x), int(y)
    across, down = x - left, y - top
    four = image[top : top + 2, left : left + 2, :2]
    upper, lower = (row[0] * (1 - across) + row[1] * across for row in four)
    weighed: np.ndarray = upper * (1 - down) + lower * down
    return weighed


def assert_points_are_on_their_pixels(out: dict[str, Any], points: np.ndarray) -> None:
    """Compare with the places that the image holds, where the pixels around hold nothing else."""
    image = out["image"].astype(np.float64)
    height, width = image.shape[:2]
    for (x, y), before in zip(out["keypoints"].tolist(), points, strict=True):
        column, row = round(x), round(y)
        if not (2 <= column < width - 2 and 2 <= row < height - 2):
            continue
        near = image[row - 2 : row + 3, column - 2 : column + 3]
        if np.abs(near[..., 2] - 1).max() < 1e-5:  # nothing of what lies outside is mixed in
            wide = np.abs(near - image[row, column]).max()
            assert np.abs(places_at(image, x, y) - before).max() <= 0.15 + 0.3 * wide


def assert_points_are_in_their_boxes(out: dict[str, Any], *, none_dropped: bool) -> None:
    """Find the points of each box that are left within it, and of a dropped box none."""
    height, width = out["image"].shape[:2]
    boxes = dict(zip(out["labels"].tolist(), out["boxes"], strict=True))
    for label, points in enumerate(out["inside"].reshape(-1, PER_BOX, 3)):
        left = points[points[:, 2] > 0, :2] + 0.5
        if label in boxes:
            low, high = boxes[label][:2], boxes[label][2:]
            assert ((left >= low - 1e-3) & (left <= high + 1e-3)).all()
            assert (low >= 0).all()
            assert (high <= (width + 1e-6, height + 1e-6)).all()
        elif none_dropped:
            assert not len(left)


@settings(max_examples=120, deadline=None)
@given(
    chain=st.lists(st.one_of(GEOMETRY), min_size=1, max_size=5),
    height=st.integers(30, 100),
    width=st.integers(30, 100),
    seed=st.integers(0, 999),
)
def test_points_stay_on_their_pixels_and_in_their_boxes(chain: list[Any], height: int, width: int, seed: int) -> None:
    """Map an image of places, and look where each keypoint and each point of a box came to lie."""
    sample = sample_of(height, width, np.random.default_rng(seed))
    out = Compose(chain, kinds=KINDS)(sample, np.random.default_rng(seed))
    assert_points_are_on_their_pixels(out, sample["keypoints"])
    assert_points_are_in_their_boxes(out, none_dropped=not any(isinstance(one, DROPPING) for one in chain))


SMALL = st.tuples(st.integers(1, 24), st.integers(1, 24))
FILLS = st.integers(0, 255)
WEIGHED: list[st.SearchStrategy[Any]] = [
    st.builds(
        RandomAffine, st.just(25), translate=st.just((0.1, 0.1)), scale=st.just((0.7, 1.4)), shear=st.just(9),
        interpolation=st.just("bilinear"), fill=FILLS,
    ),
    st.builds(RandomPerspective, st.just(0.4), p=st.just(1), fill=FILLS),
    st.builds(RandomCrop, SMALL, pad_if_needed=st.just(value=True), fill=FILLS),
    st.builds(RandomHorizontalFlip),
    st.builds(RandomVerticalFlip),
    st.builds(CenterCrop, SMALL),
    st.builds(Resize, SMALL),
    st.builds(RandomResizedCrop, SMALL),
    st.builds(ScaleJitter, SMALL),
    st.builds(FixedSizeCrop, SMALL, fill=FILLS),
    st.builds(LetterBox, SMALL),
    st.builds(RandomZoomOut, side_range=st.just((1, 2)), fill=FILLS),
]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    chain=st.lists(st.one_of(WEIGHED), min_size=1, max_size=4),
    size=SMALL,
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 999),
)
def test_pixels_are_those_of_a_reference_in_floats(
    chain: list[Any], size: tuple[int, int], channels: int, seed: int
) -> None:
    """Do the same moves in float64, one by one: each rounding of a byte may be off by half a level, and a bit."""
    image = np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)
    rng, expected = np.random.default_rng(seed), image.astype(np.float64)
    for transform in chain:
        expected = moved(transform.move(*expected.shape[:2], rng), expected)
    rng, found, together = np.random.default_rng(seed), image, Compose(chain)
    for transform in chain:  # one by one: maps that are joined give other, sharper pixels
        found = transform(found, rng)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 0.75 * (1 + len(chain))
    with_targets = {"image": image, "boxes": np.zeros((0, 4)), "labels": []}
    if len(together._joined) == len(chain):
        np.testing.assert_array_equal(together(with_targets, np.random.default_rng(seed))["image"], found)


def test_a_point_that_leaves_one_of_several_joined_maps_is_lost() -> None:
    """Come back from outside neither as a pixel nor as a labeled point."""
    turns = RandomRotation((45, 45)), RandomRotation((-45, -45))
    image = np.full((20, 20), 7, np.uint8)
    corner, middle = [0.0, 0, 2], [10.0, 10, 2]
    out = Compose(*turns)({"image": image, "keypoints": np.array([corner, middle])})
    assert out["image"][0, 0] == 0
    np.testing.assert_allclose(out["keypoints"], [[0, 0, 0], middle], atol=1e-9)
