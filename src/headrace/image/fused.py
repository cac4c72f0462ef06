"""What of a chain of transforms the native kernel does, and why not the rest.

The chain is examined once. Its longest beginning that gives every picture the same size and dtype, and that the kernel
knows, is one call for a whole chunk of samples: crops are drawn from a picture's size before anything is decoded.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace._native import kernel
from headrace.context import seeds
from headrace.errors import ArgumentError
from headrace.image import geometry
from headrace.image.decode import DEFAULT_MAX_PIXELS
from headrace.image.transforms import (
    CenterCrop,
    Normalize,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToDtype,
    ToFloat,
    Transform,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Shape = tuple[int, ...]
Values = tuple[ToFloat | Normalize | ToDtype, ...]
"""What changes values and moves none: together, a table of what each of the 256 of a byte becomes."""

MAX_BYTES = 1 << 30
"""A larger file goes step by step, which takes memory for no more of it than there is."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the kernel is to do; it can be hashed and pickled, and the kernel is made of it where it is used."""

    steps: tuple[tuple[tuple[str, Any], ...], ...]
    height: int
    width: int
    channels: int
    filter: str = "bilinear"
    antialias: bool = True
    shrink: bool = False
    fill: tuple[int, ...] = ()
    edge: str = "constant"
    channels_first: bool = False
    values: Values = ()
    max_pixels: int = DEFAULT_MAX_PIXELS
    level: str = ""


class _Kept:
    """A place for a kernel, of which each process makes its own.

    It cannot be pickled; and in one that a fork took along, threads that did not come along may hold a lock for ever.
    """

    __slots__ = ("kernel", "pid")

    def __init__(self) -> None:
        self.kernel: Any = None
        self.pid = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _Kept, ()


_inherited: list[Any] = []
"""Kernels that a fork took along, which cannot be taken to pieces either."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A chain of transforms, examined: how many of them, from the first, the kernel does, and why not the others."""

    transforms: tuple[Callable[..., Any], ...]
    fused: int
    why: tuple[str, ...]
    """For each transform: empty where it is fused, else the reason."""
    recipe: Recipe | None
    shape: Shape = ()
    dtype: Any = None
    _kept: _Kept = field(default_factory=_Kept, compare=False, repr=False)

    @property
    def kernel(self) -> Any:
        """The kernel for the recipe, made where it is first asked for; safe on any number of threads."""
        kept, pid = self._kept, os.getpid()
        if kept.pid != pid:
            if kept.kernel is not None:
                _inherited.append(kept.kernel)
            kept.kernel, kept.pid = kernel_of(cast("Recipe", self.recipe)), pid
        return kept.kernel

    @property
    def whole(self) -> bool:
        """Whether nothing is left to be done step by step."""
        return self.recipe is not None and self.fused == len(self.transforms)

    @property
    def active(self) -> bool:
        """Whether there is a kernel, and something for it to do."""
        return self.recipe is not None and kernel is not None

    @property
    def rest(self) -> tuple[Callable[..., Any], ...]:
        """What is left to be done step by step."""
        return self.transforms[self.fused :]


def plan(
    transforms: Sequence[Callable[..., Any]],
    *,
    picture: Shape | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    shrink: bool = False,
    level: str = "",
) -> Plan:
    """Examine a chain of transforms.

    >>> from headrace import RandomHorizontalFlip, RandomResizedCrop, ToFloat
    >>> from headrace.image.fused import plan
    >>> chain = [RandomResizedCrop(224), RandomHorizontalFlip(), abs, ToFloat()]
    >>> plan(chain).fused, plan(chain).why[2:]
    (2, ('not a transform of headrace', 'it comes after what goes step by step'))

    ``picture`` is the shape that all pictures have, ``(H, W)`` or ``(H, W, C)`` of uint8; None stands for files, whose
    pictures are RGB, each of its own size. ``shrink`` lets files be decoded smaller, ``level`` names the instructions.
    """
    transforms = tuple(transforms)
    chain = _Chain(picture)
    known = fused = 0
    recipe, reason = None, ""
    for transform in transforms:
        reason = chain.add(transform)
        if reason:
            break
        known += 1
        if chain.size is not None:
            fused = known
            recipe = chain.recipe(max_pixels=max_pixels, shrink=shrink, level=level)
    why = [""] * fused + ["pictures still differ in size after it"] * (known - fused) + [reason] * (reason != "")
    why += ["it comes after what goes step by step"] * (len(transforms) - len(why))
    if recipe is None:
        return Plan(transforms, 0, tuple(why), None)
    flat = picture is not None and len(picture) == 2 and not recipe.channels_first
    sides: Shape = (recipe.height, recipe.width) if flat else (recipe.height, recipe.width, recipe.channels)
    shape = (sides[2], *sides[:2]) if recipe.channels_first else sides
    return Plan(transforms, fused, tuple(why), recipe, shape, _dtype(recipe.values))


