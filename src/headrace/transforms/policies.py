"""Policies that draw what to do from a list of changes: RandAugment, TrivialAugment, AutoAugment, AugMix.

The changes are those of torchvision's, which follow each paper's code. Geometry moves masks, boxes and keypoints too.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from headrace.checks import flag, integer, number, one_of
from headrace.context.draws import one_of as drawn_of
from headrace.errors import ArgumentError
from headrace.image import color, geometry
from headrace.image.geometry import fill_of
from headrace.image.moves import InTurn, Recolor, Stay
from headrace.image.native_changes import NOTHING
from headrace.image.native_steps import ChangePixels
from headrace.image.warp import Sampling, Warp, Warps, turning
from headrace.transforms.geometric_transform import GeometricTransform
from headrace.transforms.image_transform import ImageTransform, size_of
from headrace.transforms.policy_tables import POLICIES
from headrace.transforms.warping import check_sampling

if TYPE_CHECKING:
    from headrace.image.geometry import Fill, Image
    from headrace.image.moves import Move, Size
    from headrace.image.native_changes import Change


class Span(NamedTuple):
    """The strength of a change from the weakest to the strongest, and whether its sign is drawn."""

    first: float
    last: float
    signed: bool = True
    of: Literal["", "width", "height"] = ""
    """The side that the strength is a share of."""


Op = tuple[str, float]
"""A change, and its strength."""

SHEARS = ("ShearX", "ShearY")
FACTORS = ("Brightness", "Color", "Contrast", "Sharpness")
PLAIN: dict[str, Span | None] = {"AutoContrast": None, "Equalize": None}

RAND: dict[str, Span | None] = {
    "Identity": None,
    **dict.fromkeys(SHEARS, Span(0, 0.3)),
    "TranslateX": Span(0, 150 / 331, of="width"),
    "TranslateY": Span(0, 150 / 331, of="height"),
    "Rotate": Span(0, 30),
    **dict.fromkeys(FACTORS, Span(0, 0.9)),
    "Posterize": Span(8, 4, signed=False),
    "Solarize": Span(1, 0, signed=False),
    **PLAIN,
}
TRIVIAL: dict[str, Span | None] = {
    **RAND,
    **dict.fromkeys((*SHEARS, *FACTORS), Span(0, 0.99)),
    **dict.fromkeys(("TranslateX", "TranslateY"), Span(0, 32)),
    "Rotate": Span(0, 135),
    "Posterize": Span(8, 2, signed=False),
}
AUTO: dict[str, Span | None] = {name: RAND[name] for name in RAND if name != "Identity"} | {"Invert": None}
MIX: dict[str, Span | None] = {
    **{name: span for name, span in RAND.items() if name != "Identity"},
    "TranslateX": Span(0, 1 / 3, of="width"),
    "TranslateY": Span(0, 1 / 3, of="height"),
    "Posterize": Span(4, 0, signed=False),
}
COLORS: dict[str, Any] = {
    "Brightness": lambda image, strength: color.brightness(image, 1 + strength),
    "Color": lambda image, strength: color.saturation(image, 1 + strength),
    "Contrast": lambda image, strength: color.contrast(image, 1 + strength),
    "Sharpness": lambda image, strength: color.sharpness(image, 1 + strength),
    "Posterize": lambda image, strength: color.posterize(image, int(np.rint(strength))),
    "Solarize": lambda image, strength: color.solarize(image, color.most(image.dtype) * strength),
    "AutoContrast": lambda image, _: color.autocontrast(image),
    "Equalize": lambda image, _: color.equalize(image),
    "Invert": lambda image, _: color.invert(image),
}

NATIVE: dict[str, Any] = {
    "Brightness": ("brightness", lambda strength: 1 + strength),
    "Color": ("saturation", lambda strength: 1 + strength),
    "Contrast": ("contrast", lambda strength: 1 + strength),
    "Sharpness": ("sharpness", lambda strength: 1 + strength),
    "Posterize": ("posterize", lambda strength: int(np.rint(strength))),
    "Solarize": ("solarize", lambda strength: 255.0 * strength),
    "AutoContrast": ("autocontrast", None),
    "Equalize": ("equalize", None),
    "Invert": ("invert", None),
}
"""The same as the native extension does it: the kind, and its number for a strength."""


class Policy(GeometricTransform):
    """Do several changes that are drawn: the base class of policies.

    >>> import numpy as np
    >>> from headrace.transforms import RandAugment
    >>> RandAugment()(np.zeros((20, 30, 3), np.uint8)).shape
    (20, 30, 3)

    A subclass defines ``ops``.
    """

    __slots__ = ()
    described = tuple(name for name in GeometricTransform.described if name != "drawn")
    interpolation: Any
    fill: Any

    def check_image(self, image: Image) -> None:
        """Refuse what one of the changes would refuse."""
        eight_bits(self._name, image)
        GeometricTransform.check_image(self, image)

    def ops(self, height: int, width: int, rng: Any) -> list[Op]:
        """Draw the changes and their strengths, in order."""
        raise NotImplementedError(f"{type(self).__qualname__} must define ops(self, height, width, rng)")

    def move(self, height: int, width: int, rng: Any) -> Move:
        """Draw the changes."""
        return as_move(self.ops(height, width, rng), (height, width), self.interpolation, self.fill)

    def strength(self, name: str, span: Span | None, level: tuple[int, int], size: Size) -> float:  # noqa: ARG002
        """Return the strength of a change at a level, without a sign."""
        return magnitude(span, level, size)

    def drawn_strength(self, name: str, span: Span | None, level: tuple[int, int], size: Size, rng: Any) -> float:
        """Return the strength of a change at a level, with its sign drawn."""
        return signed(self.strength(name, span, level, size), span, rng)

    def native(self, name: str, value: float, size: tuple[int, int, int]) -> Change:
        """Return what the native extension does for a change of a strength, for images of one size."""
        return _native(name, value, size, self.interpolation, self.fill)

    def one_native(self, name: str, span: Span | None, level: tuple[int, int], size: tuple[int, int, int]) -> Change:
        """Return what the native extension does for a change at a level, for images of one size."""
        value = self.strength(name, span, level, (size[0], size[1]))
        one = self.native(name, value, size)
        if span is None or not span.signed:
            return one
        return "choice", (), (self.native(name, -value, size), one)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the changes drawn, and their strengths."""
        if not self.carries or type(self).apply is not ImageTransform.apply:
            return {}
        height, width = size_of(sample)
        ops = enumerate(self.ops(height, width, rng), 1)
        return {f"{place}. {name}": value for place, (name, value) in ops} or {"applied": False}


