"""The limit for packed pixels: the bytes of each random crop read, and as many float32 written as a batch has."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from common import Epochs, Job, chunks, random_crop_box, run

if TYPE_CHECKING:
    from collections.abc import Iterator


def make(job: Job) -> Epochs:
    rng = np.random.default_rng()
    images = [np.load(path) for path in sorted(Path(job.folder, "packed", "npy").glob("*.npy"))]
    scratch = threading.local()
    pool = ThreadPoolExecutor(job.workers)

    def copy(keys: np.ndarray) -> None:
        if not hasattr(scratch, "out"):
            scratch.row = np.empty((job.size, job.size, 3), np.uint8)
            scratch.crop = np.empty(256 * 256 * 3, np.uint8)
            scratch.out = np.empty((job.batch, job.size, job.size, 3), np.float32)
        for place, key in enumerate(keys):
            image = images[key]
            top, left, height, width = random_crop_box(*image.shape[:2])
            crop = image[top : top + height, left : left + width]
            np.copyto(scratch.crop[: crop.size].reshape(crop.shape), crop)
            np.copyto(scratch.out[place], scratch.row)

    def epoch() -> Iterator[int]:
        order = rng.permutation(len(images))
        batches = [order[start:stop] for start, stop in chunks(len(order), job.batch)]
        for batch, _ in zip(batches, pool.map(copy, batches), strict=True):
            yield len(batch)

    return Epochs(epoch)


if __name__ == "__main__":
    run(make, packages=("numpy",), has_images=False)
