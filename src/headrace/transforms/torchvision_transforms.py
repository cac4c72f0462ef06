"""Translate torchvision's transforms of Pillow images into ours, where ours do the same.

torchvision is never imported here: a transform of its exists only where it is loaded. Only its own classes are
recognized, as a subclass may do something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.checks import shown
from headrace.interop import torch_state
from headrace.transforms import torchvision_changes as changes
from headrace.transforms.spatial import (
    CenterCrop,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
)
from headrace.transforms.torchvision_chain import (
    BYTES,
    FLOATS,
    NORMALIZED,
    PILLOW,
    Chain,
    is_pair,
    modules,
    name_of,
    parts,
    unknown,
)
from headrace.transforms.values import Normalize, ToCHW, ToFloat

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.transforms.base import Transform


WIDEST = (0.01, 100)
"""The ratios of a crop's sides; beyond these, torchvision rounds one side of small images to 0 pixels."""


@dataclass(frozen=True, slots=True)
class Translation:
    """Ours in place of a transform of torchvision's, and what became of each of its parts."""

    transforms: tuple[Transform, ...]
    places: tuple[int, ...]
    """The number of torchvision's transform for each of ours."""
    parts: tuple[tuple[str, str], ...]
    """The name of each of torchvision's, and why there is no such transform here; empty where there is."""
    refusal: str = ""
    """Why it cannot be translated; empty where it can."""


def translated(transform: Any) -> Translation:
    """Translate a transform of torchvision's, as datasets of images take it.

    >>> translated(abs).refusal
    'abs is not a transform of torchvision'
    """
    chain, found = Chain(_handlers()), []
    bad, refusal = "", "" if transform is not None else "it has no transform, so its samples are Pillow images"
    for part in parts(transform):
        name = name_of(part)
        why = f"follows {bad}, which is not recognized" if refusal else chain.add(part)
        if why and not refusal:
            bad, refusal = name, f"{name} {why}"
        found.append((name, why))
    if not refusal and chain.stage == PILLOW:
        refusal = "its transforms give Pillow images: ToTensor or ToImage is missing"
    ours = [*chain.pixels, *chain.values, (ToCHW(), chain.tensor_by)]
    return Translation(tuple(t for t, _ in ours), tuple(place for _, place in ours), tuple(found), refusal)


def _sides(size: Any) -> Any:
    """Return one length, or (height, width): torchvision takes [length] too."""
    if is_pair(size):
        return size[0] if len(size) == 1 else tuple(size)
    return size


def _resize(chain: Chain, transform: Any) -> None:
    if getattr(transform, "max_size", None) is not None:
        raise unknown("has max_size")
    chain.move(Resize(_sides(transform.size), **chain.scaling(transform)))


def _center_crop(chain: Chain, transform: Any) -> None:
    chain.move(CenterCrop(_sides(transform.size)))


def _random_resized_crop(chain: Chain, transform: Any) -> None:
    if not changes.is_as_made(transform):
        raise unknown("has a ratio that was changed after it was made")
    if min(transform.ratio) < WIDEST[0] or max(transform.ratio) > WIDEST[1]:
        raise unknown(f"has ratio={shown(transform.ratio)}, for which torchvision may crop nothing at all")
    sizes = {"scale": transform.scale, "ratio": transform.ratio}
    chain.move(RandomResizedCrop(_sides(transform.size), **sizes, **chain.scaling(transform)))


def _random_crop(chain: Chain, transform: Any) -> None:
    _crop(chain, transform, transform.padding)


def _random_crop_v2(chain: Chain, transform: Any) -> None:
    padding = transform.padding
    if padding is not None:  # the second version keeps (left, right, top, bottom)
        left, right, top, bottom = padding
        padding = left, top, right, bottom
    _crop(chain, transform, padding)


def _crop(chain: Chain, transform: Any, padding: Any) -> None:
    needed = transform.pad_if_needed
    outside = chain.fill(transform) if padding is not None or needed else {}
    chain.move(RandomCrop(_sides(transform.size), padding=padding, pad_if_needed=needed, **outside))


def _pad(chain: Chain, transform: Any) -> None:
    chain.move(Pad(transform.padding, **chain.fill(transform)))


def _flip(chain: Chain, transform: Any) -> None:
    chain.move(RandomHorizontalFlip(transform.p))


def _to_tensor(chain: Chain, transform: Any) -> None:  # noqa: ARG001
    chain.need(PILLOW)
    _open_as_floats(chain)


def _to_tensor_v2(chain: Chain, transform: Any) -> None:  # noqa: ARG001
    if chain.stage == PILLOW:  # it leaves tensors as they are
        _open_as_floats(chain)


def _open_as_floats(chain: Chain) -> None:
    dtype = str(torch_state.loaded().get_default_dtype())
    if dtype != "torch.float32":
        raise unknown(f"gives {dtype}, the default dtype")
    chain.open()
    chain.change_values(ToFloat(), FLOATS)


def _pil_to_tensor(chain: Chain, transform: Any) -> None:  # noqa: ARG001
    chain.need(PILLOW)
    chain.open()


def _to_image(chain: Chain, transform: Any) -> None:  # noqa: ARG001
    chain.open()


def _nothing(chain: Chain, transform: Any) -> None:
    pass


def _convert(chain: Chain, transform: Any) -> None:
    chain.need(BYTES, FLOATS, NORMALIZED)
    _become(chain, str(transform.dtype))


def _to_dtype(chain: Chain, transform: Any) -> None:
    if isinstance(transform.dtype, dict):
        raise unknown("has a dtype for each type")
    if chain.stage == PILLOW:
        return  # it leaves Pillow images as they are
    if chain.stage == BYTES and not transform.scale and str(transform.dtype) != "torch.uint8":
        raise unknown("has scale=False, which leaves values at 0 to 255")
    _become(chain, str(transform.dtype))


def _become(chain: Chain, dtype: str) -> None:
    if dtype == ("torch.uint8" if chain.stage == BYTES else "torch.float32"):
        return
    if dtype != "torch.float32":
        raise unknown(f"has dtype={dtype} for {chain.stage}")
    chain.change_values(ToFloat(), FLOATS)


def _normalize(chain: Chain, transform: Any) -> None:
    chain.need(FLOATS, NORMALIZED)
    chain.change_values(Normalize(transform.mean, transform.std), NORMALIZED)


def _classification(chain: Chain, transform: Any) -> None:
    """Add what the weights of a classification model come with."""
    chain.need(PILLOW)
    chain.move(Resize(_sides(transform.resize_size), **chain.scaling(transform)))
    chain.move(CenterCrop(_sides(transform.crop_size)))
    chain.open()
    chain.change_values(ToFloat(), FLOATS)
    chain.change_values(Normalize(transform.mean, transform.std), NORMALIZED)


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


def _handlers() -> dict[type, Callable[[Chain, Any], None]]:
    """Return what adds a transform of each class that is recognized."""
    first, second, presets = modules()
    tables = (
        (first, BOTH | FIRST | changes.BOTH),
        (torch_state.torchvision_module("transforms.autoaugment"), changes.POLICIES),
        (second, BOTH | SECOND | changes.BOTH | changes.POLICIES),
        (presets, {"ImageClassification": _classification}),
    )
    return {
        getattr(module, name): handler
        for module, table in tables
        for name, handler in table.items()
        if hasattr(module, name)
    }
