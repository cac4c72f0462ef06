"""Change the values of images, ``(H, W)`` or ``(H, W, C)`` with 1, 3 or 4 channels: pure functions of arrays.

The fourth channel is alpha, and stays but under a blur. uint8 is computed as Pillow computes it, to the bit, but for
hues and blurs, which are finer here. Other dtypes are computed in floats, rounded once for integers, and kept between 0
and the largest value: 1 for floats, the largest of the dtype for integers.

The native extension does the same to uint8, where it is there. What NumPy does is the definition, and `__wrapped__` of
each function.
"""

from __future__ import annotations

import math
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import numpy as np

from headrace.errors import ArgumentError
from headrace.image.native_changes import MOST_TAPS, changed
from headrace.image.pending import done

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.image.geometry import Image

P = ParamSpec("P")

BITS = 14
"""Factors and weights of uint8 are multiples of 1/16384."""
ONE = 1 << BITS
RED, GREEN, BLUE = 19595, 38470, 7471
"""Shares of a gray value in 1/65536, as Pillow weighs them (ITU-R 601-2)."""


def natively(
    kind: str,
    numbers: Callable[P, tuple[float, ...] | None],
) -> Callable[[Callable[Concatenate[Image, P], Image]], Callable[Concatenate[Image, P], Image]]:
    """Let the extension do what a function does, where it can: given what ``numbers`` makes of the arguments."""

    def decorated(function: Callable[Concatenate[Image, P], Image]) -> Callable[Concatenate[Image, P], Image]:
        @wraps(function)
        def either(image: Image, /, *args: P.args, **kwargs: P.kwargs) -> Image:
            given = numbers(*args, **kwargs) if image.dtype == np.uint8 else None
            made = None if given is None else changed(image, kind, given)
            return function(done(image), *args, **kwargs) if made is None else made

        return either

    return decorated


def weight(factor: float) -> np.float32:
    """Return a factor as bytes are blended by it: one that is too large for 32 bits is the largest of these.

    >>> weight(0.5), weight(-1e300)
    (np.float32(0.5), np.float32(-3.4028235e+38))
    """
    largest = float(np.finfo(np.float32).max)
    return np.float32(min(max(factor, -largest), largest))


def no_numbers() -> tuple[float, ...]:
    """Return what the extension gets for a change that has no numbers.

    >>> no_numbers()
    ()
    """
    return ()


def one_factor(factor: float) -> tuple[float, ...] | None:
    """Return what the extension gets for a factor; None for one that it does not take.

    >>> one_factor(0.5), one_factor(math.inf)
    ((0.5,), None)
    """
    return (factor,) if math.isfinite(factor) else None


def _sixths(shift: float) -> tuple[float, ...] | None:
    return (6 * shift,) if abs(shift) <= 1 else None


def _threshold(threshold: float) -> tuple[float, ...] | None:
    return (threshold,) if math.isfinite(threshold) else None


def _bits(bits: int) -> tuple[float, ...] | None:
    return (bits,) if 0 <= bits <= 8 else None


def _blur(size: tuple[int, int], sigma: float) -> tuple[float, ...] | None:
    return (*size, sigma) if max(size) <= MOST_TAPS else None


def most(dtype: np.dtype[Any]) -> float:
    """Return the value of white.

    >>> most(np.dtype(np.uint8)), most(np.dtype(np.float32))
    (255.0, 1.0)

    Raises ArgumentError for a dtype that images of colors do not have.
    """
    if dtype.kind == "f":
        return 1.0
    if dtype.kind == "u":
        return float(np.iinfo(dtype).max)
    raise ArgumentError(
        f"cannot change the colors of an image of {dtype}",
        found=dtype.name,
        expected="uint8 or uint16, or floats from 0 to 1",
        cure="Convert it first.",
    )


def on_colors(image: Image, change: Callable[[Image], Image]) -> Image:
    """Return an image with its colors changed, and its alpha as it was; ``change`` gets (H, W, 1) or (H, W, 3).

    >>> on_colors(np.array([[[1, 2, 3, 4]]]), lambda colors: 10 * colors)
    array([[[10, 20, 30,  4]]])
    """
    if image.ndim == 2:
        return change(image[:, :, np.newaxis])[:, :, 0]
    check_channels(image.shape[2])
    if image.shape[2] == 4:
        return np.concatenate([change(image[:, :, :3]), image[:, :, 3:]], axis=2)
    return change(image)


