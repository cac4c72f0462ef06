"""A chain of torchvision's transforms while it is translated into ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from headrace.checks import shown
from headrace.errors import HeadraceError
from headrace.interop import torch_state
from headrace.transforms.color_transforms import (
    ColorJitter,
    GaussianBlur,
    RandomAdjustSharpness,
    RandomAutocontrast,
    RandomEqualize,
    RandomGrayscale,
    RandomInvert,
    RandomPosterize,
    RandomSolarize,
)
from headrace.transforms.detection import RandomVerticalFlip
from headrace.transforms.spatial import RandomCrop, RandomHorizontalFlip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from headrace.transforms.base import Transform

    Handlers = Mapping[type, Callable[["Chain", Any], None]]

Stage = Literal["a Pillow image", "a tensor of bytes", "a tensor of floats", "a normalized tensor"]
"""What an image has become after some of the transforms."""
PILLOW: Stage = "a Pillow image"
BYTES: Stage = "a tensor of bytes"
FLOATS: Stage = "a tensor of floats"
NORMALIZED: Stage = "a normalized tensor"

FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers of the filters."""
METHODS = (
    "__call__",
    "forward",
    "transform",
    "make_params",
    "get_params",
    "check_inputs",
    "_augmentation_space",
    "_AUGMENTATION_SPACE",
    "_apply_image_or_video_transform",
    "_get_random_item",
    "_call_kernel",
    "_generate_value",
)
"""What a transform does is in these."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks")

MIRRORED_ALIKE = (
    ColorJitter,
    GaussianBlur,
    RandomAdjustSharpness,
    RandomAutocontrast,
    RandomEqualize,
    RandomGrayscale,
    RandomInvert,
    RandomPosterize,
    RandomSolarize,
    RandomVerticalFlip,
)
"""What gives the same pixels before a horizontal flip and after it, which the native extension does first."""


class _Unknown(Exception):
    """A transform, or a setting of it, that ours do not have."""


def unknown(why: str) -> Exception:
    """Return what a handler raises for a transform, or a setting of it, that ours do not have."""
    return _Unknown(why)


class Chain:
    """The transforms so far: those of pixels, then those that change values; each with the number of torchvision's."""

    def __init__(self, handlers: Handlers, stage: Stage = PILLOW) -> None:
        self.handlers = handlers
        self.stage: Stage = stage
        self.pixels: list[tuple[Transform, int]] = []
        self.values: list[tuple[Transform, int]] = []
        self.rough = ""
        """The name of what may have changed a value to one that is a gray level from torchvision's."""
        self.name = ""
        """The name of the transform that is being added."""
        self.part = -1
        """The number of the transform that is being added."""
        self.tensor_by = 0
        """The number of the one that made a tensor of the image."""

    def add(self, transform: Any) -> str:
        """Add a transform of torchvision's; or return why not."""
        self.part += 1
        self.name = name_of(transform)
        handler = self.handlers.get(type(transform))
        if handler is None:
            bases = [kind.__name__ for kind in type(transform).__mro__ if kind in self.handlers]
            if bases:
                return f"is a subclass of {bases[0]}, which may do something else"
            known = type(transform).__module__.partition(".")[0] == "torchvision"
            return "has no native counterpart" if known else "is not a transform of torchvision"
        found = changed(transform)
        if found:
            return f"has {found}, which may do something else"
        try:
            handler(self, transform)
        except _Unknown as error:
            return str(error)
        except (HeadraceError, AttributeError, TypeError, ValueError) as error:
            return f"has settings that cannot be used: {error}"
        return ""

    def move(self, ours: Transform) -> None:
        """Add what moves pixels: values are changed after it, as neither looks at the other."""
        if self.stage == NORMALIZED:
            raise _Unknown("follows Normalize")
        if len(self.values) > 1:
            raise _Unknown("follows RandomErasing")
        at = len(self.pixels)
        if isinstance(ours, RandomHorizontalFlip):
            while at and isinstance(self.pixels[at - 1][0], MIRRORED_ALIKE):
                at -= 1
        if isinstance(ours, RandomCrop) and _is_even(ours):
            # The mirrored part at a random place is the part at the mirrored place, which is as likely.
            while at and isinstance(self.pixels[at - 1][0], RandomHorizontalFlip | RandomVerticalFlip):
                at -= 1
        self.pixels.insert(at, (ours, self.part))

    def change_pixels(self, ours: Transform, *, rough: bool = False, keeps: bool = False) -> None:
        """Add what changes the pixels of bytes.

        ``rough`` says that a value may be one gray level from torchvision's, and ``keeps`` that it makes no difference
        of its input larger.
        """
        self.need(PILLOW, BYTES)
        self.stay_close(rough=rough, keeps=keeps)
        self.pixels.append((ours, self.part))

    def stay_close(self, *, rough: bool, keeps: bool) -> None:
        """Refuse a second transform that rounds, or any other that makes a difference of one gray level larger."""
        if self.rough and not keeps:
            raise _Unknown(f"follows {self.rough}, whose values may be one gray level apart: more would follow")
        self.rough = self.name if rough else self.rough

    def change_values(self, ours: Transform, stage: Stage) -> None:
        """Add what changes values."""
        self.values.append((ours, self.part))
        self.stage = stage

    def open(self) -> None:
        """Let the image be a tensor from here on, if it is none yet."""
        if self.stage == PILLOW:
            self.stage, self.tensor_by = BYTES, self.part

    def need(self, *stages: Stage) -> None:
        """Refuse a transform that torchvision does not apply to what the image is."""
        if self.stage not in stages:
            raise _Unknown(f"gets {self.stage}")

    def inner(self, transforms: Sequence[Any], before: str) -> list[Transform]:
        """Return ours for the transforms that another one decides about; ``before`` them, this was ``rough``."""
        inside = Chain(self.handlers, self.stage)
        inside.rough = before
        for part in (one for transform in transforms for one in parts(transform)):
            why = inside.add(part)
            if why:
                raise _Unknown(f"applies {name_of(part)}, which {why}")
        if inside.stage != self.stage:
            raise _Unknown("decides whether the image becomes a tensor")
        if inside.pixels and self.stage not in (PILLOW, BYTES):
            raise _Unknown(f"moves pixels of {self.stage}")
        self.rough = inside.rough or self.rough
        return [ours for ours, _ in (*inside.pixels, *inside.values)]

    def filter_of(self, transform: Any) -> str:
        """Return the name of its filter."""
        how = transform.interpolation
        how = getattr(how, "value", how)
        return str(FILTERS.get(how, how) if isinstance(how, int) else how)

    def scaling(self, transform: Any) -> dict[str, Any]:
        """Return the filter, and whether it is antialiased: Pillow always is."""
        how = self.filter_of(transform)
        if self.stage == PILLOW:
            return {"interpolation": "nearest" if how == "nearest-exact" else how}
        if how != "bilinear" and (how != "bicubic" or self.stage == FLOATS):
            raise _Unknown(f"has interpolation={how!r} for {self.stage}")
        if not isinstance(transform.antialias, bool):
            raise _Unknown(f"has antialias={transform.antialias!r} for {self.stage}")
        return {"interpolation": how, "antialias": transform.antialias}

    def sampling(self, transform: Any) -> dict[str, Any]:
        """Return filter and fill of a transform that turns pixels: between pixels, Pillow's edges are its own."""
        how, fill = self.filter_of(transform), self.fill_value(transform)
        if how != "nearest" and (self.stage == PILLOW or how != "bilinear"):
            raise _Unknown(f"has interpolation={how!r} for {self.stage}")
        if how != "nearest" and np.any(fill):
            raise _Unknown(f"has fill={shown(fill)} with interpolation={how!r}")
        return {"interpolation": how, "fill": fill}

    def fill(self, transform: Any) -> dict[str, Any]:
        """Return how an image continues outside, in values of bytes."""
        if transform.padding_mode != "constant":
            return {"mode": transform.padding_mode}
        found = self.fill_value(transform)
        if is_pair(found) and self.stage != PILLOW and not hasattr(transform, "_fill"):
            raise _Unknown(f"has fill={shown(found)}, which version 1 does not take for {self.stage}")
        return {"fill": found}

    def fill_value(self, transform: Any) -> Any:
        """Return the fill in values of bytes."""
        fill = transform.fill
        if isinstance(fill, dict):
            raise _Unknown("has a fill for each type")
        used = getattr(transform, "_fill", None)  # the second version reads this one
        if isinstance(used, dict) and not _same(used.get("others"), fill):
            raise _Unknown("has a fill that was changed after it was made")
        given: Any = 0 if fill is None else fill
        given = given if is_pair(given) else (given,)
        values = [255 * one if self.stage == FLOATS else one for one in given]
        whole = [round(one) for one in values]
        if any(abs(one - near) > 1e-6 or not 0 <= near <= 255 for one, near in zip(values, whole, strict=True)):
            raise _Unknown(f"has fill={shown(fill)}, which is no value of a byte")
        return tuple(whole) if len(whole) > 1 else whole[0]


