"""Transforms of colors and values: jitter, blur, sharpness, histograms, erased parts. No pixel is moved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from headrace.checks import as_integer, fraction, integer, number, refused
from headrace.context.draws import between, shuffled
from headrace.image import color, geometry
from headrace.image.native_changes import MOST_TAPS, changed
from headrace.image.native_steps import ChangePixels, ErasePart
from headrace.image.pending import Pending, done
from headrace.transforms import parameters
from headrace.transforms.image_transform import ImageTransform, image_of

if TYPE_CHECKING:
    from headrace.image.geometry import Box, Fill, Image
    from headrace.transforms.parameters import Range

Factor = float | tuple[float, float] | None
"""A largest distance to the usual value, or (least, most)."""


class ColorTransform(ImageTransform):
    """Change values by numbers drawn once for an image: the base class of our transforms of colors.

    >>> import numpy as np
    >>> from headrace.transforms import ColorJitter
    >>> ColorJitter(brightness=(2, 2))(np.full((1, 1), 100, np.uint8))
    array([[200]], dtype=uint8)

    A subclass defines ``draw`` and ``change``.
    """

    __slots__ = ()
    described: ClassVar[tuple[str, ...]] = tuple(name for name in ImageTransform.described if name != "drawn")

    def check_image(self, image: Image) -> None:
        """Refuse an image whose colors cannot be changed."""
        color.check(image)

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:
        """Draw the numbers, by name."""
        raise NotImplementedError(f"{type(self).__qualname__} must define draw(self, image, rng)")

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image changed by what was drawn."""
        raise NotImplementedError(f"{type(self).__qualname__} must define change(self, image, drawn)")

    def transform_image(self, image: Image, rng: Any) -> Image:
        """Return the image changed."""
        return self.change(image, self.draw(image, rng))

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the numbers drawn; none where a subclass may draw otherwise."""
        kind = type(self)
        own = kind.apply is ImageTransform.apply and kind.transform_image is ColorTransform.transform_image
        return (self.draw(image_of(sample), rng) or {"applied": False}) if own else {}


class OrNot(ColorTransform):
    """Change an image with probability ``p``, or leave it."""

    __slots__ = ()
    p: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", fraction(f"{type(self).__name__}: p", self.p))

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:  # noqa: ARG002
        """Draw whether the image is changed."""
        return {"applied": bool(rng.random() < self.p)}

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image changed, or itself."""
        return self.changed(image) if drawn["applied"] else image

    def changed(self, image: Image) -> Image:
        """Return the image changed."""
        raise NotImplementedError(f"{type(self).__qualname__} must define changed(self, image)")