def check(image: Image) -> None:
    """Refuse an image whose colors cannot be changed.

    >>> check(np.zeros((1, 1, 3), np.uint8))
    """
    most(image.dtype)
    if image.ndim == 3:
        check_channels(image.shape[2])


def check_channels(channels: int) -> None:
    """Refuse another number of channels than colors have.

    >>> check_channels(4)
    """
    if channels not in (1, 3, 4):
        raise ArgumentError(
            f"cannot change the colors of an image of {channels} channels",
            found=channels,
            expected="1 channel (gray), 3 (RGB) or 4 (RGB and alpha)",
            cure="Map a function that picks the channels.",
        )


def back(values: Any, dtype: np.dtype[Any]) -> Image:
    """Return floats as values of a dtype: kept in its range, and rounded for integers."""
    kept = np.clip(values, 0, most(dtype))
    whole: Image = np.rint(kept) if dtype.kind == "u" else kept
    return whole.astype(dtype)


def _floats(image: Image) -> Image:
    return image if image.dtype == np.float32 else image.astype(np.float64)


def by_value(image: Image, function: Callable[[Any], Any]) -> Image:
    """Return an image with a function of each value: of uint8 by a table of its 256 values."""
    if image.dtype == np.uint8:
        table = back(function(np.arange(256, dtype=np.float64)), image.dtype)
        found: Image = table.take(image)
        return found
    with np.errstate(invalid="ignore", over="ignore"):  # floats may be infinite
        return back(function(_floats(image)), image.dtype)


def blend(image: Image, other: Any, factor: float) -> Image:
    """Return ``factor`` of an image and the rest of another, beyond both where the factor is above 1.

    >>> blend(np.array([200, 100], np.uint8), np.array([100, 100]), 1.5)
    array([250, 100], dtype=uint8)
    """
    if image.dtype == np.uint8:
        rest = np.asarray(other, np.float32)
        with np.errstate(over="ignore"):
            mixed = rest + weight(factor) * (image.astype(np.float32) - rest)
        kept: Image = np.clip(mixed, 0, 255).astype(np.uint8)
        return kept
    with np.errstate(invalid="ignore", over="ignore"):
        return back(_floats(image) * factor + np.asarray(other, np.float64) * (1 - factor), image.dtype)


def _blend_value(image: Image, value: float, factor: float) -> Image:
    """Return ``factor`` of an image and the rest of one value."""
    if image.dtype == np.uint8:
        found: Image = blend(np.arange(256, dtype=np.uint8), value, factor).take(image)
        return found
    return by_value(image, lambda values: values * factor + value * (1 - factor))


def gray(image: Image) -> Image:
    """Return the gray values of colors ``(H, W, 3)``, as (H, W, 1); those of one channel as they are.

    >>> gray(np.array([[[255, 0, 0]]], np.uint8))
    array([[[76]]], dtype=uint8)
    """
    if image.shape[2] == 1:
        return image
    if image.dtype == np.uint8:
        wide = image.astype(np.int32)
        summed: Image = wide[..., 0] * RED + wide[..., 1] * GREEN + wide[..., 2] * BLUE
        return ((summed + 0x8000) >> 16).astype(np.uint8)[..., np.newaxis]
    weights = np.array([RED, GREEN, BLUE]) / 65536
    return back((_floats(image) * weights).sum(axis=2, keepdims=True), image.dtype)


@natively("grayscale", no_numbers)
def grayscale(image: Image) -> Image:
    """Return an image with the gray value in each channel of color."""
    return on_colors(image, lambda colors: np.repeat(gray(colors), colors.shape[2], axis=2))


@natively("brightness", one_factor)
def brightness(image: Image, factor: float) -> Image:
    """Return an image with its values times a factor."""
    return on_colors(image, lambda colors: _blend_value(colors, 0, factor))


