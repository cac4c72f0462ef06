"""Enlarged images are the same to the last bit by Pillow and by each instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from headrace import Normalize, RandomHorizontalFlip, Resize, ToCHW, ToFloat
from headrace._native import extension
from headrace.context import seeds
from headrace.datasets import ArrayDataset
from headrace.image import fused
from tests.native.stepwise import MISSING, WHY

pytestmark = pytest.mark.skipif(MISSING, reason=WHY)

VALUES = (ToFloat(), Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ToCHW())
# From (height, width) to (height, width): halves that are rounded, one pixel, one column, a width that is made smaller
# or kept, the sizes around a whole group of outputs, and rows large enough to be written past the caches.
SIZES = [
    ((112, 96), (224, 192)), ((64, 48), (256, 192)), ((150, 131), (224, 224)), ((1, 1), (9, 17)), ((3, 1), (50, 7)),
    ((1, 5), (1, 40)), ((37, 50), (80, 31)), ((40, 33), (20, 65)), ((41, 56), (83, 56)), ((56, 41), (56, 83)),
    ((2, 9), (3, 10)), ((150, 170), (223, 225)), ((191, 15), (192, 16)), ((7, 23), (448, 24)), ((9, 2), (8, 1000)),
]  # fmt: skip


def rows(pixels: Any, level: str, *chain: Any) -> Any:
    """Make the rows of images by an instruction set."""
    plan = fused.plan(chain, level=level)
    assert plan.recipe is not None
    out = np.full((len(pixels), *plan.shape), np.nan, plan.dtype)
    source = ArrayDataset(pixels).native_source().opened_by(extension)
    keys = np.arange(len(pixels), dtype=np.int64)
    fused.pipeline_of(plan.recipe).rows(source, keys, fused.place_of(seeds.Here()), out).run()
    return out


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize(("small", "large"), SIZES)
def test_enlarged_images_are_those_of_pillow(small: Any, large: Any, interpolation: Any) -> None:
    """Give Pillow's pixels, normalized, from left to right and from right to left."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, *small, 3), dtype=np.uint8)
    pixels[1] = np.where(pixels[1] < 128, 0, 255)
    how = getattr(Image.Resampling, interpolation.upper())
    resized: Any = np.stack([np.asarray(Image.fromarray(image).resize(large[::-1], how)) for image in pixels])
    for chance in (0.0, 1.0):
        turned = resized[:, :, ::-1] if chance else resized
        expected = np.stack([VALUES[2](VALUES[1](VALUES[0](image))) for image in turned])
        for level in extension.levels():  # type: ignore[union-attr]
            chain = (Resize(large, interpolation=interpolation), RandomHorizontalFlip(chance), *VALUES)
            assert np.array_equal(rows(pixels, level, *chain), expected)


def test_instruction_sets_enlarge_alike_without_antialiasing() -> None:
    """Give the same rows by each instruction set, where weights need not add up to 1."""
    pixels = np.random.default_rng(1).integers(0, 256, (2, 37, 53, 3), dtype=np.uint8)
    for size in ((74, 106), (90, 57), (224, 224), (30, 70), (70, 30)):
        plain, *others = (
            rows(pixels, level, Resize(size, antialias=False), *VALUES)
            for level in extension.levels()  # type: ignore[union-attr]
        )
        assert all(np.array_equal(plain, other) for other in others)
