"""Transforms that change values: bit for bit."""

from __future__ import annotations

import struct
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import MissingDependency
from headrace.image import geometry
from headrace.transforms import Compose, Normalize, ToCHW, ToDtype, ToFloat
from tests.transforms.samples import MEAN, STD, image_of_noise

HALVES = st.sampled_from(["float16", "bfloat16"])


@pytest.mark.parametrize(("dtype", "most"), [("uint8", 255), ("uint16", 65535)])
def test_to_float_divides_in_float32_bit_for_bit(dtype, most):
    """Every value there is gives np.float32(x) / np.float32(255), or 65535."""
    values = np.arange(most + 1, dtype=dtype).reshape(-1, 16)
    floats = ToFloat()(values)
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats, values.astype(np.float32) / np.float32(most))


def test_to_float_keeps_the_values_of_floats_and_masks():
    """float32 is returned itself, other floats as float32, booleans as 0 and 1."""
    single = image_of_noise().astype(np.float32)
    assert ToFloat()(single) is single
    for values in (single.astype(np.float64), single.astype(np.float16), single > 100):
        floats = ToFloat()(values)
        assert floats.dtype == np.float32
        np.testing.assert_array_equal(floats, values.astype(np.float32))


def views(image: np.ndarray) -> dict[str, np.ndarray]:
    """Return the same image as it may lie in memory."""
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
    """(image - mean) / std in float32, however the image lies in memory, which is not written to."""
    floats = image_of_noise(*shape) / np.float32(255)
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
    """What Compose does in one array is what the two do apart, and the image given stays as it was."""
    image = image_of_noise().astype(dtype)
    given = views(image)[memory]
    composed = Compose(ToFloat(), Normalize(MEAN, STD), ToCHW())(given)
    most = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    expected = naive(image.astype(np.float32) / np.float32(most)).transpose(2, 0, 1)
    np.testing.assert_array_equal(composed, expected)
    np.testing.assert_array_equal(given, image)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_normalize_computes_other_floats_in_float32(dtype):
    """They are made float32 first; the image given stays as it was."""
    floats = (image_of_noise() / 255).astype(dtype)
    before = floats.copy()
    normal = Normalize(MEAN, STD)(floats)
    assert normal.dtype == np.float32
    np.testing.assert_array_equal(normal, naive(floats.astype(np.float32)))
    np.testing.assert_array_equal(floats, before)


def test_normalize_takes_one_number_for_every_channel():
    """A number, or a sequence of one, serves grayscale images and any number of channels, first or last."""
    for shape in ((6, 8), (6, 8, 1), (6, 8, 3), (6, 8, 5)):
        floats = np.random.default_rng(0).random(shape, dtype=np.float32)
        expected = (floats - np.float32(0.1)) / np.float32(0.2)
        for first in (False, True):
            np.testing.assert_array_equal(Normalize(0.1, (0.2,), channels_first=first)(floats), expected)
    color = np.random.default_rng(0).random((6, 8, 3), dtype=np.float32)
    np.testing.assert_array_equal(Normalize(0.5, STD)(color), naive(color, mean=(0.5,) * 3))
    assert Normalize(0.5, STD) == Normalize((0.5,) * 3, STD)


def test_to_chw_moves_the_channels_and_copies_nothing():
    """Color and grayscale images become channels, height, width: a view of the same memory."""
    image = image_of_noise()
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
    """Give the bits that rounding by hand gives, beyond the largest value too, whatever NumPy is set to raise."""
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
    """From each of the dtypes to each: the same values where both hold them, and the image itself where it is one."""
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
    behind = Compose(*chain, ToCHW(), ToDtype(dtype))(image_of_noise())
    before = Compose(*chain, ToDtype(dtype), ToCHW())(image_of_noise())
    assert behind.shape == (3, 40, 50)
    np.testing.assert_array_equal(behind.view(np.uint16), before.astype(behind.dtype).copy().view(np.uint16))


def test_bfloat16_without_its_library_is_refused_at_the_door(monkeypatch):
    """The error names the library and how to install it; float16 is NumPy's own."""
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(MissingDependency, match=r"bfloat16 needs ml_dtypes.*pip install 'headrace\[bfloat16\]'"):
        ToDtype("bfloat16")
    assert ToDtype("float16")(np.ones((2, 2), np.float32)).dtype == np.float16


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