@dataclass(frozen=True, slots=True)
class RandAugment(Policy):
    """Do ``num_ops`` changes of one strength, each drawn from 14.

    >>> import numpy as np
    >>> from headrace.transforms import RandAugment
    >>> RandAugment(2, 9)(np.zeros((20, 30, 3), np.uint8)).shape
    (20, 30, 3)

    ``magnitude`` is the strength, of ``num_magnitude_bins`` from 0 up. Takes uint8. ``interpolation`` and ``fill``
    are as for `RandomRotation`. Source: Cubuk et al., "RandAugment: practical automated data augmentation with a
    reduced search space", CVPR workshops 2020.
    """

    defers = True

    num_ops: int = 2
    magnitude: int = 9
    num_magnitude_bins: int = 31
    interpolation: Sampling = "nearest"
    fill: Fill = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "num_ops", integer("RandAugment: num_ops", self.num_ops, least=0))
        bins = integer("RandAugment: num_magnitude_bins", self.num_magnitude_bins, least=2)
        object.__setattr__(self, "num_magnitude_bins", bins)
        magnitude = integer("RandAugment: magnitude", self.magnitude, least=0, most=bins - 1)
        object.__setattr__(self, "magnitude", magnitude)
        check_sampling(self, "RandAugment")

    def ops(self, height: int, width: int, rng: Any) -> list[Op]:
        """Draw the changes, and their signs."""
        level = self.magnitude, self.num_magnitude_bins
        names = list(RAND)
        drawn = []
        for _ in range(self.num_ops):
            name = names[drawn_of(rng, len(names))]
            drawn.append((name, self.drawn_strength(name, RAND[name], level, (height, width), rng)))
        return drawn

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        level = self.magnitude, self.num_magnitude_bins

        def describe(size: tuple[int, int, int]) -> Change:
            each = tuple(self.one_native(name, span, level, size) for name, span in RAND.items())
            return "joined", (), (("choice", (), each),) * self.num_ops

        return ChangePixels(describe)


