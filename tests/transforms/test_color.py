"""Transforms of colors: 8 bits beside the same in floats, Pillow's own functions, and what is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from headrace import Compose
from headrace.errors import ArgumentError
from headrace.image import as_pillow, color
from headrace.testing import TransformTests
from headrace.transforms import (
    ColorJitter,
    GaussianBlur,
    GaussianNoise,
    RandomAdjustSharpness,
    RandomAutocontrast,
    RandomChannelPermutation,
    RandomEqualize,
    RandomErasing,
    RandomGrayscale,
    RandomInvert,
    RandomPhotometricDistort,
    RandomPosterize,
    RandomSolarize,
)

CHANGES: dict[str, tuple[Any, float]] = {
    "brightness": (lambda image: color.brightness(image, 1.37), 1.01),
    "darkness": (lambda image: color.brightness(image, 0.31), 1.01),
    "contrast": (lambda image: color.contrast(image, 1.6), 1.7),
    "saturation": (lambda image: color.saturation(image, 1.7), 1.5),
    "grayscale": (color.grayscale, 0.51),
    "hue": (lambda image: color.hue(image, 0.2), 0.51),
    "invert": (color.invert, 0.001),
    "autocontrast": (color.autocontrast, 1.01),
    "sharpness": (lambda image: color.sharpness(image, 1.8), 1.5),
    "smoothness": (lambda image: color.sharpness(image, 0.2), 1.5),
    "blur": (lambda image: color.gaussian_blur(image, (5, 9), 1.3), 1.01),
    "wide blur": (lambda image: color.gaussian_blur(image, (23, 23), 2.0), 1.01),
}
"""What is done to an image, and how many gray levels apart 8 bits and floats may be."""


@settings(max_examples=120, deadline=None)
@given(
    name=st.sampled_from(sorted(CHANGES)),
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    channels=st.sampled_from([None, 1, 3, 4]),
    flat=st.booleans(),
    seed=st.integers(0, 999),
)
def test_bytes_are_what_floats_are_within_rounding(name, height, width, channels, flat, seed):
    """Compute bytes beside float64; keep shape, dtype and alpha."""
    change, levels = CHANGES[name]
    shape = (height, width) if channels is None else (height, width, channels)
    image = np.random.default_rng(seed).integers(0, 3 if flat else 256, shape, np.uint8)
    before = image.copy()
    found, exact = change(image), change(image / 255)
    assert (found.dtype, found.shape) == (np.uint8, image.shape)
    assert np.abs(found - 255 * exact).max() <= levels
    np.testing.assert_array_equal(image, before)
    if channels == 4 and "blur" not in name:
        np.testing.assert_array_equal(found[..., 3], image[..., 3])
    for dtype in (np.float32, np.float16):
        assert change((image / 255).astype(dtype)).dtype == dtype
    wide = change(image.astype(np.uint16) * 257)
    assert wide.dtype == np.uint16
    assert np.abs(wide / 257 - 255 * exact).max() <= 0.6


FACTORS = st.floats(-1, 4) | st.sampled_from([0.0, 0.1, 0.73, 1.27, 1.9, 2.0, 1e3, -1e30])


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    channels=st.sampled_from([None, 3]),
    top=st.sampled_from([1, 2, 40, 256]),
    factor=FACTORS,
    seed=st.integers(0, 999),
)
def test_pixels_are_pillows(height, width, channels, top, factor, seed):
    """Give Pillow's bytes for images of gray and of colors, by NumPy and by the native extension."""
    shape = (height, width) if channels is None else (height, width, channels)
    image = np.random.default_rng(seed).integers(0, top, shape, np.uint8)
    pillow = Image.fromarray(image)
    expected: dict[Any, Any] = {
        (color.brightness, factor): ImageEnhance.Brightness(pillow).enhance(factor),
        (color.contrast, factor): ImageEnhance.Contrast(pillow).enhance(factor),
        (color.saturation, factor): ImageEnhance.Color(pillow).enhance(factor),
        (color.sharpness, factor): ImageEnhance.Sharpness(pillow).enhance(factor),
        (color.sharpness, 0): pillow.filter(ImageFilter.SMOOTH),
        (color.autocontrast,): ImageOps.autocontrast(pillow),
        (color.equalize,): ImageOps.equalize(pillow),
        (color.invert,): ImageOps.invert(pillow),
        (color.posterize, 3): ImageOps.posterize(pillow, 3),
        (color.solarize, 100): ImageOps.solarize(pillow, 100),
        (color.grayscale,): pillow.convert("L").convert(pillow.mode),
    }
    for (change, *numbers), made in expected.items():
        np.testing.assert_array_equal(change(image, *numbers), made)
        np.testing.assert_array_equal(change.__wrapped__(image, *numbers), made)


