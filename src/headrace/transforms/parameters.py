"""Checks of the settings of transforms, each with an error that names transform, setting and value."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import TYPE_CHECKING, cast

import numpy as np

from headrace.errors import ArgumentError
from headrace.image import geometry
from headrace.image.geometry import INTERPOLATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headrace.image.geometry import Fill

Size = int | tuple[int, int]
"""One length for both sides, or (height, width), in pixels."""

Padding = int | tuple[int, int] | tuple[int, int, int, int]
"""Pixels on all four sides; or (left and right, top and bottom); or (left, top, right, bottom)."""


def whole(owner: str, name: str, value: object, *, least: int) -> int:
    """Return an int, of a whole number from ``least`` up."""
    try:
        number = operator.index(cast("int", value))
    except TypeError:
        number = least - 1
    if isinstance(value, (bool, np.bool_)) or number < least:
        raise _unusable(owner, name, value, f"whole numbers from {least} up", "pass an int")
    return number


def size_pair(owner: str, size: object) -> tuple[int, int]:
    """Return height and width, of both or of one length for both."""
    sides = tuple(size) if isinstance(size, Iterable) and not isinstance(size, str) else (size, size)
    if len(sides) != 2:
        raise _unusable(owner, "size", size, "one length or (height, width)", "leave the channels out")
    height, width = (whole(owner, "size", side, least=1) for side in sides)
    return height, width


def four_sides(owner: str, padding: object) -> tuple[int, int, int, int]:
    """Return the padding of all four sides."""
    given = tuple(padding) if isinstance(padding, Iterable) and not isinstance(padding, str) else (padding,)
    if len(given) not in (1, 2, 4):
        expected = "one number, (left and right, top and bottom) or (left, top, right, bottom)"
        raise _unusable(owner, "padding", padding, expected, "pass 1, 2 or 4 numbers")
    left, top, right, bottom = (whole(owner, "padding", n, least=0) for n in given * (4 // len(given)))
    return left, top, right, bottom


def number(owner: str, name: str, value: object) -> float:
    """Return a float, of a finite number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real) or not math.isfinite(value):
        raise _unusable(owner, name, value, "finite numbers", "pass an int or a float")
    return float(value)


def positive_range(owner: str, name: str, value: object) -> tuple[float, float]:
    """Return the two ends of a range, of a pair of numbers above 0."""
    ends = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else ()
    if len(ends) != 2:
        raise _unusable(owner, name, value, "a pair, (least, most)", "pass a single number twice")
    least, most = (number(owner, name, end) for end in ends)
    if not 0 < least <= most:
        raise _unusable(owner, name, value, "(least, most), both above 0", "put the smaller number first")
    return least, most


def fill_value(owner: str, fill: object) -> Fill:
    """Return one number, or one for each channel."""
    if isinstance(fill, Iterable) and not isinstance(fill, str):
        return tuple(number(owner, "fill", one) for one in fill)
    single = number(owner, "fill", fill)
    return int(single) if single.is_integer() else single


def per_channel(owner: str, name: str, values: object) -> tuple[float, ...]:
    """Return numbers within float32, one for each channel or one for all."""
    given = tuple(values) if isinstance(values, Iterable) and not isinstance(values, str) else (values,)
    numbers = tuple(number(owner, name, value) for value in given)
    if not numbers or max(map(abs, numbers)) > float(np.finfo(np.float32).max):
        raise _unusable(owner, name, values, "numbers within float32", "pass one for each channel, or one for all")
    return numbers


def one_of(owner: str, name: str, value: object, choices: Sequence[str]) -> None:
    """Refuse a value that is not one of the choices."""
    if value not in choices:
        raise _unusable(owner, name, value, f"one of {', '.join(map(repr, choices))}", "pass one of these names")


def check_resizing(owner: str, interpolation: str, antialias: object) -> None:
    """Refuse a filter that does not exist, and one whose library is not installed."""
    one_of(owner, "interpolation", interpolation, INTERPOLATIONS)
    if not isinstance(antialias, bool):
        raise _unusable(owner, "antialias", antialias, "True or False", "pass one of the two")
    if not antialias and interpolation in ("lanczos", "box"):
        raise ArgumentError(
            f"{owner} got interpolation={interpolation!r} with antialias=False",
            found=interpolation,
            expected="'nearest', 'bilinear' or 'bicubic' without antialiasing",
            cure="leave antialias=False out, or pass one of these",
        )
    if not antialias or interpolation != "nearest":
        geometry.load(antialias=antialias)


def _unusable(owner: str, name: str, value: object, expected: str, cure: str) -> ArgumentError:
    return ArgumentError(f"{owner} got {name}={value!r}", found=value, expected=expected, cure=cure)
