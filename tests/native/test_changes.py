"""What the native extension does to the colors and places of images is what NumPy does, to the bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace._native import extension
from headrace.image import as_pillow, as_torch, color, native_changes
from headrace.image.fused import Recipe, pipeline_of
from headrace.image.warp import Warp, Warps, turning
from headrace.transforms.color_transforms import permuted

pytestmark = pytest.mark.skipif(extension is None or not native_changes.ABLE, reason="the extension has no changes")

FACTOR = st.floats(0, 4)
CHANGES: dict[str, tuple[Any, st.SearchStrategy[tuple[Any, ...]]]] = {
    "brightness": (color.brightness, st.tuples(FACTOR)),
    "contrast": (color.contrast, st.tuples(FACTOR)),
    "saturation": (color.saturation, st.tuples(FACTOR)),
    "hue": (color.hue, st.tuples(st.floats(-1, 1))),
    "pillow_hue": (as_pillow.pillow_hue, st.tuples(st.floats(-1, 1))),
    "torch_contrast": (as_torch.torch_contrast, st.tuples(FACTOR)),
    "torch_saturation": (as_torch.torch_saturation, st.tuples(FACTOR)),
    "torch_hue": (as_torch.torch_hue, st.tuples(st.floats(-0.5, 0.5))),
    "torch_grayscale": (as_torch.torch_grayscale, st.just(())),
    "grayscale": (color.grayscale, st.just(())),
    "invert": (color.invert, st.just(())),
    "solarize": (color.solarize, st.tuples(st.floats(-1, 300))),
    "posterize": (color.posterize, st.tuples(st.integers(0, 8))),
    "autocontrast": (color.autocontrast, st.just(())),
    "equalize": (color.equalize, st.just(())),
    "sharpness": (color.sharpness, st.tuples(FACTOR)),
    "gaussian_blur": (
        color.gaussian_blur,
        st.tuples(st.tuples(*[st.integers(0, 12).map(lambda half: 2 * half + 1)] * 2), st.floats(0.05, 9)),
    ),
}


def image_of(data: st.DataObject, channels: tuple[int | None, ...] = (None, 1, 3, 4)) -> Any:
    """Draw an image of uint8: of noise, of few values, or of one."""
    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    last = data.draw(st.sampled_from(channels))
    shape = (height, width) if last is None else (height, width, last)
    rng = np.random.default_rng(data.draw(st.integers(0, 999)))
    low = int(rng.integers(0, 200))
    return rng.integers(low, low + data.draw(st.sampled_from([1, 2, 30, 56])), shape, np.uint8)


@pytest.mark.parametrize("name", CHANGES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_colors_are_those_of_numpy(name: str, data: st.DataObject) -> None:
    """Give the bytes that NumPy gives, and leave the image as it was."""
    change, numbers = CHANGES[name]
    image = image_of(data)
    before, drawn = image.copy(), data.draw(numbers)
    found = change(image, *drawn)
    np.testing.assert_array_equal(found, change.__wrapped__(image, *drawn))
    np.testing.assert_array_equal(image, before)
    assert found.shape == image.shape


@pytest.mark.parametrize("level", [] if extension is None else extension.levels())
@pytest.mark.parametrize("name", CHANGES)
def test_all_instruction_sets_give_the_same(name: str, level: str) -> None:
    """Give NumPy's bytes by each set of instructions, at widths around those of its registers."""
    function, _ = CHANGES[name]
    arguments: dict[str, tuple[Any, ...]] = {"gaussian_blur": ((23, 5), 1.7), "solarize": (99.5,), "posterize": (3,)}
    numbers: dict[str, tuple[float, ...]] = {"gaussian_blur": (23, 5, 1.7), "hue": (6 * 0.3,), "pillow_hue": (76,)}
    rng = np.random.default_rng(0)
    takes = name.rpartition("_")[2] in {"brightness", "contrast", "saturation", "hue", "sharpness"}
    args = arguments.get(name, (0.3,) if takes else ())
    change = extension.Change(
        "blur" if name == "gaussian_blur" else name, [float(one) for one in numbers.get(name, args)], []
    )
    for width in (1, 7, 15, 16, 17, 31, 32, 33, 65, 130):
        image = rng.integers(0, 256, (9, width, 3), np.uint8)
        out = np.empty_like(image)
        extension.changed(image, out, change, level)
        np.testing.assert_array_equal(out, function.__wrapped__(image, *args))


