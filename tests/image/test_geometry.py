"""Pixels against Pillow's, OpenCV's and NumPy's own."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headrace.errors import ArgumentError, MissingDependency
from headrace.image import geometry

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
FLAGS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
PLAIN = tuple(FLAGS)

lengths = st.integers(1, 40)


def noise(*shape: int, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.normal(size=shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def by_pillow(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((width, height), FILTERS[interpolation]))


@pytest.mark.parametrize("interpolation", FILTERS)
@given(before=st.tuples(lengths, lengths), after=st.tuples(lengths, lengths))
@settings(max_examples=40, deadline=None)
def test_antialiased_bytes_are_pillows(interpolation, before, after):
    """Every pixel of an 8-bit image, color or gray, is exactly what Pillow gives."""
    for image in (noise(*before, 3), noise(*before)):
        resized = geometry.resize(image, *after, interpolation=interpolation)
        assert resized.dtype == np.uint8
        np.testing.assert_array_equal(resized, by_pillow(image, *after, interpolation))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "box"])
@given(before=st.tuples(lengths, lengths), after=st.tuples(lengths, lengths))
@settings(max_examples=20, deadline=None)
def test_antialiased_floats_are_pillows(interpolation, before, after):
    """Every float32 of a plane is exactly what Pillow's floating point mode gives."""
    image = noise(*before, dtype="float32")
    resized = geometry.resize(image, *after, interpolation=interpolation)
    np.testing.assert_array_equal(resized, by_pillow(image, *after, interpolation))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
def test_antialiased_channels_do_not_mix(dtype, channels):
    """Each channel of any number of them is resized as an image of its own, and keeps its dtype."""
    image = noise(30, 40, channels, dtype=dtype)
    resized = geometry.resize(image, 13, 50, interpolation="bicubic")
    assert (resized.shape, resized.dtype) == ((13, 50, channels), image.dtype)
    for channel in range(channels):
        plane = geometry.resize(image[:, :, channel], 13, 50, interpolation="bicubic")
        np.testing.assert_array_equal(resized[:, :, channel], plane)


def test_antialiased_alpha_is_a_channel_like_the_others():
    """Colours are not weighed by a fourth channel, as Pillow would weigh them by alpha."""
    image = noise(20, 20, 4)
    rgb = geometry.resize(image[:, :, :3], 9, 9)
    np.testing.assert_array_equal(geometry.resize(image, 9, 9)[:, :, :3], rgb)


def test_antialiased_sixteen_bits_are_rounded_and_kept_in_range():
    """uint16 is Pillow's floating point result to the nearest whole number, with no wrap where bicubic overshoots."""
    image = np.where(noise(24, 24) > 127, 65535, 0).astype(np.uint16)
    floats = by_pillow(image.astype(np.float32), 37, 37, "bicubic")
    assert floats.max() > 65535
    expected = np.clip(np.rint(floats), 0, 65535).astype(np.uint16)
    np.testing.assert_array_equal(geometry.resize(image, 37, 37, interpolation="bicubic"), expected)


@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "int64", "uint32", "float64"])
def test_nearest_takes_any_dtype_and_makes_no_new_values(dtype):
    """A mask of any dtype gets the values that Pillow's nearest gives."""
    labels = noise(31, 17) % 2
    expected = by_pillow(labels, 50, 8, "nearest").astype(dtype)
    resized = geometry.resize(labels.astype(dtype), 50, 8, interpolation="nearest")
    assert resized.dtype == dtype
    np.testing.assert_array_equal(resized, expected)


@pytest.mark.parametrize("interpolation", PLAIN)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(30, 41), (30, 41, 3), (30, 41, 4)])
def test_plain_pixels_are_opencvs(interpolation, dtype, shape):
    """Without antialiasing, every pixel is exactly what cv2.resize gives."""
    image = noise(*shape, dtype=dtype)
    resized = geometry.resize(image, 20, 55, interpolation=interpolation, antialias=False)
    assert resized.dtype == dtype
    np.testing.assert_array_equal(resized, cv2.resize(image, (55, 20), interpolation=FLAGS[interpolation]))


