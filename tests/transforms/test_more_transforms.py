"""ElasticTransform, CLAHE, JPEG, GridMask, Cutout, ThreeAugment, FiveCrop, TenCrop and MultiCrop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace import Compose, DataLoader, RandomResizedCrop, ToCHW, ToFloat
from headrace.errors import ArgumentError
from headrace.image.decoder import decode_with_pillow
from headrace.testing import TransformTests
from headrace.transforms import (
    CLAHE,
    JPEG,
    Cutout,
    ElasticTransform,
    FiveCrop,
    GridMask,
    MultiCrop,
    TenCrop,
    ThreeAugment,
)
from headrace.transforms.elastic import Pushed
from tests.image_files import photo

cv2 = pytest.importorskip("cv2")


class TestElastic(TransformTests):
    def make(self) -> Any:
        return ElasticTransform(alpha=30, sigma=4)


class TestCLAHE(TransformTests):
    def make(self) -> Any:
        return CLAHE(p=0.8)


class TestJPEG(TransformTests):
    def make(self) -> Any:
        return JPEG((5, 60))


class TestGridMask(TransformTests):
    def make(self) -> Any:
        return GridMask((8, 20), p=0.8)


class TestCutout(TransformTests):
    def make(self) -> Any:
        return Cutout(9, holes=2)


class TestThreeAugment(TransformTests):
    def make(self) -> Any:
        return ThreeAugment()


SIDES = st.integers(1, 40)


@given(SIDES, SIDES, st.sampled_from([1, 3, 4]), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_images_of_any_size_keep_size_and_dtype(height: int, width: int, channels: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)
    rng = np.random.default_rng(seed)
    several: list[Any] = [ElasticTransform(sigma=2), CLAHE(p=1), GridMask((2, 9), p=1), Cutout(3), ThreeAugment()]
    for transform in several + ([JPEG(20)] if channels != 4 else []):
        changed = transform(image, rng)
        assert (changed.shape, changed.dtype) == (image.shape, np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (61, 93), (10, 7), (64, 93), (3, 8), (1, 96)])
@pytest.mark.parametrize("limit", [1.0, 2.5, 40.0])
def test_gray_values_are_spread_as_opencv_does(size: tuple[int, int], limit: float) -> None:
    plane = np.ascontiguousarray(photo(3, 64, 96)[: size[0], : size[1], 1])
    expected = cv2.createCLAHE(limit, (4, 4)).apply(plane)
    ours = CLAHE(limit, (4, 4), p=1)(plane)
    assert np.abs(ours.astype(int) - expected).max() <= 1


def test_clahe_changes_the_brightness_of_colors_and_leaves_alpha() -> None:
    image = np.concatenate([photo(3, 40, 60), np.full((40, 60, 1), 7, np.uint8)], axis=2)
    changed = CLAHE(p=1)(image)
    assert (changed[..., 3] == 7).all()
    middle = (changed[..., :3] > 0).all(axis=2) & (changed[..., :3] < 255).all(axis=2)
    difference = changed[..., :3].astype(int) - image[..., :3]
    assert (np.ptp(difference[middle], axis=1) == 0).all()


def test_jpeg_loses_what_pillow_loses() -> None:
    import io

    from PIL import Image

    image, file = photo(3, 40, 60), io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=20)
    np.testing.assert_array_equal(JPEG(20)(image), decode_with_pillow(file.getvalue()))
    assert JPEG(20)(image[..., :1]).shape == (40, 60, 1)
    rough, fine = (np.abs(JPEG(quality)(image).astype(int) - image).mean() for quality in (5, 95))
    assert rough > fine


def test_elastic_shifts_are_smooth_and_as_large_as_alpha_says() -> None:
    shifts = ElasticTransform(alpha=50, sigma=5).shifts(200, 200, np.random.default_rng(0))
    assert np.abs(np.diff(shifts, axis=2)).max() < 0.5
    # Noise of variance 1/3, smoothed over some 4 pi sigma^2 pixels, times alpha / 2.
    expected = 25 / np.sqrt(3) / np.sqrt(4 * np.pi * 25)
    assert shifts.std() == pytest.approx(expected, rel=0.2)
    assert not ElasticTransform(alpha=0).shifts(5, 9, np.random.default_rng(0)).any()


def test_all_parts_of_a_sample_are_pushed_alike() -> None:
    shifts = np.zeros((2, 20, 30))
    shifts[0], shifts[1] = 4, -2
    image = np.zeros((20, 30), np.uint8)
    image[10:14, 12:18] = 200
    move = Pushed(shifts)
    moved = move.image(image)
    np.testing.assert_array_equal(moved, move.mask(image, 0))
    assert np.argwhere(moved).min(axis=0).tolist() == [12, 8]
    assert move.points(np.array([[12.0, 10.0]])).tolist() == [[8, 12]]
    sample = {"image": image, "mask": image, "boxes": [[12, 10, 18, 14]], "labels": [1]}
    out = ElasticTransform(alpha=20, sigma=4, interpolation="nearest")(sample, np.random.default_rng(1))
    np.testing.assert_array_equal(out["image"], out["mask"])
    rows, columns = np.nonzero(out["mask"])
    around = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert np.abs(out["boxes"][0] - around).max() <= 2


def test_gridmask_hides_the_share_that_it_says() -> None:
    image = np.ones((240, 240), np.uint8)
    hidden = [1 - GridMask((20, 40), ratio=0.6, p=1)(image, np.random.default_rng(seed)).mean() for seed in range(40)]
    assert np.mean(hidden) == pytest.approx(0.16, abs=0.02)
    assert GridMask(p=0)(image, np.random.default_rng(0)).all()


def test_each_of_the_three_is_drawn() -> None:
    names = [ThreeAugment().drawn(np.zeros((4, 4, 3), np.uint8), np.random.default_rng(s))["choice"] for s in range(60)]
    assert {name: names.count(name) > 8 for name in set(names)} == dict.fromkeys(
        ("grayscale", "solarize", "blur"), True
    )
    bright = np.full((2, 2, 3), 0.75)
    rng = next(
        r for r in map(np.random.default_rng, range(99)) if ThreeAugment().drawn(bright, r)["choice"] == "solarize"
    )
    del rng
    seed = next(s for s in range(99) if ThreeAugment().drawn(bright, np.random.default_rng(s))["choice"] == "solarize")
    np.testing.assert_allclose(ThreeAugment()(bright, np.random.default_rng(seed)), 0.25)


def test_five_and_ten_crops_are_corners_and_center() -> None:
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    five = FiveCrop((2, 4))(image)
    assert [int(part[0, 0]) for part in five] == [0, 4, 32, 36, 18]
    ten = TenCrop((2, 4))(image)
    np.testing.assert_array_equal(ten[:5], five)
    assert int(ten[5][0, 0]) == 7
    assert int(TenCrop((2, 4), vertical_flip=True)(image)[5][0, 0]) == 40
    crops, label = FiveCrop(4, ToFloat(), ToCHW())((np.zeros((6, 8, 3), np.uint8), 3))
    assert (crops.shape, crops.dtype, label) == ((5, 3, 4, 4), np.float32, 3)
    with pytest.raises(ArgumentError, match="4 x 3 pixels"):
        FiveCrop(4)(np.zeros((3, 4), np.uint8))
    with pytest.raises(ArgumentError, match="leave the rest of the sample behind"):
        TenCrop(2)({"image": image, "mask": image})


def test_multicrop_gives_groups_of_views_that_collate() -> None:
    views = MultiCrop((2, [RandomResizedCrop(16), ToFloat(), ToCHW()]), (3, RandomResizedCrop(8)))
    dataset: Any = [(photo(seed, 20, 30), seed) for seed in range(4)]
    from headrace.datasets import Mapped

    loader = DataLoader(Mapped(dataset, views), 2, seed=0)
    (large, small), labels = next(iter(loader))
    assert (large.shape, small.shape, labels.tolist()) == ((2, 2, 3, 16, 16), (2, 3, 8, 8, 3), [0, 1])
    assert not np.array_equal(small[0, 0], small[0, 1])
    again = next(iter(DataLoader(Mapped(dataset, views), 2, seed=0, num_workers=2, backend="threads")))
    np.testing.assert_array_equal(again[0][0], large)
    with pytest.raises(ArgumentError, match="views of"):
        MultiCrop((3, lambda image, rng: image[: rng.integers(1, 9)]))(photo(0, 20, 30), np.random.default_rng(0))
    with pytest.raises(ArgumentError, match="MultiCrop"):
        MultiCrop(RandomResizedCrop(8))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ElasticTransform(alpha=-1),
        lambda: ElasticTransform(sigma=(1, 2, 3)),
        lambda: JPEG(0),
        lambda: JPEG((60, 20)),
        lambda: CLAHE(0),
        lambda: CLAHE(tile_grid_size=(0, 4)),
        lambda: GridMask((1, 4)),
        lambda: Cutout(0),
        lambda: ThreeAugment((2, 1)),
        lambda: FiveCrop(0),
        MultiCrop,
        lambda: MultiCrop((0, ToFloat())),
    ],
)
def test_arguments_are_checked(make: Any) -> None:
    with pytest.raises(ArgumentError):
        make()


@pytest.mark.parametrize("transform", [CLAHE(p=0), JPEG(50)])
def test_floats_are_refused_by_those_that_take_bytes(transform: Any) -> None:
    with pytest.raises(ArgumentError, match="uint8"):
        Compose(transform)(np.zeros((4, 4, 3), np.float32))