def kernel_of(recipe: Recipe) -> Any:
    """Make the kernel for a recipe."""
    native = cast("Any", kernel)
    steps = []
    for numbers in recipe.steps:
        step = native.Step(getattr(native.Kind, numbers[0][1]))
        for name, number in numbers[1:]:
            setattr(step, name, number)
        steps.append(step)
    table = _table(recipe.values, recipe.channels)
    mean, std = _formula(recipe.values)
    return native.Kernel(
        steps=steps,
        height=recipe.height,
        width=recipe.width,
        channels=recipe.channels,
        filter=recipe.filter,
        antialias=recipe.antialias,
        shrink=recipe.shrink,
        fill=list(recipe.fill),
        edge=recipe.edge,
        channels_first=recipe.channels_first,
        itemsize=1 if table is None else table.itemsize,
        table=None if table is None else table.view(np.uint8).reshape(-1),
        mean=mean,
        std=std,
        max_pixels=recipe.max_pixels,
        max_bytes=MAX_BYTES,
        level=recipe.level,
    )


def place_of(here: seeds.Here) -> Any:
    """Return a place in the data as the kernel takes it."""
    return cast("Any", kernel).Place(*here.key, here.epoch, here.position, int(seeds.Purpose.SAMPLE))


def _dtype(values: Values) -> np.dtype[Any]:
    """Return the dtype of what these steps give."""
    if not values:
        return np.dtype(np.uint8)
    last = values[-1]
    return last.of_numpy if isinstance(last, ToDtype) else np.dtype(np.float32)


def _table(values: Values, channels: int) -> NDArray[Any] | None:
    """Return what each value of a byte becomes in each channel, (C, 256), by doing it."""
    if not values:
        return None
    picture: NDArray[Any] = np.repeat(np.arange(256, dtype=np.uint8)[np.newaxis, :, np.newaxis], channels, axis=2)
    for step in values:
        if isinstance(step, Normalize) and step.channels_first:
            picture = step(picture.transpose(2, 0, 1)).transpose(1, 2, 0)
        else:
            picture = step(picture)
    return np.ascontiguousarray(picture[0].T)


def _formula(values: Values) -> tuple[list[float], list[float]]:
    """Return mean and deviation where the values are ``(x / 255 - mean) / std``; the kernel checks that they are."""
    match values:
        case (ToFloat(),):
            return [0.0], [1.0]
        case (ToFloat(), Normalize(mean=mean, std=std)):
            return [float(np.float32(one)) for one in _many(mean)], [float(np.float32(one)) for one in _many(std)]
    return [], []


def _many(numbers: float | Sequence[float]) -> tuple[float, ...]:
    return cast("tuple[float, ...]", numbers)  # as Normalize keeps them


