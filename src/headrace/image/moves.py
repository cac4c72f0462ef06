"""Geometry as values: what was drawn for a sample, ready to be done to its image, masks, boxes and keypoints alike.

A point in an image is (x, y) in pixels from the top left corner: the center of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from headrace.image import geometry

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from headrace.image.geometry import Box, Fill, Image, Interpolation, PadMode

    Matrix = npt.NDArray[np.float64]
    Points = npt.NDArray[np.float64]

Size = tuple[int, int]
"""Height and width."""


class Move(Protocol):
    """What happens to the pixels of one sample: what a `GeometricTransform` draws, for all the parts of the sample.

    >>> import numpy as np
    >>> from headrace.transforms import GeometricTransform
    >>> class Down:
    ...     mirrors = False
    ...     def __init__(self, size, rows):
    ...         self.size, self.rows = size, rows
    ...     def image(self, image):
    ...         return np.roll(image, self.rows, axis=0)
    ...     def mask(self, mask, fill):
    ...         return np.roll(mask, self.rows, axis=0)
    ...     def points(self, points):
    ...         return (points + (0, self.rows)) % (np.inf, self.size[0])
    >>> class RandomRoll(GeometricTransform):
    ...     def move(self, height, width, rng):
    ...         return Down((height, width), rng.integers(height))
    >>> RandomRoll()({"image": np.eye(3), "mask": np.eye(3)}, np.random.default_rng(0))["mask"]
    array([[0., 1., 0.],
           [0., 0., 1.],
           [1., 0., 0.]])

    Ours are `Stay`, `Cut`, `Mirror`, `ScalePart`, `InTurn` and what `matrix_move` returns. A class of your own has
    ``size``, ``mirrors`` and the three methods; it need not derive from this one. Points are (x, y) in pixels from the
    image's top left corner, of any shape ``(..., 2)``, float64: the center of the first pixel is (0.5, 0.5). A box
    becomes the one around its four moved corners, clipped to the image. Where that is too large, or wrong, a method
    ``boxes(corners)`` returns the boxes, ``(N, 4)``, one for each: those of no area are dropped.
    """

    @property
    def size(self) -> Size:
        """The height and width of the image that comes out."""

    @property
    def mirrors(self) -> bool:
        """Whether left and right change sides, and with them the ``swaps`` of keypoints."""

    def image(self, image: Image) -> Image:
        """Return the image moved."""

    def mask(self, mask: Image, fill: float) -> Image:
        """Return a mask ``(H, W)`` or ``(H, W, C)`` moved; ``fill`` is what lies outside of it."""

    def points(self, points: Points) -> Points:
        """Return points ``(..., 2)`` moved."""


class Stay(NamedTuple):
    """Nothing happens: what a `GeometricTransform` returns for an image that it leaves as it is.

    >>> Stay((4, 6)).points(np.array([1.0, 2.0]))
    array([1., 2.])
    """

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

    ``box`` is (top, left, height, width) in pixels. ``mode`` and ``fill`` are as for `Pad`.
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

    ``box`` is (top, left, height, width) in pixels, inside the image; ``size`` is height and width. ``interpolation``
    and ``antialias`` are as for `Resize`; masks take the nearest pixel.
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

    ``size`` is the image's height and width.
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


class InTurn(NamedTuple):
    """Several moves, one after the other.

    >>> InTurn((ScalePart((0, 0, 1, 2), (2, 4)), Cut((0, -1, 2, 6)))).points(np.array([1.0, 0.5]))
    array([3., 1.])

    Each takes what the one before gives. There must be at least one.
    """

    parts: tuple[Any, ...]

    @property
    def size(self) -> Size:
        """The size after the last."""
        size: Size = self.parts[-1].size
        return size

    @property
    def mirrors(self) -> bool:
        """Whether left and right change sides."""
        return bool(sum(part.mirrors for part in self.parts) % 2)

    @property
    def stages(self) -> tuple[Any, ...]:
        """The moves, and those that they consist of: a point that leaves the image of one of them is lost."""
        return tuple(stage for part in self.parts for stage in getattr(part, "stages", (part,)))

    def image(self, image: Image) -> Image:
        """Return the image moved by each of them."""
        for part in self.parts:
            image = part.image(image)
        return image

    def mask(self, mask: Image, fill: float) -> Image:
        """Return the mask moved by each of them."""
        for part in self.parts:
            mask = part.mask(mask, fill)
        return mask

    def points(self, points: Points) -> Points:
        """Return the points moved by each of them."""
        for part in self.parts:
            points = part.points(points)
        return points

    def boxes(self, boxes: Points) -> Points:
        """Return what is left of boxes after each of them."""
        for part in self.parts:
            own = getattr(part, "boxes", None)
            boxes = upright(part.points, boxes) if own is None else own(boxes)
            boxes = np.clip(boxes, 0, (part.size[1], part.size[0]) * 2)
        return boxes


def rectangle(boxes: Points) -> Points:
    """Return the corners of boxes, (N, 4, 2), in the order of the clock.

    >>> rectangle(np.array([[0.0, 0, 2, 1]])).tolist()
    [[[0.0, 0.0], [2.0, 0.0], [2.0, 1.0], [0.0, 1.0]]]
    """
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def upright(points: Callable[[Points], Points], boxes: Points) -> Points:
    """Return the boxes around the corners of boxes after a map of points.

    >>> upright(lambda points: -points, np.array([[1.0, 2, 3, 4]]))
    array([[-3., -4., -1., -2.]])
    """
    if not len(boxes):
        return boxes
    corners = points(rectangle(boxes))
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


class Recolor(NamedTuple):
    """The image's values are changed, and nothing else.

    >>> Recolor((1, 1), lambda image: image + 1).image(np.array([[1]]))
    array([[2]])
    """

    size: Size
    change: Callable[[Image], Image]
    mirrors: bool = False

    def image(self, image: Image) -> Image:
        """Return the image changed."""
        return self.change(image)

    def mask(self, mask: Image, fill: float) -> Image:  # noqa: ARG002
        """Return the mask."""
        return mask

    def points(self, points: Points) -> Points:
        """Return the points."""
        return points


class CutAroundCenters(Cut):
    """A part of the image is kept, and of the boxes those whose center lies in it."""

    __slots__ = ()

    def boxes(self, boxes: Points) -> Points:
        """Return boxes seen from the part's corner; those whose center lies outside of it without area."""
        corner = np.array([self.box[1], self.box[0]] * 2)
        inside: Any = centers_inside(boxes, self.box)[:, np.newaxis]
        return np.where(inside, boxes - corner, 0)


class WithoutSmallBoxes(NamedTuple):
    """Nothing happens to the image; boxes with a side or an area below a limit are dropped."""

    size: Size
    min_size: float
    min_area: float
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

    def boxes(self, boxes: Points) -> Points:
        """Return the boxes inside the image; those that are too small without area."""
        inside = np.clip(boxes, 0, (self.size[1], self.size[0]) * 2)
        sides = inside[:, 2:] - inside[:, :2]
        good = (sides >= self.min_size).all(axis=1) & (sides.prod(axis=1) >= self.min_area)
        return np.where(good[:, np.newaxis], inside, 0)


def centers_inside(boxes: Points, part: Box) -> npt.NDArray[np.bool_]:
    """Say which boxes have their center in a part of the image.

    >>> centers_inside(np.array([[0.0, 0, 2, 2], [0, 0, 8, 8]]), (0, 0, 3, 3))
    array([ True, False])
    """
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    low, high = np.array([part[1], part[0]]), np.array([part[1] + part[3], part[0] + part[2]])
    inside: Any = ((centers > low) & (centers < high)).all(axis=1)
    return inside  # type: ignore[no-any-return]