def turned(image: Any, shift: int) -> Any:
    """Return an image with its hues turned by Pillow, in steps of 8 bits."""
    hue, saturation, value = Image.fromarray(image).convert("HSV").split()
    other = Image.fromarray(np.asarray(hue) + np.uint8(shift))
    return np.asarray(Image.merge("HSV", (other, saturation, value)).convert("RGB"))


@pytest.mark.parametrize("start", [0, 1, 2])
def test_hues_of_8_bits_are_pillows(start: int) -> None:
    """Give Pillow's bytes for every ninth color, and for shifts all around the circle."""
    values = np.arange(start, 256, 3, dtype=np.uint8)
    green, blue = np.meshgrid(values, values)
    for red in values[:: 3 if start else 1]:
        image = np.stack([np.full_like(green, red), green, blue], axis=-1)
        shift = float(red) / 255 - 0.5
        expected = turned(image, as_pillow.hue_shift(shift))
        np.testing.assert_array_equal(as_pillow.pillow_hue(image, shift), expected)
        np.testing.assert_array_equal(as_pillow.pillow_hue.__wrapped__(image, shift), expected)  # type: ignore[attr-defined]
    gray = np.arange(9, dtype=np.uint8).reshape(3, 3)
    np.testing.assert_array_equal(as_pillow.pillow_hue(gray, 0.3), gray)


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.sampled_from([None, 3]),
    matrix=st.tuples(*[st.floats(-2, 2), st.floats(-2, 2), st.floats(-40, 40)] * 2),
)
def test_nearest_pixels_are_pillows(height, width, channels, matrix):
    """Take the pixels that Pillow takes for an affine map, and its fill."""
    shape = (height, width) if channels is None else (height, width, channels)
    image = np.random.default_rng(height).integers(0, 256, shape, np.uint8)
    fill = (7,) if channels is None else (7, 8, 9)
    how: dict[str, Any] = {"resample": Image.Resampling.NEAREST, "fillcolor": fill if len(fill) > 1 else fill[0]}
    expected = Image.fromarray(image).transform((width, height), Image.Transform.AFFINE, matrix, **how)
    numbers = as_pillow.pillow_map(matrix)
    np.testing.assert_array_equal(as_pillow.pillow_warp(image, numbers, fill), expected)
    np.testing.assert_array_equal(as_pillow.pillow_warp.__wrapped__(image, numbers, fill), expected)  # type: ignore[attr-defined]


def test_factors_of_one_change_nothing() -> None:
    """Give the values that went in."""
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 4), np.uint8)
    for change in (color.brightness, color.contrast, color.saturation, color.sharpness):
        np.testing.assert_array_equal(change(image, 1.0), image)
    np.testing.assert_array_equal(color.hue(image, 0.0), image)
    assert np.abs(color.hue(image, 1.0).astype(int) - image).max() <= 1
    np.testing.assert_array_equal(GaussianBlur(1)(image), image)
    np.testing.assert_array_equal(RandomSolarize(256, p=1)(image), image)


def test_hues_turn_around_the_circle() -> None:
    """Take red to green to blue, and leave gray alone."""
    image = np.array([[[255, 0, 0], [90, 90, 90], [0, 0, 0], [200, 100, 50]]], np.uint8)
    third = color.hue(image, 1 / 3)
    assert third[0].tolist() == [[0, 255, 0], [90, 90, 90], [0, 0, 0], [50, 200, 100]]
    assert color.hue(image, -1 / 3)[0].tolist() == [[0, 0, 255], [90, 90, 90], [0, 0, 0], [100, 50, 200]]


def test_a_width_may_be_an_integer_of_numpy() -> None:
    """Take what `integer` takes elsewhere."""
    assert GaussianBlur(np.int64(3)) == GaussianBlur(3) == GaussianBlur((np.uint8(3), 3))


def test_probabilities_hold() -> None:
    """Change about as many images as ``p`` says, and none for 0."""
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    rng = np.random.default_rng(0)
    for transform in (RandomGrayscale(0.3), RandomInvert(0.3), RandomEqualize(0.3), RandomPosterize(1, 0.3)):
        changed = [transform(image, rng) is not image for _ in range(400)]
        assert 0.2 < np.mean(changed) < 0.4
    assert RandomErasing(0)(image, rng) is image


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 30), width=st.integers(1, 30), seed=st.integers(0, 99), channels=st.sampled_from([None, 3])
)
def test_an_erased_part_has_its_value_and_nothing_else_changes(height, width, seed, channels):
    """Erase where lineage says, within the limits of area."""
    image = np.full((height, width) if channels is None else (height, width, channels), 7, np.uint8)
    erasing = RandomErasing(p=1, value=9 if channels is None else (9, 10, 11))
    found = erasing(image, np.random.default_rng(seed))
    part = erasing.drawn(image, np.random.default_rng(seed))
    expected = image.copy()
    if "top" in part:
        rows, columns = part["height"], part["width"]
        expected[part["top"] : part["top"] + rows, part["left"] : part["left"] + columns] = erasing.value
        assert rows * columns <= 0.33 * height * width + rows + columns + 1
    np.testing.assert_array_equal(found, expected)
    noise = RandomErasing(p=1, value="random")(image, np.random.default_rng(seed))
    assert noise.dtype == np.uint8


