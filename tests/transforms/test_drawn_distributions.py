"""The numbers that transforms draw have the distributions that their docstrings name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace.transforms import (
    AugMix,
    AutoAugment,
    ColorJitter,
    FixedSizeCrop,
    GaussianBlur,
    OneOf,
    RandAugment,
    RandomAffine,
    RandomApply,
    RandomChannelPermutation,
    RandomErasing,
    RandomIoUCrop,
    RandomPerspective,
    RandomPhotometricDistort,
    RandomRotation,
    RandomShortestSize,
    RandomVerticalFlip,
    RandomZoomOut,
    ScaleJitter,
    TrivialAugmentWide,
)
from tests.plan.statistics import Z, surprise

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

TIMES, BINS = 3000, 12
IMAGE = np.zeros((90, 120, 3), np.uint8)


def drawn(transform: Any, sample: Any = IMAGE, times: int = TIMES) -> list[dict[str, Any]]:
    """Return what a transform draws, many times from one generator."""
    rng = np.random.default_rng(1)
    return [transform.drawn(sample, rng) for _ in range(times)]


def assert_uniform(values: Any, low: float, high: float) -> None:
    """Compare numbers with a uniform distribution, by chi-squared."""
    found: NDArray[np.float64] = np.asarray(values, np.float64)
    assert low <= found.min() <= found.max() <= high
    counts, _ = np.histogram(found, BINS, (low, high))
    assert surprise(counts, len(found) / BINS, BINS - 1) < Z


def assert_chances(outcomes: list[Any], chances: dict[Any, float]) -> None:
    """Compare how often each outcome came with its chance; there may be no other outcome."""
    counts = np.array([outcomes.count(one) for one in chances])
    assert counts.sum() == len(outcomes)
    assert surprise(counts, np.array(list(chances.values())) * len(outcomes), len(chances) - 1) < Z


UNIFORM: list[tuple[str, Any, Callable[[dict[str, Any]], float], float, float]] = [
    ("rotation", RandomRotation((-30, 80)), lambda one: one["angle"], -30, 80),
    ("affine angle", RandomAffine(25), lambda one: one["angle"], -25, 25),
    ("affine scale", RandomAffine(0, scale=(0.5, 1.5)), lambda one: one["scale"], 0.5, 1.5),
    ("affine shear x", RandomAffine(0, shear=(0, 9, -4, 4)), lambda one: one["shear"][0], 0, 9),
    ("affine shear y", RandomAffine(0, shear=(0, 9, -4, 4)), lambda one: one["shear"][1], -4, 4),
    ("brightness", ColorJitter(brightness=0.4), lambda one: one["brightness"], 0.6, 1.4),
    ("contrast", ColorJitter(contrast=(0.2, 3)), lambda one: one["contrast"], 0.2, 3),
    ("saturation", ColorJitter(saturation=2), lambda one: one["saturation"], 0, 3),
    ("hue", ColorJitter(hue=0.2), lambda one: one["hue"], -0.2, 0.2),
    ("sigma", GaussianBlur(5, (0.1, 2)), lambda one: one["sigma"], 0.1, 2),
]


@pytest.mark.parametrize(
    ("transform", "number", "low", "high"), [one[1:] for one in UNIFORM], ids=[u[0] for u in UNIFORM]
)
def test_numbers_are_uniform_in_their_range(transform: Any, number: Any, low: float, high: float) -> None:
    """Fill each twelfth of the range alike."""
    assert_uniform([number(one) for one in drawn(transform)], low, high)


def test_shifts_are_whole_pixels_uniform_up_to_their_shares() -> None:
    """Draw both ways, each from its own side: half as often the last pixel of an end, which half rounds to."""
    shifts = np.array([one["translate"] for one in drawn(RandomAffine(0, translate=(0.05, 0.1)))])
    for axis, most in ((0, 6), (1, 9)):
        chances = {pixel: (0.5 if abs(pixel) == most else 1) / (2 * most) for pixel in range(-most, most + 1)}
        assert_chances(shifts[:, axis].tolist(), chances)
    assert abs(np.corrcoef(shifts.T)[0, 1]) < 0.08


def test_the_four_changes_of_color_come_in_any_order() -> None:
    """Draw each of the 24 orders alike, whatever the numbers."""
    found = drawn(ColorJitter(0.4, 0.4, 0.4, 0.1))
    orders = ["".join(name[0] for name in one) for one in found]
    assert_chances(orders, dict.fromkeys(sorted(set(orders)), 1 / 24))
    assert len(set(orders)) == 24
    assert abs(np.corrcoef([one["brightness"] for one in found], [one["contrast"] for one in found])[0, 1]) < 0.08


def test_corners_move_inwards_by_whole_pixels() -> None:
    """Draw each corner's two moves alike from none to the largest, in half of the images."""
    found = drawn(RandomPerspective(0.2, p=0.5))
    assert_chances([one["applied"] for one in found], {True: 0.5, False: 0.5})
    corners = np.array([one["corners"] for one in found if one["applied"]])
    inwards = np.abs(corners - np.array([[0, 0], [119, 0], [119, 89], [0, 89]]))
    for corner in range(4):
        for axis, most in ((0, 12), (1, 9)):
            assert_chances(inwards[:, corner, axis].tolist(), dict.fromkeys(range(most + 1), 1 / (most + 1)))


