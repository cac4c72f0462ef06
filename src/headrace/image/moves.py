"""Geometry as values: what was drawn for a sample, ready to be done to its image, masks, boxes and keypoints alike.

A point in an image is (x, y) in pixels from the top left corner: the center of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from headrace.image import geometry

if TYPE_CHECKING:
    import numpy.typing as npt

    from headrace.image.geometry import Box, Fill, Image, Interpolation, PadMode

    Matrix = npt.NDArray[np.float64]
    Points = npt.NDArray[np.float64]

Size = tuple[int, int]
"""Height and width."""


class Move(Protocol):
    """What happens to the pixels of one sample."""

    @property
    def size(self) -> Size:
        """The height and width of the image that comes out."""

    @property
    def mirrors(self) -> bool:
        """Whether left and right change sides."""

    def image(self, image: Image) -> Image:
        """Return the image moved."""

    def mask(self, mask: Image, fill: float) -> Image:
        """Return a mask ``(H, W)`` or ``(H, W, C)`` moved; ``fill`` is what lies outside of it."""

    def points(self, points: Points) -> Points:
        """Return points ``(..., 2)`` moved."""


class Stay(NamedTuple):
    """Nothing happens."""

    size: Size
    mirrors: bool = False

    def image(self, image: Image) -> Image:
        """Return the image."""
        return image

    def mask(self, mask: Image, fill: float) -> Image:  # noqa: ARG002
        """Return the mask."""
        return mask

    def points(self, points: Points) -> Points:
        """Return the points."""
        return points


class Cut(NamedTuple):
    """A part of the image is kept, which may lie outside of it.

    >>> Cut((0, 1, 2, 2)).image(np.array([[1, 2, 3], [4, 5, 6]]))
    array([[2, 3],
           [5, 6]])
    """

    box: Box
    mode: PadMode = "constant"
    fill: Fill = 0
    mirrors: bool = False

    @property
    def size(self) -> Size:
        """The size of the part."""
        return self.box[2], self.box[3]

    def image(self, image: Image) -> Image:
        """Return the part of the image."""
        return geometry.crop(image, *self.box, mode=self.mode, fill=self.fill)

    def mask(self, mask: Image, fill: float) -> Image:
        """Return the part of the mask."""
        return geometry.crop(mask, *self.box, mode=self.mode, fill=fill)

    def points(self, points: Points) -> Points:
        """Return the points seen from the part's corner."""
        return points - (self.box[1], self.box[0])


class ScalePart(NamedTuple):
    """A part of the image is scaled to a size.

    >>> ScalePart((0, 0, 2, 2), (4, 6)).points(np.array([1.0, 1.0]))
    array([3., 2.])
    """

    box: Box
    size: Size
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    mirrors: bool = False

    def image(self, image: Image) -> Image:
        """Return the part of the image, scaled."""
        return geometry.resize(
            image, *self.size, interpolation=self.interpolation, antialias=self.antialias, box=self.box
        )

    def mask(self, mask: Image, fill: float) -> Image:  # noqa: ARG002
        """Return the part of the mask, each value from the pixel under it."""
        return geometry.resize(mask, *self.size, interpolation="nearest", box=self.box)

    def points(self, points: Points) -> Points:
        """Return the points scaled."""
        top, left, rows, columns = self.box
        return (points - (left, top)) * (self.size[1] / columns, self.size[0] / rows)


class Mirror(NamedTuple):
    """The image is mirrored, left to right or (``upright`` False) top to bottom.

    >>> Mirror((1, 3)).image(np.array([[1, 2, 3]]))
    array([[3, 2, 1]])
    """

    size: Size
    upright: bool = True
    mirrors: bool = True

    def image(self, image: Image) -> Image:
        """Return the mirror image."""
        return geometry.flip(image) if self.upright else np.ascontiguousarray(image[::-1])

    def mask(self, mask: Image, fill: float) -> Image:  # noqa: ARG002
        """Return the mirror image of the mask."""
        return np.ascontiguousarray(mask[:, ::-1] if self.upright else mask[::-1])

    def points(self, points: Points) -> Points:
        """Return the points mirrored."""
        mirrored: Any = points.copy()
        axis = 0 if self.upright else 1
        mirrored[..., axis] = self.size[1 - axis] - points[..., axis]
        return mirrored  # type: ignore[no-any-return]