@dataclass(frozen=True, slots=True)
class TrivialAugmentWide(Policy):
    """Do one change of random strength, drawn from 14.

    >>> import numpy as np
    >>> from headrace.transforms import TrivialAugmentWide
    >>> TrivialAugmentWide()(np.zeros((20, 30, 3), np.uint8)).shape
    (20, 30, 3)

    Takes uint8. ``interpolation`` and ``fill`` are as for `RandomRotation`. Source: Müller and Hutter, "TrivialAugment:
    tuning-free yet state-of-the-art data augmentation", ICCV 2021.
    """

    defers = True

    num_magnitude_bins: int = 31
    interpolation: Sampling = "nearest"
    fill: Fill = 0

    def __post_init__(self) -> None:
        bins = integer("TrivialAugmentWide: num_magnitude_bins", self.num_magnitude_bins, least=2)
        object.__setattr__(self, "num_magnitude_bins", bins)
        check_sampling(self, "TrivialAugmentWide")

    def ops(self, height: int, width: int, rng: Any) -> list[Op]:
        """Draw the change, its strength and its sign."""
        names = list(TRIVIAL)
        name = names[drawn_of(rng, len(names))]
        level = drawn_of(rng, self.num_magnitude_bins), self.num_magnitude_bins
        return [(name, self.drawn_strength(name, TRIVIAL[name], level, (height, width), rng))]

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        bins = self.num_magnitude_bins

        def describe(size: tuple[int, int, int]) -> Change:
            each = []
            for name, span in TRIVIAL.items():
                levels = (self.one_native(name, span, (level, bins), size) for level in range(bins))
                each.append(("choice", (), tuple(levels)))
            return "choice", (), tuple(each)

        return ChangePixels(describe)


@dataclass(frozen=True, slots=True)
class AutoAugment(Policy):
    """Do two changes of one of 25 pairs that were learned: for "imagenet", "cifar10" or "svhn".

    >>> import numpy as np
    >>> from headrace.transforms import AutoAugment
    >>> AutoAugment("cifar10")(np.zeros((32, 32, 3), np.uint8)).shape
    (32, 32, 3)

    Takes uint8. ``interpolation`` and ``fill`` are as for `RandomRotation`. Source: Cubuk et al., "AutoAugment:
    learning augmentation policies from data", CVPR 2019.
    """

    defers = True

    policy: Literal["imagenet", "cifar10", "svhn"] = "imagenet"
    interpolation: Sampling = "nearest"
    fill: Fill = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "policy", one_of("AutoAugment: policy", self.policy, tuple(POLICIES)))
        check_sampling(self, "AutoAugment")

    def ops(self, height: int, width: int, rng: Any) -> list[Op]:
        """Draw the pair, and which of its changes are done."""
        pairs = POLICIES[self.policy]
        drawn = []
        for name, chance, level in pairs[drawn_of(rng, len(pairs))]:
            if rng.random() < chance:
                drawn.append((name, self.drawn_strength(name, AUTO[name], (level, 10), (height, width), rng)))
        return drawn

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""

        def describe(size: tuple[int, int, int]) -> Change:
            each = []
            for pair in POLICIES[self.policy]:
                both = (
                    ("apply", (chance,), (self.one_native(name, AUTO[name], (level, 10), size),))
                    for name, chance, level in pair
                )
                each.append(("all", (), tuple(both)))
            return "joined", (), (("choice", (), tuple(each)),)

        return ChangePixels(describe)


