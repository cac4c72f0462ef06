"""Translate torchvision's transforms of Pillow images into ours, where ours do the same.

torchvision is never imported here: a transform of its exists only where it is loaded. Only its own classes are
recognized, as a subclass may do something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headrace.checks import shown
from headrace.errors import HeadraceError
from headrace.interop import torch_state
from headrace.transforms.spatial import (
    CenterCrop,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from headrace.transforms.values import Normalize, ToCHW, ToFloat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headrace.transforms.base import Transform

Stage = Literal["a Pillow image", "a tensor of bytes", "a tensor of floats", "a normalized tensor"]
"""What an image has become after some of the transforms."""
PILLOW: Stage = "a Pillow image"
BYTES: Stage = "a tensor of bytes"
FLOATS: Stage = "a tensor of floats"
NORMALIZED: Stage = "a normalized tensor"

FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers of the filters."""
METHODS = ("__call__", "forward", "transform", "make_params", "get_params", "check_inputs")
"""What a transform does is in these."""
HOOKS = ("_forward_hooks", "_forward_pre_hooks")


@dataclass(frozen=True, slots=True)
class Translation:
    """Ours in place of a transform of torchvision's, and what became of each of its parts."""

    transforms: tuple[Transform, ...]
    names: tuple[str, ...]
    """The name of torchvision's transform for each of ours."""
    parts: tuple[tuple[str, str], ...]
    """The name of each of torchvision's, and why there is no such transform here; empty where there is."""
    refusal: str = ""
    """Why it cannot be translated; empty where it can."""


def translated(transform: Any) -> Translation:
    """Translate a transform of torchvision's, as datasets of images take it.

    >>> translated(abs).refusal
    'abs is not a transform of torchvision'
    """
    chain, parts = _Chain(), []
    bad, refusal = "", "" if transform is not None else "it has no transform, so its samples are Pillow images"
    for part in _parts(transform):
        name = name_of(part)
        why = f"follows {bad}, which is not recognized" if refusal else chain.add(part)
        if why and not refusal:
            bad, refusal = name, f"{name} {why}"
        parts.append((name, why))
    if not refusal and chain.stage == PILLOW:
        refusal = "its transforms give Pillow images: ToTensor or ToImage is missing"
    ours = [*chain.moves, *chain.values, (ToCHW(), chain.tensor_by)]
    return Translation(tuple(t for t, _ in ours), tuple(name for _, name in ours), tuple(parts), refusal)


def name_of(thing: Any) -> str:
    """Return what a function or the class of an object is called."""
    return str(getattr(thing, "__qualname__", type(thing).__qualname__)).rpartition(".")[2]


class _Unknown(Exception):
    """A transform, or a setting of it, that ours do not have."""