@pytest.mark.parametrize("level", [] if extension is None else extension.levels())
def test_every_color_has_its_hue(level: str) -> None:
    """Turn all colors of a fine grid as NumPy does, by each set of instructions."""
    steps = np.arange(0, 256, 5, np.uint8)
    image = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(52, -1, 3)
    for shift in (-0.5, -0.37, 1e-9, 0.1, 0.5):
        out = np.empty_like(image)
        extension.changed(image, out, extension.Change("hue", [6 * shift], []), level)
        np.testing.assert_array_equal(out, color.hue.__wrapped__(image, shift))  # type: ignore[attr-defined]


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_channels_change_places(data: st.DataObject) -> None:
    """Put channels in any order."""
    image = image_of(data, (1, 2, 3, 4))
    order = data.draw(st.permutations(range(image.shape[2])))
    np.testing.assert_array_equal(permuted(image, list(order)), image[:, :, list(order)])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 4), (40, 33)])
def test_an_image_is_turned_upside_down(size: tuple[int, int], channels: int) -> None:
    """Mirror top to bottom, also by the map that an earlier extension has."""
    image = np.random.default_rng(0).integers(0, 256, (*size, channels), np.uint8)
    upended = (1, 0, 0, 0, -1, size[0], 0, 0, 1, False, *(0,) * channels)
    for kind, numbers in (native_changes.upside_down(size[0], channels), ("warp", upended)):
        out = np.empty_like(image)
        extension.changed(image, out, extension.Change(kind, [float(one) for one in numbers], []))
        np.testing.assert_array_equal(out, image[::-1])


def warp_of(data: st.DataObject, before: tuple[int, int]) -> Warp:
    """Draw a map: affine or perspective, to another size."""
    size = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    numbers = st.floats(-1, 1)
    scale = data.draw(st.floats(0.2, 3))
    matrix = turning(
        (size[1] / 2, size[0] / 2), 180 * data.draw(numbers), scale=scale, shear=(40 * data.draw(numbers), 0)
    )
    matrix[:2, 2] += 20 * data.draw(numbers)
    if data.draw(st.booleans()):
        matrix[2, :2] = 0.02 * data.draw(numbers), 0.02 * data.draw(numbers)
    return Warp(tuple(matrix.reshape(-1).tolist()), before, size, data.draw(st.sampled_from([0, 7, 255])))


@settings(max_examples=25, deadline=None)
@given(data=st.data(), interpolation=st.sampled_from(["nearest", "bilinear"]))
def test_maps_are_those_of_numpy(data: st.DataObject, interpolation: Any) -> None:
    """Resample images for one to three maps, with the fill of each."""
    image = image_of(data, (None, 1, 2, 3, 4))
    parts: list[Warp] = []
    for _ in range(data.draw(st.integers(1, 3))):
        parts.append(warp_of(data, parts[-1].size if parts else (image.shape[0], image.shape[1])))
    warps = Warps(tuple(parts), interpolation)
    expected = warps.by_steps(image, interpolation, [part.fill for part in parts])
    np.testing.assert_array_equal(warps.image(image), expected)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("shift", [0, 0.5, 1 / 4096, -3 / 4096, 1e-310, 7.3, -41.77])