@dataclass(frozen=True, slots=True)
class ColorJitter(ColorTransform):
    """Change brightness, contrast, saturation and hue at random, in random order.

    >>> import numpy as np
    >>> from headrace.transforms import ColorJitter
    >>> ColorJitter(0.4, 0.4, 0.4, 0.1)(np.zeros((20, 30, 3), np.uint8)).shape
    (20, 30, 3)

    The first three are factors, uniform in (max(0, 1 - x), 1 + x) for a number x, or in (least, most). ``hue`` is a
    share of the circle, in (-x, x) for a number up to 0.5, or in (least, most). Takes uint8, uint16 and floats from 0
    to 1, of 1, 3 or 4 channels; alpha stays. Brightness, contrast and saturation of uint8 are Pillow's, to the bit, and
    so torchvision's for its images. Hues are finer than Pillow's, which have 8 bits.

    Raises ArgumentError for arguments and dtypes that cannot be used.
    """

    defers = True

    brightness: Factor = None
    contrast: Factor = None
    saturation: Factor = None
    hue: Factor = None

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            object.__setattr__(self, name, parameters.factor_range("ColorJitter", name, getattr(self, name)))
        object.__setattr__(self, "hue", parameters.hue_range("ColorJitter", self.hue))

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:  # noqa: ARG002
        """Draw the order, and a number for each that is changed."""
        names = ("brightness", "contrast", "saturation", "hue")
        order = [names[place] for place in shuffled(rng, 4)]
        ranges = {name: getattr(self, name) for name in names}
        values = {name: between(rng, *ranges[name]) for name in names if ranges[name] is not None}
        return {name: values[name] for name in order if name in values}

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image changed, in the order drawn."""
        for name, value in drawn.items():
            image = getattr(color, name)(image, value)
        return image

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return jitter_step(self)


@dataclass(frozen=True, slots=True)
class RandomPhotometricDistort(ColorTransform):
    """Change brightness, contrast, saturation, hue and the order of channels, each with probability ``p``: as SSD does.

    >>> import numpy as np
    >>> from headrace.transforms import RandomPhotometricDistort
    >>> RandomPhotometricDistort()(np.zeros((20, 30, 3), np.uint8)).shape
    (20, 30, 3)

    Each is (least, most). Contrast comes before saturation and hue, or after, with equal chance. Dtypes, channels and
    errors are as for `ColorJitter`.
    """

    defers = True

    _: KW_ONLY
    brightness: tuple[float, float] = (0.875, 1.125)
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: tuple[float, float] = (-0.05, 0.05)
    p: float = 0.5

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation", "hue"):
            if getattr(self, name) is None:
                cure = "Pass (0, 0) for the hue as it is, and (1, 1) for the others."
                raise refused(f"RandomPhotometricDistort: {name}", None, "(least, most)", cure)
        for name in ("brightness", "contrast", "saturation"):
            object.__setattr__(
                self, name, parameters.factor_range("RandomPhotometricDistort", name, getattr(self, name))
            )
        object.__setattr__(self, "hue", parameters.hue_range("RandomPhotometricDistort", self.hue))
        object.__setattr__(self, "p", fraction("RandomPhotometricDistort: p", self.p))

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:
        """Draw what is changed, in its order."""
        names = ("brightness", "contrast", "saturation", "hue")
        values = {name: between(rng, *getattr(self, name)) for name in names if rng.random() < self.p}
        early = bool(rng.random() < 0.5)
        order = names if early else ("brightness", "saturation", "hue", "contrast")
        drawn: dict[str, Any] = {name: values[name] for name in order if name in values}
        if rng.random() < self.p:
            drawn["channels"] = shuffled(rng, 1 if image.ndim == 2 else image.shape[2])
        return drawn

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image changed."""
        for name, value in drawn.items():
            image = permuted(image, value) if name == "channels" else getattr(color, name)(image, value)
        return image

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        numbers = self.p, *self.brightness, *self.contrast, *self.saturation, *self.hue
        return _fixed("distort", numbers)