class _Chain:
    """The transforms so far: those that move pixels, then those that change values."""

    def __init__(self) -> None:
        self.stage: Stage = PILLOW
        self.moves: list[tuple[Transform, str]] = []
        self.values: list[tuple[Transform, str]] = []
        self.tensor_by = "ToTensor"
        self._name = ""

    def add(self, transform: Any) -> str:
        """Add a transform of torchvision's; or return why not."""
        self._name = name_of(transform)
        handlers = _handlers()
        handler = handlers.get(type(transform))
        if handler is None:
            bases = [kind.__name__ for kind in type(transform).__mro__ if kind in handlers]
            if bases:
                return f"is a subclass of {bases[0]}, which may do something else"
            known = type(transform).__module__.partition(".")[0] == "torchvision"
            return "has no native counterpart" if known else "is not a transform of torchvision"
        changed = _changed(transform)
        if changed:
            return f"has {changed}, which may do something else"
        try:
            handler(self, transform)
        except _Unknown as error:
            return str(error)
        except (HeadraceError, AttributeError, TypeError, ValueError) as error:
            return f"has settings that cannot be used: {error}"
        return ""

    def move(self, ours: Transform) -> None:
        """Add what moves pixels: values are changed behind it, as neither looks at the other."""
        if self.stage == NORMALIZED:
            raise _Unknown("follows Normalize")
        at = len(self.moves)
        if isinstance(ours, RandomCrop) and _is_even(ours):
            # The mirrored part at a random place is the part at the mirrored place, which is as likely.
            while at and isinstance(self.moves[at - 1][0], RandomHorizontalFlip):
                at -= 1
        self.moves.insert(at, (ours, self._name))

    def change(self, ours: Transform, stage: Stage) -> None:
        """Add what changes values."""
        self.values.append((ours, self._name))
        self.stage = stage

    def open(self) -> None:
        """Let the image be a tensor from here on, if it is none yet."""
        if self.stage == PILLOW:
            self.stage, self.tensor_by = BYTES, self._name

    def need(self, *stages: Stage) -> None:
        """Refuse a transform that torchvision does not apply to what the image is."""
        if self.stage not in stages:
            raise _Unknown(f"gets {self.stage}")

    def scaling(self, transform: Any) -> dict[str, Any]:
        """Return the filter, and whether it is antialiased: Pillow always is."""
        how = transform.interpolation
        how = getattr(how, "value", how)
        how = FILTERS.get(how, how) if isinstance(how, int) else how
        if self.stage == PILLOW:
            return {"interpolation": "nearest" if how == "nearest-exact" else how}
        if how != "bilinear" and (how != "bicubic" or self.stage == FLOATS):
            raise _Unknown(f"has interpolation={how!r} for {self.stage}")
        if not isinstance(transform.antialias, bool):
            raise _Unknown(f"has antialias={transform.antialias!r} for {self.stage}")
        return {"interpolation": how, "antialias": transform.antialias}

    def fill(self, transform: Any) -> dict[str, Any]:
        """Return how an image continues outside, in values of bytes."""
        if transform.padding_mode != "constant":
            return {"mode": transform.padding_mode}
        fill = 0 if transform.fill is None else transform.fill
        if isinstance(fill, dict):
            raise _Unknown("has a fill for each type")
        given: Any = fill if _is_pair(fill) else (fill,)
        values = [255 * one if self.stage == FLOATS else one for one in given]
        whole = [round(one) for one in values]
        if any(abs(one - near) > 1e-6 for one, near in zip(values, whole, strict=True)):
            raise _Unknown(f"has fill={shown(fill)}, which is no value of a byte")
        return {"fill": tuple(whole) if len(whole) > 1 else whole[0]}


def _parts(transform: Any) -> Iterator[Any]:
    """Yield the transforms in a transform, in order."""
    if type(transform) in _composes() and not _changed(transform):
        for part in transform.transforms:
            yield from _parts(part)
    elif transform is not None:
        yield transform


def _composes() -> set[type]:
    return {kind for module in _modules() for kind in [getattr(module, "Compose", None)] if kind is not None}


def _modules() -> tuple[Any, Any, Any]:
    """Return the modules of torchvision's transforms, version 1 and 2, and of its presets; None where not loaded."""
    names = ("transforms.transforms", "transforms.v2", "transforms._presets")
    first, second, presets = (torch_state.torchvision_module(name) for name in names)
    return first, second, presets


def _changed(transform: Any) -> str:
    """Name what somebody has put in place of a method; empty where nobody has."""
    own = vars(transform)
    for name in METHODS:
        method = getattr(type(transform), name, None)
        if name in own or str(getattr(method, "__module__", "torch")).partition(".")[0] not in ("torch", "torchvision"):
            return f"another {name}"
    return "hooks" if any(own.get(name) for name in HOOKS) else ""


def _is_even(crop: RandomCrop) -> bool:
    padding: Any = crop.padding or (0, 0, 0, 0)
    return bool(padding[0] == padding[2])


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _sides(size: Any) -> Any:
    """Return one length, or (height, width): torchvision takes [length] too."""
    if _is_pair(size):
        return size[0] if len(size) == 1 else tuple(size)
    return size


def _resize(chain: _Chain, transform: Any) -> None:
    if getattr(transform, "max_size", None) is not None:
        raise _Unknown("has max_size")
    chain.move(Resize(_sides(transform.size), **chain.scaling(transform)))


def _center_crop(chain: _Chain, transform: Any) -> None:
    chain.move(CenterCrop(_sides(transform.size)))


def _random_resized_crop(chain: _Chain, transform: Any) -> None:
    sizes = {"scale": transform.scale, "ratio": transform.ratio}
    chain.move(RandomResizedCrop(_sides(transform.size), **sizes, **chain.scaling(transform)))


def _random_crop(chain: _Chain, transform: Any) -> None:
    _crop(chain, transform, transform.padding)


def _random_crop_v2(chain: _Chain, transform: Any) -> None:
    padding = transform.padding
    if padding is not None:  # the second version keeps (left, right, top, bottom)
        left, right, top, bottom = padding
        padding = left, top, right, bottom
    _crop(chain, transform, padding)