@pytest.mark.parametrize("across", [1, -1, 2, 0.5, 0.8437, 1e-3])
def test_places_between_two_pixels_round_as_by_numpy(across: float, shift: float, interpolation: Any) -> None:
    """Map lines of many pixels to whole pixels, halves, and halves of the smallest share of a neighbor."""
    image = np.random.default_rng(0).integers(0, 256, (7, 101, 3), np.uint8)
    matrix = (across, 0.0, shift + 101 * (across < 0), 0.1 * shift, 1.0, shift, 0.0, 0.0, 1.0)
    warps = Warps((Warp(matrix, (7, 101), (9, 170), 5),), interpolation)
    np.testing.assert_array_equal(warps.image(image), warps.by_steps(image, interpolation, [5]))


@pytest.mark.parametrize("level", [] if extension is None else extension.levels())
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("nearest", [False, True])
def test_all_instruction_sets_move_pixels_alike(nearest: bool, channels: int, level: str) -> None:
    """Give NumPy's bytes at widths around those of registers, inside of the image, across its edges and far outside."""
    image = np.random.default_rng(0).integers(0, 256, (40, 150, channels), np.uint8)
    interpolation: Any = "nearest" if nearest else "bilinear"
    fill = (3, 90, 170, 255)[:channels]
    for width in (1, 3, 4, 15, 16, 17, 33, 64, 65, 190):
        for across, slope, shift in (
            (1.0, 0.0, 0.0),
            (0.7, 0.21, -3.3),
            (-0.9, 0.1, 140.7),
            (3.1, -0.8, 1e-310),
            (1e50, 0, -1e52),
        ):
            warp = Warp((across, 0.02, shift, slope, 0.9, 0.4, 0.0, 0.0, 1.0), (40, 150), (44, width), fill)
            out = np.empty((44, width, channels), np.uint8)
            fills = np.array([fill], np.uint8)
            extension.warped(image, out, [list(warp.numbers)], fills, nearest, level=level)
            np.testing.assert_array_equal(out, Warps((warp,), interpolation).by_steps(image, interpolation, [fill]))


def test_large_images_have_the_same_bytes() -> None:
    """Give NumPy's bytes where an image is large enough for wider registers."""
    image = np.random.default_rng(0).integers(0, 256, (370, 360, 3), np.uint8)
    warp = Warp(tuple(turning((180, 185), 12, scale=1.1).reshape(-1).tolist()), (370, 360), (370, 360), 9)
    warps = Warps((warp,), "bilinear")
    np.testing.assert_array_equal(warps.image(image), warps.by_steps(image, "bilinear", [9]))
    for change, amount in ((color.hue, 0.2), (color.brightness, 0.7), (color.contrast, 1.3), (color.saturation, 0.4)):
        np.testing.assert_array_equal(change(image, amount), change.__wrapped__(image, amount))  # type: ignore[attr-defined]


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool", "float16", "float32", ">u2", "uint64"])
def test_masks_of_any_dtype_are_moved(dtype: str) -> None:
    """Take the nearest value of a mask, and its fill outside."""
    mask = np.random.default_rng(0).integers(0, 2, (11, 13)).astype(dtype)
    warps = Warps((Warp(tuple(turning((6, 5), 30).reshape(-1).tolist()), (11, 13), (11, 13)),), "bilinear")
    found = warps.mask(mask, 1)
    assert found.dtype == mask.dtype
    np.testing.assert_array_equal(found, warps.by_steps(mask, "nearest", [1]))


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("hue", [7.0]),
        ("blur", [4, 3, 1.0]),
        ("blur", [3, 3, 0.0]),
        ("blur", [math.nan, 3, 1.0]),
        ("blur", [1e300, 3, 1.0]),
        ("channels", [0, 1, 3]),
        ("channels", [0, 1]),
        ("posterize", [9]),
        ("saturation", [math.nan]),
        ("torch_hue", [1.5]),
        ("torch_contrast", [math.nan]),
        ("pillow_hue", [256]),
        ("pillow_hue", [math.nan]),
        ("pillow_warp", [1.0] * 6),
        ("pillow_warp", [1.0, 0, 3e9, 0, 1, 0, 0, 0, 0]),
        ("pillow_warp", [math.nan, 0, 0, 0, 1, 0, 0, 0, 0]),
        ("pillow_warp", [1.0, 0, 0, 0, 1, 0, 0, 0, 256]),
        ("brightness", []),
        ("erase", [0, 0, 9, 1, 0, 0, 0]),
        ("erase", [-1, 0, 1, 1, 0, 0, 0]),
        ("warp", [1.0] * 12),
        ("jitter", [0.0] * 12),
        ("color", []),
    ],
)
def test_numbers_that_cannot_be_used_are_refused(kind: str, numbers: list[float]) -> None:
    """Refuse, before anything is read or written."""
    image = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"change"):
        extension.changed(image, image.copy(), extension.Change(kind, numbers, []))


