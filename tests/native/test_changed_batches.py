"""Batches with changed colors, drawn maps and erased parts are those of the step-by-step route, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headrace
from headrace import (
    ArrayDataset,
    CenterCrop,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    ToCHW,
    ToDtype,
    ToFloat,
)
from headrace._native import extension
from headrace.image.native_changes import ABLE
from headrace.transforms import (
    AutoAugment,
    ColorJitter,
    GaussianBlur,
    OneOf,
    RandAugment,
    RandomAdjustSharpness,
    RandomAffine,
    RandomApply,
    RandomAutocontrast,
    RandomChannelPermutation,
    RandomChoice,
    RandomEqualize,
    RandomErasing,
    RandomGrayscale,
    RandomInvert,
    RandomPerspective,
    RandomPhotometricDistort,
    RandomPosterize,
    RandomRotation,
    RandomSolarize,
    RandomVerticalFlip,
    TrivialAugmentWide,
)
from headrace.transforms.torchvision_pixels import (
    PillowAutoAugment,
    PillowJitter,
    PillowRandAugment,
    PillowTrivialAugmentWide,
    TorchGrayscale,
    TorchJitter,
)
from tests.image_files import encoded, photo
from tests.native.stepwise import assert_equal, batches, both

pytestmark = pytest.mark.skipif(extension is None or not ABLE, reason="the extension has no changes")

DINO = (
    RandomApply([ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
    RandomGrayscale(0.2),
    RandomApply(GaussianBlur(23), p=0.5),
)
CHAINS: dict[str, tuple[Any, ...]] = {
    "dino": (*DINO, ToFloat(), Normalize(0.4, 0.2), ToCHW()),
    "bytes": DINO,
    "bytes, channels first": (*DINO, ToCHW()),
    "float16": (*DINO, ToFloat(), ToDtype("float16")),
    "randaugment": (RandAugment(3, 9), ToFloat(), Normalize(0.4, 0.2), ToCHW()),
    "bilinear randaugment": (RandAugment(3, 15, interpolation="bilinear", fill=99),),
    "trivial": (TrivialAugmentWide(), RandomErasing(0.5), ToFloat(), ToCHW()),
    "autoaugment": (AutoAugment("svhn"), AutoAugment(), ToFloat()),
    "erased floats": (ColorJitter(0.4), ToFloat(), Normalize(0.4, 0.2), RandomErasing(0.7, value=-3), ToCHW()),
    "erased halves": (ToFloat(), ToDtype("float16"), RandomErasing(1, value=0.5), ToDtype("float16")),
    "by way of Pillow's hues": (PillowJitter(0.4, 0.4, (0, 90), 0.5), RandomGrayscale(0.2), ToFloat(), ToCHW()),
    "as torch's colors": (TorchJitter(0.4, 0.4, (0, 90), 0.5), TorchGrayscale(0.2), ToFloat(), ToCHW()),
    "as torchvision's policies": (
        PillowRandAugment(3, 9, fill=9),
        PillowTrivialAugmentWide(levels=(("Brightness", (0.5,) * 31), ("Solarize", (99.0,) * 31))),
        PillowAutoAugment("svhn"),
    ),
    "distorted": (RandomPhotometricDistort(p=0.5), RandomInvert(0.3)),
    "upside down": (RandomVerticalFlip(0.6), RandomApply([RandomVerticalFlip(1), RandomInvert(1)])),
    "histograms": (RandomAutocontrast(0.5), RandomEqualize(0.5), RandomPosterize(3, 0.5), RandomSolarize(99.5, 0.5)),
    "turned": (RandomRotation(40, fill=9), RandomGrayscale(0.5), RandomRotation(20, interpolation="bilinear"), ToCHW()),
    "mapped": (
        RandomAffine(30, translate=(0.2, 0.1), scale=(0.5, 2), shear=(-9, 9, -30, 5), interpolation="bilinear", fill=7),
        RandomPerspective(0.7, p=0.8, fill=200),
        RandomRotation((-10, 90), interpolation="bilinear", center=(0, 3)),
        RandomAffine(0, translate=(1, 0)),
        ToFloat(),
    ),
    "maybe mapped": (
        RandomApply([RandomRotation(10), RandomAffine(0, shear=20), RandomInvert(1)], p=0.7),
        RandomRotation(9),
        RandAugment(),
        RandomChoice([RandomPerspective(1.0, p=1), RandomErasing(1)]),
    ),
    "chosen": (
        RandomChoice(
            [RandomInvert(1), [RandomGrayscale(1), RandomPosterize(2, 1)], GaussianBlur((3, 9))], p=[1, 0.5, 2]
        ),
        RandomChoice([RandomChannelPermutation(), RandomAdjustSharpness(3)]),
        OneOf([RandomSolarize(5), RandomErasing(1)], p=0.7),
    ),
}


@pytest.mark.parametrize("shape", [(24, 21, 30, 3), (20, 17, 16, 1), (16, 12, 33, 4), (16, 16, 18)], ids=str)
@pytest.mark.parametrize("chain", CHAINS)
def test_batches_of_arrays_are_those_of_the_steps(shape: tuple[int, ...], chain: str) -> None:
    """Draw and change alike, for gray images, RGB and RGBA, in every layout and dtype."""
    images = np.random.default_rng(4).integers(0, 256, shape, np.uint8)
    quick, slow = both(ArrayDataset(images, np.arange(shape[0])), RandomHorizontalFlip(), *CHAINS[chain])
    assert headrace.explain(quick).startswith("Mapped: all fused"), headrace.explain(quick)
    assert_equal(batches(quick), batches(slow))


@pytest.mark.parametrize("changed", [(), (RandomInvert(0.5),), (RandomRotation(20, interpolation="bilinear"),)])
def test_rows_too_large_for_the_caches_are_those_of_the_steps(changed: tuple[Any, ...]) -> None:
    """Write floats past the caches, in lines of which each begins at another place in a line of the cache."""
    images = np.random.default_rng(4).integers(0, 256, (4, 211, 209, 3), np.uint8)
    quick, slow = both(ArrayDataset(images, np.arange(4)), *changed, ToFloat(), Normalize(0.4, 0.2), ToCHW())
    assert images[0].nbytes * 4 > 1 << 19
    assert headrace.explain(quick).startswith("Mapped: all fused"), headrace.explain(quick)
    assert_equal(batches(quick), batches(slow))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("chain", ["dino", "randaugment", "erased floats", "mapped"])
def test_batches_of_files_are_those_of_the_steps(chain: str, workers: int, tmp_path: Path) -> None:
    """Crop, scale, flip and change JPEG files in one pass; a file of another format goes step by step."""
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(photo(number, 60 + number, 90)))
    (tmp_path / "other.png").write_bytes(encoded(photo(99, 50, 40), "PNG"))
    files = headrace.ImageFiles.under(tmp_path)
    quick, slow = both(files, RandomResizedCrop(32), RandomHorizontalFlip(), *CHAINS[chain])
    assert headrace.explain(quick).startswith("Mapped: all fused")
    assert_equal(batches(quick, num_workers=workers), batches(slow))


def test_a_function_after_the_changes_draws_on() -> None:
    """Continue with the generator where the extension has left it."""
    images = np.random.default_rng(4).integers(0, 256, (16, 9, 8, 3), np.uint8)
    noisy = lambda image, rng: image + rng.random(image.shape)  # noqa: E731
    quick, slow = both(ArrayDataset(images), *DINO, TrivialAugmentWide(), RandomErasing(0.5), noisy)
    assert "noisy" not in headrace.explain(quick)
    assert "the first 5 of its 6 steps fused" in headrace.explain(quick)
    assert_equal(batches(quick), batches(slow))


@settings(max_examples=10, deadline=None)
@given(
    parts=st.lists(st.sampled_from([name for name in CHAINS if "erased" not in name]), min_size=1, max_size=3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 3, 4]),
    seed=st.integers(0, 99),
)
def test_any_changes_one_after_the_other(parts: list[str], height: int, width: int, channels: int, seed: int) -> None:
    """Give the pixels of the steps for every order of changes, from one pixel up."""
    floats = ToFloat | Normalize | ToCHW | ToDtype
    chain = [one for part in parts for one in CHAINS[part] if not isinstance(one, floats)]
    images = np.random.default_rng(seed).integers(0, 256, (6, height, width, channels), np.uint8)
    quick, slow = both(ArrayDataset(images), *chain, ToFloat())
    assert headrace.explain(quick).startswith("Mapped: all fused")
    assert_equal(batches(quick, seed=seed), batches(slow, seed=seed))


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        ((ToFloat(), ColorJitter(0.4)), "it takes uint8, but an earlier transform gives floats"),
        ((ToFloat(), GaussianBlur(3)), "it takes uint8, but an earlier transform gives floats"),
        ((ToFloat(), Normalize((0, 1, 2), 1), RandomChannelPermutation()), "it takes uint8, but an earlier"),
        ((ColorJitter(0.4), CenterCrop(4)), "it follows a change of colors"),
        ((ColorJitter(0.4), RandomHorizontalFlip()), "it follows a change of colors"),
        ((ToFloat(), RandomErasing(1), Normalize(0.5, 0.5)), "parts of them were erased"),
        ((RandomErasing(1, value="random"),), "it has no native step"),
        ((RandomErasing(1, value=300),), "the step refuses images of this kind"),
        ((RandAugment(fill=(1, 2)),), "the step refuses images of this kind"),
        ((GaussianBlur(129),), "it has no native step"),
        ((RandomRotation(9, expand=True),), "it has no native step"),
        ((RandomAffine(9, fill=(1, 2)),), "the step refuses images of this kind"),
        ((ToFloat(), RandomPerspective()), "it follows ToFloat"),
        ((RandomApply([abs]),), "it has no native step"),
    ],
    ids=str,
)
def test_what_cannot_be_fused_says_why(chain: tuple[Any, ...], why: str) -> None:
    """Leave the rest to the steps, and name the reason."""
    assert why in headrace.explain(ArrayDataset(np.zeros((4, 8, 8, 3), np.uint8)).map(*chain))


def test_images_of_many_sizes_and_two_channels_are_left_to_the_steps() -> None:
    """Change colors natively where all images have one size, and colors."""
    assert "images still differ in size before it" in headrace.explain(headrace.ImageFiles(["a.jpg"]).map(*DINO))
    gray = ArrayDataset(np.zeros((4, 8, 8, 2), np.uint8))
    assert "the image has 2" in headrace.explain(gray.map(RandomInvert()))
    assert headrace.explain(gray.map(GaussianBlur(3), RandomErasing())).startswith("Mapped: all fused")
