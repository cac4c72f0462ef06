"""What the native extension does of a chain of transforms, and why not the rest.

The chain is examined once, by what its transforms say of themselves (`native_step`). Its longest beginning that the
extension can do, and that gives every image the same size and dtype, is one call for a whole chunk of samples. Crops
are drawn from an image's size before anything is decoded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace._native import extension
from headrace.context import seeds
from headrace.image.decoding import DEFAULT_MAX_PIXELS
from headrace.image.native_changes import Change, native_change
from headrace.image.native_steps import IDENTITY, Chain, ChangeValues, Numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Shape = tuple[int, ...]

SAMPLE = int(seeds.Purpose.SAMPLE)
"""What a sample's random numbers are for, as the extension takes it."""
MAX_BYTES = 1 << 30
"""A larger file is read step by step, which takes memory for no more than the file has."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Instructions for the native extension: hashable and picklable; each process makes its own pipeline of them."""

    steps: tuple[Numbers, ...]
    height: int
    width: int
    channels: int
    filter: str = "bilinear"
    antialias: bool = True
    shrink: bool = False
    fill: tuple[int, ...] = ()
    edge: str = "constant"
    channels_first: bool = False
    changes: tuple[Change, ...] = ()
    """What is done to the bytes of an image, or drawn for that."""
    values: tuple[ChangeValues, ...] = ()
    """Together, a table of what each of the 256 values of a byte becomes."""
    erasings: tuple[Change, ...] = ()
    """Parts that are erased of these values."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    oriented: bool = True
    level: str = ""


class Kept:
    """The place of a pipeline, which each process makes for itself.

    It cannot be pickled. After a fork, threads that exist only in the parent may hold its locks for ever.
    """

    __slots__ = ("pid", "pipeline", "read")

    def __init__(self) -> None:
        self.pipeline: Any = None
        self.pid = 0
        self.read: tuple[Any, Any, Any] | None = None
        """The dataset that was read last, its source, and whether the extension gathers what is beside the images."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()


_inherited: list[Any] = []
"""Pipelines copied by a fork: destroying one could wait for a thread that is not in this process."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A chain of transforms, examined: how many of them, from the first, are fused, and why the others are not."""

    transforms: tuple[Callable[..., Any], ...]
    fused: int
    why: tuple[str, ...]
    """For each transform: empty where it is fused, else the reason."""
    recipe: Recipe | None
    shape: Shape = ()
    dtype: Any = None
    _kept: Kept = field(default_factory=Kept, compare=False, repr=False)

    @property
    def kept(self) -> Kept:
        """What this process has made for the recipe, at first use; safe on any number of threads."""
        kept, pid = self._kept, os.getpid()
        if kept.pid != pid:
            if kept.pipeline is not None:
                _inherited.append(kept.pipeline)
            kept.pipeline, kept.pid = pipeline_of(cast("Recipe", self.recipe)), pid
        return kept

    @property
    def pipeline(self) -> Any:
        """The extension's object for the recipe."""
        return self.kept.pipeline

    @property
    def whole(self) -> bool:
        """Whether every transform is fused."""
        return self.recipe is not None and self.fused == len(self.transforms)

    @property
    def active(self) -> bool:
        """Whether the native extension is there, and has something to do."""
        return self.recipe is not None and extension is not None

    @property
    def rest(self) -> tuple[Callable[..., Any], ...]:
        """The transforms that run step by step."""
        return self.transforms[self.fused :]


