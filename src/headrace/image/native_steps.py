"""What the native extension can do to an image: steps that transforms describe themselves with, and a chain of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np

from headrace.errors import ArgumentError
from headrace.image import geometry
from headrace.image.native_changes import ABLE, KINDS, NOTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headrace.image.geometry import Fill, Image, Interpolation, PadMode
    from headrace.image.native_changes import Change

Sides = tuple[int, int, int, int]
"""Pixels at the left, top, right and bottom."""

IDENTITY = ((0.0,), (1.0,))
"""The mean and deviation that change nothing."""

LATE = "it follows ToFloat or ToCHW, but the native extension moves pixels of bytes, channels last"
OLD = "the native extension was built before it could do this (headrace doctor)"

Numbers = tuple[tuple[str, Any], ...]
"""A step as the extension takes it: its kind first, then its numbers, by name."""


class NativeStep(Protocol):
    """One thing that the native extension does to an image: what `Transform.native_step` returns."""

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain; or return why it cannot follow what is there."""


class Scale(NamedTuple):
    """Scale all of an image, its shorter side to ``size`` or both sides to (height, width)."""

    size: int | tuple[int, int]
    interpolation: Interpolation
    antialias: bool

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain."""
        refusal = chain.move() or chain.scale(self.interpolation, antialias=self.antialias)
        if refusal:
            return refusal
        if isinstance(self.size, int):
            chain.steps.append((("kind", "resize_shorter"), ("height", self.size)))
            if chain.size is not None:
                chain.size = scaled_sides(*chain.size, self.size)
        else:
            chain.steps.append((("kind", "resize_exact"), *_sides(self.size)))
            chain.size = self.size
        return ""


class ScaleRandomPart(NamedTuple):
    """Scale a part of random area and shape to (height, width)."""

    size: tuple[int, int]
    area: tuple[float, float]
    ratio: tuple[float, float]
    log_ratio: tuple[float, float]
    interpolation: Interpolation
    antialias: bool

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain."""
        refusal = chain.move() or chain.scale(self.interpolation, antialias=self.antialias)
        if refusal:
            return refusal
        numbers = zip(
            ("area_least", "area_most", "ratio_least", "ratio_most", "log_ratio_least", "log_ratio_most"),
            (*self.area, *self.ratio, *self.log_ratio),
            strict=True,
        )
        chain.steps.append((("kind", "random_resized_crop"), *_sides(self.size), *numbers))
        chain.size = self.size
        return ""


class CropCenter(NamedTuple):
    """Cut the middle out, with a margin of zeros where the image is smaller."""

    size: tuple[int, int]

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain."""
        fits = chain.size is not None and self.size[0] <= chain.size[0] and self.size[1] <= chain.size[1]
        refusal = chain.move() or ("" if fits else chain.pad(0, "constant"))
        if not refusal:
            chain.steps.append((("kind", "center_crop"), *_sides(self.size)))
            chain.size, chain.cropped = self.size, True
        return refusal


class CropRandomPart(NamedTuple):
    """Cut a part of a size out, anywhere in the image and its padding."""

    size: tuple[int, int]
    padding: Sides
    pad_if_needed: bool
    fill: Fill
    mode: PadMode

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain."""
        refusal = chain.move()
        if not refusal and (any(self.padding) or self.pad_if_needed):
            refusal = chain.pad(self.fill, self.mode, self.padding, needed=self.pad_if_needed)
        if not refusal:
            padding = _padding(self.padding)
            chain.steps.append(
                (("kind", "random_crop"), *_sides(self.size), *padding, ("pad_if_needed", self.pad_if_needed))
            )
            chain.size, chain.cropped = self.size, True
        return refusal


class Widen(NamedTuple):
    """Widen an image on its four sides."""

    padding: Sides
    fill: Fill
    mode: PadMode

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain."""
        refusal = chain.move() or chain.pad(self.fill, self.mode, self.padding)
        if refusal:
            return refusal
        chain.steps.append((("kind", "pad"), *_padding(self.padding)))
        if chain.size is not None:
            left, top, right, bottom = self.padding
            chain.size = chain.size[0] + top + bottom, chain.size[1] + left + right
        return ""


class Flip(NamedTuple):
    """Mirror an image left to right with a probability: draws one number, whatever it is."""

    chance: float

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain."""
        refusal = chain.move(flip=True)
        if not refusal:
            chain.flipped = True
            chain.steps.append((("kind", "flip"), ("chance", self.chance)))
        return refusal


