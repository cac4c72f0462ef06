"""Transforms that move pixels: the pixels and the boxes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headrace.errors import ArgumentError
from headrace.transforms import CenterCrop, Pad, RandomCrop, RandomHorizontalFlip, RandomResizedCrop, Resize
from tests.transforms.samples import image_of_noise

sides = st.integers(1, 700)
entropy = st.integers(0, 2**32)


@pytest.mark.parametrize(
    ("size", "before", "after"),
    [
        (256, (375, 500), (256, 341)),
        (256, (500, 375), (341, 256)),
        (32, (33, 33), (32, 32)),
        (100, (3, 7), (100, 233)),
        ((20, 30), (375, 500), (20, 30)),
        ((20, 30), (7, 3), (20, 30)),
    ],
)
def test_resize_takes_a_shorter_side_or_both(size, before, after):
    """One number is the shorter side and the longer follows, rounded down; two are height and width."""
    resized = Resize(size)(image_of_noise(*before))
    assert resized.shape == (*after, 3)
    pillow = Image.fromarray(image_of_noise(*before)).resize(after[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(pillow))


def test_resize_without_antialiasing_is_opencvs():
    """The other library's pixels, by the same name of filter."""
    import cv2

    resized = Resize((20, 30), interpolation="bicubic", antialias=False)(image_of_noise())
    np.testing.assert_array_equal(resized, cv2.resize(image_of_noise(), (30, 20), interpolation=cv2.INTER_CUBIC))


def test_resize_to_the_same_size_returns_the_image():
    """Nothing is copied."""
    image = image_of_noise()
    assert Resize(40)(image) is image
    assert Resize((40, 50))(image) is image