def plan(
    transforms: Sequence[Callable[..., Any]],
    *,
    image_shape: Shape | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    shrink: bool = False,
    oriented: bool = True,
    level: str = "",
) -> Plan:
    """Examine a chain of transforms.

    >>> from headrace import RandomHorizontalFlip, RandomResizedCrop, ToFloat
    >>> from headrace.image.fused import plan
    >>> chain = [RandomResizedCrop(224), RandomHorizontalFlip(), abs, ToFloat()]
    >>> plan(chain).fused, plan(chain).why[2:]
    (2, ('not a headrace transform', 'it follows an unfused transform'))

    ``image_shape`` is the shape of every image, ``(H, W)`` or ``(H, W, C)`` of uint8. None is for files, whose images
    are RGB, each of its own size. ``shrink`` lets files be decoded smaller, ``oriented`` applies their EXIF
    orientation, ``level`` names the instructions.
    """
    transforms = tuple(transforms)
    chain = Chain(image_shape)
    known = fused = 0
    recipe, reason = None, ""
    for transform in transforms:
        reason = _add(chain, transform)
        if reason:
            break
        known += 1
        chain.transforms = known
        if chain.size is not None:
            fused = known
            recipe = _recipe(chain, max_pixels=max_pixels, shrink=shrink, oriented=oriented, level=level)
    why = [""] * fused + ["images still differ in size after it"] * (known - fused) + [reason] * (reason != "")
    why += ["it follows an unfused transform"] * (len(transforms) - len(why))
    if recipe is None:
        return Plan(transforms, 0, tuple(why), None)
    flat = image_shape is not None and len(image_shape) == 2 and not recipe.channels_first
    sides: Shape = (recipe.height, recipe.width) if flat else (recipe.height, recipe.width, recipe.channels)
    shape = (sides[2], *sides[:2]) if recipe.channels_first else sides
    return Plan(transforms, fused, tuple(why), recipe, shape, _dtype(recipe.values))


def _add(chain: Chain, transform: Callable[..., Any]) -> str:
    """Add a transform to a chain; or return why not."""
    describe = getattr(transform, "native_step", None)
    if describe is None:
        return "not a headrace transform"
    step = describe()
    return "it has no native step" if step is None else str(step.add_to(chain))


def _recipe(chain: Chain, **limits: Any) -> Recipe:
    height, width = cast("tuple[int, int]", chain.size)
    fill, edge = chain.outside or ((), "constant")
    interpolation, antialias = chain.scaled or ("bilinear", True)
    return Recipe(
        tuple(chain.steps),
        height,
        width,
        chain.channels,
        filter=interpolation,
        antialias=antialias,
        fill=fill,
        edge=edge,
        channels_first=chain.channels_first,
        changes=tuple(chain.changes),
        values=tuple(chain.values),
        erasings=tuple(chain.erasings),
        **limits,
    )


def pipeline_of(recipe: Recipe) -> Any:
    """Make the extension's object for a recipe."""
    native = cast("Any", extension)
    steps = []
    for numbers in recipe.steps:
        step = native.Step(getattr(native.Kind, numbers[0][1]))
        for name, number in numbers[1:]:
            setattr(step, name, number)
        steps.append(step)
    table = _table(recipe.values, recipe.channels)
    mean, std = _formula(recipe.values)
    # Left out where it is the default: an extension that was built earlier knows no such argument.
    stored: dict[str, Any] = {} if recipe.oriented else {"oriented": False}
    for name, changes in (("changes", recipe.changes), ("erasings", recipe.erasings)):
        if changes:
            stored[name] = [native_change(change) for change in changes]
    return native.Pipeline(
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
        **stored,
    )


def place_of(here: seeds.Here) -> Any:
    """Return a place in the data as the native extension takes it."""
    native: Any = extension
    return native.Place(*here.key, here.epoch, here.position, SAMPLE)


def _dtype(values: Sequence[ChangeValues]) -> np.dtype[Any]:
    """Return the dtype of what these steps give."""
    return values[-1].dtype if values else np.dtype(np.uint8)


def _table(values: Sequence[ChangeValues], channels: int) -> NDArray[Any] | None:
    """Return what each value of a byte becomes in each channel, (C, 256), by calling the steps' functions."""
    if not values:
        return None
    image: NDArray[Any] = np.repeat(np.arange(256, dtype=np.uint8)[np.newaxis, :, np.newaxis], channels, axis=2)
    for step in values:
        if step.channels_first:
            image = step.function(image.transpose(2, 0, 1)).transpose(1, 2, 0)
        else:
            image = step.function(image)
    return np.ascontiguousarray(image[0].T)


def _formula(values: Sequence[ChangeValues]) -> tuple[list[float], list[float]]:
    """Return mean and deviation where the values are ``(x / 255 - mean) / deviation``; the extension checks that."""
    formula = None
    if len(values) == 1:
        formula = values[0].formula
    elif len(values) == 2 and values[0].formula == IDENTITY and values[1].takes == "floats":
        formula = values[1].formula
    mean, deviation = formula or ((), ())
    return [float(np.float32(one)) for one in mean], [float(np.float32(one)) for one in deviation]
