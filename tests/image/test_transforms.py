"""Transforms as their users call them."""

from __future__ import annotations

import dataclasses
import functools
import math
import pickle
import struct
import sys
from collections import OrderedDict
from types import MappingProxyType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headrace.context import seeds
from headrace.errors import ArgumentError, MissingDependency
from headrace.image import geometry
from headrace.image.transforms import (
    CenterCrop,
    Compose,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToDtype,
    ToFloat,
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

RANDOM = [RandomCrop(20), RandomCrop(44, padding=6), RandomResizedCrop(16), RandomHorizontalFlip()]
FIXED = [
    Resize(16),
    Resize((8, 24), interpolation="nearest"),
    CenterCrop(30),
    Pad(2, mode="reflect"),
    ToFloat(),
    Normalize(0.5, 0.5),
    ToCHW(),
    ToDtype("float16"),
    ToDtype("bfloat16"),
]

HALVES = st.sampled_from(["float16", "bfloat16"])
sides = st.integers(1, 700)
entropy = st.integers(0, 2**32)


def picture(height: int = 40, width: int = 50, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def input_of(transform) -> np.ndarray:
    return picture() / np.float32(255) if isinstance(transform, (Normalize, ToDtype)) else picture()


class Unasked:
    """A generator that must not be drawn from."""

    def __getattr__(self, name):
        raise AssertionError(f"drew {name} from the generator")


class Pair(NamedTuple):
    image: np.ndarray
    label: int


class Row(tuple):
    """A tuple of another type, with no field names."""

    __slots__ = ()


# What each does to pixels


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
    resized = Resize(size)(picture(*before))
    assert resized.shape == (*after, 3)
    pillow = Image.fromarray(picture(*before)).resize(after[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(resized, np.asarray(pillow))


def test_resize_without_antialiasing_is_opencvs():
    """The other library's pixels, by the same name of filter."""
    import cv2

    resized = Resize((20, 30), interpolation="bicubic", antialias=False)(picture())
    np.testing.assert_array_equal(resized, cv2.resize(picture(), (30, 20), interpolation=cv2.INTER_CUBIC))


def test_resize_to_the_same_size_returns_the_picture():
    """Nothing is copied."""
    image = picture()
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
    """Odd margins and odd remainders are rounded the same way, zeros around where the picture is smaller."""
    image = picture(*before)
    np.testing.assert_array_equal(CenterCrop(after)(image), padded_and_cropped(image, *after))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize(
    ("padding", "around"),
    [(3, (3, 3, 3, 3)), ((2, 5), (2, 5, 2, 5)), ([1, 2, 3, 4], (1, 2, 3, 4)), ((0, 0, 0, 7), (0, 0, 0, 7))],
)
def test_pad_is_numpys(padding, around, mode):
    """One number is for all sides, two for left-right and top-bottom, four for left, top, right, bottom."""
    left, top, right, bottom = around
    expected = np.pad(picture(), ((top, bottom), (left, right), (0, 0)), mode=mode)
    np.testing.assert_array_equal(Pad(padding, mode=mode)(picture()), expected)


def test_pad_fills_with_a_colour():
    """The margin may have one value for each channel."""
    padded = Pad(1, fill=(10, 20, 30))(picture())
    assert (padded[0] == (10, 20, 30)).all()
    np.testing.assert_array_equal(padded[1:-1, 1:-1], picture())


def test_random_horizontal_flip_mirrors_at_its_extremes():
    """Probability 1 always mirrors, 0 never."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        np.testing.assert_array_equal(RandomHorizontalFlip(1)(picture(), rng), picture()[:, ::-1])
        np.testing.assert_array_equal(RandomHorizontalFlip(0)(picture(), rng), picture())


def test_random_horizontal_flip_has_its_probability():
    """Of 10,000 draws at p = 0.3, the share of mirrored ones lies within 4 standard deviations."""
    image, rng, flip = np.array([[0, 1]]), np.random.default_rng(1), RandomHorizontalFlip(0.3)
    share = np.mean([flip(image, rng)[0, 0] for _ in range(10_000)])
    assert abs(share - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 10_000)


@pytest.mark.parametrize(("dtype", "most"), [("uint8", 255), ("uint16", 65535)])
def test_to_float_divides_in_float32_bit_for_bit(dtype, most):
    """Every value there is gives np.float32(x) / np.float32(255), or 65535."""
    values = np.arange(most + 1, dtype=dtype).reshape(-1, 16)
    floats = ToFloat()(values)
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, values.astype(np.float32) / np.float32(most))


def test_to_float_keeps_the_values_of_floats_and_masks():
    """float32 is returned itself, other floats as float32, booleans as 0 and 1."""
    single = picture().astype(np.float32)
    assert ToFloat()(single) is single
    for values in (single.astype(np.float64), single.astype(np.float16), single > 100):
        floats = ToFloat()(values)
        assert floats.dtype == np.float32
        np.testing.assert_array_equal(floats, values.astype(np.float32))


def views(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return the same picture as it may lie in memory."""
    wide = np.zeros((image.shape[0] + 4, image.shape[1] + 6, *image.shape[2:]), image.dtype)
    wide[2:-2, 3:-3] = image
    mirrored = np.ascontiguousarray(image[:, ::-1])
    planes = np.ascontiguousarray(np.moveaxis(image, -1, 0))
    found = {
        "contiguous": image,
        "crop": wide[2:-2, 3:-3],
        "mirrored": mirrored[:, ::-1],
        "planes": np.moveaxis(planes, 0, -1),
        "fortran": np.asfortranarray(image),
        "read-only": image.copy(),
    }
    found["read-only"].setflags(write=False)
    return found


def naive(floats: np.ndarray, mean=MEAN, std=STD) -> np.ndarray:
    return (floats - np.array(mean, np.float32)) / np.array(std, np.float32)


@pytest.mark.parametrize("memory", ["contiguous", "crop", "mirrored", "planes", "fortran", "read-only"])
@pytest.mark.parametrize("shape", [(40, 50), (1, 1), (1, 7), (3, 3)])
def test_normalize_is_the_formula_bit_for_bit(shape, memory):
    """(image - mean) / std in float32, however the picture lies in memory, which is not written to."""
    floats = picture(*shape) / np.float32(255)
    given = views(floats)[memory]
    normal = Normalize(MEAN, STD)(given)
    assert normal.dtype == np.float32
    np.testing.assert_array_equal(normal, naive(floats))
    np.testing.assert_array_equal(given, floats)
    first = Normalize(MEAN, STD, channels_first=True)(given.transpose(2, 0, 1))
    np.testing.assert_array_equal(first, naive(floats).transpose(2, 0, 1))
    np.testing.assert_array_equal(given, floats)


@pytest.mark.parametrize("memory", ["contiguous", "crop", "mirrored", "planes", "fortran", "read-only"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64", "float16"])
def test_to_float_and_normalize_composed_are_the_formula_bit_for_bit(dtype, memory):
    """What Compose does in one array is what the two do apart, and the picture given stays as it was."""
    image = picture().astype(dtype)
    given = views(image)[memory]
    composed = Compose(ToFloat(), Normalize(MEAN, STD), ToCHW())(given)
    most = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    expected = naive(image.astype(np.float32) / np.float32(most)).transpose(2, 0, 1)
    np.testing.assert_array_equal(composed, expected)
    np.testing.assert_array_equal(given, image)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_normalize_computes_other_floats_in_float32(dtype):
    """They are made float32 first; the picture given stays as it was."""
    floats = (picture() / 255).astype(dtype)
    before = floats.copy()
    normal = Normalize(MEAN, STD)(floats)
    assert normal.dtype == np.float32
    np.testing.assert_array_equal(normal, naive(floats.astype(np.float32)))
    np.testing.assert_array_equal(floats, before)


def test_normalize_takes_one_number_for_every_channel():
    """A number, or a sequence of one, serves gray pictures and any number of channels, first or last."""
    for shape in ((6, 8), (6, 8, 1), (6, 8, 3), (6, 8, 5)):
        floats = np.random.default_rng(0).random(shape, dtype=np.float32)
        expected = (floats - np.float32(0.1)) / np.float32(0.2)
        for first in (False, True):
            np.testing.assert_array_equal(Normalize(0.1, (0.2,), channels_first=first)(floats), expected)
    colour = np.random.default_rng(0).random((6, 8, 3), dtype=np.float32)
    np.testing.assert_array_equal(Normalize(0.5, STD)(colour), naive(colour, mean=(0.5,) * 3))
    assert Normalize(0.5, STD) == Normalize((0.5,) * 3, STD)


def test_to_chw_moves_the_channels_and_copies_nothing():
    """Colour and gray pictures become channels, height, width: a view of the same memory."""
    image = picture()
    moved = ToCHW()(image)
    np.testing.assert_array_equal(moved, np.moveaxis(image, 2, 0))
    assert ToCHW()(image[:, :, 0]).shape == (1, 40, 50)
    assert np.shares_memory(moved, image)


def half_by_hand(value: float, dtype: str) -> int:
    """Round one float32 to the bits of a half, without NumPy: Python's own for float16, by the rule for bfloat16."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    if dtype == "bfloat16":
        return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    try:
        return int.from_bytes(struct.pack("<e", value), "little")
    except OverflowError:
        return 0x7C00 | bits >> 31 << 15


@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=60), dtype=HALVES)
def test_to_dtype_rounds_to_the_nearest_and_to_even(values, dtype):
    """Give the bits that rounding by hand gives, beyond the largest value too, whatever NumPy is told to raise."""
    with np.errstate(all="raise"):
        halves = ToDtype(dtype)(np.array([values], np.float32))
    assert halves.dtype.name == dtype
    assert halves.view(np.uint16)[0].tolist() == [half_by_hand(value, dtype) for value in values]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_to_dtype_keeps_what_is_no_number_and_warns_of_nothing(dtype):
    """NaN and infinities stay; what is too large becomes infinity. (A warning fails a test here.)"""
    given = np.array([[np.nan, np.inf, -np.inf, 1e300, -1e300, 1e-300]])
    for floats in (given, given.astype(np.longdouble)):
        kept = ToDtype(dtype)(floats).astype(np.float64)
        np.testing.assert_array_equal(kept, [[np.nan, np.inf, -np.inf, np.inf, -np.inf, 0]])


def test_to_dtype_takes_every_float_and_gives_every_other():
    """From each of the dtypes to each: the same values where both hold them, and the picture itself where it is one."""
    numbers = np.arange(-8, 8, 0.25).reshape(8, 8)
    dtypes = [np.float16, ml_dtypes.bfloat16, np.float32]
    for before in [*dtypes, np.float64]:
        given = numbers.astype(before)
        for dtype in dtypes:
            found = ToDtype(dtype)(given)
            assert found.dtype == dtype
            assert (found is given) is (before is dtype)
            np.testing.assert_array_equal(found.astype(np.float64), numbers)
        np.testing.assert_array_equal(ToFloat()(given), numbers.astype(np.float32))
        np.testing.assert_array_equal(Normalize(1, 2)(given), (numbers.astype(np.float32) - 1) / 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_to_dtype_stands_before_or_behind_to_chw(dtype):
    """The same values either way, and Compose has nothing against either."""
    chain = [ToFloat(), Normalize(MEAN, STD)]
    behind = Compose(*chain, ToCHW(), ToDtype(dtype))(picture())
    before = Compose(*chain, ToDtype(dtype), ToCHW())(picture())
    assert behind.shape == (3, 40, 50)
    np.testing.assert_array_equal(behind.view(np.uint16), before.astype(behind.dtype).copy().view(np.uint16))


def test_bfloat16_without_its_library_is_refused_at_the_door(monkeypatch):
    """The error names the library and how to install it; float16 is NumPy's own."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingDependency, match=r"bfloat16 needs ml_dtypes.*pip install 'headrace\[bfloat16\]'"):
        ToDtype("bfloat16")
    assert ToDtype("float16")(np.ones((2, 2), np.float32)).dtype == np.float16


# Boxes


@given(height=sides, width=sides, size=st.tuples(sides, sides), seed=entropy)
def test_center_crops_box_lies_around_the_middle(height, width, size, seed):
    """It has the size asked for, and its middle is the picture's to within a pixel."""
    top, left, rows, columns = CenterCrop(size).box(height, width, np.random.default_rng(seed))
    assert (rows, columns) == size
    assert abs((top + rows / 2) - height / 2) <= 0.5
    assert abs((left + columns / 2) - width / 2) <= 0.5


@given(data=st.data(), height=sides, width=sides, seed=entropy)
def test_random_crops_box_lies_inside(data, height, width, seed):
    """Without padding, the box is inside every picture that it fits in."""
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
def test_random_crops_box_lies_inside_the_padded_picture(height, width, size, padding, seed):
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
    """The box is inside every picture and never empty, for the oddest scales and ratios."""
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
    """A generator whose every draw asks for a crop wider than a square picture."""

    def random(self, size):
        return np.array([0.5, 0.99, 0.5, 0.5][:size])


def test_random_resized_crop_is_the_crop_then_resized():
    """Pillow's crop and resize of the box that the same numbers give, pixel for pixel."""
    crop, image = RandomResizedCrop((24, 32)), picture(90, 120)
    top, left, rows, columns = crop.box(90, 120, np.random.default_rng(5))
    part = Image.fromarray(image).crop((left, top, left + columns, top + rows))
    expected = np.asarray(part.resize((32, 24), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(crop(image, np.random.default_rng(5)), expected)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
def test_random_crop_with_padding_is_the_crop_of_the_padded_picture(mode):
    """The box, moved by the padding, cuts the same pixels out of numpy.pad's picture."""
    crop, image = RandomCrop(40, padding=(3, 4, 5, 6), mode=mode), picture()
    padded = np.pad(image, ((4, 6), (3, 5), (0, 0)), mode=mode)
    for seed in range(20):
        top, left, _, _ = crop.box(40, 50, np.random.default_rng(seed))
        expected = padded[top + 4 : top + 44, left + 3 : left + 43]
        np.testing.assert_array_equal(crop(image, np.random.default_rng(seed)), expected)


def test_random_crop_pads_only_if_needed():
    """A smaller picture is widened by what it lacks on both sides; a larger one is only cut."""
    crop = RandomCrop(20, pad_if_needed=True, fill=7)
    small, rng = picture(12, 30), np.random.default_rng(0)
    for _ in range(20):
        assert (crop(small, rng) == 7).all(axis=(1, 2)).sum() >= 8
        assert not (crop(picture(30, 30), rng) == 7).all(axis=2).all()


# How they are called


@pytest.mark.parametrize("transform", [*RANDOM, *FIXED], ids=repr)
def test_every_form_of_sample_gets_the_same_pixels(transform):
    """An array alone, first in a tuple or list, or under "image": the rest passes through, the type stays."""
    image = input_of(transform)
    expected = transform(image, np.random.default_rng(9))

    def made(sample):
        return transform(sample, np.random.default_rng(9))

    for sample in ((image, 3), [image, 3], Pair(image, 3), Row((image, 3))):
        out = made(sample)
        assert type(out) is type(sample)
        assert out[1] == 3
        np.testing.assert_array_equal(out[0], expected)
    for sample in ({"image": image, "label": 3}, OrderedDict(image=image, label=3)):
        out = made(sample)
        assert type(out) is type(sample)
        assert out["label"] == 3
        np.testing.assert_array_equal(out["image"], expected)
        assert sample["image"] is image
    out = made(MappingProxyType({"image": image, "label": 3}))
    assert out["label"] == 3
    np.testing.assert_array_equal(out["image"], expected)


@pytest.mark.parametrize("transform", RANDOM, ids=repr)
def test_the_same_generator_gives_the_same_picture(transform):
    """A transform draws from the generator given, and else from the sample's own."""
    here = seeds.Here(seeds.key_of(1), epoch=2, position=3)
    with seeds.at(here):
        own = transform(picture())
    given = transform(picture(), seeds.generator(seeds.key_of(1), seeds.Purpose.SAMPLE, 2, 3))
    np.testing.assert_array_equal(own, given)
    several = [transform(picture(), np.random.default_rng(seed)) for seed in range(20)]
    assert any(not np.array_equal(several[0], other) for other in several)


@pytest.mark.parametrize("transform", FIXED, ids=repr)
def test_what_is_not_random_never_asks_for_a_generator(transform):
    """Neither the generator given nor the sample's own is touched, which is not even made."""
    here = seeds.Here(seeds.key_of(1), epoch=0)
    with seeds.at(here):
        transform(input_of(transform))
        Compose(transform, lambda image: image)(input_of(transform))
    assert here._generator is None
    transform(input_of(transform), Unasked())


def test_outside_a_loader_random_transforms_work_too():
    """With no generator and no place in the data, they draw from a fresh one."""
    assert RandomResizedCrop(16)(picture()).shape == (16, 16, 3)


@pytest.mark.parametrize("transform", [*RANDOM, *FIXED], ids=repr)
@pytest.mark.parametrize(
    ("sample", "found"),
    [
        (None, "a NoneType"),
        ("a.jpg", "a str"),
        ((), "a tuple"),
        (("a.jpg", 3), "a str"),
        ([3, picture()], "an int"),
        ({"picture": 3}, r"a dict: the keys are \['picture'\]"),
        ({"image": None}, "a NoneType"),
        (Image.new("RGB", (4, 4)), r"a PIL\.Image\.Image: np\.asarray\(picture\.convert\('RGB'\)\)"),
    ],
    ids=repr,
)
def test_what_is_no_picture_is_refused(transform, sample, found):
    """The error names the transform, what it takes and the type that it got."""
    with pytest.raises(ArgumentError, match=rf"^{type(transform).__name__} takes a picture .* got {found}"):
        transform(sample)


@pytest.mark.parametrize("transform", [*RANDOM, *FIXED], ids=repr)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4, 3), (0, 5, 3), (5, 0), (5, 5, 0)], ids=repr)
def test_a_shape_that_no_picture_has_is_refused(transform, shape):
    """The error names the transform and the shape."""
    with pytest.raises(ArgumentError) as error:
        transform(np.zeros(shape, np.float32))
    assert str(error.value).startswith(f"{type(transform).__name__} takes a picture of shape (H, W) or (H, W, C)")
    assert str(error.value).endswith(f"got an array of shape {shape}")


# What they are


@pytest.mark.parametrize(
    "transform", [*RANDOM, *FIXED, Compose(*RANDOM[1:], ToFloat(), Normalize(MEAN, STD))], ids=repr
)
def test_transforms_are_values(transform):
    """They cannot be changed; equal ones are equal, hash alike, print as they are written, and pickle."""
    name = dataclasses.fields(transform)[0].name if dataclasses.fields(transform) else "p"
    with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
        setattr(transform, name, 3)
    assert not hasattr(transform, "__dict__")
    again = pickle.loads(pickle.dumps(transform))
    assert again == transform
    assert hash(again) == hash(transform)
    assert eval(repr(transform)) == transform
    image = input_of(transform)
    np.testing.assert_array_equal(again(image, np.random.default_rng(0)), transform(image, np.random.default_rng(0)))


def test_arguments_of_other_types_become_the_same_transform():
    """Lists, NumPy's numbers and one size for two mean what tuples and plain numbers mean."""
    assert RandomCrop(np.int64(8), padding=[1, 2]) == RandomCrop((8, 8), padding=(1, 2, 1, 2))
    assert Resize([3, 4]) == Resize((3, 4)) != Resize(3)
    assert Normalize(np.array([0.5, 0.25]), [1, 2]) == Normalize((0.5, 0.25), (1.0, 2.0))
    assert RandomResizedCrop(8, scale=[0.5, 1]) == RandomResizedCrop((8, 8), scale=(0.5, 1.0))
    assert RandomHorizontalFlip(1) == RandomHorizontalFlip(np.float32(1))
    assert ToDtype("half") == ToDtype(np.float16) == ToDtype(np.dtype("<f2")) == ToDtype("float16")
    assert ToDtype(ml_dtypes.bfloat16) == ToDtype(np.dtype(ml_dtypes.bfloat16)) == ToDtype("bfloat16")
    assert ToDtype(np.float32) == ToDtype("float32")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resize(0), "Resize: size .*got 0"),
        (lambda: Resize(size=True), "Resize: size .*got True"),
        (lambda: Resize(2.5), r"Resize: size .*got 2\.5"),
        (lambda: Resize("224"), "Resize: size .*got '224'"),
        (lambda: Resize((1, 2, 3)), r"Resize: size .*got \(1, 2, 3\)"),
        (lambda: Resize((224,)), r"Resize: size .*got \(224,\)"),
        (lambda: Resize(8, interpolation="linear"), "Resize: interpolation .*'bilinear'.*got 'linear'"),
        (lambda: Resize(8, antialias=None), "Resize: antialias .*got None"),
        (lambda: Resize(8, interpolation="lanczos", antialias=False), "Resize: interpolation='lanczos'"),
        (lambda: CenterCrop(-1), "CenterCrop: size .*got -1"),
        (lambda: CenterCrop(None), "CenterCrop: size .*got None"),
        (lambda: RandomCrop((8, 0)), "RandomCrop: size .*got 0"),
        (lambda: RandomCrop(8, padding=(1, 2, 3)), r"RandomCrop: padding .*got \(1, 2, 3\)"),
        (lambda: RandomCrop(8, padding=-1), "RandomCrop: padding .*got -1"),
        (lambda: RandomCrop(8, mode="mirror"), "RandomCrop: mode .*'reflect'.*got 'mirror'"),
        (lambda: RandomCrop(8, fill="black"), "RandomCrop: fill .*got 'black'"),
        (lambda: RandomResizedCrop(0), "RandomResizedCrop: size .*got 0"),
        (lambda: RandomResizedCrop(8, scale=(1, 0.5)), "RandomResizedCrop: scale .*in order"),
        (lambda: RandomResizedCrop(8, scale=(0, 1)), "RandomResizedCrop: scale .*above 0"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 2)), "RandomResizedCrop: scale .*at most 1"),
        (lambda: RandomResizedCrop(8, scale=0.5), r"RandomResizedCrop: scale .*got 0\.5"),
        (lambda: RandomResizedCrop(8, scale=(0.5, math.nan)), "RandomResizedCrop: scale .*got nan"),
        (lambda: RandomResizedCrop(8, ratio=(2, 1)), "RandomResizedCrop: ratio .*in order"),
        (lambda: RandomResizedCrop(8, interpolation="area"), "RandomResizedCrop: interpolation .*got 'area'"),
        (lambda: RandomResizedCrop(8, antialias=1), "RandomResizedCrop: antialias .*got 1"),
        (lambda: RandomHorizontalFlip(1.5), r"RandomHorizontalFlip: p .*got 1\.5"),
        (lambda: RandomHorizontalFlip(-0.1), r"RandomHorizontalFlip: p .*got -0\.1"),
        (lambda: RandomHorizontalFlip("half"), "RandomHorizontalFlip: p .*got 'half'"),
        (lambda: Pad(()), r"Pad: padding .*got \(\)"),
        (lambda: Pad(1.5), r"Pad: padding .*got 1\.5"),
        (lambda: Pad(1, mode="wrap"), "Pad: mode .*got 'wrap'"),
        (lambda: Pad(1, fill=None), "Pad: fill .*got None"),
        (lambda: Normalize((0.5,) * 3, (0.5,) * 4), "Normalize: mean and std .*got 3 in mean and 4 in std"),
        (lambda: Normalize(0, (1, 0)), r"Normalize: std must not be 0.*got \(1, 0\)"),
        (lambda: Normalize(0, 1e-60), r"Normalize: std must not be 0.*got 1e-60"),
        (lambda: Normalize((), 1), r"Normalize: mean .*got \(\)"),
        (lambda: Normalize(1e60, 1), r"Normalize: mean .*float32; got 1e\+60"),
        (lambda: Normalize("0.5", 1), "Normalize: mean .*got '0.5'"),
        (lambda: Normalize(0, math.inf), "Normalize: std .*got inf"),
        (lambda: ToDtype("float64"), 'ToDtype: dtype must be "float16", "bfloat16" or "float32"; got .float64'),
        (lambda: ToDtype("bfloat"), "ToDtype: dtype .*got 'bfloat'"),
        (lambda: ToDtype(np.uint8), "ToDtype: dtype .*got <class 'numpy.uint8'>"),
        (lambda: ToDtype(np.dtype(">f2")), "ToDtype: dtype .*got dtype"),
        (lambda: ToDtype(None), "ToDtype: dtype .*got None"),
        (lambda: ToDtype(2), "ToDtype: dtype .*got 2"),
    ],
)
def test_a_bad_argument_is_named_at_the_door(make, message):
    """The error says which transform, which argument and what was given, before any picture is seen."""
    with pytest.raises(ArgumentError, match=f"^{message}"):
        make()


