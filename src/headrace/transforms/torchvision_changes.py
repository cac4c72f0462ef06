"""Translate torchvision's augmentation: colors, policies, maps, erased parts, and what decides about them.

For Pillow images torchvision calls Pillow, whose pixels ours are, but for blurs and maps. For tensors it computes in
floats, with other pixels. What ours match within a gray level is here, and the rest is refused.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from headrace.transforms.color_transforms import (
    GaussianBlur,
    RandomAdjustSharpness,
    RandomAutocontrast,
    RandomEqualize,
    RandomErasing,
    RandomGrayscale,
    RandomInvert,
    RandomPosterize,
    RandomSolarize,
)
from headrace.transforms.control import RandomApply, RandomChoice
from headrace.transforms.detection import RandomVerticalFlip
from headrace.transforms.elastic import ElasticTransform
from headrace.transforms.policies import AUTO, RAND, TRIVIAL, magnitude
from headrace.transforms.policy_tables import POLICIES as PAIRS
from headrace.transforms.torchvision_chain import BYTES, FLOATS, NORMALIZED, PILLOW, Chain, is_pair, unknown
from headrace.transforms.torchvision_pixels import (
    PillowAutoAugment,
    PillowJitter,
    PillowRandAugment,
    PillowTrivialAugmentWide,
    TorchGrayscale,
    TorchJitter,
)
from headrace.transforms.warping import RandomAffine, RandomPerspective, RandomRotation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headrace.transforms.base import Transform
    from headrace.transforms.policies import Span
    from headrace.transforms.torchvision_pixels import Levels


def is_as_made(transform: Any) -> bool:
    """Say whether the logarithms that the second version keeps are those of the ratio."""
    kept = getattr(transform, "_log_ratio", None)
    if kept is None:
        return True
    return all(
        math.isclose(math.log(one), float(log), abs_tol=1e-6) for one, log in zip(transform.ratio, kept, strict=True)
    )


def _with_chance(ours: Callable[[float], Transform], **how: bool) -> Callable[[Chain, Any], None]:
    """Return what adds a transform that has a probability and nothing else."""
    return lambda chain, transform: chain.change_pixels(ours(transform.p), **how)


def _autocontrast(chain: Chain, transform: Any) -> None:
    chain.change_pixels(RandomAutocontrast(transform.p), rough=chain.stage == BYTES)


def _grayscale(chain: Chain, transform: Any) -> None:
    chain.change_pixels((TorchGrayscale if chain.stage == BYTES else RandomGrayscale)(transform.p), keeps=True)


def _vertical_flip(chain: Chain, transform: Any) -> None:
    chain.move(RandomVerticalFlip(transform.p))


def _jitter(chain: Chain, transform: Any) -> None:
    ranges = {name: getattr(transform, name) for name in ("brightness", "contrast", "saturation", "hue")}
    used = {name: tuple(one) for name, one in ranges.items() if one is not None}
    chain.change_pixels((TorchJitter if chain.stage == BYTES else PillowJitter)(**used), keeps=not used)


def _posterize(chain: Chain, transform: Any) -> None:
    if chain.stage == PILLOW and transform.bits == 0:
        raise unknown("has bits=0, which Pillow refuses")
    chain.change_pixels(RandomPosterize(transform.bits, transform.p))


def _solarize(chain: Chain, transform: Any) -> None:
    if chain.stage == BYTES and transform.threshold > 255:
        raise unknown(f"has threshold={transform.threshold} for {chain.stage}")
    # 127 stays and 128 becomes 127, so that a difference of one gray level is none.
    chain.change_pixels(RandomSolarize(transform.threshold, transform.p), keeps=127 < transform.threshold <= 128)


def _sharpness(chain: Chain, transform: Any) -> None:
    chain.change_pixels(RandomAdjustSharpness(transform.sharpness_factor, transform.p), rough=chain.stage == BYTES)


def _blur(chain: Chain, transform: Any) -> None:
    chain.change_pixels(GaussianBlur(tuple(transform.kernel_size), tuple(transform.sigma)), rough=True)


def _turning(chain: Chain, transform: Any) -> dict[str, Any]:
    """Return filter and fill of what turns pixels."""
    how = chain.sampling(transform)
    nearest = how["interpolation"] == "nearest"
    chain.stay_close(rough=not nearest, keeps=nearest)
    return how


def _rotation(chain: Chain, transform: Any) -> None:
    chain.need(PILLOW, BYTES)
    how = _turning(chain, transform)
    chain.move(
        RandomRotation(tuple(transform.degrees), expand=bool(transform.expand), center=_point(transform.center), **how)
    )


def _affine(chain: Chain, transform: Any) -> None:
    chain.need(PILLOW, BYTES)
    given = {name: getattr(transform, name) for name in ("translate", "scale", "shear")}
    ours: dict[str, Any] = {name: None if one is None else tuple(one) for name, one in given.items()}
    how = _turning(chain, transform)
    chain.move(RandomAffine(tuple(transform.degrees), center=_point(transform.center), **ours, **how))


def _perspective(chain: Chain, transform: Any) -> None:
    chain.need(PILLOW, BYTES)
    chain.move(RandomPerspective(transform.distortion_scale, p=transform.p, **_turning(chain, transform)))


def _elastic(chain: Chain, transform: Any) -> None:
    chain.need(PILLOW, BYTES)
    how = {"interpolation": chain.filter_of(transform), "fill": chain.fill_value(transform)}
    if how["interpolation"] not in ("nearest", "bilinear") or how["fill"]:
        raise unknown(f"has interpolation={how['interpolation']!r} and fill={how['fill']}")
    chain.stay_close(rough=True, keeps=False)
    chain.move(ElasticTransform(tuple(transform.alpha), tuple(transform.sigma), **how))


def _point(center: Any) -> Any:
    return None if center is None else tuple(center)


def _erasing(chain: Chain, transform: Any) -> None:
    chain.need(BYTES, FLOATS, NORMALIZED)
    if not is_as_made(transform):
        raise unknown("has a ratio that was changed after it was made")
    value = transform.value
    if value is None or isinstance(value, str):
        if chain.stage == BYTES:
            raise unknown("has value='random', which wraps around in bytes")
        value = "random"
    elif is_pair(value):
        value = tuple(value) if len(value) > 1 else value[0]
    ours = RandomErasing(transform.p, tuple(transform.scale), tuple(transform.ratio), value)
    if chain.stage == BYTES:
        chain.change_pixels(ours, keeps=True)
    else:
        chain.change_values(ours, chain.stage)


def _apply(chain: Chain, transform: Any) -> None:
    _decided(chain, RandomApply(chain.inner(transform.transforms, chain.rough), transform.p))


def _choice(chain: Chain, transform: Any) -> None:
    before = chain.rough
    _decided(chain, RandomChoice([chain.inner([one], before) for one in transform.transforms], transform.p))


def _decided(chain: Chain, ours: Transform) -> None:
    if chain.stage in (PILLOW, BYTES):
        chain.change_pixels(ours, keeps=True)  # what is inside was examined
    else:
        chain.change_values(ours, chain.stage)


def _policy(chain: Chain, transform: Any, bins: int, table: Mapping[str, Span | None]) -> dict[str, Any]:
    """Return filter, fill and strengths of a policy."""
    if chain.stage != PILLOW:
        raise unknown(f"changes colors of {chain.stage}, where torchvision rounds in another way")
    return {**chain.sampling(transform), "levels": _levels(transform, bins, table)}


def _levels(transform: Any, bins: int, table: Mapping[str, Span | None]) -> Levels:
    """Return torchvision's strengths, which are floats of 32 bits, but for those that depend on the image's size."""
    size, second = (224, 224), getattr(transform, "_AUGMENTATION_SPACE", None)
    if second is not None:
        space = {name: (levels(bins, *size), signed) for name, (levels, signed) in second.items()}
    else:
        space = transform._augmentation_space(bins, *(() if table is TRIVIAL else (size,)))
    if {name: signed for name, (_, signed) in space.items()} != {
        name: span is not None and span.signed for name, span in table.items()
    }:
        raise unknown("draws from other changes than ours")
    white = 1.0 if second is None else 255.0  # its second version has shares of white
    found = {}
    for name, span in table.items():
        if span is None:
            continue
        levels = [float(one) for one in space[name][0].tolist()]
        if not span.of:
            found[name] = tuple(white * one for one in levels) if name == "Solarize" else tuple(levels)
        elif not np.allclose(levels, [magnitude(span, (level, bins), size) for level in range(bins)], atol=1e-3):
            raise unknown(f"has other strengths of {name} than ours")
    return tuple(found.items())


def _trivial(chain: Chain, transform: Any) -> None:
    bins = transform.num_magnitude_bins
    chain.change_pixels(PillowTrivialAugmentWide(bins, **_policy(chain, transform, bins, TRIVIAL)))


def _rand(chain: Chain, transform: Any) -> None:
    bins = transform.num_magnitude_bins
    how = _policy(chain, transform, bins, RAND)
    chain.change_pixels(PillowRandAugment(transform.num_ops, transform.magnitude, bins, **how))


def _auto(chain: Chain, transform: Any) -> None:
    name = str(getattr(transform.policy, "value", transform.policy))
    pairs = getattr(transform, "policies", None) or transform._policies
    drawn = tuple(tuple((op, chance, level or 0) for op, chance, level in pair) for pair in pairs)
    if drawn != PAIRS.get(name):
        raise unknown("has pairs of changes that are not those of its policy")
    chain.change_pixels(PillowAutoAugment(cast("Any", name), **_policy(chain, transform, 10, AUTO)))


BOTH: dict[str, Any] = {
    "ColorJitter": _jitter,
    "ElasticTransform": _elastic,
    "GaussianBlur": _blur,
    "RandomAdjustSharpness": _sharpness,
    "RandomAffine": _affine,
    "RandomApply": _apply,
    "RandomAutocontrast": _autocontrast,
    "RandomChoice": _choice,
    "RandomEqualize": _with_chance(RandomEqualize),
    "RandomErasing": _erasing,
    "RandomGrayscale": _grayscale,
    "RandomInvert": _with_chance(RandomInvert, keeps=True),
    "RandomPerspective": _perspective,
    "RandomPosterize": _posterize,
    "RandomRotation": _rotation,
    "RandomSolarize": _solarize,
    "RandomVerticalFlip": _vertical_flip,
}
POLICIES: dict[str, Any] = {"AutoAugment": _auto, "RandAugment": _rand, "TrivialAugmentWide": _trivial}