class ChannelsFirst(NamedTuple):
    """Put channels first."""

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain."""
        if chain.channels_first:
            return "channels are first already"
        chain.channels_first = True
        return ""


class ChangePixels(NamedTuple):
    """Change an image of bytes as a draw decides: colors, blur, maps, erased parts."""

    describe: Callable[[tuple[int, int, int]], Change]
    """Called with height, width and channels of all images; may raise ArgumentError for what the steps would refuse."""
    colors: bool = True
    """Whether an image of 2 channels is refused."""

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain."""
        if chain.values:
            return "it takes uint8, but an earlier transform gives floats"
        refusal, found = chain.described(self.describe, colors=self.colors)
        if not refusal:
            chain.changes.append(found)
        return refusal


class MapPlaces(NamedTuple):
    """Map the places of an image by a matrix that is drawn. Those that follow each other are resampled once."""

    kind: str
    numbers: Callable[[int, int], tuple[float, ...]]
    """Called with height and width: what is drawn from."""
    fill: Fill
    interpolation: str

    def describe(self, size: tuple[int, int, int]) -> Change:
        """Return the change of an image of a height, a width and channels."""
        height, width, channels = size
        pixel = np.broadcast_to(geometry.fill_of(self.fill, np.dtype(np.uint8), (channels,)), (channels,)).tolist()
        return self.kind, (*self.numbers(height, width), self.interpolation == "bilinear", *pixel), ()

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain."""
        if KINDS is not None and self.kind not in KINDS:
            return OLD
        refusal, found = chain.described(self.describe, colors=False)
        if refusal:
            return refusal
        if chain.values:
            return LATE
        if chain.mapped == (chain.transforms, self.interpolation):
            _, _, parts = chain.changes.pop()
            chain.changes.append(("joined", (), (*parts, found)))
        else:
            chain.changes.append(("joined", (), (found,)))
        chain.mapped = chain.transforms + 1, self.interpolation
        return ""


class ErasePart(NamedTuple):
    """Put one value in the place of a random part of an image, of bytes or of floats."""

    chance: float
    area: tuple[float, float]
    log_ratio: tuple[float, float]
    fill: Fill

    def describe(self, size: tuple[int, int, int], dtype: np.dtype[Any] | None = None) -> Change:
        """Return the change of an image of a height, a width and channels."""
        dtype = np.dtype(np.uint8) if dtype is None else dtype
        value = np.broadcast_to(geometry.fill_of(self.fill, dtype, size[2:]), size[2:])
        pixel = np.ascontiguousarray(value).view(np.uint8).reshape(-1).tolist()
        return "any_erase", (self.chance, *self.area, *self.log_ratio, *pixel), ()

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain."""
        if not chain.values:
            return ChangePixels(self.describe, colors=False).add_to(chain)
        refusal, found = chain.described(lambda size: self.describe(size, chain.dtype), colors=False)
        if not refusal:
            chain.erasings.append(found)
        return refusal