@pytest.mark.parametrize(
    ("transform", "image", "message"),
    [
        (RandomCrop(64), picture(), "RandomCrop of 64 x 64 .*picture of 40 x 50 .*pad_if_needed=True"),
        (RandomCrop(50, padding=(0, 4)), picture(), "RandomCrop of 50 x 50 .*picture of 40 x 50"),
        (RandomCrop(8, padding=60, mode="reflect"), picture(), "padding of 60 .*only 39 to mirror"),
        (Pad(40, mode="reflect"), picture(), "padding of 40 .*only 39 to mirror"),
        (ToFloat(), picture().astype(np.int64), "ToFloat takes uint8.*int64"),
        (Normalize(MEAN, STD), picture(), r"uint8: put ToFloat\(\) before Normalize"),
        (
            ToDtype("float16"),
            picture(),
            r"^ToDtype takes floats; got .* uint8: put ToFloat\(\) before ToDtype",
        ),
        (ToDtype("bfloat16"), picture() > 9, r"bool: put ToFloat\(\) before ToDtype"),
        (Normalize(MEAN, STD), np.zeros((3, 40, 50), np.float32), "3 channels.*picture has 50.*channels_first=True"),
        (Normalize(MEAN, STD), np.zeros((40, 50), np.float32), "3 channels.*picture has 1 "),
        (Normalize(MEAN, STD, channels_first=True), np.zeros((40, 50, 3), np.float32), "3 channels.*picture has 40"),
    ],
)
def test_a_picture_that_does_not_fit_is_refused_with_the_cure(transform, image, message):
    """The error says what the picture is and what to do."""
    with pytest.raises(ArgumentError, match=message):
        transform(image)