@natively("contrast", one_factor)
def contrast(image: Image, factor: float) -> Image:
    """Return an image with the distance to its mean gray times a factor; that of bytes is a whole number."""

    def change(colors: Image) -> Image:
        mean = float(gray(colors).mean(dtype=np.float64))
        return _blend_value(colors, math.floor(mean + 0.5) if colors.dtype == np.uint8 else mean, factor)

    return on_colors(image, change)


@natively("saturation", one_factor)
def saturation(image: Image, factor: float) -> Image:
    """Return an image with the distance of each pixel to its gray times a factor."""
    return on_colors(image, lambda colors: colors if colors.shape[2] == 1 else blend(colors, gray(colors), factor))


@natively("hue", _sixths)
def hue(image: Image, shift: float) -> Image:
    """Return an image with its hues turned by a share of the circle.

    >>> hue(np.array([[[255, 0, 0]]], np.uint8), 1 / 3)
    array([[[  0, 255,   0]]], dtype=uint8)
    """

    def change(colors: Image) -> Image:
        if colors.shape[2] == 1 or shift == 0:
            return colors
        values: Any = colors.astype(np.float64 if colors.dtype == np.float64 else np.float32)
        red, green, blue = values[..., 0], values[..., 1], values[..., 2]
        high = np.maximum(np.maximum(red, green), blue)
        chroma = high - np.minimum(np.minimum(red, green), blue)
        over = np.where(chroma > 0, chroma, 1)
        angle = np.where(
            high == red,
            (green - blue) / over,
            np.where(high == green, 2 + (blue - red) / over, 4 + (red - green) / over),
        )
        angle = angle + values.dtype.type(6 * shift)
        turned = np.empty_like(values)
        for channel, start in enumerate((5, 3, 1)):
            place = np.mod(angle + start, 6)
            turned[..., channel] = high - chroma * np.clip(np.minimum(place, 4 - place), 0, 1)
        return back(turned, colors.dtype)

    return on_colors(image, change)


@natively("invert", no_numbers)
def invert(image: Image) -> Image:
    """Return the negative of an image."""
    white = most(image.dtype)
    return on_colors(image, lambda colors: by_value(colors, lambda values: white - values))


@natively("posterize", _bits)
def posterize(image: Image, bits: int) -> Image:
    """Return an image with the first bits of each value of uint8."""
    if image.dtype != np.uint8:
        steps, white = 2.0**bits, most(image.dtype)

        def first(values: Any) -> Any:
            return np.minimum(np.floor(values / white * steps), steps - 1) / steps * white

        return on_colors(image, lambda colors: by_value(colors, first))
    mask = np.uint8(0xFF & -(1 << (8 - bits)))
    return on_colors(image, lambda colors: colors & mask)


@natively("solarize", _threshold)
def solarize(image: Image, threshold: float) -> Image:
    """Return an image with the values from a threshold up inverted."""
    white = most(image.dtype)
    return on_colors(
        image, lambda colors: by_value(colors, lambda values: np.where(values >= threshold, white - values, values))
    )


@natively("autocontrast", no_numbers)
def autocontrast(image: Image) -> Image:
    """Return an image with each channel stretched from its smallest and largest value to black and white."""

    def change(colors: Image) -> Image:
        white, stretched = most(colors.dtype), []
        for channel in range(colors.shape[2]):
            plane = colors[..., channel]
            low, high = float(plane.min()), float(plane.max())
            if high > low:
                how = _stretched_bytes if colors.dtype == np.uint8 else _stretched
                plane = by_value(plane, partial(how, low=low, high=high, white=white))
            stretched.append(plane)
        return np.stack(stretched, axis=2)

    return on_colors(image, change)


def _stretched(values: Any, *, low: float, high: float, white: float) -> Any:
    return (values - low) * white / (high - low)


def _stretched_bytes(values: Any, *, low: float, high: float, white: float) -> Any:
    scale = white / (high - low)
    return np.trunc(values * scale - low * scale)


def check_eight_bits(image: Image) -> None:
    """Refuse an image that is not of uint8.

    >>> check_eight_bits(np.zeros((1, 1), np.uint8))
    """
    if image.dtype != np.uint8:
        raise ArgumentError(
            f"cannot equalize an image of {image.dtype}",
            found=image.dtype.name,
            expected="uint8",
            cure="Put it before ToFloat.",
        )


