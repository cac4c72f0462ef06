"""`ElasticTransform`: pixels pushed around by smooth random shifts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from headrace.checks import number, refused
from headrace.image import color, warp
from headrace.transforms.geometric_transform import GeometricTransform
from headrace.transforms.image_transform import size_of
from headrace.transforms.warping import check_sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.image.geometry import Fill, Image
    from headrace.image.moves import Points
    from headrace.image.warp import Sampling

    Shifts = NDArray[np.float64]


class Pushed(NamedTuple):
    """Each pixel comes from a place of its own.

    >>> shifts = np.zeros((2, 1, 3))
    >>> shifts[0] = 1
    >>> Pushed(shifts).image(np.array([[1, 2, 3]], np.uint8))
    array([[2, 3, 0]], dtype=uint8)
    """

    shifts: Shifts
    """(2, H, W): how far to the right, and how far down, each pixel comes from."""
    interpolation: Sampling = "bilinear"
    fill: Fill = 0
    mirrors: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """The size of the image."""
        return self.shifts.shape[1], self.shifts.shape[2]

    def image(self, image: Image) -> Image:
        """Return the image with its pixels pushed."""
        return self._sampled(image, self.interpolation, self.fill)

    def mask(self, mask: Image, fill: float) -> Image:
        """Return the mask, each value from the pixel at its place."""
        return self._sampled(mask, "nearest", fill)

    def points(self, points: Points) -> Points:
        """Return the points, pushed against the shift of the pixel that they are in."""
        height, width = self.size
        column = np.clip(np.floor(points[..., 0]), 0, width - 1).astype(np.intp)
        row = np.clip(np.floor(points[..., 1]), 0, height - 1).astype(np.intp)
        moved: Points = points - np.stack([self.shifts[0, row, column], self.shifts[1, row, column]], axis=-1)
        return moved

    def _sampled(self, image: Image, interpolation: Sampling, fill: Fill) -> Image:
        height, width = self.size
        x = np.arange(width) + 0.5 + self.shifts[0]
        y = np.arange(height)[:, np.newaxis] + 0.5 + self.shifts[1]
        sample = warp.nearest if interpolation == "nearest" else warp.bilinear
        return sample(image.reshape(height, width, -1), x, y, fill).reshape(image.shape)


@dataclass(frozen=True, slots=True)
class ElasticTransform(GeometricTransform):
    """Push pixels around by smooth random shifts, as for handwriting, cells and tissue.

    >>> import numpy as np
    >>> from headrace.transforms import ElasticTransform
    >>> ElasticTransform(alpha=0)(np.array([[1, 2, 3]], np.uint8))
    array([[1, 2, 3]], dtype=uint8)

    A shift is drawn for each pixel, smoothed by a Gaussian of width ``sigma``, and multiplied by ``alpha``; each may be
    one number, or (across, down). The two mean what they mean in torchvision. Pixels are ``interpolation``, "bilinear"
    or "nearest", of those at their place; what lies outside is ``fill``. Masks move with the image; keypoints and the
    corners of boxes are pushed against the shift of their pixel, as in torchvision. Raises ArgumentError for arguments
    that cannot be used. Source: Simard et al., "Best practices for convolutional neural networks applied to visual
    document analysis", ICDAR 2003.
    """

    alpha: float | tuple[float, float] = 50.0
    sigma: float | tuple[float, float] = 5.0
    interpolation: Sampling = "bilinear"
    fill: Fill = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", _pair("alpha", self.alpha))
        object.__setattr__(self, "sigma", _pair("sigma", self.sigma))
        check_sampling(self, "ElasticTransform")

    def shifts(self, height: int, width: int, rng: Any) -> Shifts:
        """Draw how far to the right and how far down each pixel comes from."""
        alpha, sigma = cast("tuple[float, float]", self.alpha), cast("tuple[float, float]", self.sigma)
        noise = rng.random((2, height, width)) * 2 - 1
        smooth = np.stack([_smoothed(noise[axis], sigma[axis]) for axis in (0, 1)])
        shifts: Shifts = smooth * (np.array(alpha) / 2)[:, np.newaxis, np.newaxis]
        return shifts

    def move(self, height: int, width: int, rng: Any) -> Pushed:
        """Draw the shifts."""
        return Pushed(self.shifts(height, width, rng), self.interpolation, self.fill)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the shifts, (2, H, W): to the right and down."""
        return {"shifts": self.shifts(*size_of(sample), rng)}


def _pair(name: str, value: Any) -> tuple[float, float]:
    given = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value, value)
    if len(given) != 2:
        raise refused(f"ElasticTransform: {name}", value, "one number or two", "Pass (50.0, 50.0), for example.")
    one, other = (number(f"ElasticTransform: {name}", each, least=0) for each in given)
    return one, other


def _smoothed(noise: Shifts, sigma: float) -> Shifts:
    """Return noise smoothed by a Gaussian, whose weights end at four times its width."""
    if not sigma:
        return noise
    half = int(8 * sigma + 1) // 2
    weights = color.gaussian_weights(2 * half + 1, sigma)
    for axis in (0, 1):
        padded = np.pad(noise, [(half, half) if each == axis else (0, 0) for each in (0, 1)], mode="symmetric")
        count, weighed = noise.shape[axis], np.empty_like(noise)
        noise = np.zeros_like(noise)
        for place, weight in enumerate(weights):
            part = padded[place : place + count] if axis == 0 else padded[:, place : place + count]
            noise += np.multiply(part, weight, out=weighed)
    return noise
