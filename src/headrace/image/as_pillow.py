"""What Pillow does to bytes where ours is finer: hues of 8 bits, and places in 1/65536 of a pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.image.color import natively, on_colors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.image.geometry import Image


def hue_shift(shift: float) -> int:
    """Return a share of the circle in steps of 8 bits, as torchvision hands it to Pillow's images.

    >>> hue_shift(0.1), hue_shift(-0.1)
    (25, 231)
    """
    return int(shift * 255) & 255


def _shift(shift: float) -> tuple[float, ...] | None:
    return (hue_shift(shift),) if abs(shift) <= 1 else None


@natively("pillow_hue", _shift)
def pillow_hue(image: Image, shift: float) -> Image:
    """Return an image of uint8 with its hues turned by a share of the circle, by way of Pillow's mode HSV.

    >>> pillow_hue(np.array([[[255, 0, 0]]], np.uint8), 1 / 3)
    array([[[  0, 255,   0]]], dtype=uint8)
    """
    return on_colors(image, lambda colors: colors if colors.shape[2] == 1 else _turned(colors, hue_shift(shift)))


def _turned(colors: Image, shift: int) -> Image:
    """Compute in floats of 32 bits, and in doubles where these give another hue for some color."""
    red, green, blue = (colors[..., channel].astype(np.float32) for channel in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    chroma = high - np.minimum(np.minimum(red, green), blue)
    most = [high == red, high == green]
    plus, minus = (
        (high - np.select(most, one, default=other)) / np.maximum(chroma, 1)
        for one, other in (([blue, red], green), ([green, blue], red))
    )
    base = np.select(most, [0.0, 2.0], default=4.0)
    sixths: Any = (base + plus.astype(np.float64) - minus).astype(np.float32)
    turn = ((sixths.astype(np.float64) / 6 + 1) % 1).astype(np.float32)
    whole = ((turn * np.float32(255)).astype(np.int32) + shift) & 255
    share = np.trunc(chroma / np.maximum(high, 1) * np.float32(255)) / np.float32(255)
    place = whole.astype(np.float32) * np.float32(6) / np.float32(255)
    part = np.trunc(place)
    rest = place - part
    low, falling, rising = (
        np.floor(high * (1 - one) + np.float32(0.5)) for one in (share, share * rest, share * (1 - rest))
    )
    sixth: Any = part.astype(np.int32) % 6
    channels = (
        (high, falling, low, low, rising, high),
        (rising, high, high, falling, low, low),
        (low, low, rising, high, high, falling),
    )
    return np.stack([np.choose(sixth, one) for one in channels], axis=2).astype(np.uint8)


def pillow_map(matrix: Sequence[float]) -> tuple[int, ...]:
    """Return an inverse affine matrix, two rows of three, in 1/65536; its shift is that of the first pixel's middle.

    All places must be below 32768: Pillow computes larger ones in floats.

    >>> pillow_map((1, 0, 2, 0, 1, 0))
    (65536, 0, 163840, 0, 65536, 32768)
    """
    a, b, c, d, e, f = matrix
    numbers = a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5
    return tuple(math.floor(one * 65536 + 0.5) for one in numbers)


def _numbers(numbers: Sequence[int], fill: Sequence[int]) -> tuple[float, ...] | None:
    return (*numbers, *fill)


@natively("pillow_warp", _numbers)
def pillow_warp(image: Image, numbers: Sequence[int], fill: Sequence[int]) -> Image:
    """Return an image whose pixels are those at the places of a `pillow_map`, or a fill for each channel.

    >>> pillow_warp(np.array([[1, 2, 3]], np.uint8), pillow_map((1, 0, 1, 0, 1, 0)), (9,))
    array([[2, 3, 9]], dtype=uint8)
    """
    height, width = image.shape[:2]
    a, b, c, d, e, f = numbers
    x, y = np.arange(width)[np.newaxis], np.arange(height)[:, np.newaxis]
    column, row = (c + a * x + b * y) >> 16, (f + d * x + e * y) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    out = np.empty_like(image)
    out[:] = fill if image.ndim == 3 else fill[0]
    out[inside] = image[row[inside], column[inside]]
    return out