@natively("equalize", no_numbers)
def equalize(image: Image) -> Image:
    """Return an image of uint8 whose values are spread evenly in each channel, by Pillow's rule."""
    check_eight_bits(image)

    def change(colors: Image) -> Image:
        return np.stack([_equalized(colors[..., channel]) for channel in range(colors.shape[2])], axis=2)

    return on_colors(image, change)


def _equalized(plane: Image) -> Image:
    counts = np.bincount(plane.reshape(-1), minlength=256)
    used = counts[counts > 0]
    step = int(used.sum() - used[-1]) // 255
    if len(used) < 2 or not step:
        return plane
    table = (np.concatenate([[0], np.cumsum(counts)[:-1]]) + step // 2) // step
    spread: Image = np.clip(table, 0, 255).astype(np.uint8).take(plane)
    return spread


@natively("sharpness", one_factor)
def sharpness(image: Image, factor: float) -> Image:
    """Return an image sharper (a factor above 1) or smoother (below); its outermost pixels stay."""

    def change(colors: Image) -> Image:
        if min(colors.shape[:2]) < 3:
            return colors
        wide = colors.astype(np.int32) if colors.dtype == np.uint8 else _floats(colors)
        summed = wide[:-2] + wide[1:-1] + wide[2:]
        summed = summed[:, :-2] + summed[:, 1:-1] + summed[:, 2:] + 4 * wide[1:-1, 1:-1]
        smooth = (2 * summed + 13) // 26 if colors.dtype == np.uint8 else summed / 13
        sharp = colors.copy()
        sharp[1:-1, 1:-1] = blend(colors[1:-1, 1:-1], smooth, factor)
        return sharp

    return on_colors(image, change)


def gaussian_weights(size: int, sigma: float) -> Any:
    """Return the weights of a Gaussian at whole places around its middle.

    >>> gaussian_weights(3, 1.0).round(3).tolist()
    [0.274, 0.452, 0.274]
    """
    weights, whole = [], 0.0
    for place in range(size):  # one by one, as the extension does: NumPy's sums and powers depend on the processor
        far = (place - (size - 1) / 2) / sigma
        weights.append(math.exp(-0.5 * (far * far)))
        whole += weights[-1]
    return np.array([weight / whole for weight in weights])


@natively("blur", _blur)
def gaussian_blur(image: Image, size: tuple[int, int], sigma: float) -> Image:
    """Return an image smoothed by a Gaussian of so many rows and columns; the image is mirrored outside.

    >>> gaussian_blur(np.array([[0, 0, 90, 0, 0]], np.uint8), (1, 3), 1.0)
    array([[ 0, 25, 41, 25,  0]], dtype=uint8)
    """
    values = image if image.ndim == 3 else image[:, :, np.newaxis]
    # Each weight is rounded: those of a longer kernel would add up to errors larger than a weight.
    whole = image.dtype == np.uint8 and max(size) <= MOST_TAPS
    wide = values.astype(np.int32) if whole else _floats(values)
    for axis, length in ((1, size[1]), (0, size[0])):
        weights = gaussian_weights(length, sigma)
        if whole:
            weights = np.rint(weights * ONE).astype(np.int32)
            weights[length // 2] += ONE - weights.sum()
        wide = _summed(wide, weights, axis)
        if whole and axis == 1:
            wide = (wide + (1 << 5)) >> 6
    smooth = ((wide + (1 << 21)) >> 22).astype(np.uint8) if whole else back(wide, image.dtype)
    return smooth.reshape(image.shape)


def _summed(values: Any, weights: Any, axis: int) -> Any:
    """Return the weighed sums of neighbors along an axis; equal weights at both sides are multiplied once."""
    count, half = values.shape[axis], len(weights) // 2
    places = np.abs(np.arange(-half, count + half))
    if count > 1:
        places = places % (2 * count - 2)
        places = np.minimum(places, 2 * count - 2 - places)
    else:
        places = np.zeros_like(places)
    mirrored = values.take(places, axis=axis)

    def at(offset: int) -> Any:
        return mirrored[:, offset : offset + count] if axis == 1 else mirrored[offset : offset + count]

    summed = at(half) * weights[half]
    for offset in range(half):
        summed += (at(offset) + at(len(weights) - 1 - offset)) * weights[offset]
    return summed