def test_canvases_have_their_factor_and_any_place() -> None:
    """Draw the factor and both places uniformly."""
    found = [one for one in drawn(RandomZoomOut(side_range=(1, 4), p=0.5)) if "top" in one]
    assert_chances(["top" in one for one in drawn(RandomZoomOut(p=0.5))], {True: 0.5, False: 0.5})
    assert_uniform([one["width"] / 120 for one in found], 0.99, 4)
    places = [-one["top"] / (one["height"] - 90) for one in found if one["height"] > 180]
    assert abs(np.mean(places) - 0.5) < 0.03
    assert abs(np.std(places) - 12**-0.5) < 0.02


def test_sizes_are_drawn_alike() -> None:
    """Draw each shorter side as often; and the factor of a jitter uniformly."""
    shorter = [one["height"] for one in drawn(RandomShortestSize([40, 50, 60]))]
    assert_chances(shorter, dict.fromkeys((40, 50, 60), 1 / 3))
    jitter = drawn(ScaleJitter((900, 1200), scale_range=(0.1, 2)))
    assert_uniform([one["height"] / 900 for one in jitter], 0.099, 2)


def test_fixed_crops_go_along_the_diagonal_alike() -> None:
    """Draw one number for both sides, as the recipe does."""
    found = drawn(FixedSizeCrop((30, 60)))
    assert_uniform([one["left"] + np.random.default_rng(n).random() for n, one in enumerate(found)], 0, 60)
    assert all(one["top"] == one["left"] for one in found)


def test_erased_parts_have_their_area_and_ratio() -> None:
    """Draw the area uniformly and the ratio log-uniformly, where all fit; half of the images are erased."""
    found = [one for one in drawn(RandomErasing(p=0.5, scale=(0.02, 0.1), ratio=(0.5, 2))) if "top" in one]
    areas = np.array([one["height"] * one["width"] / (90 * 120) for one in found])
    ratios = np.log([one["height"] / one["width"] for one in found])
    assert abs(len(found) / TIMES - 0.5) < 0.04
    assert abs(areas.mean() - 0.06) < 0.002
    assert abs(areas.std() - 0.08 / 12**0.5) < 0.002
    assert abs(ratios.mean()) < 0.03
    assert abs(ratios.std() - 2 * np.log(2) / 12**0.5) < 0.03