def test_a_picture_too_small_to_mirror_is_refused_whatever_is_drawn():
    """Whether a picture is refused does not depend on the random numbers."""
    crop = RandomCrop(8, padding=12, mode="reflect")
    for seed in range(50):
        with pytest.raises(ArgumentError, match="only 9 to mirror"):
            crop(picture(10, 50), np.random.default_rng(seed))


# Compose


def test_compose_applies_in_order():
    """The first transform comes first."""
    image = picture()
    np.testing.assert_array_equal(Compose(CenterCrop(20), Pad(2))(image), Pad(2)(CenterCrop(20)(image)))
    assert Compose(CenterCrop(20), Pad(2))(image).shape == (24, 24, 3)
    assert Compose(Pad(2), CenterCrop(20))(image).shape == (20, 20, 3)


def test_compose_takes_a_list_and_flattens_others():
    """However they are given, the same transforms in the same order are the same Compose."""
    flat = Compose(Pad(1), CenterCrop(20), ToFloat(), ToCHW())
    assert Compose([Pad(1), CenterCrop(20), ToFloat(), ToCHW()]) == flat
    assert Compose(Pad(1), Compose(CenterCrop(20), Compose([ToFloat()])), ToCHW()) == flat
    assert flat.transforms == (Pad(1), CenterCrop(20), ToFloat(), ToCHW())
    assert Compose(Pad(1), ToCHW()) != flat


