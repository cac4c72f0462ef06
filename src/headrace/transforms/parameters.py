"""Checks of the settings of transforms, each with an error that names transform, setting and value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from headrace.checks import flag, integer, number, one_of, refused
from headrace.errors import ArgumentError
from headrace.image import geometry
from headrace.image.geometry import INTERPOLATIONS

if TYPE_CHECKING:
    from headrace.image.geometry import Fill

Size = int | tuple[int, int]
"""One length for both sides, or (height, width), in pixels."""

Range = tuple[float, float]
"""The least and the most."""

Padding = int | tuple[int, int] | tuple[int, int, int, int]
"""Pixels on all four sides; or (left and right, top and bottom); or (left, top, right, bottom)."""


def size_pair(owner: str, size: object) -> tuple[int, int]:
    """Return height and width, of both or of one length for both."""
    sides = tuple(size) if isinstance(size, Iterable) and not isinstance(size, str) else (size, size)
    if len(sides) != 2:
        raise refused(f"{owner}: size", size, "one length or (height, width)", "Leave the channels out.")
    height, width = (integer(f"{owner}: size", side, least=1) for side in sides)
    return height, width


def four_sides(owner: str, padding: object) -> tuple[int, int, int, int]:
    """Return the padding of all four sides."""
    given = tuple(padding) if isinstance(padding, Iterable) and not isinstance(padding, str) else (padding,)
    if len(given) not in (1, 2, 4):
        expected = "one number, (left and right, top and bottom) or (left, top, right, bottom)"
        raise refused(f"{owner}: padding", padding, expected, "Pass 1, 2 or 4 numbers.")
    left, top, right, bottom = (integer(f"{owner}: padding", n, least=0) for n in given * (4 // len(given)))
    return left, top, right, bottom


def positive_range(owner: str, name: str, value: object) -> tuple[float, float]:
    """Return the two ends of a range, of a pair of numbers above 0."""
    ends = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(ends) != 2:
        raise refused(f"{owner}: {name}", value, "a pair, (least, most)", "Pass a single number twice.")
    least, most = (number(f"{owner}: {name}", end) for end in ends)
    if not 0 < least <= most:
        raise refused(f"{owner}: {name}", value, "(least, most), both above 0", "Put the smaller number first.")
    return least, most


def both_ways(owner: str, name: str, value: object) -> Range:
    """Return the two ends of a range, of a pair or of one number for both ways.

    >>> both_ways("RandomRotation", "degrees", 30)
    (-30.0, 30.0)
    """
    if not isinstance(value, Iterable) or isinstance(value, str):
        most = number(f"{owner}: {name}", value, least=0)
        return -most, most
    ends = tuple(number(f"{owner}: {name}", end) for end in value)
    if len(ends) != 2 or ends[0] > ends[1]:
        raise refused(f"{owner}: {name}", value, "one number, or (least, most)", "Put the smaller number first.")
    return ends[0], ends[1]


def shear_ranges(owner: str, value: object) -> tuple[float, ...]:
    """Return the ranges of a shear along x, and perhaps along y.

    >>> shear_ranges("RandomAffine", 10), shear_ranges("RandomAffine", (0, 5, -3, 3))
    ((-10.0, 10.0), (0.0, 5.0, -3.0, 3.0))
    """
    given = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    ends: tuple[float, ...]
    if len(given) == 4:
        ends = (*both_ways(owner, "shear", given[:2]), *both_ways(owner, "shear", given[2:]))
    else:
        ends = both_ways(owner, "shear", value)
    if any(abs(end) >= 90 for end in ends):
        raise refused(f"{owner}: shear", value, "degrees between -90 and 90", "Pass a smaller angle.")
    return ends


def point(owner: str, name: str, value: object) -> tuple[float, float] | None:
    """Return two numbers, or None."""
    if value is None:
        return None
    given = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(given) != 2:
        raise refused(f"{owner}: {name}", value, "a pair of numbers, (x, y)", "Leave it out for the default.")
    x, y = (number(f"{owner}: {name}", one) for one in given)
    return x, y


def fill_value(owner: str, fill: object) -> Fill:
    """Return one number, or one for each channel."""
    if isinstance(fill, Iterable) and not isinstance(fill, str):
        return tuple(number(f"{owner}: fill", one) for one in fill)
    single = number(f"{owner}: fill", fill)
    return int(single) if single.is_integer() else single


def per_channel(owner: str, name: str, values: object) -> tuple[float, ...]:
    """Return numbers within float32, one for each channel or one for all."""
    given = tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else (values,)
    numbers = tuple(number(f"{owner}: {name}", value) for value in given)
    if not numbers or max(map(abs, numbers)) > float(np.finfo(np.float32).max):
        raise refused(
            f"{owner}: {name}", values, "numbers within float32", "Pass one for each channel, or one for all."
        )
    return numbers


def check_resizing(owner: str, interpolation: object, antialias: object) -> bool:
    """Refuse a filter that does not exist, and one whose library is not installed; return ``antialias`` as a bool."""
    one_of(f"{owner}: interpolation", interpolation, INTERPOLATIONS)
    smooth = flag("antialias", antialias, exact=True)
    if not smooth and interpolation in ("lanczos", "box"):
        raise ArgumentError(
            f"{owner} got interpolation={interpolation!r} with antialias=False",
            found=interpolation,
            expected="'nearest', 'bilinear' or 'bicubic' without antialiasing",
            cure="Leave antialias=False out, or pass one of these.",
        )
    if not smooth or interpolation != "nearest":
        geometry.check_installed(antialias=smooth)
    return smooth


def factor_range(owner: str, name: str, value: object) -> Range | None:
    """Return the range of a factor around 1.

    >>> factor_range("ColorJitter", "contrast", 0.4), factor_range("ColorJitter", "contrast", (0.5, 2))
    ((0.6, 1.4), (0.5, 2.0))
    """
    if value is None:
        return None
    if not isinstance(value, Iterable):
        most = number(f"{owner}: {name}", value, least=0)
        return max(0.0, 1 - most), 1 + most
    least, most = both_ways(owner, name, value)
    if least < 0:
        raise refused(f"{owner}: {name}", value, "factors from 0 up", "Pass (0.6, 1.4), for example.")
    return least, most


def hue_range(owner: str, value: object) -> Range | None:
    """Return the range of a hue's shift.

    >>> hue_range("ColorJitter", 0.1)
    (-0.1, 0.1)
    """
    if value is None:
        return None
    least, most = both_ways(owner, "hue", value)
    if least < -0.5 or most > 0.5:
        raise refused(f"{owner}: hue", value, "shares of the circle from -0.5 to 0.5", "Pass 0.1, for example.")
    return least, most