def _crop(chain: _Chain, transform: Any, padding: Any) -> None:
    needed = transform.pad_if_needed
    outside = chain.fill(transform) if padding is not None or needed else {}
    chain.move(RandomCrop(_sides(transform.size), padding=padding, pad_if_needed=needed, **outside))


def _pad(chain: _Chain, transform: Any) -> None:
    chain.move(Pad(transform.padding, **chain.fill(transform)))


def _flip(chain: _Chain, transform: Any) -> None:
    chain.move(RandomHorizontalFlip(transform.p))


def _to_tensor(chain: _Chain, transform: Any) -> None:  # noqa: ARG001
    chain.need(PILLOW)
    _open_as_floats(chain)


def _to_tensor_v2(chain: _Chain, transform: Any) -> None:  # noqa: ARG001
    if chain.stage == PILLOW:  # it leaves tensors as they are
        _open_as_floats(chain)


def _open_as_floats(chain: _Chain) -> None:
    dtype = str(torch_state.loaded().get_default_dtype())
    if dtype != "torch.float32":
        raise _Unknown(f"gives {dtype}, the default dtype")
    chain.open()
    chain.change(ToFloat(), FLOATS)


def _pil_to_tensor(chain: _Chain, transform: Any) -> None:  # noqa: ARG001
    chain.need(PILLOW)
    chain.open()


def _to_image(chain: _Chain, transform: Any) -> None:  # noqa: ARG001
    chain.open()


def _nothing(chain: _Chain, transform: Any) -> None:
    pass


def _convert(chain: _Chain, transform: Any) -> None:
    chain.need(BYTES, FLOATS, NORMALIZED)
    _become(chain, str(transform.dtype))


def _to_dtype(chain: _Chain, transform: Any) -> None:
    if isinstance(transform.dtype, dict):
        raise _Unknown("has a dtype for each type")
    if chain.stage == PILLOW:
        return  # it leaves Pillow images as they are
    if chain.stage == BYTES and not transform.scale and str(transform.dtype) != "torch.uint8":
        raise _Unknown("has scale=False, which leaves values at 0 to 255")
    _become(chain, str(transform.dtype))


def _become(chain: _Chain, dtype: str) -> None:
    if dtype == ("torch.uint8" if chain.stage == BYTES else "torch.float32"):
        return
    if dtype != "torch.float32":
        raise _Unknown(f"has dtype={dtype} for {chain.stage}")
    chain.change(ToFloat(), FLOATS)


def _normalize(chain: _Chain, transform: Any) -> None:
    chain.need(FLOATS, NORMALIZED)
    chain.change(Normalize(transform.mean, transform.std), NORMALIZED)


def _classification(chain: _Chain, transform: Any) -> None:
    """Add what the weights of a classification model come with."""
    chain.need(PILLOW)
    chain.move(Resize(_sides(transform.resize_size), **chain.scaling(transform)))
    chain.move(CenterCrop(_sides(transform.crop_size)))
    chain.open()
    chain.change(ToFloat(), FLOATS)
    chain.change(Normalize(transform.mean, transform.std), NORMALIZED)


BOTH: dict[str, Any] = {
    "CenterCrop": _center_crop,
    "ConvertImageDtype": _convert,
    "Normalize": _normalize,
    "Pad": _pad,
    "RandomHorizontalFlip": _flip,
    "RandomResizedCrop": _random_resized_crop,
    "Resize": _resize,
}
FIRST: dict[str, Any] = {"PILToTensor": _pil_to_tensor, "RandomCrop": _random_crop, "ToTensor": _to_tensor}
SECOND: dict[str, Any] = {
    "Identity": _nothing,
    "PILToTensor": _to_image,
    "RandomCrop": _random_crop_v2,
    "ToDtype": _to_dtype,
    "ToImage": _to_image,
    "ToPureTensor": _nothing,
    "ToTensor": _to_tensor_v2,
}


def _handlers() -> dict[type, Callable[[_Chain, Any], None]]:
    """Return what adds a transform of each class that is recognized."""
    first, second, presets = _modules()
    tables = ((first, BOTH | FIRST), (second, BOTH | SECOND), (presets, {"ImageClassification": _classification}))
    return {
        getattr(module, name): handler
        for module, table in tables
        for name, handler in table.items()
        if hasattr(module, name)
    }
