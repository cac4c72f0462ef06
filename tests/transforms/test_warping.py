"""Affine and perspective maps beside a slow reference, one pixel at a time; and boxes beside points all over them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import Compose, DataLoader, RandomHorizontalFlip, ToFloat
from headrace.errors import ArgumentError
from headrace.image.warp import Warp, Warps, mapped
from headrace.testing import TransformTests
from headrace.testing.transforms import Samples
from headrace.transforms import Boxes, RandomAffine, RandomPerspective, RandomRotation

SAMPLINGS = ["nearest", "bilinear"]


def chain(number: int, sampling: Any, fill: Any) -> list[Any]:
    """Return one of several chains of maps."""
    turn = RandomRotation(40, interpolation=sampling, fill=fill)
    grown = RandomRotation((20, 70), interpolation=sampling, expand=True, fill=fill)
    affine = RandomAffine(
        15, translate=(0.2, 0.3), scale=(0.6, 1.5), shear=(-10, 10, -5, 5), interpolation=sampling, fill=fill
    )
    perspective = RandomPerspective(0.6, p=1, interpolation=sampling, fill=fill)
    return [[turn], [grown], [affine], [perspective], [turn, affine], [grown, perspective, affine]][number]


def reference(move: Warps, image: np.ndarray, right: float = 0, down: float = 0) -> np.ndarray:
    """Resample an image ``(H, W, C)`` one pixel at a time, in float64, at places moved to the right and down."""
    made = np.zeros((*move.size, image.shape[2]))
    for row in range(move.size[0]):
        for column in range(move.size[1]):
            made[row, column] = _pixel(move, image, column + 0.5 + right, row + 0.5 + down)
    return made


def _pixel(move: Warps, image: np.ndarray, x: float, y: float) -> np.ndarray:
    shares = []
    for part in reversed(move.parts):
        u, v, w = np.linalg.inv(np.array(part.matrix).reshape(3, 3)) @ (x, y, 1)
        x, y = (u / w, v / w) if w > 0 else (-1e6, -1e6)
        shares.append((_share(move, x, y, part.before), np.array(part.fill, float)))
    value = _source(move, image, x, y, shares[-1][1])
    for share, fill in shares[-2::-1]:
        value = share * value + (1 - share) * fill
    return value


def _share(move: Warps, x: float, y: float, size: tuple[int, int]) -> float:
    height, width = size
    if move.interpolation == "nearest":
        return float(0 <= x < width and 0 <= y < height)
    across, down = min(x, width - x) + 0.5, min(y, height - y) + 0.5
    return min(max(across, 0), 1) * min(max(down, 0), 1)


def _source(move: Warps, image: np.ndarray, x: float, y: float, fill: Any) -> Any:
    def at(row: int, column: int) -> Any:
        inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
        return image[row, column].astype(float) if inside else fill

    if move.interpolation == "nearest":
        return at(math.floor(y), math.floor(x))
    column, row = math.floor(x - 0.5), math.floor(y - 0.5)
    right, below = x - 0.5 - column, y - 0.5 - row
    upper = (1 - right) * at(row, column) + right * at(row, column + 1)
    return (1 - below) * upper + below * ((1 - right) * at(row + 1, column) + right * at(row + 1, column + 1))


def drawn_move(transforms: list[Any], height: int, width: int, seed: int) -> Any:
    """Draw the move of a chain."""
    joined = Compose(*transforms)._joined
    assert len(joined) == 1
    found: Any = joined[0]
    return found.move(height, width, np.random.default_rng(seed))


@settings(max_examples=60, deadline=None)
@given(
    number=st.integers(0, 5),
    sampling=st.sampled_from(SAMPLINGS),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([None, 1, 3, 4]),
    dtype=st.sampled_from([np.uint8, np.float32, np.uint16, np.float64]),
    seed=st.integers(0, 999),
)
def test_pixels_are_those_of_the_slow_reference(number, sampling, height, width, channels, dtype, seed):
    """Agree for the nearest pixel, within one level of integers for each map, and in floats to their precision."""
    rng = np.random.default_rng(seed)
    shape = (height, width) if channels is None else (height, width, channels)
    image = (rng.integers(0, 256, shape) if dtype != np.float32 else rng.random(shape)).astype(dtype)
    fill = tuple(range(3, 3 + channels)) if channels else 9
    transforms = chain(number, sampling, fill)
    found = Compose(*transforms)(image, np.random.default_rng(seed))
    move = drawn_move(transforms, height, width, seed)
    if not isinstance(move, Warps):
        np.testing.assert_array_equal(found, image)
        return
    pixels = image.reshape(height, width, -1)
    assert found.dtype == dtype
    if sampling == "nearest":
        near = [(0.0, 0.0), *((right, down) for right in (-1e-6, 1e-6) for down in (-1e-6, 1e-6))]
        either = [reference(move, pixels, *moved).reshape(found.shape).astype(dtype) for moved in near]
        assert (found == either).any(axis=0).all()  # on the edge of two pixels, either
    else:
        expected = reference(move, pixels).reshape(found.shape)
        most = len(move.parts) * {np.uint8: 0.76, np.uint16: 0.51, np.float32: 2e-5, np.float64: 1e-9}[dtype]
        if dtype == np.float32:
            most *= 20  # the fill is up to 9
        np.testing.assert_allclose(found.astype(float), expected, atol=most)


@settings(max_examples=40, deadline=None)
@given(number=st.integers(0, 5), seed=st.integers(0, 999), height=st.integers(4, 40), width=st.integers(4, 40))
def test_boxes_are_around_the_points_that_are_left(number, seed, height, width):
    """Map points all over each box, leave out those that leave an image on the way, and look how far the others lie."""
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.random((6, 2, 2)), axis=1) * (width, height)
    boxes = np.concatenate([ends[:, 0], ends[:, 1]], axis=1)
    transforms = chain(number, "nearest", 0)
    out = Compose(*transforms)(
        {"image": np.zeros((height, width)), "boxes": boxes, "labels": np.arange(6)}, np.random.default_rng(seed)
    )
    move = drawn_move(transforms, height, width, seed)
    if not isinstance(move, Warps):
        return
    steps = np.linspace(0, 1, 81)
    for box, place in zip(boxes, range(6), strict=True):
        points = np.stack(np.meshgrid(box[0] + steps * (box[2] - box[0]), box[1] + steps * (box[3] - box[1])), axis=-1)
        points, grain = points.reshape(-1, 2), 0.0
        for part in move.parts:
            points = mapped(np.array(part.matrix).reshape(3, 3), points)
            inside = ((points >= 0) & (points <= (part.size[1], part.size[0]))).all(axis=1)
            points = points[inside]
        where = np.flatnonzero(out["labels"] == place)
        if len(points) and len(where):
            found = out["boxes"][where[0]]
            grain = 0.06 * max(box[2] - box[0], box[3] - box[1]) + 1e-6
            assert (found[:2] <= points.min(axis=0) + 1e-6).all()
            assert (found[2:] >= points.max(axis=0) - 1e-6).all()
            assert np.abs(found - [*points.min(axis=0), *points.max(axis=0)]).max() <= grain * 4
        elif len(points):
            assert np.prod(points.max(axis=0) - points.min(axis=0)) <= 1e-4
        elif len(where):
            found = out["boxes"][where[0]]
            assert np.prod(found[2:] - found[:2]) < 0.1 * max(1, np.prod(box[2:] - box[:2]))


def test_keypoints_and_masks_go_where_the_image_goes() -> None:
    """Find a bright spot where its keypoint lies, within a pixel."""
    image = np.zeros((60, 80), np.uint8)
    image[19:22, 29:32] = 200
    sample = {"image": image, "mask": image // 200, "keypoints": np.array([[30, 20, 2]])}
    transforms = chain(5, "bilinear", 0)
    hits = 0
    for seed in range(20):
        out = Compose(*transforms)(sample, np.random.default_rng(seed))
        x, y, seen = out["keypoints"][0]
        if not seen or not out["mask"].any():
            continue
        rows, columns = np.nonzero(out["mask"])
        assert abs(rows.mean() - y) < 2
        assert abs(columns.mean() - x) < 2
        assert out["image"][round(float(y)), round(float(x))] > 100
        hits += 1
    assert hits > 5


def test_maps_that_follow_each_other_are_resampled_once() -> None:
    """Turn there and back: the same image, where resampling twice blurs it. Others between them keep them apart."""
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    there, back = (RandomRotation((angle, angle), interpolation="bilinear") for angle in (30, -30))
    together = Compose(there, back)(image, np.random.default_rng(0))
    apart = back(there(image, np.random.default_rng(0)), np.random.default_rng(0))
    middle = np.s_[14:26, 14:26]
    np.testing.assert_array_equal(together[middle], image[middle])
    assert np.abs(apart[middle].astype(int) - image[middle]).mean() > 10
    assert len(Compose(there, back).transforms) == 2
    assert len(Compose(there, RandomHorizontalFlip(), back)._joined) == 3
    assert len(Compose(there, RandomRotation(3))._joined) == 2  # another sampling
    assert len(Compose(Compose(there), back, kinds={"image": "image"})._joined) == 1
    assert len(Compose(there, Tinted(3, interpolation="bilinear"), back)._joined) == 3


class Tinted(RandomRotation):
    """Does something of its own to the image."""

    def transform_image(self, image: Any, rng: Any) -> Any:
        return super().transform_image(image, rng) // 2


def test_lineage_names_what_each_map_drew() -> None:
    """Show one step for maps that are resampled once, with the numbers of each; the same sample comes out."""
    images = list(np.random.default_rng(0).integers(0, 256, (4, 20, 20, 3), np.uint8))
    transforms = [RandomRotation(30), RandomAffine(0, translate=(0.2, 0.2)), ToFloat()]
    for kinds in (None, {"image": "image"}):
        samples = [{"image": image} for image in images] if kinds else images
        loader: DataLoader[Any] = DataLoader(
            Samples(samples).map(Compose(transforms, kinds=kinds)), 2, seed=3, collate_fn=list
        )
        lineage = loader.lineage(epoch=0, step=1, index=1)
        assert lineage.steps[0].name.startswith("RandomRotation(")
        assert " + RandomAffine(" in lineage.steps[0].name
        names = ["1. RandomRotation angle", *(f"2. RandomAffine {n}" for n in ("angle", "translate", "scale", "shear"))]
        assert list(lineage.steps[0].parameters) == names
        sample = list(loader)[1][1]
        np.testing.assert_array_equal(*((one["image"] if kinds else one) for one in (sample, lineage.sample)))
    alone: DataLoader[Any] = DataLoader(Samples(images).map(RandomRotation(30)), 2, seed=3, collate_fn=list)
    assert list(alone.lineage(epoch=0, step=1, index=1).steps[0].parameters) == ["angle"]
    assert Tinted(30).drawn(images[0], np.random.default_rng(0)) == {}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: RandomRotation(-1), "RandomRotation: degrees must be a finite number from 0"),
        (lambda: RandomRotation((5, 1)), r"degrees must be one number, or \(least, most\)"),
        (lambda: RandomRotation(5, expand=True, center=(1, 2)), "center must be None with expand=True"),
        (lambda: RandomRotation(5, interpolation="bicubic"), "must be one of 'nearest', 'bilinear'"),
        (lambda: RandomAffine(5, translate=(2, 0)), "translate must be fractions"),
        (lambda: RandomAffine(5, scale=(0, 1)), "scale must be"),
        (lambda: RandomAffine(5, shear=90), "shear must be degrees between"),
        (lambda: RandomAffine(5, center=3), r"center must be a pair of numbers, \(x, y\)"),
        (lambda: RandomPerspective(2), "distortion_scale must be"),
        (lambda: RandomRotation(5, interpolation="bilinear")(np.zeros((3, 3), bool)), "cannot weigh the pixels"),
        (lambda: RandomRotation(5, fill=300)(np.zeros((3, 3), np.uint8)), "fill=300 is not a value"),
    ],
)
def test_what_cannot_be_used_is_refused(make: Any, match: str) -> None:
    """Name the transform, the argument and the value."""
    with pytest.raises(ArgumentError, match=match):
        make()


def test_angles_turn_as_torchvisions_do() -> None:
    """Turn against the clock by RandomRotation, with it by RandomAffine; expand by whole pixels."""
    image = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(RandomRotation((90, 90), expand=True)(image), np.rot90(image))
    square = np.arange(9).reshape(3, 3)
    np.testing.assert_array_equal(RandomAffine((90, 90))(square), np.rot90(square, -1))
    np.testing.assert_array_equal(RandomAffine(0, translate=(0, 0))(square), square)
    moved = Warps((Warp((1, 0, 1, 0, 1, -1, 0, 0, 1), (3, 3), (3, 3), 7),)).image(square)
    np.testing.assert_array_equal(moved, [[7, 3, 4], [7, 6, 7], [7, 7, 7]])


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("margin", [100, 5000])
def test_a_box_far_beyond_the_image_is_what_its_part_in_the_image_is_in_perspective(seed: int, margin: int) -> None:
    """Map only what the image shows, so that no corner lies behind the horizon."""
    boxes = np.array([[30.0, 20, 100 + margin, 80 + margin], [30, 20, 100, 80]])
    sample = {"image": np.zeros((80, 100), np.uint8), "boxes": boxes}
    out = RandomPerspective(0.9, p=1)(sample, np.random.default_rng(seed))["boxes"]
    assert len(out) == 2
    np.testing.assert_array_equal(out[0], out[1])


class TestRotation(TransformTests):
    def make(self) -> Any:
        return RandomRotation(20, interpolation="bilinear", expand=True)


class TestAffine(TransformTests):
    def make(self) -> Any:
        return RandomAffine(20, translate=(0.1, 0.1), scale=(0.5, 2), shear=4)


class TestPerspective(TransformTests):
    def make(self) -> Any:
        return RandomPerspective()


class TestMaps(TransformTests):
    """Several, on samples with targets."""

    def make(self) -> Any:
        return Compose(RandomRotation(9), RandomAffine(9), RandomRotation(3), kinds={"boxes": Boxes("cxcywh")})

    def samples(self) -> list[Any]:
        return [
            {"image": image, "mask": image[..., 0], "boxes": np.array([[20, 20, 9, 7.5]])}
            for image in super().samples()
        ]

    def test_lineage_names_it(self) -> None:
        """Name all of its transforms in one step."""
        loader: DataLoader[Any] = DataLoader(Samples(self.samples()).map(self.make()), 4, seed=5, collate_fn=list)
        (step,) = loader.lineage(epoch=0, step=1, index=2).steps
        assert step.name.count(" + ") == 2