def test_images_that_do_not_fit_are_refused() -> None:
    """Refuse an output of another size, five channels, and maps of other sizes."""
    image = np.zeros((4, 4, 3), np.uint8)
    invert = extension.Change("invert", [], [])
    with pytest.raises(ValueError, match="another size"):
        extension.changed(image, np.zeros((4, 5, 3), np.uint8), invert)
    with pytest.raises(ValueError, match="more than 4 channels"):
        extension.changed(np.zeros((4, 4, 5), np.uint8), np.zeros((4, 4, 5), np.uint8), invert)
    same = [1.0, 0, 0, 0, 1, 0, 0, 0, 1]
    for sizes in ([4, 4, 5, 5], [3, 4, 4, 4], [4, 4, 0, 4]):
        with pytest.raises(ValueError, match=r"size|side"):
            extension.warped(image, image.copy(), [same + sizes], np.zeros((1, 3), np.uint8), nearest=True)
    with pytest.raises(ValueError, match="a fill for each"):
        extension.warped(image, image.copy(), [[*same, 4, 4, 4, 4]], np.zeros((1, 2), np.uint8), nearest=True)


def test_a_map_of_nothing_reads_nothing() -> None:
    """Fill an image whose places are no numbers."""
    image = np.full((4, 4, 1), 9, np.uint8)
    out = np.empty_like(image)
    bad = [math.nan] * 9 + [4, 4, 4, 4]
    for nearest in (True, False):
        extension.warped(image, out, [bad], np.full((1, 1), 5, np.uint8), nearest=nearest)
        assert (out == 5).all()


@pytest.mark.skipif(not hasattr(getattr(extension, "Pipeline", None), "drawn"), reason="it makes no pixels at once")
@pytest.mark.parametrize(
    "wrong",
    [
        {"source": [0, 0, 5, 4]},
        {"source": [0, 0, 4]},
        {"size": (0, 4)},
        {"window": [0, 0, 0, 4]},
        {"window": [0, 0, 4, 5]},
        {"fill": [0]},
        {"maps": [[1.0] * 9]},
        {"maps": [[1.0] * 9 + [4, 4, 4, 4]], "map_fills": []},
        {"maps": [[1.0] * 9 + [5, 4, 4, 4]], "map_fills": [[0, 0, 0]]},
        {"ops": [("blur", [2, 3, 1])]},
        {"ops": [("jitter", [0.0] * 12)]},
        {"filter": "round"},
    ],
)
def test_what_was_drawn_and_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    """Refuse parts, sizes, maps and changes that do not fit, before anything is written."""
    image = np.zeros((4, 4, 3), np.uint8)
    good: dict[str, Any] = {
        "source": [0, 0, 4, 4], "size": (4, 4), "window": [0, 0, 4, 4], "flipped": False, "fill": [0, 0, 0],
        "filter": "bilinear", "antialias": True, "maps": [], "map_fills": [], "nearest": False, "ops": [],
    }  # fmt: skip
    pipeline = pipeline_of(Recipe((), 1, 1, 3))
    assert pipeline.drawn(image, image.copy(), **good)
    with pytest.raises(ValueError, match=r"\w"):
        pipeline.drawn(image, image.copy(), **(good | wrong))
