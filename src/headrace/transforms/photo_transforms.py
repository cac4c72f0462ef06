"""`CLAHE`, `JPEG`, `GaussianNoise` and `ThreeAugment`: contrast, compression, noise, and the changes of DeiT III."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace.checks import flag, fraction, integer, number, refused
from headrace.image import color, geometry
from headrace.image.decoder import decode_with_pillow
from headrace.transforms import parameters
from headrace.transforms.color_transforms import ColorTransform
from headrace.transforms.image_transform import ImageTransform, image_of
from headrace.transforms.policies import eight_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from headrace.image.geometry import Image

LEVELS = 256


@dataclass(frozen=True, slots=True)
class CLAHE(ColorTransform):
    """Raise the contrast of each part of an image by itself, up to a limit, with probability ``p``.

    >>> import numpy as np
    >>> from headrace.transforms import CLAHE
    >>> CLAHE(p=1)(np.full((20, 30, 3), 99, np.uint8)).shape
    (20, 30, 3)

    The image is cut into ``tile_grid_size`` (rows, columns) tiles. Gray values are spread so that those of a tile
    become equally frequent; ``clip_limit`` bounds how steep that is, as a multiple of the mean frequency: one number,
    or (least, most) to draw from. Between the middles of tiles, values are interpolated. Of color images, the
    brightness is changed and the color stays. Takes uint8 with 1, 3 or 4 channels; gray values are OpenCV's within one
    level. Source: Zuiderveld, "Contrast limited adaptive histogram equalization", 1994.
    """

    clip_limit: float | tuple[float, float] = (1.0, 4.0)
    tile_grid_size: tuple[int, int] = (8, 8)
    p: float = 0.5

    def __post_init__(self) -> None:
        given: Any = self.clip_limit
        limits = given if isinstance(given, tuple | list) else (given, given)
        object.__setattr__(self, "clip_limit", parameters.positive_range("CLAHE", "clip_limit", limits))
        object.__setattr__(self, "tile_grid_size", parameters.size_pair("CLAHE", self.tile_grid_size))
        object.__setattr__(self, "p", fraction("CLAHE: p", self.p))

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:  # noqa: ARG002
        """Draw the limit."""
        if rng.random() >= self.p:
            return {"applied": False}
        low, high = self.clip_limit  # type: ignore[misc]  # a pair once it is made
        return {"applied": True, "clip_limit": float(rng.uniform(low, high))}

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image with more contrast."""
        eight_bits("CLAHE", image)
        if not drawn["applied"]:
            return image

        def spread(colors: Image) -> Image:
            before = color.gray(colors)[..., 0] if colors.shape[2] == 3 else colors[..., 0]
            after = equalized_tiles(before, self.tile_grid_size, drawn["clip_limit"])
            change = after.astype(np.int16) - before
            result: Image = np.clip(colors + change[..., np.newaxis], 0, 255).astype(np.uint8)
            return result

        return color.on_colors(image, spread)


@dataclass(frozen=True, slots=True)
class JPEG(ColorTransform):
    """Compress and decompress images as JPEG, for what a low ``quality`` loses.

    >>> import numpy as np
    >>> from headrace.transforms import JPEG
    >>> JPEG((10, 30))(np.full((20, 30, 3), 99, np.uint8)).shape
    (20, 30, 3)

    ``quality``, from 1 to 100, is one number or (least, most), as in torchvision. Pillow does it, with half the
    resolution for colors. Takes uint8 with 1 or 3 channels. Raises ArgumentError for others.
    """

    quality: int | tuple[int, int]

    def __post_init__(self) -> None:
        given: Any = self.quality
        pair = tuple(given) if isinstance(given, tuple | list) else (given, given)
        if len(pair) != 2:
            raise refused("JPEG: quality", given, "one number or (least, most)", "Pass (25, 75), for example.")
        low, high = (integer("JPEG: quality", each, least=1, most=100) for each in pair)
        if low > high:
            raise refused("JPEG: quality", given, "the least first", f"Pass ({high}, {low}).")
        object.__setattr__(self, "quality", (low, high))

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:  # noqa: ARG002
        """Draw the quality."""
        low, high = self.quality  # type: ignore[misc]  # a pair once it is made
        return {"quality": int(rng.integers(low, high + 1))}

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return what is left of the image."""
        eight_bits("JPEG", image)
        if image.ndim == 3 and image.shape[2] not in (1, 3):
            cure = "Put it before a channel is added, or convert the image to RGB."
            raise refused("JPEG: the channels", image.shape[2], "1 or 3 channels", cure)
        library, file = geometry.load(antialias=True), io.BytesIO()
        plane = np.ascontiguousarray(image[..., 0] if image.shape[2:] == (1,) else image)
        library.fromarray(plane).save(file, "JPEG", quality=drawn["quality"], subsampling="4:2:0")
        pixels = decode_with_pillow(file.getvalue(), mode="L" if plane.ndim == 2 else "RGB")
        return pixels.reshape(image.shape)


@dataclass(frozen=True, slots=True)
class GaussianNoise(ImageTransform):
    """Add normally distributed noise to each value.

    >>> import numpy as np
    >>> from headrace.transforms import GaussianNoise
    >>> GaussianNoise(sigma=0)(np.array([[0.25, 0.5]]))
    array([[0.25, 0.5 ]])

    ``mean`` and ``sigma`` are shares of white: of 1 for floats, of 255 for uint8. With ``clip``, floats stay within 0
    and 1; integers always stay within their range.
    """

    mean: float = 0.0
    sigma: float = 0.1
    clip: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", number("GaussianNoise: mean", self.mean))
        object.__setattr__(self, "sigma", number("GaussianNoise: sigma", self.sigma, least=0))
        object.__setattr__(self, "clip", flag("clip", self.clip))

    def transform_image(self, image: Image, rng: Any) -> Image:
        """Return the image with noise."""
        white = color.most(image.dtype)
        noise = self._noise(image, rng)
        noisy = image + (noise * np.float32(self.sigma * white) + np.float32(self.mean * white))
        if image.dtype.kind == "f" and not self.clip:
            return cast("Image", noisy.astype(image.dtype, copy=False))
        return color.back(noisy, image.dtype)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the noise, of deviation 1."""
        return {"noise": self._noise(image_of(sample), rng)}

    def _noise(self, image: Image, rng: Any) -> NDArray[np.float32]:
        noise: NDArray[np.float32] = rng.standard_normal(image.shape, np.float32)
        return noise