def parts(transform: Any) -> Iterator[Any]:
    """Yield the transforms in a transform, in order."""
    if type(transform) in _composes() and not changed(transform):
        for part in transform.transforms:
            yield from parts(part)
    elif transform is not None:
        yield transform


def modules() -> tuple[Any, Any, Any]:
    """Return the modules of torchvision's transforms, version 1 and 2, and of its presets; None where not loaded."""
    names = ("transforms.transforms", "transforms.v2", "transforms._presets")
    first, second, presets = (torch_state.torchvision_module(name) for name in names)
    return first, second, presets


def name_of(thing: Any) -> str:
    """Return what a function or the class of an object is called.

    >>> name_of(abs), name_of([])
    ('abs', 'list')
    """
    return str(getattr(thing, "__qualname__", type(thing).__qualname__)).rpartition(".")[2]


def changed(transform: Any) -> str:
    """Name what somebody has put in place of a method; empty where nobody has."""
    own = vars(transform)
    for name in METHODS:
        method = getattr(type(transform), name, None)
        if name in own or str(getattr(method, "__module__", "torch")).partition(".")[0] not in ("torch", "torchvision"):
            return f"another {name}"
    return "hooks" if any(own.get(name) for name in HOOKS) else ""


def is_pair(value: Any) -> bool:
    """Say whether a setting is several values.

    >>> is_pair((1, 2)), is_pair(1)
    (True, False)
    """
    return isinstance(value, list | tuple)


def _composes() -> set[type]:
    return {kind for module in modules() for kind in [getattr(module, "Compose", None)] if kind is not None}


def _is_even(crop: RandomCrop) -> bool:
    padding: Any = crop.padding or (0, 0, 0, 0)
    return bool(padding[0] == padding[2] and padding[1] == padding[3])


def _same(one: Any, other: Any) -> bool:
    return (list(one) if is_pair(one) else one) == (list(other) if is_pair(other) else other)