@dataclass(frozen=True, slots=True)
class AugMix(ImageTransform):
    """Mix an image with several chains of weak changes of itself.

    >>> import numpy as np
    >>> from headrace.transforms import AugMix
    >>> AugMix()(np.full((20, 30, 3), 99, np.uint8)).shape
    (20, 30, 3)

    ``severity`` is the largest strength, from 1 to 10; ``mixture_width`` the number of chains; ``chain_depth`` their
    length, -1 for 1 to 3; ``alpha`` the parameter of the distributions of weights. ``all_ops=False`` leaves out
    brightness, color, contrast and sharpness. Takes uint8. A mixed image has no one place for a mask or a box, so
    samples with these are refused. Source: Hendrycks et al., "AugMix: a simple data processing method to improve
    robustness and uncertainty", ICLR 2020.
    """

    geometric = True
    severity: int = 3
    mixture_width: int = 3
    chain_depth: int = -1
    alpha: float = 1.0
    _: KW_ONLY
    all_ops: bool = True
    interpolation: Sampling = "bilinear"
    fill: Fill = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "severity", integer("AugMix: severity", self.severity, least=1, most=10))
        object.__setattr__(self, "mixture_width", integer("AugMix: mixture_width", self.mixture_width, least=1))
        object.__setattr__(self, "chain_depth", integer("AugMix: chain_depth", self.chain_depth, least=-1))
        object.__setattr__(self, "alpha", number("AugMix: alpha", self.alpha, above=0))
        object.__setattr__(self, "all_ops", flag("all_ops", self.all_ops))
        check_sampling(self, "AugMix")

    def check_image(self, image: Image) -> None:
        """Refuse what one of the changes would refuse."""
        eight_bits(self._name, image)
        geometry.fill_of(self.fill, image.dtype, image.shape[2:])

    def draw(self, height: int, width: int, rng: Any) -> tuple[list[float], list[list[Op]]]:
        """Draw the weights, the image's own first, and the changes of each chain."""
        mixed = float(rng.beta(self.alpha, self.alpha))
        shares = rng.dirichlet([self.alpha] * self.mixture_width) * mixed
        names = [name for name in MIX if self.all_ops or name not in FACTORS]
        chains = []
        for _ in range(self.mixture_width):
            depth = self.chain_depth if self.chain_depth > 0 else int(rng.integers(1, 4))
            picked = [names[int(rng.integers(len(names)))] for _ in range(depth)]
            levels = [(int(rng.integers(self.severity)), 10) for _ in picked]
            size = height, width
            chains.append([(n, strength(MIX[n], level, size, rng)) for n, level in zip(picked, levels, strict=True)])
        return [1 - mixed, *shares.tolist()], chains

    def transform_image(self, image: Image, rng: Any) -> Image:
        """Return the mixture."""
        size: Size = (image.shape[0], image.shape[1])
        weights, chains = self.draw(*size, rng)
        mixture = image * weights[0]
        for weight, ops in zip(weights[1:], chains, strict=True):
            mixture += as_move(ops, size, self.interpolation, self.fill).image(image) * weight
        return color.back(mixture, image.dtype)

    def drawn(self, sample: Any, rng: np.random.Generator) -> dict[str, Any]:
        """Return the weights and the chains."""
        weights, chains = self.draw(*size_of(sample), rng)
        return {"weights": weights, "chains": chains}


def eight_bits(owner: str, image: Image) -> Image:
    """Return an image of uint8, of 1, 3 or 4 channels; whether another is refused must not depend on what is drawn.

    >>> eight_bits("RandAugment", np.zeros((1, 2), np.uint8))
    array([[0, 0]], dtype=uint8)
    """
    if image.dtype != np.uint8:
        raise ArgumentError(
            f"{owner} got an image of {image.dtype}",
            found=image.dtype.name,
            expected="uint8",
            cure="Put it before ToFloat.",
        )
    color.check(image)
    return image