def test_compose_of_nothing_is_the_identity():
    """An empty Compose returns the sample itself, whatever it is."""
    sample = object()
    assert Compose()(sample) is sample
    assert Compose([])(sample) is sample


def brighter(sample, rng):
    image, label = sample
    return image + np.float32(rng.random()), label


def doubled(sample):
    return (sample[0] * 2, sample[1])


def test_compose_draws_what_its_transforms_would_draw():
    """All draw from one generator in order, users' functions of (sample, rng) among them."""
    steps = (RandomResizedCrop(16), ToFloat(), brighter, doubled, RandomHorizontalFlip(), RandomCrop(8))
    rng = np.random.default_rng(4)
    by_hand = (picture(), 5)
    for step in steps:
        by_hand = step(by_hand) if step is doubled else step(by_hand, rng)
    composed = Compose(*steps)((picture(), 5), np.random.default_rng(4))
    np.testing.assert_array_equal(composed[0], by_hand[0])
    assert composed[1] == 5
    here = seeds.Here(seeds.key_of(0), epoch=0)
    with seeds.at(here):
        own = Compose(*steps)((picture(), 5))
    generator = seeds.generator(seeds.key_of(0), seeds.Purpose.SAMPLE, 0, 0)
    np.testing.assert_array_equal(own[0], Compose(*steps)((picture(), 5), generator)[0])


