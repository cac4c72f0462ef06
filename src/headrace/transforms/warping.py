"""Affine and perspective transforms; those that follow each other in a chain are resampled once."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast, get_args

import numpy as np

from headrace.checks import flag, fraction, one_of, refused
from headrace.context.draws import between
from headrace.context.draws import one_of as drawn_of
from headrace.image.moves import Stay
from headrace.image.native_steps import MapPlaces
from headrace.image.warp import Sampling, Warp, Warps, check_weighable, corners_to, mapped, turning
from headrace.transforms import parameters
from headrace.transforms.geometric_transform import GeometricTransform
from headrace.transforms.image_transform import ImageTransform, size_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.image.geometry import Fill, Image
    from headrace.image.moves import Matrix, Move, Points, Size
    from headrace.transforms.base import Transform
    from headrace.transforms.parameters import Range

SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)


class WarpTransform(GeometricTransform):
    """Map the places of a sample by a matrix: the base class of affine and perspective transforms.

    >>> import numpy as np
    >>> from headrace.transforms import Compose, RandomAffine, RandomRotation
    >>> chain = Compose(RandomRotation(30), RandomAffine(0, scale=(0.5, 2)))
    >>> chain(np.zeros((20, 30, 3), np.uint8)).shape
    (20, 30, 3)

    A subclass defines ``draw`` and ``warp``. Where several of one interpolation follow each other in a `Compose`, their
    pixels are interpolated once, which is sharper and faster than one by one.
    """

    __slots__ = ()
    described: ClassVar[tuple[str, ...]] = tuple(name for name in GeometricTransform.described if name != "drawn")
    interpolation: Any

    def check_image(self, image: Image) -> None:
        """Refuse an image whose values cannot be mixed, or that cannot have the ``fill``."""
        if self.interpolation != "nearest":
            check_weighable(image)
        GeometricTransform.check_image(self, image)

    def draw(self, height: int, width: int, rng: Any) -> dict[str, Any]:
        """Draw the numbers, by name, for an image of this size."""
        raise NotImplementedError(f"{type(self).__qualname__} must define draw(self, height, width, rng)")

    def warp(self, height: int, width: int, drawn: dict[str, Any]) -> Warp | None:
        """Return the map of an image of this size for what was drawn; None where nothing is moved."""
        raise NotImplementedError(f"{type(self).__qualname__} must define warp(self, height, width, drawn)")

    def move(self, height: int, width: int, rng: Any) -> Move:
        """Draw the map."""
        warp = self.warp(height, width, self.draw(height, width, rng))
        return Stay((height, width)) if warp is None else Warps((warp,), self.interpolation)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the numbers drawn; none where a subclass may draw otherwise."""
        height, width = size_of(sample)
        own = self.carries and type(self).apply is ImageTransform.apply and type(self).move is WarpTransform.move
        return self.draw(height, width, rng) if own else {}

    def joined(self, before: Transform) -> Transform | None:
        """Return both as one, where the one before also maps by a matrix and samples pixels in the same way."""
        if not isinstance(before, WarpTransform | JoinedWarps) or before.interpolation != self.interpolation:
            return None
        if not (before.carries and self.carries):
            return None  # a subclass does something else to the image
        return JoinedWarps((*before.unpacked(), self))