@dataclass(frozen=True, slots=True)
class RandomChannelPermutation(ColorTransform):
    """Put the channels of images in random order.

    >>> import numpy as np
    >>> from headrace.transforms import RandomChannelPermutation
    >>> sorted(RandomChannelPermutation()(np.array([[[1, 2, 3]]])).reshape(-1).tolist())
    [1, 2, 3]
    """

    defers = True

    def check_image(self, image: Image) -> None:
        """Take any."""

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:
        """Draw the order."""
        return {"channels": shuffled(rng, 1 if image.ndim == 2 else image.shape[2])}

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the channels in the order drawn."""
        return permuted(image, drawn["channels"])

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return _fixed("any_channels", colors=False)


@dataclass(frozen=True, slots=True)
class RandomGrayscale(OrNot):
    """Make images gray with probability ``p``; they keep their channels.

    >>> import numpy as np
    >>> from headrace.transforms import RandomGrayscale
    >>> RandomGrayscale(p=1)(np.array([[[255, 0, 0]]], np.uint8))
    array([[[76, 76, 76]]], dtype=uint8)
    """

    defers = True

    p: float = 0.1

    def changed(self, image: Image) -> Image:
        """Return the image in gray."""
        return color.grayscale(image)

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return _maybe(self, "grayscale")


@dataclass(frozen=True, slots=True)
class RandomInvert(OrNot):
    """Show the negative of images with probability ``p``.

    >>> import numpy as np
    >>> from headrace.transforms import RandomInvert
    >>> RandomInvert(p=1)(np.array([[0, 200]], np.uint8))
    array([[255,  55]], dtype=uint8)
    """

    defers = True

    p: float = 0.5

    def changed(self, image: Image) -> Image:
        """Return the negative."""
        return color.invert(image)

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return _maybe(self, "invert")


@dataclass(frozen=True, slots=True)
class RandomAutocontrast(OrNot):
    """Stretch each channel of images from black to white with probability ``p``.

    >>> import numpy as np
    >>> from headrace.transforms import RandomAutocontrast
    >>> RandomAutocontrast(p=1)(np.array([[50, 100, 150]], np.uint8))
    array([[  0, 127, 255]], dtype=uint8)
    """

    defers = True

    p: float = 0.5

    def changed(self, image: Image) -> Image:
        """Return the image stretched."""
        return color.autocontrast(image)

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return _maybe(self, "autocontrast")


@dataclass(frozen=True, slots=True)
class RandomEqualize(OrNot):
    """Spread the values of each channel of uint8 images evenly with probability ``p``, by Pillow's rule.

    >>> import numpy as np
    >>> from headrace.transforms import RandomEqualize
    >>> RandomEqualize(p=1)(np.zeros((20, 30, 3), np.uint8)).shape
    (20, 30, 3)
    """

    defers = True

    p: float = 0.5

    def check_image(self, image: Image) -> None:
        """Refuse what is not uint8, or has other channels than colors."""
        color.check_eight_bits(image)
        color.check(image)

    def changed(self, image: Image) -> Image:
        """Return the image equalized."""
        return color.equalize(image)

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return _maybe(self, "equalize")


@dataclass(frozen=True, slots=True)
class RandomPosterize(OrNot):
    """Keep the first ``bits`` of the 8 of each value with probability ``p``.

    >>> import numpy as np
    >>> from headrace.transforms import RandomPosterize
    >>> RandomPosterize(2, p=1)(np.array([[63, 64, 255]], np.uint8))
    array([[  0,  64, 192]], dtype=uint8)
    """

    defers = True

    bits: int
    p: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", integer("RandomPosterize: bits", self.bits, least=0, most=8))
        OrNot.__post_init__(self)

    def changed(self, image: Image) -> Image:
        """Return the image with fewer values."""
        return color.posterize(image, self.bits)

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return _maybe(self, "posterize", (self.bits,))


@dataclass(frozen=True, slots=True)
class RandomSolarize(OrNot):
    """Invert the values from ``threshold`` up with probability ``p``.

    >>> import numpy as np
    >>> from headrace.transforms import RandomSolarize
    >>> RandomSolarize(128, p=1)(np.array([[100, 200]], np.uint8))
    array([[100,  55]], dtype=uint8)
    """

    defers = True

    threshold: float
    p: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", number("RandomSolarize: threshold", self.threshold))
        OrNot.__post_init__(self)

    def changed(self, image: Image) -> Image:
        """Return the image with bright values inverted."""
        return color.solarize(image, self.threshold)

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return _maybe(self, "solarize", (self.threshold,))


@dataclass(frozen=True, slots=True)
class RandomAdjustSharpness(OrNot):
    """Make images sharper, or smoother for a factor below 1, with probability ``p``.

    >>> import numpy as np
    >>> from headrace.transforms import RandomAdjustSharpness
    >>> RandomAdjustSharpness(2, p=1)(np.zeros((20, 30, 3), np.uint8)).shape
    (20, 30, 3)
    """

    defers = True

    sharpness_factor: float
    p: float = 0.5

    def __post_init__(self) -> None:
        factor = number("RandomAdjustSharpness: sharpness_factor", self.sharpness_factor, least=0)
        object.__setattr__(self, "sharpness_factor", factor)
        OrNot.__post_init__(self)

    def changed(self, image: Image) -> Image:
        """Return the image sharper."""
        return color.sharpness(image, self.sharpness_factor)

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return _maybe(self, "sharpness", (self.sharpness_factor,))


@dataclass(frozen=True, slots=True)
class GaussianBlur(ColorTransform):
    """Smooth images by a Gaussian of random width.

    >>> import numpy as np
    >>> from headrace.transforms import GaussianBlur
    >>> GaussianBlur((3, 1), sigma=1.0)(np.array([[0, 0, 90, 0, 0]], np.uint8))
    array([[ 0, 25, 41, 25,  0]], dtype=uint8)

    ``kernel_size`` is how many pixels are weighed, an odd number, or (across, down), as in torchvision. ``sigma`` is
    uniform in (least, most), or one number. Any dtype of `ColorJitter`, any number of channels.
    """

    defers = True

    kernel_size: int | tuple[int, int]
    sigma: float | tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        given = self.kernel_size
        sizes = tuple(as_integer(one) for one in (given if isinstance(given, Iterable) else (given, given)))
        if len(sizes) != 2 or any(one is None or one < 1 or one % 2 == 0 for one in sizes):
            raise refused("GaussianBlur: kernel_size", given, "an odd number of pixels, or two", "Pass 23, or (5, 9).")
        object.__setattr__(self, "kernel_size", sizes)
        sigma = self.sigma if isinstance(self.sigma, Iterable) else (self.sigma, self.sigma)
        object.__setattr__(self, "sigma", parameters.positive_range("GaussianBlur", "sigma", sigma))

    def check_image(self, image: Image) -> None:
        """Refuse a dtype that colors do not have; channels may be any."""
        color.most(image.dtype)

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:  # noqa: ARG002
        """Draw the width."""
        return {"sigma": between(rng, *cast("Range", self.sigma))}

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image smoothed."""
        across, down = cast("tuple[int, int]", self.kernel_size)
        return color.gaussian_blur(image, (down, across), drawn["sigma"])

    def native_step(self) -> ChangePixels | None:
        """Draw and do the same."""
        across, down = cast("tuple[int, int]", self.kernel_size)
        numbers = down, across, *cast("Range", self.sigma)
        return _fixed("any_blur", numbers, colors=False) if max(across, down) <= MOST_TAPS else None


