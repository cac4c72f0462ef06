"""The numbers that our transforms draw have the distributions of torchvision's: compared draw by draw with its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace.transforms import (
    ColorJitter,
    GaussianBlur,
    RandomAffine,
    RandomErasing,
    RandomPerspective,
    RandomResizedCrop,
    RandomRotation,
    RandomShortestSize,
    RandomZoomOut,
    ScaleJitter,
)

torch = pytest.importorskip("torch")
v2 = pytest.importorskip("torchvision.transforms.v2")

if TYPE_CHECKING:
    from collections.abc import Callable

    Numbers = Callable[[Any], list[float]]

HEIGHT, WIDTH, TIMES = 90, 120, 1500
IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def apart(one: list[float], other: list[float]) -> float:
    """Return the statistic of Kolmogorov and Smirnov, in units of its deviation for two samples of these sizes."""
    both = np.sort(np.concatenate([one, other]))
    places = [np.searchsorted(np.sort(values), both, side="right") / len(values) for values in (one, other)]
    return float(np.abs(places[0] - places[1]).max() * np.sqrt(len(one) * len(other) / (len(one) + len(other))))


def theirs(transform: Any) -> list[dict[str, Any]]:
    """Return what a transform of torchvision's draws, many times."""
    torch.manual_seed(3)
    image = [torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)]
    return [transform.make_params(image) for _ in range(TIMES)]


def ours(transform: Any) -> list[dict[str, Any]]:
    """Return what a transform of ours draws, many times."""
    rng = np.random.default_rng(5)
    return [transform.drawn(IMAGE, rng) for _ in range(TIMES)]


def corner(one: dict[str, Any]) -> list[float]:
    return [float(value) for point in one["corners"] for value in point]


def corners_of_theirs() -> list[Any]:
    """Return the new corners, of which a transform of torchvision's gives only the matrix."""
    from torchvision.transforms import RandomPerspective as First

    torch.manual_seed(3)
    return [First.get_params(WIDTH, HEIGHT, 0.4)[1] for _ in range(TIMES)]


CASES: dict[str, tuple[Any, Numbers, Any, Numbers]] = {
    "rotation": (
        RandomRotation(40), lambda one: [one["angle"]],
        v2.RandomRotation(40), lambda one: [one["angle"]],
    ),
    "affine": (
        RandomAffine(20, translate=(0.2, 0.3), scale=(0.5, 2), shear=(-9, 9, 0, 5)),
        lambda one: [one["angle"], *one["translate"], one["scale"], *one["shear"]],
        v2.RandomAffine(20, translate=(0.2, 0.3), scale=(0.5, 2), shear=(-9, 9, 0, 5)),
        lambda one: [one["angle"], *one["translate"], one["scale"], *one["shear"]],
    ),
    "perspective": (
        RandomPerspective(0.4, p=1), corner,
        corners_of_theirs, lambda one: [float(value) for point in one for value in point],
    ),
    "resized crop": (
        RandomResizedCrop(32), lambda one: [one["top"], one["left"], one["height"], one["width"]],
        v2.RandomResizedCrop(32), lambda one: [one["top"], one["left"], one["height"], one["width"]],
    ),
    "erasing": (
        RandomErasing(p=1), lambda one: [one[name] for name in ("top", "left", "height", "width")],
        v2.RandomErasing(p=1), lambda one: [one[name] for name in "ijhw"],
    ),
    "zoom out": (
        RandomZoomOut(p=1), lambda one: [-one["top"], -one["left"], one["height"], one["width"]],
        v2.RandomZoomOut(p=1),
        lambda one: [
            one["padding"][1], one["padding"][0], HEIGHT + sum(one["padding"][1::2]), WIDTH + sum(one["padding"][::2]),
        ],
    ),
    "shortest size": (
        RandomShortestSize([40, 60, 70], max_size=90), lambda one: [one["height"], one["width"]],
        v2.RandomShortestSize([40, 60, 70], max_size=90), lambda one: [*one["size"]],
    ),
    "scale jitter": (
        ScaleJitter((64, 64)), lambda one: [one["height"], one["width"]],
        v2.ScaleJitter((64, 64)), lambda one: [*one["size"]],
    ),
    "blur": (
        GaussianBlur(5, (0.1, 3)), lambda one: [one["sigma"]],
        v2.GaussianBlur(5, (0.1, 3)), lambda one: [one["sigma"][0]],
    ),
    "jitter": (
        ColorJitter(0.4, 0.3, 0.2, 0.1), lambda one: [one[n] for n in ("brightness", "contrast", "saturation", "hue")],
        v2.ColorJitter(0.4, 0.3, 0.2, 0.1),
        lambda one: [one[f"{n}_factor"] for n in ("brightness", "contrast", "saturation", "hue")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_drawn_as_torchvisions(name: str) -> None:
    """Compare each number of a draw by the distance of two distributions, which chance exceeds once in 10,000 times."""
    own, own_numbers, other, other_numbers = CASES[name]
    first = [own_numbers(one) for one in ours(own)]
    second = [other_numbers(one) for one in (theirs(other) if isinstance(other, torch.nn.Module) else other())]
    for one, two in zip(zip(*first, strict=True), zip(*second, strict=True), strict=True):
        assert apart(list(map(float, one)), list(map(float, two))) < 2.3
