"""Affine and perspective maps of images: matrices, composed over a chain, and pixels resampled once.

A matrix (3, 3) takes a point (x, y, 1) of an image before to the image after; the center of the first pixel is
(0.5, 0.5).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from headrace.checks import one_of, shown
from headrace.errors import ArgumentError
from headrace.image import geometry
from headrace.image.moves import rectangle
from headrace.image.native_changes import warped

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from headrace.image.geometry import Fill, Image
    from headrace.image.moves import Matrix, Points, Size

    Places = npt.NDArray[np.float64]

Sampling = Literal["nearest", "bilinear"]
"""How a pixel is made of those around its place."""

BITS = 11
"""Weights of neighbors are multiples of 1/2048, so that 8-bit sums fit 32 bits."""
ONE = 1 << BITS
TINY = 1e-12
"""The determinant of a matrix that leaves nothing of an image."""


class Warp(NamedTuple):
    """One affine or perspective map, from an image of the size ``before`` to one of ``size``."""

    matrix: tuple[float, ...]
    """The nine numbers, row by row."""
    before: Size
    size: Size
    fill: Fill = 0

    @property
    def inverse(self) -> Matrix:
        """The matrix that takes a point of the image after to the image before."""
        below = determinant(self.matrix)
        return np.array([one / below for one in _adjugate(self.matrix)]).reshape(3, 3)

    @property
    def numbers(self) -> tuple[float, ...]:
        """The inverse matrix, and height and width before and after: what the native extension takes."""
        return (*self.inverse.reshape(-1).tolist(), *self.before, *self.size)


class Warps(NamedTuple):
    """Maps one after the other, resampled once: what happens to a sample's parts.

    >>> shift = Warp((1, 0, 1, 0, 1, 0, 0, 0, 1), (1, 3), (1, 3))
    >>> Warps((shift, shift)).image(np.array([[1, 2, 3]], np.uint8))
    array([[0, 0, 1]], dtype=uint8)

    Pixels that leave one of the images on the way are lost, as they would be step by step.
    """

    parts: tuple[Warp, ...]
    interpolation: Sampling = "nearest"

    @property
    def size(self) -> Size:
        """The size of the last image."""
        return self.parts[-1].size

    @property
    def mirrors(self) -> bool:
        """Whether left and right change sides, at the middle of the image."""
        turned = [determinant(part.matrix) < 0 for part in self.parts]
        return bool(sum(turned) % 2)

    @property
    def stages(self) -> tuple[Warps, ...]:
        """The maps, each by itself: a point that leaves the image of one of them is lost."""
        return tuple(Warps((part,), self.interpolation) for part in self.parts)

    def image(self, image: Image) -> Image:
        """Return the image resampled."""
        return self._resampled(image, self.interpolation, [part.fill for part in self.parts])

    def mask(self, mask: Image, fill: float) -> Image:
        """Return the mask, each value from the pixel at its place."""
        return self._resampled(mask, "nearest", [fill for _ in self.parts])

    def points(self, points: Points) -> Points:
        """Return the points mapped."""
        for part in self.parts:
            points = mapped(_matrix(part), points)
        return points

    def boxes(self, boxes: Points) -> Points:
        """Return the boxes around what is left of boxes in the image; those of nothing have no area."""
        first = self.parts[0]
        if any(first.matrix[6:8]):  # a corner behind the horizon would come back on the other side
            boxes = np.clip(boxes, 0, (first.before[1], first.before[0]) * 2)
        quads = [rectangle(boxes)]
        for part in self.parts:
            quads = [mapped(_matrix(part), quad) for quad in quads]
            quads.append(rectangle(np.array([[0, 0, part.size[1], part.size[0]]], np.float64)))
        return extent(quads)

    def _resampled(self, image: Image, interpolation: Sampling, fills: Sequence[Fill]) -> Image:
        flat = image.reshape(*image.shape[:2], -1)
        pixels = [np.broadcast_to(_value(fill, flat), flat.shape[2:]) for fill in fills]
        made = warped(flat, [part.numbers for part in self.parts], np.array(pixels), nearest=interpolation == "nearest")
        if made is None:
            return self.by_steps(image, interpolation, fills)
        return made.reshape(*self.size, *image.shape[2:])

    def by_steps(self, image: Image, interpolation: Sampling, fills: Sequence[Fill]) -> Image:
        """Return the image resampled by NumPy: what the native extension does too, where it is there."""
        stages = self._stages(interpolation)
        x, y, _ = stages[-1]
        flat = image.reshape(*image.shape[:2], -1)
        sample = nearest if interpolation == "nearest" else bilinear
        made = sample(flat, x, y, fills[0])
        # What an image on the way did not show, from the first to the last: the last one's fill counts.
        for (_, _, there), fill in zip(stages[-2::-1], fills[1:], strict=True):
            made = _blended(made, there, _value(fill, image), interpolation)
        return made.reshape(*self.size, *image.shape[2:])

    def _stages(self, interpolation: Sampling) -> list[tuple[Places, Places, Places]]:
        """Return for each map, from the last, where its pixels come from; and how much of the image before is there."""
        stages = []
        x: Places = np.arange(self.size[1], dtype=np.float64) + 0.5
        y: Places = np.arange(self.size[0], dtype=np.float64)[:, np.newaxis] + 0.5
        for part in reversed(self.parts):
            x, y = _sources(part.inverse.tolist(), x, y)
            stages.append((x, y, _share(x, y, part.before, interpolation)))
        return stages


def matrix_move(
    matrix: npt.ArrayLike,
    before: Size,
    after: Size | None = None,
    *,
    interpolation: Sampling = "bilinear",
    fill: Fill = 0,
) -> Warps:
    """Return the `Move` that maps places by an affine or perspective matrix.

    >>> import numpy as np
    >>> from headrace.transforms import matrix_move
    >>> move = matrix_move([[1, 0, 1], [0, 1, 0]], (1, 3), interpolation="nearest")  # one pixel to the right
    >>> move.image(np.array([[1, 2, 3]], np.uint8))
    array([[0, 1, 2]], dtype=uint8)

    ``matrix``, (2, 3) or (3, 3), takes a point (x, y, 1) of the image before to the image after, in pixels from the
    top left corner: the center of the first pixel is (0.5, 0.5). ``before`` and ``after`` are their heights and widths;
    ``after`` is ``before`` where it is left out. ``interpolation`` is "nearest" or "bilinear". ``fill`` is the value
    outside the image: one number, or one for each channel. Masks take the nearest pixel, and their own fill. Boxes
    are those around what is left of each in the image.

    Raises ArgumentError for a matrix that is none of these, or that cannot be inverted.
    """
    try:
        given = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        given = np.zeros(())
    if given.shape == (2, 3):
        given = np.concatenate([given, [[0, 0, 1]]])
    if given.shape != (3, 3) or not np.isfinite(given).all() or not abs(determinant(given.reshape(-1).tolist())) > TINY:
        raise ArgumentError(
            f"matrix_move got {shown(matrix)} for a matrix",
            found=matrix,
            expected="finite numbers, (2, 3) or (3, 3), that can be inverted",
            cure="Pass [[1, 0, right], [0, 1, down]] for a shift, for example.",
        )
    one_of("matrix_move: interpolation", interpolation, get_args(Sampling))
    numbers = tuple(given.reshape(-1).tolist())
    return Warps((Warp(numbers, before, before if after is None else after, fill),), interpolation)


def _matrix(part: Warp) -> Matrix:
    return np.array(part.matrix, np.float64).reshape(3, 3)


def _sources(inverse: Any, x: Places, y: Places) -> tuple[Places, Places]:
    """Return the points that a map brings to (x, y); far outside where none does."""
    (a, b, c), (d, e, f), (g, h, i) = inverse
    if g == h == 0:
        return (a * x + b * y + c) / i, (d * x + e * y + f) / i
    below = g * x + h * y + i
    behind = below <= 1e-12
    below[behind] = 1
    left, top = (a * x + b * y + c) / below, (d * x + e * y + f) / below
    left[behind] = top[behind] = -1e6
    return left, top


def _share(x: Places, y: Places, size: Size, interpolation: Sampling) -> Places:
    """Return how much of each point lies in an image: 0 or 1, or in between where neighbors are weighed."""
    across, down = np.minimum(x, size[1] - x), np.minimum(y, size[0] - y)
    if interpolation == "nearest":
        return ((across >= 0) & (down >= 0) & (x < size[1]) & (y < size[0])).astype(np.float64)
    return np.clip(across + 0.5, 0, 1) * np.clip(down + 0.5, 0, 1)


def _value(fill: Fill, image: Image) -> Image:
    """Return a fill as pixels of an image, one for each of its channels."""
    return geometry.fill_of(fill, image.dtype, image.shape[2:]).reshape(-1)


def _framed(image: Image, fill: Fill) -> Image:
    """Return an image ``(H, W, C)`` with a margin of one pixel."""
    rows, columns = image.shape[:2]
    framed = np.empty((rows + 2, columns + 2, image.shape[2]), image.dtype)
    value = np.asarray(geometry.fill_of(fill, image.dtype, image.shape[2:]))
    for margin in (framed[0], framed[-1], framed[:, 0], framed[:, -1]):
        margin[...] = value
    framed[1:-1, 1:-1] = image
    return framed


def nearest(image: Image, x: Places, y: Places, fill: Fill) -> Image:
    """Return the pixels ``(H, W, C)`` of an image at points.

    >>> nearest(np.array([[[5], [6]]]), np.array([[0.5, 1.9, 2.0]]), np.array([[0.5, 0.5, 0.5]]), 9)[..., 0]
    array([[5, 6, 9]])
    """
    rows, columns = image.shape[:2]
    column = np.clip(np.floor(x), -1, columns).astype(np.intp) + 1
    row = np.clip(np.floor(y), -1, rows).astype(np.intp) + 1
    framed = _framed(image, fill).reshape(-1, image.shape[2])
    found: Image = framed.take(row * (columns + 2) + column, axis=0)
    return found


def bilinear(image: Image, x: Places, y: Places, fill: Fill) -> Image:
    """Return the pixels ``(H, W, C)`` of an image at points, weighed by the distance to the four nearest.

    >>> bilinear(np.array([[[0], [100]]], np.uint8), np.array([[0.5, 1.0]]), np.array([[0.5, 0.5]]), 0)[..., 0]
    array([[ 0, 50]], dtype=uint8)

    The weights of uint8 are multiples of 1/2048, and the sum is rounded once. Other dtypes are computed in floats.
    """
    check_weighable(image)
    rows, columns = image.shape[:2]
    right: Any
    below: Any
    column, right = _split(x, columns)
    row, below = _split(y, rows)
    framed = _framed(image, fill).reshape(-1, image.shape[2])
    first = row * (columns + 2) + column
    if image.dtype == np.uint8:
        right, below = (np.rint(one * ONE).astype(np.int32)[..., np.newaxis] for one in (right, below))
        one: Any = np.int32(ONE)
        kind: Any = np.int32
    else:
        kind = np.float32 if image.dtype == np.float32 else np.float64
        right, below = (part.astype(kind)[..., np.newaxis] for part in (right, below))
        one = kind(1)
    with np.errstate(invalid="ignore"):  # infinity has no share of nothing
        upper = framed.take(first, axis=0) * (one - right) + framed.take(first + 1, axis=0) * right
        first = first + (columns + 2)
        lower = framed.take(first, axis=0) * (one - right) + framed.take(first + 1, axis=0) * right
        made = upper * (one - below) + lower * below
    if image.dtype == np.uint8:
        rounded: Image = (made + (1 << (2 * BITS - 1))) >> (2 * BITS)
        return rounded.astype(np.uint8)
    return _back(made, image.dtype)


def _split(places: Places, count: int) -> tuple[npt.NDArray[np.intp], Places]:
    """Return the pixel of a framed image at or before each place, and how far behind it the place lies."""
    inside = np.clip(places - 0.5, -1, count)
    before = np.minimum(np.floor(inside), count - 1)
    return before.astype(np.intp) + 1, inside - before


def _blended(made: Image, shown: Places, value: Image, interpolation: Sampling) -> Image:
    """Return pixels with a value where they are not shown."""
    if interpolation == "nearest" or bool((shown == 1).all()):
        return np.where(shown[..., np.newaxis] > 0, made, value)
    weight: Any
    mixed: Image
    if made.dtype == np.uint8:
        weight = np.rint(shown * ONE).astype(np.int32)[..., np.newaxis]
        mixed = (made * weight + value.astype(np.int32) * (ONE - weight) + ONE // 2) >> BITS
        return mixed.astype(np.uint8)
    weight = shown[..., np.newaxis]
    with np.errstate(invalid="ignore"):
        mixed = made * weight + value * (1 - weight)
    return _back(mixed, made.dtype)


def _back(made: Image, dtype: np.dtype[Any]) -> Image:
    whole: Image = np.rint(made) if dtype.kind in "iu" else made
    return whole.astype(dtype)


def check_weighable(image: Image) -> None:
    """Refuse an image whose values cannot be mixed.

    >>> check_weighable(np.zeros((1, 1)))
    """
    if image.dtype.kind not in "iuf":
        raise ArgumentError(
            f"cannot weigh the pixels of an image of {image.dtype}",
            found=image.dtype.name,
            expected="integers or floats",
            cure='Pass interpolation="nearest", which takes any dtype.',
        )


def mapped(matrix: Matrix, points: Points) -> Points:
    """Return points ``(..., 2)`` mapped by a matrix.

    >>> mapped(np.diag([2.0, 3, 1]), np.array([[1.0, 1]]))
    array([[2., 3.]])
    """
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    x, y = points[..., 0], points[..., 1]
    below = np.maximum(g * x + h * y + i, 1e-9)
    return np.stack([(a * x + b * y + c) / below, (d * x + e * y + f) / below], axis=-1)


def extent(quads: Sequence[Points]) -> Points:
    """Return the boxes around what convex quadrangles, (N, 4, 2) or (1, 4, 2), have in common.

    >>> diamond = np.array([[[2.0, -1], [5, 2], [2, 5], [-1, 2]]])
    >>> extent([diamond, rectangle(np.array([[0.0, 0, 1, 1]]))]).tolist()
    [[0.0, 0.0, 1.0, 1.0]]
    """
    count = max(map(len, quads)) if len(quads[0]) else 0
    if not count:
        return np.zeros((0, 4))
    corners = np.concatenate([np.broadcast_to(quad, (count, 4, 2)) for quad in quads], axis=1)
    following = np.concatenate([np.broadcast_to(np.roll(quad, -1, axis=1), (count, 4, 2)) for quad in quads], axis=1)
    one, other = np.triu_indices(corners.shape[1], 1)
    crossing = _crossings(corners[:, one], following[:, one], corners[:, other], following[:, other])
    points = np.concatenate([corners, crossing], axis=1)
    inside = np.ones(points.shape[:2], bool)
    for quad in quads:
        inside &= _is_inside(points, np.broadcast_to(quad, (count, 4, 2)))
    low = np.where(inside[..., np.newaxis], points, np.inf).min(axis=1)
    high = np.where(inside[..., np.newaxis], points, -np.inf).max(axis=1)
    boxes = np.concatenate([low, high], axis=1)
    return np.where(np.isfinite(boxes), boxes, 0)


def _crossings(a: Points, b: Points, c: Points, d: Points) -> Points:
    """Return where the lines a-b and c-d cross; not a number where they do not."""
    along, across = b - a, d - c
    below = along[..., 0] * across[..., 1] - along[..., 1] * across[..., 0]
    gap = c - a
    with np.errstate(all="ignore"):
        share = (gap[..., 0] * across[..., 1] - gap[..., 1] * across[..., 0]) / below
        crossing: Points = a + share[..., np.newaxis] * along
    return crossing


def _is_inside(points: Points, quads: Points) -> npt.NDArray[np.bool_]:
    """Say which of the points, (N, P, 2), lie in their quadrangle, (N, 4, 2), or on its edge."""
    edges = np.roll(quads, -1, axis=1) - quads
    turn = np.sign(_cross(quads[:, 1] - quads[:, 0], quads[:, 2] - quads[:, 0]))
    from_corner = points[:, :, np.newaxis] - quads[:, np.newaxis]
    with np.errstate(all="ignore"):
        sides = _cross(np.broadcast_to(edges[:, np.newaxis], from_corner.shape), from_corner)
        length = np.hypot(edges[..., 0], edges[..., 1])[:, np.newaxis]
        inside = (sides * turn[:, np.newaxis, np.newaxis] >= -1e-7 * np.maximum(length, 1)).all(axis=2)
    found: npt.NDArray[np.bool_] = inside & (turn != 0)[:, np.newaxis]
    return found


def _cross(one: Points, other: Points) -> Points:
    found: Points = one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
    return found


def turning(
    center: tuple[float, float], angle: float, *, shift: tuple[float, float] = (0, 0), scale: float = 1,
    shear: tuple[float, float] = (0, 0),
) -> Matrix:  # fmt: skip
    """Return the matrix that shears, scales and turns around a center, and then shifts: torchvision's affine map.

    >>> mapped(turning((2, 2), 90), np.array([[4.0, 2]])).round(6)
    array([[2., 4.]])

    Angles are in degrees, in the order of the clock.
    """
    turn, across, down = (math.radians(one) for one in (angle, *shear))
    a = math.cos(turn - down) / math.cos(down)
    b = -math.cos(turn - down) * math.tan(across) / math.cos(down) - math.sin(turn)
    c = math.sin(turn - down) / math.cos(down)
    d = -math.sin(turn - down) * math.tan(across) / math.cos(down) + math.cos(turn)
    a, b, c, d = (scale * one for one in (a, b, c, d))
    (x, y), (right, down) = center, shift
    return np.array([[a, b, x + right - (a * x + b * y)], [c, d, y + down - (c * x + d * y)], [0, 0, 1]])


def corners_to(before: Points, after: Points) -> Matrix:
    """Return the perspective map that takes four points, (4, 2), to four others.

    >>> square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    >>> np.allclose(corners_to(square, 2 * square), np.diag([2, 2, 1]))
    True
    """
    matrix = product(_of_unit_square(after.tolist()), _adjugate(_of_unit_square(before.tolist())))
    return np.array([one / matrix[8] for one in matrix]).reshape(3, 3)


def _of_unit_square(corners: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return a matrix from (0, 0), (1, 0), (1, 1), (0, 1) to four corners (Heckbert, 1989), without its divisions."""
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    across, down = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    i = (x1 - x2) * (y3 - y2) - (x3 - x2) * (y1 - y2)
    g = across * (y3 - y2) - (x3 - x2) * down
    h = (x1 - x2) * down - across * (y1 - y2)
    return (
        *(i * (x1 - x0) + g * x1, i * (x3 - x0) + h * x3, i * x0),
        *(i * (y1 - y0) + g * y1, i * (y3 - y0) + h * y3, i * y0),
        *(g, h, i),
    )


