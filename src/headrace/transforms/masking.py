"""Transforms that hide parts of an image: `GridMask` and `Cutout`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.checks import fraction, integer, refused
from headrace.image import geometry
from headrace.transforms import parameters
from headrace.transforms.color_transforms import ColorTransform, erased

if TYPE_CHECKING:
    from headrace.image.geometry import Fill, Image


@dataclass(frozen=True, slots=True)
class GridMask(ColorTransform):
    """Hide a grid of squares with probability ``p``.

    >>> import numpy as np
    >>> from headrace.transforms import GridMask
    >>> GridMask((4, 4), ratio=0.5, p=1, fill=9)(np.zeros((4, 6), np.uint8), np.random.default_rng(0))
    array([[0, 0, 0, 0, 0, 0],
           [0, 0, 0, 0, 0, 0],
           [9, 0, 0, 9, 9, 0],
           [9, 0, 0, 9, 9, 0]], dtype=uint8)

    The distance of the squares is drawn from ``unit_range``, in pixels, and so is where the grid begins. Of each unit,
    the share ``ratio`` of both sides is kept; the rest is ``fill``, one number or one for each channel. Only the image
    is changed. Source: Chen et al., "GridMask data augmentation", 2020.
    """

    unit_range: tuple[int, int] = (96, 224)
    ratio: float = 0.6
    p: float = 0.5
    fill: Fill = 0

    def __post_init__(self) -> None:
        low, high = parameters.positive_range("GridMask", "unit_range", self.unit_range)
        if low < 2 or low % 1 or high % 1:
            raise refused(
                "GridMask: unit_range", self.unit_range, "two numbers of pixels, 2 or more", "Pass (96, 224)."
            )
        object.__setattr__(self, "unit_range", (int(low), int(high)))
        object.__setattr__(self, "ratio", fraction("GridMask: ratio", self.ratio))
        object.__setattr__(self, "p", fraction("GridMask: p", self.p))
        object.__setattr__(self, "fill", parameters.fill_value("GridMask", self.fill))

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:  # noqa: ARG002
        """Draw the distance of the squares, and where the grid begins."""
        if rng.random() >= self.p:
            return {"applied": False}
        unit = int(rng.integers(self.unit_range[0], self.unit_range[1] + 1))
        top, left = rng.integers(unit, size=2).tolist()
        return {"applied": True, "unit": unit, "top": top, "left": left}

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image with the squares hidden."""
        if not drawn["applied"]:
            return image
        unit = drawn["unit"]
        hidden = unit - round(unit * self.ratio)
        rows = (np.arange(image.shape[0]) + drawn["top"]) % unit < hidden
        columns = (np.arange(image.shape[1]) + drawn["left"]) % unit < hidden
        masked = image.copy()
        masked[np.ix_(rows, columns)] = geometry.fill_of(self.fill, image.dtype, image.shape[2:])
        return masked


@dataclass(frozen=True, slots=True)
class Cutout(ColorTransform):
    """Hide squares of a length at random places with probability ``p``.

    >>> import numpy as np
    >>> from headrace.transforms import Cutout
    >>> int((Cutout(4, fill=9)(np.zeros((20, 20), np.uint8), np.random.default_rng(2)) == 9).sum())
    16

    The center of a square is uniform in the image, so that a part of it may lie outside. ``holes`` is how many there
    are, ``fill`` one number or one for each channel. Only the image is changed. Source: DeVries and Taylor, "Improved
    regularization of convolutional neural networks with Cutout", 2017.
    """

    defers = True

    length: int
    holes: int = 1
    p: float = 1.0
    fill: Fill = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", integer("Cutout: length", self.length, least=1))
        object.__setattr__(self, "holes", integer("Cutout: holes", self.holes, least=1))
        object.__setattr__(self, "p", fraction("Cutout: p", self.p))
        object.__setattr__(self, "fill", parameters.fill_value("Cutout", self.fill))

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:
        """Draw the centers, as row and column."""
        if rng.random() >= self.p:
            return {"centers": []}
        places = (rng.random((self.holes, 2)) * image.shape[:2]).astype(np.int64)
        return {"centers": places.tolist()}

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image with the squares hidden."""
        if not drawn["centers"]:
            return image
        (height, width), half = image.shape[:2], self.length // 2
        value = geometry.fill_of(self.fill, image.dtype, image.shape[2:])
        parts = []
        for row, column in drawn["centers"]:
            top, left = max(row - half, 0), max(column - half, 0)
            bottom, right = min(row - half + self.length, height), min(column - half + self.length, width)
            parts.append((top, left, bottom - top, right - left))
        return erased(image, parts, value)
