"""What each transform gives for a seed: images, masks, boxes and keypoints, over samples that are integers alone.

python -m tests.golden.transform_cases --write    records what they give today
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace import transforms as t
from tests.golden.cases import pixels

if TYPE_CHECKING:
    from collections.abc import Callable

RECORD = Path(__file__).with_name("transforms.json")
SEEDS = 6

GEOMETRY: dict[str, Callable[[], Any]] = {
    "CenterCrop": lambda: t.CenterCrop((30, 60)),
    "ElasticTransform": lambda: t.ElasticTransform(30.0, 4.0),
    "FixedSizeCrop": lambda: t.FixedSizeCrop((30, 60), fill=9),
    "LetterBox": lambda: t.LetterBox(32),
    "Pad": lambda: t.Pad((1, 2, 3, 4), mode="reflect"),
    "RandomAffine": lambda: t.RandomAffine(30, translate=(0.2, 0.1), scale=(0.5, 1.5), shear=(-5, 5, -9, 9), fill=7),
    "RandomAffine bilinear": lambda: t.RandomAffine(30, scale=(0.5, 1.5), interpolation="bilinear", fill=(1, 2, 3)),
    "RandomCrop": lambda: t.RandomCrop((30, 40), padding=3, fill=5),
    "RandomHorizontalFlip": t.RandomHorizontalFlip,
    "RandomIoUCrop": t.RandomIoUCrop,
    "RandomPerspective": lambda: t.RandomPerspective(0.6, p=0.8),
    "RandomResizedCrop": lambda: t.RandomResizedCrop(24),
    "RandomRotation": lambda: t.RandomRotation(40, expand=True, fill=3),
    "RandomRotation bilinear": lambda: t.RandomRotation((-180, 180), interpolation="bilinear", center=(9, 5)),
    "RandomShortestSize": lambda: t.RandomShortestSize([20, 30, 50], max_size=60),
    "RandomVerticalFlip": t.RandomVerticalFlip,
    "RandomZoomOut": lambda: t.RandomZoomOut(fill=4, side_range=(1, 2)),
    "Resize": lambda: t.Resize(20, interpolation="bicubic"),
    "SanitizeBoundingBoxes": lambda: t.SanitizeBoundingBoxes(min_size=15),
    "ScaleJitter": lambda: t.ScaleJitter((30, 30), scale_range=(0.5, 2)),
    "ConvertBoundingBoxFormat": lambda: t.ConvertBoundingBoxFormat("cxcywh", normalized=True),
    "RandAugment": lambda: t.RandAugment(3, 20),
    "TrivialAugmentWide": lambda: t.TrivialAugmentWide(interpolation="bilinear"),
    "AutoAugment": t.AutoAugment,
    "AutoAugment cifar10": lambda: t.AutoAugment("cifar10"),
    "AutoAugment svhn": lambda: t.AutoAugment("svhn", fill=8),
    "joined": lambda: t.Compose(
        t.RandomRotation(20), t.RandomAffine(10, shear=8), t.RandomPerspective(interpolation="nearest")
    ),
    "chain": lambda: t.Compose(
        t.RandomIoUCrop(), t.ScaleJitter((40, 40)), t.FixedSizeCrop(40), t.RandomHorizontalFlip(), t.RandomRotation(9)
    ),
}
"""Of samples with a mask, boxes and keypoints."""

COLORS: dict[str, Callable[[], Any]] = {
    "AugMix": t.AugMix,
    "CLAHE": lambda: t.CLAHE(p=0.8),
    "ColorJitter": lambda: t.ColorJitter(0.4, 0.4, 0.4, 0.2),
    "Cutout": lambda: t.Cutout(9, holes=2),
    "FiveCrop": lambda: t.FiveCrop(20),
    "GaussianBlur": lambda: t.GaussianBlur((5, 9)),
    "GaussianNoise": lambda: t.GaussianNoise(0.1, 0.2),
    "GridMask": lambda: t.GridMask((6, 12), p=0.8),
    "JPEG": lambda: t.JPEG((10, 60)),
    "MultiCrop": lambda: t.MultiCrop((3, t.RandomResizedCrop(12))),
    "OneOf": lambda: t.OneOf([t.RandomInvert(p=1), t.RandomGrayscale(p=1)], p=0.7),
    "RandomAdjustSharpness": lambda: t.RandomAdjustSharpness(3, p=0.7),
    "RandomApply": lambda: t.RandomApply([t.RandomInvert(p=1), t.ColorJitter(0.3)], p=0.6),
    "RandomAutocontrast": lambda: t.RandomAutocontrast(p=0.7),
    "RandomChannelPermutation": t.RandomChannelPermutation,
    "RandomChoice": lambda: t.RandomChoice([t.RandomInvert(p=1), t.RandomGrayscale(p=1)], p=[1, 3]),
    "RandomEqualize": lambda: t.RandomEqualize(p=0.7),
    "RandomErasing": lambda: t.RandomErasing(p=0.9, value="random"),
    "RandomErasing color": lambda: t.RandomErasing(p=0.9, value=(1, 2, 3)),
    "RandomGrayscale": lambda: t.RandomGrayscale(p=0.6),
    "RandomInvert": lambda: t.RandomInvert(p=0.6),
    "RandomPhotometricDistort": t.RandomPhotometricDistort,
    "RandomPosterize": lambda: t.RandomPosterize(3, p=0.7),
    "RandomSolarize": lambda: t.RandomSolarize(99, p=0.7),
    "TenCrop": lambda: t.TenCrop(20),
    "ThreeAugment": lambda: t.ThreeAugment((0.1, 2.0)),
}
"""Of images alone."""

PLAIN = {"Compose", "FillInTheMiddle", "Normalize", "Seeded", "ToCHW", "ToDtype", "ToFloat", "Tokenize"}
"""What is no augmentation, and has tests of its own."""
OF_BATCHES = {"CopyPaste", "CutMix", "MixUp", "Mosaic", "RandomResolution"}
"""What takes whole batches."""


def sample(seed: int) -> dict[str, Any]:
    """Make an image of integers, with a mask, two boxes and three keypoints."""
    image = pixels(seed, 36, 48)
    boxes = np.array([[4, 5, 30, 20], [20, 10, 44, 33]], np.float32)
    return {
        "image": image,
        "mask": image[..., 0] // 64,
        "boxes": boxes,
        "labels": np.array([3, 7]),
        "keypoints": np.array([[5, 6, 2], [40, 30, 1], [0, 0, 0]], np.float32),
    }


def digest(name: str) -> str:
    """Hash what a transform gives: images and masks by the byte, places to a hundredth of a pixel."""
    hashed = hashlib.sha256()
    for seed in range(SEEDS):
        rng = np.random.default_rng([seed, len(name)])
        given = sample(seed)
        out = GEOMETRY[name]()(given, rng) if name in GEOMETRY else {"image": COLORS[name]()(given["image"], rng)}
        for key in sorted(out):
            value = np.concatenate(out[key]) if isinstance(out[key], list) and key == "image" else np.asarray(out[key])
            if key in ("boxes", "keypoints"):  # the last bits of a sine depend on the machine
                value = np.rint(value.astype(np.float64) * 100).astype(np.int64)
            hashed.update(f"{key}{value.dtype.str}{value.shape}".encode())
            hashed.update(np.ascontiguousarray(value).tobytes())
    return hashed.hexdigest()[:32]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="record what comes out today")
    found = {name: digest(name) for name in (*GEOMETRY, *COLORS)}
    print(json.dumps(found, indent=2))
    if parser.parse_args().write:
        RECORD.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