def test_noise_has_its_mean_and_deviation() -> None:
    """Add noise in shares of white, and keep the range."""
    image = np.full((200, 200), 0.5)
    noisy = GaussianNoise(0.1, 0.05)(image, np.random.default_rng(0))
    assert abs(noisy.mean() - 0.6) < 0.002
    assert abs(noisy.std() - 0.05) < 0.002
    gray = GaussianNoise(0, 0.1)(np.full((200, 200), 128, np.uint8), np.random.default_rng(0))
    assert abs(gray.std() - 25.5) < 0.5
    assert GaussianNoise(5, 0, clip=False)(image).max() == 5.5
    assert GaussianNoise(5, 0)(image).max() == 1
    assert GaussianNoise(5, 0, clip=False)(gray).max() == 255


def test_further_images_get_the_same_colors() -> None:
    """Draw once for all images of a sample."""
    image = np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)
    chain = Compose(
        ColorJitter(0.4, 0.4, 0.4, 0.1), RandomErasing(1), GaussianNoise(), kinds={"image": "image", "right": "image"}
    )
    out = chain({"image": image, "right": image.copy(), "boxes": [[0, 0, 1, 1]]}, np.random.default_rng(3))
    np.testing.assert_array_equal(out["image"], out["right"])
    assert out["boxes"] == [[0, 0, 1, 1]]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ColorJitter(hue=0.6), "hue must be shares of the circle"),
        (lambda: ColorJitter(brightness=-1), "brightness must be"),
        (lambda: ColorJitter(contrast=(-1, 1)), "contrast must be factors from 0 up"),
        (lambda: GaussianBlur(4), "kernel_size must be an odd number"),
        (lambda: GaussianBlur((3, True)), "kernel_size must be an odd number"),
        (lambda: GaussianBlur(3, sigma=0), "sigma must be"),
        (lambda: RandomPhotometricDistort(hue=None), r"RandomPhotometricDistort: hue must be \(least, most\)"),
        (lambda: RandomErasing(scale=(0.1, 2)), "scale must be shares"),
        (lambda: RandomErasing(value="noise"), "value must be a number"),
        (lambda: RandomPosterize(9), "bits must be an integer from 0 to 8"),
        (lambda: RandomEqualize(1)(np.zeros((2, 2))), "cannot equalize an image of float64"),
        (lambda: RandomInvert(1)(np.zeros((2, 2), np.int32)), "cannot change the colors of an image of int32"),
        (lambda: RandomGrayscale(1)(np.zeros((2, 2, 5), np.uint8)), "an image of 5 channels"),
    ],
)
def test_what_cannot_be_used_is_refused(make: Any, match: str) -> None:
    """Name the transform, the argument and the value."""
    with pytest.raises(ArgumentError, match=match):
        make()


class TestJitter(TransformTests):
    def make(self) -> Any:
        return ColorJitter(0.4, 0.4, 0.4, 0.1)


class TestDistort(TransformTests):
    def make(self) -> Any:
        return RandomPhotometricDistort()


class TestPermutation(TransformTests):
    def make(self) -> Any:
        return RandomChannelPermutation()


class TestBlur(TransformTests):
    def make(self) -> Any:
        return GaussianBlur(5)


class TestSharpness(TransformTests):
    def make(self) -> Any:
        return RandomAdjustSharpness(2)


class TestAutocontrast(TransformTests):
    def make(self) -> Any:
        return RandomAutocontrast()


class TestErasing(TransformTests):
    def make(self) -> Any:
        return RandomErasing(value="random")


class TestNoise(TransformTests):
    def make(self) -> Any:
        return GaussianNoise()


def test_a_blur_wider_than_127_pixels_weighs_every_pixel_as_floats_do() -> None:
    """Round the sum once: rounded weights of 1023 pixels would leave a negative share for the middle one."""
    image = np.random.default_rng(0).integers(0, 256, (3, 40, 3), np.uint8)
    image[:, 20] = 255
    for size, sigma in (((1, 1023), 500.0), ((129, 129), 40.0)):
        smooth = color.gaussian_blur(image, size, sigma)
        exact = color.gaussian_blur(image.astype(np.float64) / 255, size, sigma) * 255
        assert np.abs(smooth - exact).max() <= 0.5 + 1e-6