@dataclass(frozen=True, slots=True, repr=False)
class JoinedWarps(GeometricTransform):
    """Several maps, resampled once."""

    defers = True

    transforms: tuple[Any, ...]

    def check_image(self, image: Image) -> None:
        """Refuse what one of them refuses."""
        for transform in self.transforms:
            transform.check_image(image)

    @property
    def interpolation(self) -> Sampling:
        """The sampling of all of them."""
        return cast("Sampling", self.transforms[0].interpolation)

    def move(self, height: int, width: int, rng: Any) -> Move:
        """Draw the maps one after the other, each for the size that the one before gives."""
        warps = tuple(warp for _, _, warp in self._drawn(height, width, rng) if warp is not None)
        return Warps(warps, self.interpolation) if warps else Stay((height, width))

    def _drawn(self, height: int, width: int, rng: Any) -> Iterator[tuple[WarpTransform, dict[str, Any], Warp | None]]:
        for transform in self.transforms:
            drawn = transform.draw(height, width, rng)
            warp = transform.warp(height, width, drawn)
            yield transform, drawn, warp
            height, width = (height, width) if warp is None else warp.size

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return what each of them draws, under its name."""
        height, width = size_of(sample)
        return {
            f"{place}. {type(transform).__name__} {name}": value
            for place, (transform, drawn, _) in enumerate(self._drawn(height, width, rng), 1)
            for name, value in drawn.items()
        }

    def unpacked(self) -> tuple[Any, ...]:
        """Return its parts."""
        return self.transforms

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.transforms))


@dataclass(frozen=True, slots=True)
class RandomRotation(WarpTransform):
    """Turn images by a random angle, against the clock.

    >>> import numpy as np
    >>> from headrace.transforms import RandomRotation
    >>> RandomRotation((90, 90))(np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]))
    array([[3, 6, 9],
           [2, 5, 8],
           [1, 4, 7]])

    The angle is uniform in ``degrees``: (least, most), or one number for both ways. ``interpolation`` is "nearest" or
    "bilinear". ``expand`` makes the image as large as the turned one. ``center`` is (x, y), by default the middle.
    ``fill`` is the value outside the image: one number, or one for each channel. Boxes are those around what is left
    of the turned box in the image.

    Raises ArgumentError for arguments that cannot be used.
    """

    defers = True

    degrees: float | tuple[float, float]
    _: KW_ONLY
    interpolation: Sampling = "nearest"
    expand: bool = False
    center: tuple[float, float] | None = None
    fill: Fill = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "degrees", parameters.both_ways("RandomRotation", "degrees", self.degrees))
        check_sampling(self, "RandomRotation")
        object.__setattr__(self, "expand", flag("expand", self.expand))
        object.__setattr__(self, "center", parameters.point("RandomRotation", "center", self.center))
        if self.expand and self.center is not None:
            expected = "None with expand=True, where the middle stays the middle"
            raise refused("RandomRotation: center", self.center, expected, "Leave one of them out.")

    def draw(self, height: int, width: int, rng: Any) -> dict[str, Any]:  # noqa: ARG002
        """Draw the angle."""
        return {"angle": between(rng, *cast("Range", self.degrees))}

    def warp(self, height: int, width: int, drawn: dict[str, Any]) -> Warp:
        """Return the map."""
        matrix = turning(self.center or (width / 2, height / 2), -drawn["angle"])
        size = height, width
        if self.expand:
            size, matrix = _expanded(matrix, size, drawn["angle"])
        return Warp(tuple(matrix.reshape(-1).tolist()), (height, width), size, self.fill)

    def native_step(self) -> MapPlaces | None:
        """Draw and do the same, to images that keep their size."""
        return None if self.expand else _native_affine(self, -1, self.degrees)


@dataclass(frozen=True, slots=True)
class RandomAffine(WarpTransform):
    """Shear, scale, turn and shift images at random, around their middle.

    >>> import numpy as np
    >>> from headrace.transforms import RandomAffine
    >>> affine = RandomAffine(10, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=5, interpolation="bilinear")
    >>> affine(np.zeros((20, 30, 3), np.uint8)).shape
    (20, 30, 3)

    ``degrees`` is the range of the angle, in the order of the clock; 0 turns nothing. ``translate`` is the largest
    shift, as fractions of width and height; shifts are whole pixels. ``scale`` is the range of the factor. ``shear``
    is a range of degrees along x, or four numbers for the ranges along x and y. One number is for both ways.
    ``interpolation``, ``center`` and ``fill`` are as for `RandomRotation`.

    Raises ArgumentError for arguments that cannot be used.
    """

    defers = True

    degrees: float | tuple[float, float]
    _: KW_ONLY
    translate: tuple[float, float] | None = None
    scale: tuple[float, float] | None = None
    shear: float | tuple[float, ...] | None = None
    interpolation: Sampling = "nearest"
    fill: Fill = 0
    center: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "degrees", parameters.both_ways("RandomAffine", "degrees", self.degrees))
        translate = parameters.point("RandomAffine", "translate", self.translate)
        if translate is not None and not all(0 <= one <= 1 for one in translate):
            raise refused("RandomAffine: translate", translate, "fractions of width and height", "Pass (0.1, 0.1).")
        object.__setattr__(self, "translate", translate)
        if self.scale is not None:
            object.__setattr__(self, "scale", parameters.positive_range("RandomAffine", "scale", self.scale))
        if self.shear is not None:
            object.__setattr__(self, "shear", parameters.shear_ranges("RandomAffine", self.shear))
        check_sampling(self, "RandomAffine")
        object.__setattr__(self, "center", parameters.point("RandomAffine", "center", self.center))

    def draw(self, height: int, width: int, rng: Any) -> dict[str, Any]:
        """Draw angle, shift, factor and shear."""
        angle = between(rng, *cast("Range", self.degrees))
        across, down = self.translate or (0, 0)
        shift: tuple[int, ...] = (0, 0)
        if self.translate is not None:
            shift = tuple(round(between(rng, -most, most)) for most in (across * width, down * height))
        scale = 1.0 if self.scale is None else between(rng, *self.scale)
        shear = [0.0, 0.0]
        ranges = cast("tuple[float, ...]", self.shear or ())
        for axis in range(len(ranges) // 2):
            shear[axis] = between(rng, *ranges[2 * axis : 2 * axis + 2])
        return {"angle": angle, "translate": shift, "scale": scale, "shear": tuple(shear)}

    def warp(self, height: int, width: int, drawn: dict[str, Any]) -> Warp:
        """Return the map."""
        center = self.center or (width / 2, height / 2)
        shift, scale, shear = drawn["translate"], drawn["scale"], drawn["shear"]
        matrix = turning(center, drawn["angle"], shift=shift, scale=scale, shear=shear)
        return Warp(tuple(matrix.reshape(-1).tolist()), (height, width), (height, width), self.fill)

    def native_step(self) -> MapPlaces | None:
        """Draw and do the same."""
        shear = cast("tuple[float, ...]", self.shear or ())
        return _native_affine(self, 1, self.degrees, self.translate, self.scale, shear)


@dataclass(frozen=True, slots=True)
class RandomPerspective(WarpTransform):
    """Show images as if from another side, with probability ``p``: each corner moves inwards at random.

    >>> import numpy as np
    >>> from headrace.transforms import RandomPerspective
    >>> RandomPerspective(0.3, p=1)(np.zeros((20, 30, 3), np.uint8)).shape
    (20, 30, 3)

    A corner moves by up to ``distortion_scale`` of half of each side, in whole pixels. ``interpolation`` and ``fill``
    are as for `RandomRotation`. An image with a side of one pixel stays as it is, as does one whose new corners would
    cross.

    Raises ArgumentError for arguments that cannot be used.
    """

    defers = True

    distortion_scale: float = 0.5
    _: KW_ONLY
    p: float = 0.5
    interpolation: Sampling = "bilinear"
    fill: Fill = 0

    def __post_init__(self) -> None:
        scale = fraction("RandomPerspective: distortion_scale", self.distortion_scale)
        object.__setattr__(self, "distortion_scale", scale)
        object.__setattr__(self, "p", fraction("RandomPerspective: p", self.p))
        check_sampling(self, "RandomPerspective")

    def draw(self, height: int, width: int, rng: Any) -> dict[str, Any]:
        """Draw whether it is done, and the new corners: top left, top right, bottom right, bottom left."""
        if rng.random() >= self.p:
            return {"applied": False}
        most = self._most(height, width)
        inwards = np.array([[drawn_of(rng, places) for places in most] for _ in range(4)])
        last = np.array([width - 1, height - 1])
        corners = np.where([[False, False], [True, False], [True, True], [False, True]], last - inwards, inwards)
        return {"applied": True, "corners": corners.tolist()}

    def warp(self, height: int, width: int, drawn: dict[str, Any]) -> Warp | None:
        """Return the map."""
        if not drawn["applied"] or min(height, width) < 2:
            return None
        before = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float64)
        after = np.array(drawn["corners"], np.float64)
        if not _is_convex(after):
            return None
        matrix = corners_to(before, after)
        return Warp(tuple(matrix.reshape(-1).tolist()), (height, width), (height, width), self.fill)

    def native_step(self) -> MapPlaces:
        """Draw and do the same."""
        return MapPlaces(
            "any_perspective",
            lambda height, width: (self.p, *self._most(height, width)),
            self.fill,
            self.interpolation,
        )

    def _most(self, height: int, width: int) -> tuple[int, int]:
        """Return how many places a corner may move to, across and down."""
        return int(self.distortion_scale * (width // 2)) + 1, int(self.distortion_scale * (height // 2)) + 1


def _native_affine(
    transform: RandomRotation | RandomAffine,
    sign: int,
    degrees: Any,
    translate: tuple[float, float] | None = None,
    scale: tuple[float, float] | None = None,
    shear: tuple[float, ...] = (),
) -> MapPlaces:
    """Return the native step of a map that shears, scales, turns and shifts."""

    def numbers(height: int, width: int) -> tuple[float, ...]:
        across, down = translate or (0, 0)
        return (
            *(sign, *degrees, *(transform.center or (width / 2, height / 2))),
            *(translate is not None, across * width, down * height),
            *(scale is not None, *(scale or (1, 1))),
            *(len(shear) // 2, *shear, *(0.0,) * (4 - len(shear))),
        )

    return MapPlaces("any_affine", numbers, transform.fill, transform.interpolation)


def check_sampling(transform: Any, owner: str) -> None:
    """Check a transform's ``interpolation`` and ``fill``, and put the checked ones in their place."""
    object.__setattr__(
        transform, "interpolation", one_of(f"{owner}: interpolation", transform.interpolation, SAMPLINGS)
    )
    object.__setattr__(transform, "fill", parameters.fill_value(owner, transform.fill))


def _expanded(matrix: Matrix, size: Size, angle: float) -> tuple[Size, Matrix]:
    """Return the size that all of a turned image has, as torchvision rounds it; and the matrix to its middle."""
    height, width = size
    corners = mapped(matrix, np.array([[0.0, 0], [width, 0], [width, height], [0, height]]))
    # Truncated first: 20.000000001 is 20.
    low = np.floor(np.trunc(corners.min(axis=0) * 1e4) / 1e4)
    high = np.ceil(np.trunc(corners.max(axis=0) * 1e4) / 1e4)
    columns, rows = (int(one) for one in high - low)
    if angle % 90 == 0:  # no margin, though the corners lie between pixels
        rows, columns = size if angle % 180 == 0 else size[::-1]
    moved = matrix.copy()  # an affine one
    moved[:2, 2] += (columns - width) / 2, (rows - height) / 2
    return (rows, columns), moved


def _is_convex(corners: Points) -> bool:
    edges = np.roll(corners, -1, axis=0) - corners
    following = np.roll(edges, -1, axis=0)
    return bool((edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0] > 0).all())
