"""headrace on packed datasets: pixels, JPEG files; and the same pixels as one array in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import MEAN, STD, Job, run

from headrace import (
    ArrayDataset,
    DataLoader,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    Resize,
    ToCHW,
    ToFloat,
)
from headrace.datasets import PackedDataset


def in_memory(packed: PackedDataset) -> ArrayDataset:
    """Return the images as one array, all landscapes."""
    landscape = Resize((192, 256))
    images = np.stack([landscape(image) for image, _ in packed])
    return ArrayDataset(images, np.arange(len(images)))


def dataset(job: Job) -> Any:
    store = "raw" if job.form == "array" else job.form
    packed = PackedDataset(f"{job.folder}/packed/{store}")
    return in_memory(packed) if job.form == "array" else packed


def make(job: Job) -> DataLoader:
    mapped = dataset(job).map(
        RandomResizedCrop(job.size, antialias=job.antialias),
        RandomHorizontalFlip(),
        ToFloat(),
        Normalize(MEAN, STD),
        ToCHW(),
    )
    return DataLoader(mapped, job.batch, shuffle=job.shuffle, seed=0, num_workers=job.workers)


if __name__ == "__main__":
    run(make, packages=("headrace", "numpy"))