# Products and inverses are written out: those of linear algebra libraries round differently on other processors.
def product(one: Sequence[float], other: Sequence[float]) -> tuple[float, ...]:
    """Return the product of two matrices of nine numbers, row by row.

    >>> product((0, 1, 0, 1, 0, 0, 0, 0, 1), (1, 2, 3, 4, 5, 6, 7, 8, 9))
    (4, 5, 6, 1, 2, 3, 7, 8, 9)
    """
    rows, columns = [one[start : start + 3] for start in (0, 3, 6)], [other[start::3] for start in range(3)]
    return tuple(a * x + b * y + c * z for a, b, c in rows for x, y, z in columns)


def determinant(matrix: Sequence[float]) -> float:
    """Return the determinant of a matrix of nine numbers, row by row.

    >>> determinant((2, 0, 0, 0, 3, 0, 0, 0, 1))
    6
    """
    a, b, c = matrix[:3]
    first, _, _, second, _, _, third, _, _ = _adjugate(matrix)
    return a * first + b * second + c * third


def _adjugate(matrix: Sequence[float]) -> tuple[float, ...]:
    """Return the inverse of a matrix of nine numbers times its determinant."""
    a, b, c, d, e, f, g, h, i = matrix
    return (
        *(e * i - f * h, c * h - b * i, b * f - c * e),
        *(f * g - d * i, a * i - c * g, c * d - a * f),
        *(d * h - e * g, b * g - a * h, a * e - b * d),
    )