@dataclass(frozen=True, slots=True)
class ThreeAugment(ColorTransform):
    """Do one of three changes, all equally likely: gray, solarized above the middle, or smoothed.

    >>> import numpy as np
    >>> from headrace.transforms import ThreeAugment
    >>> ThreeAugment()(np.zeros((20, 30, 3), np.uint8)).shape
    (20, 30, 3)

    The width of the Gaussian is uniform in ``sigma``. `ColorJitter(0.3, 0.3, 0.3)` usually follows. Takes uint8, uint16
    and floats. Source: Touvron et al., "DeiT III: Revenge of the ViT", ECCV 2022.
    """

    defers = True

    sigma: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", parameters.positive_range("ThreeAugment", "sigma", self.sigma))

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:  # noqa: ARG002
        """Draw the change."""
        choice = ("grayscale", "solarize", "blur")[int(rng.integers(3))]
        return {"choice": choice} | ({"sigma": float(rng.uniform(*self.sigma))} if choice == "blur" else {})

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image changed."""
        if drawn["choice"] == "grayscale":
            return color.grayscale(image)
        if drawn["choice"] == "solarize":
            white = color.most(image.dtype)
            return color.solarize(image, white / 2 if image.dtype.kind == "f" else (white + 1) / 2)
        half = int(3 * drawn["sigma"] + 0.5)
        return color.gaussian_blur(image, (2 * half + 1, 2 * half + 1), drawn["sigma"])


def equalized_tiles(plane: Image, grid: tuple[int, int], limit: float) -> Image:
    """Return a plane of uint8 with the values of each tile spread, up to a limit.

    >>> equalized_tiles(np.array([[10, 20], [20, 30]], np.uint8), (1, 1), 40.0)
    array([[128, 191],
           [191, 255]], dtype=uint8)
    """
    height, width = plane.shape
    # As OpenCV has it: if one side is no multiple of its tiles, both are widened.
    exact = height % grid[0] == 0 and width % grid[1] == 0
    rows, columns = height // grid[0] + (not exact), width // grid[1] + (not exact)
    padded = plane
    if (rows * grid[0], columns * grid[1]) != plane.shape:
        padded = _widened(plane, rows * grid[0], columns * grid[1])
    tiles = padded.reshape(grid[0], rows, grid[1], columns).transpose(0, 2, 1, 3).reshape(grid[0] * grid[1], -1)
    tables = np.stack([_table(tile, limit) for tile in tiles]).reshape(*grid, LEVELS)
    top, low, down = _between(height, rows, grid[0])
    left, right, across = _between(width, columns, grid[1])
    across = across[np.newaxis]
    upper = tables[top[:, np.newaxis], left, plane] * (1 - across) + tables[top[:, np.newaxis], right, plane] * across
    lower = tables[low[:, np.newaxis], left, plane] * (1 - across) + tables[low[:, np.newaxis], right, plane] * across
    down = down[:, np.newaxis]
    result: Image = np.rint(upper * (1 - down) + lower * down).astype(np.uint8)
    return result


def _widened(plane: Image, height: int, width: int) -> Image:
    """Return a plane mirrored beyond its right and bottom edges, where it has pixels to mirror."""
    for axis, length in ((0, height), (1, width)):
        count = plane.shape[axis]
        places = np.arange(length) % max(2 * count - 2, 1)
        plane = plane.take(
            np.minimum(places, 2 * (count - 1) - places) if count > 1 else np.zeros_like(places), axis=axis
        )
    return plane


def _table(tile: Image, limit: float) -> NDArray[np.float32]:
    """Return what each gray value of a tile becomes."""
    counts = np.bincount(tile, minlength=LEVELS)
    most = max(int(limit * len(tile) / LEVELS), 1)
    excess = int(np.maximum(counts - most, 0).sum())
    counts = np.minimum(counts, most) + excess // LEVELS
    rest = excess % LEVELS
    if rest:
        counts[: rest * (LEVELS // rest) : LEVELS // rest] += 1
    spread: NDArray[Any] = np.rint(np.cumsum(counts).astype(np.float32) * np.float32((LEVELS - 1) / len(tile)))
    table: NDArray[np.float32] = np.minimum(spread, 255).astype(np.float32)
    return table


def _between(length: int, tile: int, count: int) -> tuple[Any, Any, Any]:
    """Return for each row or column the two tiles that it lies between, and how near the second is."""
    places = (np.arange(length, dtype=np.float32) + np.float32(0)) / np.float32(tile) - np.float32(0.5)
    first = np.floor(places).astype(np.intp)
    share = (places - first).astype(np.float32)
    return np.maximum(first, 0), np.minimum(first + 1, count - 1), share