@pytest.mark.parametrize("channels", [1, 2, 7, 600])
def test_plain_resizing_takes_any_number_of_channels(channels):
    """Channels that OpenCV drops, or cannot hold, are there anyway."""
    image = noise(12, 10, channels)
    resized = geometry.resize(image, 5, 6, antialias=False)
    assert resized.shape == (5, 6, channels)
    for channel in {0, channels - 1}:
        plane = cv2.resize(np.ascontiguousarray(image[:, :, channel]), (6, 5), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(resized[:, :, channel], plane)


def test_plain_half_floats_go_through_single_ones():
    """float16, which OpenCV does not know, is resized as float32 and comes back as float16."""
    image = noise(9, 9, dtype="float16")
    expected = cv2.resize(image.astype(np.float32), (4, 4), interpolation=cv2.INTER_LINEAR).astype(np.float16)
    np.testing.assert_array_equal(geometry.resize(image, 4, 4, antialias=False), expected)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", PLAIN)
@pytest.mark.parametrize("shape", [(40, 50, 3), (40, 50)])
def test_a_box_is_resized_as_if_nothing_were_around_it(shape, interpolation, antialias):
    """Resizing a box equals cutting it out first; contiguous images, views and mirrored ones alike."""
    image = noise(*shape)
    apart = noise(80, 100, *shape[2:])[::2, ::2]
    apart[...] = image
    mirrored = noise(*shape)
    mirrored[...] = image[:, ::-1]
    top, left, height, width = box = (7, 11, 20, 33)
    part = image[top : top + height, left : left + width].copy()
    expected = geometry.resize(part, 16, 14, interpolation=interpolation, antialias=antialias)
    for same in (image, apart, mirrored[:, ::-1], np.asfortranarray(image)):
        np.testing.assert_array_equal(same, image)
        resized = geometry.resize(same, 16, 14, interpolation=interpolation, antialias=antialias, box=box)
        np.testing.assert_array_equal(resized, expected)


@given(data=st.data(), rows=lengths, columns=lengths)
@settings(max_examples=60, deadline=None)
def test_any_box_is_resized_as_pillow_resizes_the_crop(data, rows, columns):
    """The rows with gaps that Pillow is given are the crop's: up to the image's very last pixel."""
    image = noise(rows, columns, 3)
    top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
    height, width = data.draw(st.integers(1, rows - top)), data.draw(st.integers(1, columns - left))
    resized = geometry.resize(image, 6, 5, box=(top, left, height, width))
    part = Image.fromarray(image).crop((left, top, left + width, top + height))
    np.testing.assert_array_equal(resized, np.asarray(part.resize((5, 6), Image.Resampling.BILINEAR)))


def test_the_same_size_is_the_same_image():
    """Nothing is computed, not even for a dtype that could not be resized, and nothing copied."""
    image = noise(10, 12, 3, dtype="int64")
    assert geometry.resize(image, 10, 12) is image
    assert geometry.resize(image, 10, 12, antialias=False) is image
    part = geometry.resize(image, 4, 5, box=(1, 2, 4, 5))
    assert np.shares_memory(part, image)
    np.testing.assert_array_equal(part, image[1:5, 2:7])


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("shape", [(10, 10), (10, 10, 3)])
def test_a_dtype_that_cannot_be_weighed_is_refused(shape, antialias):
    """Whole numbers of other sizes are named, with those that would do."""
    with pytest.raises(ArgumentError, match=r"image of int64 .*expected uint8, uint16, .*interpolation='nearest'"):
        geometry.resize(noise(*shape, dtype="int64"), 5, 5, antialias=antialias)


@pytest.mark.parametrize(("module", "antialias", "cure"), [("PIL", True, "images"), ("cv2", False, "opencv")])
def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch, module, antialias, cure):
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, module, None)
    loader = geometry._pillow if antialias else geometry._opencv
    loader.cache_clear()
    for call in (geometry.load, geometry.check_installed):
        with pytest.raises(MissingDependency, match=rf"pip install 'headrace\[{cure}\]'"):
            call(antialias=antialias)
    monkeypatch.undo()
    assert geometry.load(antialias=antialias)


def test_a_resized_image_can_be_written_to():
    """What is not shared with the image given is the caller's to change."""
    for image in (noise(10, 10, 3), noise(10, 10), noise(10, 10, 3, dtype="float32")):
        for antialias in (True, False):
            assert geometry.resize(image, 5, 5, antialias=antialias).flags.writeable