class _Chain:
    """The transforms taken so far, put together."""

    def __init__(self, picture: Shape | None) -> None:
        self._array = picture is not None
        self.size: tuple[int, int] | None = (picture[0], picture[1]) if picture is not None else None
        self._channels = 3 if picture is None else picture[2] if len(picture) == 3 else 1
        self._steps: list[tuple[tuple[str, Any], ...]] = []
        self._scaled: Resize | RandomResizedCrop | None = None
        self._outside: tuple[tuple[int, ...], str] | None = None
        self._flipped = self._first = False
        self._values: list[ToFloat | Normalize | ToDtype] = []

    def recipe(self, **limits: Any) -> Recipe:
        height, width = cast("tuple[int, int]", self.size)
        fill, edge = self._outside or ((), "constant")
        return Recipe(
            tuple(self._steps),
            height,
            width,
            self._channels,
            filter=self._scaled.interpolation if self._scaled else "bilinear",
            antialias=self._scaled.antialias if self._scaled else True,
            fill=fill,
            edge=edge,
            channels_first=self._first,
            values=tuple(self._values),
            **limits,
        )

    def add(self, transform: Callable[..., Any]) -> str:
        """Take one more; or return why not."""
        take = self._known.get(type(transform))
        if take is None:
            ours = isinstance(transform, Transform)
            return "the kernel has no such step" if ours else "not a transform of headrace"
        if take in (_Chain._to_float, _Chain._normalize, _Chain._to_dtype, _Chain._channels_first):
            return take(self, transform)
        if self._values or self._first:
            return "it comes after ToFloat or ToCHW, and the kernel crops and scales bytes with channels last"
        if self._flipped and take is not _Chain._flip:
            return "it comes after a flip, and the kernel flips last"
        return take(self, transform)

    def _resize(self, transform: Resize) -> str:
        refusal = self._scale(transform)
        if refusal:
            return refusal
        if isinstance(transform.size, int):
            self._steps.append((("kind", "resize_shorter"), ("height", transform.size)))
            if self.size is not None:
                rows, columns = self.size
                shorter = transform.size
                self.size = (
                    (shorter, int(shorter * columns / rows))
                    if rows <= columns
                    else (int(shorter * rows / columns), shorter)
                )
        else:
            self.size = transform.size
            self._steps.append((("kind", "resize_exact"), *_sides(transform.size)))
        return ""

    def _random_resized_crop(self, transform: RandomResizedCrop) -> str:
        refusal = self._scale(transform)
        if refusal:
            return refusal
        (least, most), (tallest, widest) = transform.scale, transform.ratio
        self._steps.append(
            (
                ("kind", "random_resized_crop"),
                *_sides(transform.size),
                ("area_least", least),
                ("area_most", most),
                ("ratio_least", tallest),
                ("ratio_most", widest),
                ("log_ratio_least", math.log(tallest)),
                ("log_ratio_most", math.log(widest)),
            )
        )
        self.size = cast("tuple[int, int]", transform.size)
        return ""

    def _scale(self, transform: Resize | RandomResizedCrop) -> str:
        if self._scaled is not None:
            return "pictures are scaled a second time"
        if self._outside is not None:
            return "it scales what was padded"
        self._scaled = transform
        return ""

    def _center_crop(self, transform: CenterCrop) -> str:
        size = cast("tuple[int, int]", transform.size)
        fits = self.size is not None and size[0] <= self.size[0] and size[1] <= self.size[1]
        if not fits and (refusal := self._pads((0,), "constant")):
            return refusal
        self._steps.append((("kind", "center_crop"), *_sides(size)))
        self.size = size
        return ""

    def _random_crop(self, transform: RandomCrop) -> str:
        padding = cast("tuple[int, int, int, int]", transform.padding or (0, 0, 0, 0))
        if (any(padding) or transform.pad_if_needed) and (
            refusal := self._pads(transform.fill, transform.mode, padding, needed=transform.pad_if_needed)
        ):
            return refusal
        size = cast("tuple[int, int]", transform.size)
        numbers = zip(("left", "top", "right", "bottom"), padding, strict=True)
        self._steps.append(
            (("kind", "random_crop"), *_sides(size), *numbers, ("pad_if_needed", transform.pad_if_needed))
        )
        self.size = size
        return ""

    def _pad(self, transform: Pad) -> str:
        padding = cast("tuple[int, int, int, int]", transform.padding)
        refusal = self._pads(transform.fill, transform.mode, padding)
        if refusal:
            return refusal
        self._steps.append((("kind", "pad"), *zip(("left", "top", "right", "bottom"), padding, strict=True)))
        if self.size is not None:
            left, top, right, bottom = padding
            self.size = self.size[0] + top + bottom, self.size[1] + left + right
        return ""

    def _pads(
        self,
        fill: geometry.Fill,
        mode: geometry.PadMode,
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        *,
        needed: bool = False,
    ) -> str:
        """Note what stands outside; the kernel knows one answer for a chain."""
        given = fill if isinstance(fill, tuple) else (fill,)
        if any(not float(one).is_integer() or not 0 <= one <= 255 for one in given):
            return "its fill is no value of a byte"
        if len(given) not in (1, self._channels):
            return "its fill has another number of channels"
        if mode == "constant":
            outside: tuple[tuple[int, ...], str] = tuple(map(int, given)), mode
        elif not self._array or self._scaled is not None or self._outside is not None or needed or self.size is None:
            return f"mode={mode!r} is fused only for pictures in memory, padded once and not scaled"
        else:
            left, top, right, bottom = padding
            try:
                geometry.check_reach(self.size[0], top, bottom, mode)
                geometry.check_reach(self.size[1], left, right, mode)
            except ArgumentError:
                return "it mirrors more than there is"
            outside = (), mode
        if self._outside not in (None, outside):
            return "it pads otherwise than what comes before"
        self._outside = outside
        return ""

    def _flip(self, transform: RandomHorizontalFlip) -> str:
        self._flipped = True
        self._steps.append((("kind", "flip"), ("chance", float(transform.p))))
        return ""

    def _to_float(self, transform: ToFloat) -> str:
        self._values.append(transform)
        return ""

    def _normalize(self, transform: Normalize) -> str:
        if not self._values:
            return "it takes floats, and comes before ToFloat"
        if transform.channels_first is not self._first:
            return "its channels are elsewhere"
        if len(_many(transform.mean)) not in (1, self._channels):
            return "it has another number of channels"
        self._values.append(transform)
        return ""

    def _to_dtype(self, transform: ToDtype) -> str:
        if not self._values:
            return "it takes floats, and comes before ToFloat"
        if transform.of_numpy != _dtype(tuple(self._values)):  # else it does nothing, and the values stay a formula
            self._values.append(transform)
        return ""

    def _channels_first(self, _transform: ToCHW) -> str:
        if self._first:
            return "channels are first already"
        self._first = True
        return ""

    _known: dict[type, Callable[..., str]] = {
        Resize: _resize,
        RandomResizedCrop: _random_resized_crop,
        CenterCrop: _center_crop,
        RandomCrop: _random_crop,
        Pad: _pad,
        RandomHorizontalFlip: _flip,
        ToFloat: _to_float,
        Normalize: _normalize,
        ToCHW: _channels_first,
        ToDtype: _to_dtype,
    }


def _sides(size: Any) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("height", size[0]), ("width", size[1])