@dataclass(frozen=True, slots=True)
class RandomErasing(ColorTransform):
    """Erase a random part of images with probability ``p``.

    >>> import numpy as np
    >>> from headrace.transforms import RandomErasing
    >>> erased = RandomErasing(p=1, value=9)(np.zeros((20, 20), np.uint8), np.random.default_rng(0))
    >>> int((erased == 9).sum())
    44

    The area is uniform in ``scale`` (shares of the image's), the ratio of height to width is log-uniform in
    ``ratio``, the place is uniform; after ten tries that do not fit, nothing is erased. ``value`` is one number, one
    for each channel, or "random" for a number of its own for each value: uniform for integers, normal for floats.
    Only the image is changed. Takes channels last.

    Source: Zhong et al., "Random erasing data augmentation", AAAI 2020.
    """

    defers = True

    p: float = 0.5
    scale: tuple[float, float] = (0.02, 0.33)
    ratio: tuple[float, float] = (0.3, 3.3)
    value: float | tuple[float, ...] | Literal["random"] = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", fraction("RandomErasing: p", self.p))
        object.__setattr__(self, "scale", parameters.positive_range("RandomErasing", "scale", self.scale))
        object.__setattr__(self, "ratio", parameters.positive_range("RandomErasing", "ratio", self.ratio))
        if self.scale[1] > 1:
            raise refused("RandomErasing: scale", self.scale, "shares of the image's area", "Pass (0.02, 0.33).")
        if not isinstance(self.value, str):
            object.__setattr__(self, "value", parameters.fill_value("RandomErasing", self.value))
        elif self.value != "random":
            raise refused("RandomErasing: value", self.value, 'a number, one for each channel, or "random"')

    def check_image(self, image: Image) -> None:
        """Refuse an image that cannot have the value."""
        if not isinstance(self.value, str):
            geometry.fill_of(self.value, image.dtype, image.shape[2:])
        elif image.dtype.kind != "f":
            color.most(image.dtype)

    def draw(self, image: Image, rng: Any) -> dict[str, Any]:
        """Draw the part that is erased, and the values of "random"."""
        if rng.random() >= self.p:
            return {"applied": False}
        height, width = image.shape[:2]
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            how_large, how_high, down, across = rng.random(4).tolist()
            area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * how_large)
            ratio = math.exp(low + (high - low) * how_high)
            rows, columns = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if rows < height and columns < width:
                top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
                drawn = {"top": top, "left": left, "height": rows, "width": columns}
                return drawn if self.value != "random" else drawn | {"values": self._values(image, rows, columns, rng)}
        return {"applied": False}

    def _values(self, image: Image, rows: int, columns: int, rng: Any) -> Any:
        shape = (rows, columns, *image.shape[2:])
        if image.dtype.kind == "f":
            return rng.standard_normal(shape, np.float32).astype(image.dtype)
        return rng.integers(0, int(color.most(image.dtype)), shape, image.dtype, endpoint=True)

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image with the part erased."""
        if "top" not in drawn:
            return image
        values = drawn.get("values")
        if values is None:
            values = geometry.fill_of(cast("Fill", self.value), image.dtype, image.shape[2:])
        return erased(image, [(drawn["top"], drawn["left"], drawn["height"], drawn["width"])], values)

    def native_step(self) -> ErasePart | None:
        """Draw and do the same, but for random values."""
        if isinstance(self.value, str):
            return None
        return ErasePart(self.p, self.scale, (math.log(self.ratio[0]), math.log(self.ratio[1])), self.value)


def jitter_step(transform: ColorJitter, how: Literal["", "pillow hues", "torch"] = "") -> ChangePixels:
    """Return the native step of a jitter: with our arithmetic, Pillow's hues, or that of torchvision for tensors.

    >>> jitter_step(ColorJitter(hue=0.1), "torch").describe((1, 1, 3))[1][-4:]
    (1, -0.1, 0.1, 2)
    """
    ranges = (transform.brightness, transform.contrast, transform.saturation, transform.hue)
    numbers = tuple(one for ends in ranges for one in ((0, 0, 0) if ends is None else (1, *cast("Range", ends))))
    return _fixed("jitter", (*numbers, ("", "pillow hues", "torch").index(how)))


def _fixed(kind: str, numbers: tuple[float, ...] = (), *, colors: bool = True) -> ChangePixels:
    """Return a native step that is the same for all sizes."""
    return ChangePixels(lambda _: (kind, numbers, ()), colors=colors)


def _maybe(transform: OrNot, kind: str, numbers: tuple[float, ...] = ()) -> ChangePixels:
    """Return the native step of a transform that is applied with its probability."""
    return ChangePixels(lambda _: ("apply", (transform.p,), ((kind, numbers, ()),)))


def permuted(image: Image, channels: list[int]) -> Image:
    """Return an image with its channels in another order.

    >>> permuted(np.array([[[1, 2, 3]]]), [2, 0, 1])
    array([[[3, 1, 2]]])
    """
    if image.ndim == 2:
        return image
    found = changed(image, "channels", tuple(channels))
    return np.ascontiguousarray(done(image)[:, :, channels]) if found is None else found


def erased(image: Image, parts: Iterable[Box], values: Any) -> Image:
    """Return an image with values in the place of parts (top, left, height, width), which lie in it.

    >>> erased(np.zeros((2, 3), np.uint8), [(0, 1, 1, 2)], 9)
    array([[0, 9, 9],
           [0, 0, 0]], dtype=uint8)
    """
    if isinstance(image, Pending) and image.can_be_erased:
        noted: Pending = image
        for part in parts:
            noted = noted.erased(part, values)
        return noted
    image = done(image).copy()
    for top, left, rows, columns in parts:
        image[top : top + rows, left : left + columns] = values
    return image
