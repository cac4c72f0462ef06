"""What torchvision does to the colors of tensors of bytes: other weights of gray, and hues in floats of 32 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.image.color import natively, no_numbers, on_colors, one_factor, weight

if TYPE_CHECKING:
    from headrace.image.geometry import Image

SHARES = tuple(np.float32(share) for share in (0.2989, 0.587, 0.114))
"""Of red, green and blue in gray."""


def _added(one: Any, other: Any, share: np.float32) -> Any:
    """Return floats and a share of others, rounded once, as torch adds them: the products are exact as doubles."""
    return (one.astype(np.float64) + np.asarray(other, np.float64) * np.float64(share)).astype(np.float32)


def _gray(colors: Image) -> Image:
    if colors.shape[2] == 1:
        return colors
    red, green, blue = (colors[..., channel : channel + 1].astype(np.float32) for channel in range(3))
    gray: Image = _added(_added(red * SHARES[0], green, SHARES[1]), blue, SHARES[2]).astype(np.uint8)
    return gray


def _blend(colors: Image, other: Any, factor: float) -> Image:
    with np.errstate(over="ignore"):
        mixed = _added(colors.astype(np.float32) * weight(factor), other, weight(1 - factor))
    kept: Image = np.clip(mixed, 0, 255).astype(np.uint8)
    return kept


@natively("torch_grayscale", no_numbers)
def torch_grayscale(image: Image) -> Image:
    """Return an image of uint8 with torchvision's gray value of a tensor in each channel of color.

    >>> torch_grayscale(np.array([[[100, 100, 100]]], np.uint8))
    array([[[99, 99, 99]]], dtype=uint8)
    """
    return on_colors(image, lambda colors: np.repeat(_gray(colors), colors.shape[2], axis=2))


@natively("torch_contrast", one_factor)
def torch_contrast(image: Image, factor: float) -> Image:
    """Return an image of uint8 with the distance to its mean gray times a factor; the mean is not rounded.

    >>> torch_contrast(np.array([[0, 101]], np.uint8), 0.5).tolist()
    [[25, 75]]
    """

    def change(colors: Image) -> Image:
        gray = _gray(colors)
        return _blend(colors, np.float32(gray.sum(dtype=np.int64)) / np.float32(gray.size), factor)

    return on_colors(image, change)


@natively("torch_saturation", one_factor)
def torch_saturation(image: Image, factor: float) -> Image:
    """Return an image of uint8 with the distance of each pixel to its gray times a factor.

    >>> torch_saturation(np.array([[[100, 0, 0]]], np.uint8), 0.0).tolist()
    [[[29, 29, 29]]]
    """
    return on_colors(image, lambda colors: colors if colors.shape[2] == 1 else _blend(colors, _gray(colors), factor))


def _shift(shift: float) -> tuple[float, ...] | None:
    return (shift,) if abs(shift) <= 1 else None


@natively("torch_hue", _shift)
def torch_hue(image: Image, shift: float) -> Image:
    """Return an image of uint8 with its hues turned by a share of the circle.

    >>> torch_hue(np.array([[[255, 0, 0]]], np.uint8), 1 / 3)
    array([[[  0, 255,   0]]], dtype=uint8)
    """
    return on_colors(image, lambda colors: colors if colors.shape[2] == 1 else _turned(colors, np.float32(shift)))


def _turned(colors: Image, shift: np.float32) -> Image:
    one, white = np.float32(1), np.float32(1 / 255)
    red, green, blue = (colors[..., channel].astype(np.float32) * white for channel in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    chroma = high - np.minimum(np.minimum(red, green), blue)
    share = chroma / np.where(chroma == 0, one, high)
    over = np.where(chroma == 0, one, chroma)
    most = [high == red, high == green]
    plus = (high - np.select(most, [blue, red], default=green)) / over
    minus = (high - np.select(most, [green, blue], default=red)) / over
    sixths = plus + np.select(most, [np.float32(0), np.float32(2)], default=np.float32(4)) - minus
    turn: Any = sixths * np.float32(1 / 6) + one
    turn = np.where(turn >= one, turn - one, turn) + shift
    turn = np.where(turn < 0, turn + one, np.where(turn >= one, turn - one, turn))
    place = turn * np.float32(6)
    part = np.floor(place)
    rest = share * (place - part)
    falling, rising, low = (np.clip(level * high, 0, 1) for level in (one - rest, rest + (one - share), one - share))
    sixth: Any = part.astype(np.int32) % 6
    channels = (
        (high, falling, low, low, rising, high),
        (rising, high, high, falling, low, low),
        (low, low, rising, high, high, falling),
    )
    turned = np.stack([np.choose(sixth, values) for values in channels], axis=2)
    return (turned * np.float32(255.999)).astype(np.uint8)