def strength(span: Span | None, level: tuple[int, int], size: Size, rng: Any) -> float:
    """Return the strength of a change at a level, such as (9, 31), with its sign drawn.

    >>> strength(Span(0, 30, signed=False), (15, 31), (4, 4), None)
    15.0
    """
    return signed(magnitude(span, level, size), span, rng)


def signed(value: float, span: Span | None, rng: Any) -> float:
    """Return a strength with its sign drawn, if the change has one.

    >>> signed(15.0, Span(0, 30, signed=False), None)
    15.0
    """
    return -value if span is not None and span.signed and rng.random() < 0.5 else value


def magnitude(span: Span | None, level: tuple[int, int], size: Size) -> float:
    """Return the strength of a change at a level, without a sign.

    >>> magnitude(Span(0, 0.5, of="width"), (9, 10), (4, 6))
    3.0
    """
    if span is None:
        return 0.0
    place, bins = level
    value = span.first + (span.last - span.first) * place / (bins - 1)
    if span.of:
        value *= size[1] if span.of == "width" else size[0]
    return float(value)


def as_move(ops: list[Op], size: Size, interpolation: Sampling, fill: Fill) -> Move:
    """Return changes as one move of a sample; maps that follow each other are resampled once."""
    parts: list[Any] = []
    for name, value in ops:
        warp = warp_of(name, value, size, fill)
        if warp is not None and parts and isinstance(parts[-1], Warps):
            parts[-1] = Warps((*parts[-1].parts, warp), interpolation)
        elif warp is not None:
            parts.append(Warps((warp,), interpolation))
        elif name != "Identity":
            parts.append(Recolor(size, partial(recolored, name=name, value=value)))
    return InTurn(tuple(parts)) if parts else Stay(size)


def recolored(image: Image, name: str, value: float) -> Image:
    """Return an image with a change of color of a strength.

    >>> recolored(np.array([[[9, 9, 9]]], np.uint8), "Brightness", 1.0)
    array([[[18, 18, 18]]], dtype=uint8)
    """
    changed: Image = COLORS[name](image, value)
    return changed


def _native(name: str, value: float, size: tuple[int, int, int], interpolation: Sampling, fill: Fill) -> Change:
    """Return what the native extension does for a change of a strength."""
    height, width, channels = size
    if name == "Identity":
        return NOTHING
    warp = warp_of(name, value, (height, width), fill)
    if warp is not None:
        pixel = np.broadcast_to(fill_of(fill, np.dtype(np.uint8), (channels,)), (channels,)).tolist()
        return "warp", (*warp.numbers[:9], interpolation == "bilinear", *pixel), ()
    kind, number_of = NATIVE[name]
    return kind, () if number_of is None else (number_of(value),), ()


def warp_of(name: str, value: float, size: Size, fill: Fill) -> Warp | None:
    """Return the map of a change of geometry; None for one of color.

    >>> warp_of("TranslateX", 2.0, (4, 4), 0).numbers[:3], warp_of("Invert", 0.0, (4, 4), 0)
    ((1.0, 0.0, -2.0), None)
    """
    height, width = size
    middle = width / 2, height / 2
    if name in SHEARS:
        angle = math.degrees(math.atan(value))
        matrix = turning((0, 0), 0, shear=(angle, 0) if name == "ShearX" else (0, angle))
    elif name == "Rotate":
        matrix = turning(middle, -value)
    elif name in ("TranslateX", "TranslateY"):
        pixels = int(np.float32(value))  # 149.99999999999997 is 150
        matrix = turning(middle, 0, shift=(pixels, 0) if name == "TranslateX" else (0, pixels))
    else:
        return None
    return Warp(tuple(matrix.reshape(-1).tolist()), size, size, fill)