def padded_and_cropped(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop the middle in two steps, as torchvision's center_crop is written: margin first, then the middle."""
    rows, columns = image.shape[:2]
    down, across = max(0, height - rows), max(0, width - columns)
    image = np.pad(image, ((down // 2, (down + 1) // 2), (across // 2, (across + 1) // 2), (0, 0)))
    top, left = round((image.shape[0] - height) / 2.0), round((image.shape[1] - width) / 2.0)
    return image[top : top + height, left : left + width]


@given(before=st.tuples(*[st.integers(1, 30)] * 2), after=st.tuples(*[st.integers(1, 30)] * 2))
@settings(deadline=None)
def test_center_crop_is_torchvisions(before, after):
    """Odd margins and odd remainders are rounded the same way, zeros around where the image is smaller."""
    image = image_of_noise(*before)
    np.testing.assert_array_equal(CenterCrop(after)(image), padded_and_cropped(image, *after))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize(
    ("padding", "around"),
    [(3, (3, 3, 3, 3)), ((2, 5), (2, 5, 2, 5)), ([1, 2, 3, 4], (1, 2, 3, 4)), ((0, 0, 0, 7), (0, 0, 0, 7))],
)
def test_pad_is_numpys(padding, around, mode):
    """One number is for all sides, two for left-right and top-bottom, four for left, top, right, bottom."""
    left, top, right, bottom = around
    expected = np.pad(image_of_noise(), ((top, bottom), (left, right), (0, 0)), mode=mode)
    np.testing.assert_array_equal(Pad(padding, mode=mode)(image_of_noise()), expected)


def test_pad_fills_with_a_color():
    """The margin may have one value for each channel."""
    padded = Pad(1, fill=(10, 20, 30))(image_of_noise())
    assert (padded[0] == (10, 20, 30)).all()
    np.testing.assert_array_equal(padded[1:-1, 1:-1], image_of_noise())


def test_random_horizontal_flip_mirrors_at_its_extremes():
    """Probability 1 always mirrors, 0 never."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        np.testing.assert_array_equal(RandomHorizontalFlip(1)(image_of_noise(), rng), image_of_noise()[:, ::-1])
        np.testing.assert_array_equal(RandomHorizontalFlip(0)(image_of_noise(), rng), image_of_noise())


def test_random_horizontal_flip_has_its_probability():
    """Of 10,000 draws at p = 0.3, the share of mirrored ones lies within 4 standard deviations."""
    image, rng, flip = np.array([[0, 1]]), np.random.default_rng(1), RandomHorizontalFlip(0.3)
    share = np.mean([flip(image, rng)[0, 0] for _ in range(10_000)])
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 10_000)


@given(height=sides, width=sides, size=st.tuples(sides, sides), seed=entropy)
def test_center_crops_box_lies_around_the_middle(height, width, size, seed):
    """It has the size asked for, and its middle is the image's to within a pixel."""
    top, left, rows, columns = CenterCrop(size).box(height, width, np.random.default_rng(seed))
    assert (rows, columns) == size
    assert abs((top + rows / 2) - height / 2) <= 0.5
    assert abs((left + columns / 2) - width / 2) <= 0.5


@given(data=st.data(), height=sides, width=sides, seed=entropy)
def test_random_crops_box_lies_inside(data, height, width, seed):
    """Without padding, the box is inside every image that it fits in."""
    size = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    top, left, rows, columns = RandomCrop(size).box(height, width, np.random.default_rng(seed))
    assert (rows, columns) == size
    assert 0 <= top <= height - rows
    assert 0 <= left <= width - columns


@given(
    height=sides,
    width=sides,
    size=st.tuples(sides, sides),
    padding=st.tuples(*[st.integers(0, 50)] * 4),
    seed=entropy,
)
def test_random_crops_box_lies_inside_the_padded_image(height, width, size, padding, seed):
    """With padding and pad_if_needed, the box is inside what the two add up to."""
    crop = RandomCrop(size, padding=padding, pad_if_needed=True)
    top, left, rows, columns = crop.box(height, width, np.random.default_rng(seed))
    assert (rows, columns) == size
    before_left, before_top, after_right, after_bottom = padding
    lacking = max(0, rows - height - before_top - after_bottom)
    assert -before_top - lacking <= top <= height + after_bottom + lacking - rows
    lacking = max(0, columns - width - before_left - after_right)
    assert -before_left - lacking <= left <= width + after_right + lacking - columns


@given(
    height=sides,
    width=sides,
    scale=st.tuples(*[st.floats(1e-6, 1)] * 2).map(sorted),
    ratio=st.tuples(*[st.floats(1e-3, 1e3)] * 2).map(sorted),
    seed=entropy,
)
def test_random_resized_crops_box_lies_inside(height, width, scale, ratio, seed):
    """The box is inside every image and never empty, for the oddest scales and ratios."""
    crop = RandomResizedCrop(8, scale=scale, ratio=ratio)
    top, left, rows, columns = crop.box(height, width, np.random.default_rng(seed))
    assert rows >= 1
    assert columns >= 1
    assert 0 <= top <= height - rows
    assert 0 <= left <= width - columns


def test_random_crop_goes_everywhere_with_equal_chance():
    """Each of the 12 places is drawn about as often as the others (within 5 standard deviations), corners included."""
    crop, rng, draws = RandomCrop(3), np.random.default_rng(2), 12_000
    places = np.zeros((3, 4))
    for _ in range(draws):
        top, left, _, _ = crop.box(5, 6, rng)
        places[top, left] += 1
    assert np.abs(places - draws / 12).max() < 5 * math.sqrt(draws / 12 * 11 / 12)


def test_random_resized_crop_has_its_scale_and_ratio():
    """Areas are uniform in scale and ratios log-uniform, to 0.01 of their distribution functions."""
    crop = RandomResizedCrop(8, scale=(0.1, 0.4), ratio=(0.5, 2.0))
    rng, side, draws = np.random.default_rng(3), 2000, 40_000
    boxes = np.array([crop.box(side, side, rng) for _ in range(draws)])
    areas = np.sort(boxes[:, 2] * boxes[:, 3] / side**2)
    shapes = np.sort(np.log2(boxes[:, 3] / boxes[:, 2]))
    expected = np.arange(draws) / draws
    assert np.abs((areas - 0.1) / 0.3 - expected).max() < 0.01
    assert np.abs((shapes + 1) / 2 - expected).max() < 0.01


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(1000, 10, (493, 0, 13, 10)), (10, 1000, (0, 493, 10, 13)), (100, 100, (0, 0, 100, 100))],
)
def test_random_resized_crop_falls_back_on_the_middle(height, width, box):
    """Where no draw fits, the largest central part with an allowed shape is taken."""
    assert RandomResizedCrop(8, scale=(1, 1)).box(height, width, Never()) == box


class Never:
    """A generator whose every draw asks for a crop wider than a square image."""

    def random(self, size):
        return np.array([0.5, 0.99, 0.5, 0.5][:size])


def test_random_resized_crop_is_the_crop_then_resized():
    """Pillow's crop and resize of the box that the same numbers give, pixel for pixel."""
    crop, image = RandomResizedCrop((24, 32)), image_of_noise(90, 120)
    top, left, rows, columns = crop.box(90, 120, np.random.default_rng(5))
    part = Image.fromarray(image).crop((left, top, left + columns, top + rows))
    expected = np.asarray(part.resize((32, 24), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(crop(image, np.random.default_rng(5)), expected)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_random_crop_with_padding_is_the_crop_of_the_padded_image(mode):
    """The box, moved by the padding, cuts the same pixels out of numpy.pad's image."""
    crop, image = RandomCrop(40, padding=(3, 4, 5, 6), mode=mode), image_of_noise()
    padded = np.pad(image, ((4, 6), (3, 5), (0, 0)), mode=mode)
    for seed in range(20):
        top, left, _, _ = crop.box(40, 50, np.random.default_rng(seed))
        expected = padded[top + 4 : top + 44, left + 3 : left + 43]
        np.testing.assert_array_equal(crop(image, np.random.default_rng(seed)), expected)


def test_random_crop_pads_only_if_needed():
    """A smaller image is widened by what it lacks on both sides; a larger one is only cut."""
    crop = RandomCrop(20, pad_if_needed=True, fill=7)
    small, rng = image_of_noise(12, 30), np.random.default_rng(0)
    for _ in range(20):
        assert (crop(small, rng) == 7).all(axis=(1, 2)).sum() >= 8
        assert not (crop(image_of_noise(30, 30), rng) == 7).all(axis=2).all()


def test_a_image_too_small_to_mirror_is_refused_whatever_is_drawn():
    """Whether an image is refused does not depend on the random numbers."""
    crop = RandomCrop(8, padding=12, mode="reflect")
    for seed in range(50):
        with pytest.raises(ArgumentError, match="only 9 to mirror"):
            crop(image_of_noise(10, 50), np.random.default_rng(seed))
