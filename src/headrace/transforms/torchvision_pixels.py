"""Transforms that give torchvision's pixels where ours are others, for its pipelines alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.image import as_pillow, as_torch, color
from headrace.image.geometry import fill_of
from headrace.image.moves import InTurn, Recolor, Stay
from headrace.image.native_steps import ChangePixels
from headrace.image.warp import Warps
from headrace.transforms.color_transforms import ColorJitter, RandomGrayscale, jitter_step
from headrace.transforms.policies import AutoAugment, Policy, RandAugment, TrivialAugmentWide, recolored, warp_of

if TYPE_CHECKING:
    from headrace.image.geometry import Fill, Image
    from headrace.image.moves import Move, Size
    from headrace.image.native_changes import Change
    from headrace.transforms.policies import Span

Levels = tuple[tuple[str, tuple[float, ...]], ...]
"""The strengths of changes, by name and level."""

LARGEST = 16384
"""Height and width together from which on Pillow may compute places in floats."""
APART: Change = ("posterize", (8,), ())
"""Changes nothing, but keeps the maps before and after it from being joined."""


@dataclass(frozen=True, slots=True)
class PillowJitter(ColorJitter):
    """Change hues by way of Pillow's, which have 8 bits."""

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image changed, in the order drawn."""
        for name, value in drawn.items():
            image = (as_pillow.pillow_hue if name == "hue" else getattr(color, name))(image, value)
        return image

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return jitter_step(self, "pillow hues")


@dataclass(frozen=True, slots=True)
class TorchJitter(ColorJitter):
    """Change colors as torchvision changes those of tensors of bytes."""

    def change(self, image: Image, drawn: dict[str, Any]) -> Image:
        """Return the image changed, in the order drawn."""
        for name, value in drawn.items():
            image = (color.brightness if name == "brightness" else getattr(as_torch, f"torch_{name}"))(image, value)
        return image

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return jitter_step(self, "torch")


@dataclass(frozen=True, slots=True)
class TorchGrayscale(RandomGrayscale):
    """Make images gray as torchvision makes tensors of bytes gray."""

    def changed(self, image: Image) -> Image:
        """Return the image in gray."""
        return as_torch.torch_grayscale(image)

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return ChangePixels(lambda _: ("apply", (self.p,), (("torch_grayscale", (), ()),)))


class OnPillow(Policy):
    """Change images one thing after the other, as torchvision does: no two maps are joined.

    The strengths are torchvision's own floats of 32 bits; those of Solarize are gray levels. Only images are changed.
    """

    __slots__ = ()
    levels: Levels

    def strength(self, name: str, span: Span | None, level: tuple[int, int], size: Size) -> float:
        """Return the strength of a change at a level; a share of the image's side is computed."""
        known = dict(self.levels).get(name)
        return Policy.strength(self, name, span, level, size) if known is None else known[level[0]]

    def move(self, height: int, width: int, rng: Any) -> Move:
        """Draw the changes."""
        size = height, width
        drawn = [one for one in self.ops(height, width, rng) if one[0] != "Identity"]
        parts = (Recolor(size, partial(changed, name=name, value=value, fill=self.fill)) for name, value in drawn)
        return InTurn(tuple(parts)) if drawn else Stay(size)

    def native(self, name: str, value: float, size: tuple[int, int, int]) -> Change:
        """Return what the native extension does for a change of a strength, for images of one size."""
        if name == "Solarize":
            return "solarize", (value,), ()
        numbers = _map(name, value, size[:2])
        if numbers is not None:
            return "pillow_warp", (*numbers, *_pixel(self.fill, size[2])), ()
        found = Policy.native(self, name, value, size)
        return ("all", (), (APART, found)) if found[0] == "warp" else found


@dataclass(frozen=True, slots=True)
class PillowRandAugment(OnPillow, RandAugment):
    """Do what torchvision's RandAugment does to Pillow images."""

    levels: Levels = ()

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return RandAugment.native_step(self)


@dataclass(frozen=True, slots=True)
class PillowTrivialAugmentWide(OnPillow, TrivialAugmentWide):
    """Do what torchvision's TrivialAugmentWide does to Pillow images."""

    levels: Levels = ()

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return TrivialAugmentWide.native_step(self)


@dataclass(frozen=True, slots=True)
class PillowAutoAugment(OnPillow, AutoAugment):
    """Do what torchvision's AutoAugment does to Pillow images."""

    levels: Levels = ()

    def native_step(self) -> ChangePixels:
        """Draw and do the same."""
        return AutoAugment.native_step(self)


def changed(image: Image, name: str, value: float, fill: Fill) -> Image:
    """Return an image with one change of a policy done to it.

    >>> changed(np.array([[[1, 2, 3]]], np.uint8), "TranslateX", 1.0, 9)
    array([[[9, 9, 9]]], dtype=uint8)
    """
    if name == "Solarize":
        return color.solarize(image, value)
    size = image.shape[0], image.shape[1]
    numbers = _map(name, value, size)
    if numbers is not None:
        channels = 1 if image.ndim == 2 else image.shape[2]
        return as_pillow.pillow_warp(image, numbers, _pixel(fill, channels))
    warp = warp_of(name, value, size, fill)
    return recolored(image, name, value) if warp is None else Warps((warp,), "nearest").image(image)


def _map(name: str, value: float, size: Size) -> tuple[int, ...] | None:
    """Return the map of a change as Pillow uses it; None for one of colors, and for images that are too large."""
    warp = warp_of(name, value, size, 0)
    return None if warp is None or sum(size) >= LARGEST else as_pillow.pillow_map(warp.numbers[:6])


def _pixel(fill: Fill, channels: int) -> list[int]:
    pixel: list[int] = np.broadcast_to(fill_of(fill, np.dtype(np.uint8), (channels,)), (channels,)).tolist()
    return pixel