def test_compose_pickles_with_users_functions():
    """Functions of a module travel by name."""
    compose = Compose(ToFloat(), Normalize(MEAN, STD), brighter, functools.partial(doubled))
    again = pickle.loads(pickle.dumps(compose))
    expected = compose((picture(), 1), np.random.default_rng(0))
    np.testing.assert_array_equal(again((picture(), 1), np.random.default_rng(0))[0], expected[0])


def test_compose_refuses_what_cannot_be_called():
    """The error shows the transform that is none."""
    with pytest.raises(ArgumentError, match="'flip', a str, which cannot be called"):
        Compose(ToFloat(), "flip")


@pytest.mark.parametrize("late", [Resize(8), RandomCrop(8), RandomHorizontalFlip(), Pad(1), ToCHW()], ids=repr)
def test_compose_refuses_what_wants_channels_last_after_to_chw(late):
    """A picture with channels first would be taken for one three pixels high."""
    with pytest.raises(ArgumentError, match=f"{type(late).__name__} wants channels last, but follows ToCHW"):
        Compose(ToCHW(), ToFloat(), late)
    assert Compose(ToCHW(), lambda image: image.transpose(1, 2, 0), late).transforms[-1] == late


def test_compose_refuses_normalize_with_channels_last_after_to_chw():
    """The error says how to say that the channels are first; said so, it works."""
    with pytest.raises(ArgumentError, match="channels_first=True"):
        Compose(ToFloat(), ToCHW(), Normalize(MEAN, STD))
    first = Compose(ToCHW(), ToFloat(), Normalize(MEAN, STD, channels_first=True))(picture())
    np.testing.assert_array_equal(first, Compose(ToFloat(), Normalize(MEAN, STD), ToCHW())(picture()))