@pytest.mark.parametrize("mode", geometry.PAD_MODES)
@given(
    rows=lengths,
    columns=lengths,
    channels=st.sampled_from([(), (1,), (3,)]),
    widths=st.tuples(*[st.integers(0, 12)] * 4),
)
@settings(max_examples=40, deadline=None)
def test_padding_is_numpys(mode, rows, columns, channels, widths):
    """Every mode gives what numpy.pad gives, as far as there is something to mirror."""
    image = noise(rows, columns, *channels)
    most = {"reflect": 1, "symmetric": 0}.get(mode, -100)
    left, right = (min(width, columns - most) for width in widths[:2])
    top, bottom = (min(width, rows - most) for width in widths[2:])
    around = [(top, bottom), (left, right), *[(0, 0) for _ in channels]]
    padded = geometry.pad(image, left, top, right, bottom, mode=mode)
    np.testing.assert_array_equal(padded, np.pad(image, around, mode=mode))


@pytest.mark.parametrize("mode", geometry.PAD_MODES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_crop_that_reaches_outside_is_cut_from_the_padded_image(mode, data):
    """Only the part wanted is made, with the pixels that padding first would give."""
    image = noise(9, 11, 3)
    padded = geometry.pad(image, 8, 8, 8, 8, mode=mode)
    top, left = data.draw(st.integers(-8, 16)), data.draw(st.integers(-8, 18))
    height, width = data.draw(st.integers(1, 17 - top)), data.draw(st.integers(1, 19 - left))
    expected = padded[top + 8 : top + 8 + height, left + 8 : left + 8 + width]
    np.testing.assert_array_equal(geometry.crop(image, top, left, height, width, mode=mode), expected)


def test_a_crop_inside_is_a_view():
    """Nothing is copied where nothing is added."""
    image = noise(9, 11, 3)
    part = geometry.crop(image, 2, 3, 7, 8)
    assert np.shares_memory(part, image)
    np.testing.assert_array_equal(part, image[2:, 3:])


def test_fill_is_one_number_or_one_for_each_channel():
    """The margin has the color asked for."""
    image = noise(4, 4, 3)
    assert (geometry.pad(image, 1, 1, 1, 1, fill=200)[0] == 200).all()
    assert (geometry.pad(image, 1, 1, 1, 1, fill=(1, 2, 3))[:, 0] == (1, 2, 3)).all()
    assert (geometry.pad(image[:, :, 0], 1, 1, 1, 1, fill=(9,))[0] == 9).all()
    assert (geometry.pad(image.astype(np.float32), 1, 1, 1, 1, fill=0.25)[0] == 0.25).all()


@pytest.mark.parametrize(
    ("fill", "dtype", "message"),
    [
        (256, "uint8", r"fill=256 .*uint8.*0 to 255"),
        (-1, "uint16", r"fill=-1 .*uint16.*0 to 65535"),
        (0.5, "uint8", r"fill=0\.5 .*whole numbers"),
        (2, "bool", r"fill=2 .*bool.*0 to 1"),
        ((1, 2), "uint8", "fill has 2 values.*the image has 3"),
    ],
)
def test_a_fill_that_does_not_fit_is_refused(fill, dtype, message):
    """A value is never wrapped or rounded to fit."""
    with pytest.raises(ArgumentError, match=message):
        geometry.pad(noise(4, 4, 3).astype(dtype), 1, 1, 1, 1, fill=fill)


@pytest.mark.parametrize(("mode", "most"), [("reflect", 4), ("symmetric", 5)])
def test_mirroring_more_than_there_is_is_refused(mode, most):
    """The error says how many pixels the side has to mirror."""
    image = noise(5, 30, 3)
    assert geometry.pad(image, 0, most, 0, most, mode=mode).shape == (5 + 2 * most, 30, 3)
    with pytest.raises(ArgumentError, match=rf"padding of {most + 1} .*mode='{mode}'.* only {most} to mirror"):
        geometry.pad(image, 0, 0, 0, most + 1, mode=mode)


@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 1), (6, 9, 3), (6, 9, 5)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64"])
def test_a_mirrored_image_is_numpys_and_its_own(shape, dtype):
    """Columns come in reverse, in a new contiguous array."""
    image = noise(*shape, dtype=dtype)
    mirrored = geometry.flip(image)
    np.testing.assert_array_equal(mirrored, image[:, ::-1])
    assert mirrored.flags.c_contiguous
    assert not np.shares_memory(mirrored, image)


def test_an_image_of_one_pixel_that_was_turned_is_scaled() -> None:
    """Trust no stride of a side of length one: NumPy leaves it below 0, and calls the array contiguous."""
    turned = np.full((1, 1, 3), 9, np.uint8)[:, ::-1]
    assert (geometry.resize(turned, 1, 2) == 9).all()
    assert (geometry.resize(turned[::-1], 2, 2) == 9).all()