class ChangeValues(NamedTuple):
    """Change each value by itself: the extension looks up what each of the 256 values of a byte becomes.

    The table is made by calling ``function`` on an image, so it must draw nothing, look at no place in the image, and
    return floats of 2 or 4 bytes.
    """

    function: Callable[[Image], Image]
    dtype: np.dtype[Any]
    """What comes out."""
    takes: Literal["uint8", "floats", "any"] = "uint8"
    """The values that it takes; one that takes uint8 comes before any other."""
    channels: int = 1
    """How many channels an image must have; 1 accepts any number."""
    channels_first: bool | None = None
    """Whether channels must be first; None where it makes no difference."""
    rounds: bool = False
    """Whether it only changes the dtype."""
    formula: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and deviation, where the result is ``(x / 255 - mean) / deviation`` for bytes, or this of floats ``x``."""

    def add_to(self, chain: Chain) -> str:
        """Add itself to a chain."""
        if self.takes == "floats" and not chain.values:
            return "it takes floats, but no ToFloat comes before it"
        if self.takes == "uint8" and chain.values:
            return "it takes uint8, but an earlier transform gives floats"
        if self.channels_first not in (None, chain.channels_first):
            return f"it takes channels {'first' if self.channels_first else 'last'}"
        if self.channels not in (1, chain.channels):
            return f"it has {self.channels} channels, the image {chain.channels}"
        if chain.erasings and not self.keeps(chain):
            return "it changes values, but parts of them were erased"
        if not self.keeps(chain):  # the values then stay a formula
            chain.values.append(self)
        return ""

    def keeps(self, chain: Chain) -> bool:
        """Say whether it only changes the dtype, to what it is."""
        return self.rounds and self.dtype == chain.dtype


class Chain:
    """The steps taken so far, put together for the extension.

    ``shape`` is that of every image, ``(H, W)`` or ``(H, W, C)``; None where they are RGB and each has its own size.
    """

    def __init__(self, shape: tuple[int, ...] | None) -> None:
        self.in_memory = shape is not None
        self.size: tuple[int, int] | None = (shape[0], shape[1]) if shape is not None else None
        self.channels = 3 if shape is None else shape[2] if len(shape) == 3 else 1
        self.steps: list[Numbers] = []
        self.scaled: tuple[Interpolation, bool] | None = None
        self.outside: tuple[tuple[int, ...], str] | None = None
        self.flipped = self.channels_first = False
        self.cropped = False
        """Whether pixels were cut off, which would show again where the image is padded."""
        self.transforms = 0
        """How many were added."""
        self.mapped = -1, ""
        """After how many of them maps came last, and their interpolation."""
        self.changes: list[Change] = []
        """What is done to bytes, after they were moved."""
        self.values: list[ChangeValues] = []
        self.erasings: list[Change] = []
        """Parts erased, after bytes became other values."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the images that come out."""
        return self.values[-1].dtype if self.values else np.dtype(np.uint8)

    def move(self, *, flip: bool = False) -> str:
        """Return why no pixels can be moved any more; empty where they can."""
        if self.values or self.channels_first:
            return LATE
        if self.changes:
            return "it follows a change of colors, but the native extension moves pixels first"
        return "it follows a flip, but the native extension flips last" if self.flipped and not flip else ""

    def described(self, describe: Callable[[tuple[int, int, int]], Change], *, colors: bool) -> tuple[str, Change]:
        """Return what a change is for the images of this chain; or first, why it cannot follow what is there."""
        if not ABLE:
            return OLD, NOTHING
        if self.size is None:
            return "images still differ in size before it", NOTHING
        if self.channels_first:
            return "it takes channels last", NOTHING
        if colors and self.channels == 2:
            return "it takes 1, 3 or 4 channels, the image has 2", NOTHING
        try:
            return "", describe((*self.size, self.channels))
        except ArgumentError:
            return "the step refuses images of this kind", NOTHING

    def scale(self, interpolation: Interpolation, *, antialias: bool) -> str:
        """Note how images are scaled: once, and before they are padded."""
        if self.scaled is not None:
            return "it scales images a second time"
        if self.outside is not None:
            return "it scales images that were padded"
        self.scaled = interpolation, antialias
        self.cropped = False  # what is scaled is an image of its own
        return ""

    def pad(self, fill: Fill, mode: PadMode, padding: Sides = (0, 0, 0, 0), *, needed: bool = False) -> str:
        """Note what lies outside an image: the same for a whole chain."""
        if self.cropped:
            return "it pads images that were cropped"
        given = fill if isinstance(fill, tuple) else (fill,)
        if any(not float(one).is_integer() or not 0 <= one <= 255 for one in given):
            return f"fill={fill!r} is not a value of uint8"
        if len(given) not in (1, self.channels):
            return f"its fill has {len(given)} channels, the image {self.channels}"
        outside: tuple[tuple[int, ...], str] = (tuple(map(int, given)) if mode == "constant" else (), mode)
        if mode != "constant" and (refusal := self._mirrors(mode, padding, needed=needed)):
            return refusal
        if self.outside not in (None, outside):
            return "it pads in another way than an earlier transform"
        self.outside = outside
        return ""

    def _mirrors(self, mode: PadMode, padding: Sides, *, needed: bool) -> str:
        if not self.in_memory or self.scaled is not None or self.outside is not None or needed or self.size is None:
            return f"mode={mode!r} is fused only for arrays of images, padded once and not scaled"
        left, top, right, bottom = padding
        try:
            geometry.check_reach(self.size[0], top, bottom, mode)
            geometry.check_reach(self.size[1], left, right, mode)
        except ArgumentError:
            return f"mode={mode!r} mirrors more pixels than an image has"
        return ""


def changes_of(steps: Sequence[ChangePixels | ErasePart | MapPlaces], size: tuple[int, int, int]) -> tuple[Change, ...]:
    """Return what steps one after the other do to images of a height, a width and channels.

    >>> changes_of([ErasePart(1, (0.1, 0.2), (-1, 1), 0)], (4, 6, 1))
    (('any_erase', (1, 0.1, 0.2, -1, 1, 0), ()),)
    """
    changes: list[Change] = []
    before = None
    for step in steps:
        found = step.describe(size)
        if not isinstance(step, MapPlaces):
            changes.append(found)
        elif isinstance(before, MapPlaces) and before.interpolation == step.interpolation:
            changes[-1] = "joined", (), (*changes[-1][2], found)
        else:
            changes.append(("joined", (), (found,)))
        before = step
    return tuple(changes)


def scaled_sides(rows: int, columns: int, shorter: int) -> tuple[int, int]:
    """Return height and width of an image whose shorter side is scaled to a length.

    >>> scaled_sides(300, 400, 150)
    (150, 200)
    """
    if rows <= columns:
        return shorter, int(shorter * columns / rows)
    return int(shorter * rows / columns), shorter


def _sides(size: tuple[int, int]) -> Numbers:
    return ("height", size[0]), ("width", size[1])


def _padding(padding: Sides) -> Numbers:
    return tuple(zip(("left", "top", "right", "bottom"), padding, strict=True))
