"""headrace's own transforms of colors, and its policies, in one pass with crop and flip."""

from __future__ import annotations

from typing import Any

from common import MEAN, STD, Job, run

from headrace import DataLoader, ImageFiles, Normalize, RandomHorizontalFlip, RandomResizedCrop, ToCHW, ToFloat
from headrace.transforms import (
    ColorJitter,
    GaussianBlur,
    RandAugment,
    RandomApply,
    RandomErasing,
    RandomGrayscale,
    TrivialAugmentWide,
)

BEFORE: dict[str, tuple[Any, ...]] = {
    "dino": (
        RandomApply([ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        RandomGrayscale(0.2),
        RandomApply([GaussianBlur(23, (0.1, 2.0))], p=0.5),
    ),
    "randaugment": (RandAugment(2, 9),),
    "trivial": (TrivialAugmentWide(),),
}
AFTER: dict[str, tuple[Any, ...]] = {"trivial": (RandomErasing(0.1),)}


def make(job: Job) -> DataLoader:
    dataset = ImageFiles(job.paths, job.labels).map(
        RandomResizedCrop(job.size),
        RandomHorizontalFlip(),
        *BEFORE[job.workload],
        ToFloat(),
        Normalize(MEAN, STD),
        *AFTER.get(job.workload, ()),
        ToCHW(),
    )
    return DataLoader(dataset, job.batch, shuffle=job.shuffle, seed=0, num_workers=job.workers)


if __name__ == "__main__":
    run(make, packages=("headrace", "numpy"))