def test_channels_are_permuted_alike() -> None:
    """Draw each of the six orders as often."""
    orders = [tuple(one["channels"]) for one in drawn(RandomChannelPermutation())]
    assert_chances(orders, dict.fromkeys(sorted(set(orders)), 1 / 6))


def test_distortions_are_drawn_one_by_one() -> None:
    """Do each change of color with its own chance, and contrast before or after the others alike."""
    found = drawn(RandomPhotometricDistort(p=0.3))
    for name in ("brightness", "contrast", "saturation", "hue", "channels"):
        assert_chances([name in one for one in found], {True: 0.3, False: 0.7})
    both = [list(one) for one in found if {"contrast", "hue"} <= one.keys()]
    assert_chances([names.index("contrast") < names.index("hue") for names in both], {True: 0.5, False: 0.5})


def test_chances_are_kept() -> None:
    """Flip, apply and choose as often as said."""
    assert_chances([one["flipped"] for one in drawn(RandomVerticalFlip(0.3))], {True: 0.3, False: 0.7})
    assert_chances([one["applied"] for one in drawn(RandomApply([str], p=0.8))], {True: 0.8, False: 0.2})
    choices = [one["choice"] for one in drawn(OneOf([str, int], p=0.6))]
    assert_chances(choices, {None: 0.4, 0: 0.3, 1: 0.3})


def test_overlaps_of_crops_are_drawn_alike() -> None:
    """Leave a sample as it is as often as the overlap of 1 is drawn: one of seven, where parts are easy to find."""
    sample = {"image": np.zeros((200, 200, 3), np.uint8), "boxes": np.array([[0.0, 0, 200, 200]])}
    crop = RandomIoUCrop(sampler_options=(0.0, 1.0), min_scale=0.5)
    kept = ["top" in one for one in drawn(crop, sample, 1000)]
    assert_chances(kept, {True: 0.5, False: 0.5})


def test_policies_draw_their_changes_alike() -> None:
    """Draw each of the 14 changes as often, in each place; strengths and signs too."""
    names = [[name.partition(". ")[2] for name in one] for one in drawn(RandAugment(2))]
    for place in (0, 1):
        of_place = [one[place] for one in names]
        assert_chances(of_place, dict.fromkeys(sorted(set(of_place)), 1 / 14))
    found = [next(iter(one.items())) for one in drawn(TrivialAugmentWide(), times=12_000)]
    kinds = [name for name, _ in found]
    assert_chances(kinds, dict.fromkeys(sorted(set(kinds)), 1 / 14))
    angles = np.array([value for name, value in found if name.endswith("Rotate")])
    assert_chances((np.rint(np.abs(angles) / 4.5)).astype(int).tolist(), dict.fromkeys(range(31), 1 / 31))
    turned = angles[angles != 0]
    assert_chances((turned > 0).tolist(), {True: 0.5, False: 0.5})


def test_learned_policies_draw_pairs_alike_and_changes_by_their_chances() -> None:
    """Do as many changes on average as the 25 pairs say."""
    from headrace.transforms.policy_tables import POLICIES

    for name, pairs in POLICIES.items():
        counts = [len(one.keys() - {"applied"}) for one in drawn(AutoAugment(name))]  # type: ignore[arg-type]
        expected = np.mean([sum(chance for _, chance, _ in pair) for pair in pairs])
        assert abs(np.mean(counts) - expected) < 0.06


def test_weights_of_mixtures_are_dirichlet() -> None:
    """Give the image itself and the chains the means and spreads of their distributions."""
    weights = np.array([one["weights"] for one in drawn(AugMix(mixture_width=3))])
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    assert abs(weights[:, 0].mean() - 0.5) < 0.02
    np.testing.assert_allclose(weights[:, 1:].mean(axis=0), 1 / 6, atol=0.015)
    depths = [len(chain) for one in drawn(AugMix(), times=1000) for chain in one["chains"]]
    assert_chances(depths, dict.fromkeys((1, 2, 3), 1 / 3))