def test_composed_to_float_still_goes_by_its_name():
    """Errors of what Compose joins name the transform that the user wrote."""
    compose = Compose(ToFloat(), Normalize(MEAN, STD))
    with pytest.raises(ArgumentError, match=r"^ToFloat takes a picture"):
        compose("a.jpg")
    with pytest.raises(ArgumentError, match=r"^ToFloat takes uint8"):
        compose(picture().astype(np.int32))
    with pytest.raises(ArgumentError, match=r"^Normalize has 3 channels"):
        compose(picture(channels=4))
    assert repr(compose) == f"Compose(ToFloat(), {Normalize(MEAN, STD)!r})"


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "view", [lambda x: x, lambda x: x[:, ::-1], lambda x: x[3:20, 5:, :]], ids=["own", "mirror", "crop"]
)
@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_common_end_of_a_chain_is_looked_up_bit_for_bit(
    channels: int, view: Any, opencv: bool, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Give ToFloat, Normalize, ToCHW and ToDtype at once the very bits of each apart, with OpenCV or without."""
    if not opencv:
        monkeypatch.setattr(geometry, "_opencv_if_there", lambda: None)
    image = view(np.random.default_rng(0).integers(0, 256, (40, 30, channels), np.uint8))
    apart = [ToFloat(), Normalize([0.485, 0.4, 0.2, 0.1][:channels], [0.229, 0.3, 1e-3, 7.0][:channels]), ToCHW()]
    if dtype != "float32":
        apart.append(ToDtype(dtype))
    for chain in (apart, [*apart[:2], *apart[:1:-1]], [*apart, ToDtype("float32")]):
        expected = image
        for transform in chain:
            expected = transform(expected)
        at_once = Compose(chain)(image)
        assert at_once.dtype == expected.dtype
        assert at_once.tobytes() == expected.tobytes()
