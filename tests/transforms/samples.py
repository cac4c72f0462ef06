"""Images, transforms and generators that the tests of transforms share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from headrace.transforms import (
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
)

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

RANDOM = [RandomCrop(20), RandomCrop(44, padding=6), RandomResizedCrop(16), RandomHorizontalFlip()]
FIXED = [
    Resize(16),
    Resize((8, 24), interpolation="nearest"),
    CenterCrop(30),
    Pad(2, mode="reflect"),
    ToFloat(),
    Normalize(0.5, 0.5),
    ToCHW(),
    ToDtype("float16"),
    ToDtype("bfloat16"),
]


def image_of_noise(height: int = 40, width: int = 50, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def input_of(transform) -> np.ndarray:
    return image_of_noise() / np.float32(255) if isinstance(transform, (Normalize, ToDtype)) else image_of_noise()


class Unasked:
    """A generator that must not be drawn from."""

    def __getattr__(self, name):
        raise AssertionError(f"drew {name} from the generator")


class Pair(NamedTuple):
    image: np.ndarray
    label: int


class Row(tuple):
    """A tuple of another type, with no field names."""

    __slots__ = ()
