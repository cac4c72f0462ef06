"""NVIDIA DALI on the CPU: its reader, its fused decode-and-crop, its own threads, no Python per image.

Where the workload augments: with its own changes of colors, its RandAugment and its TrivialAugment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from common import MEAN, STD, Epochs, Job, run
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.auto_aug import rand_augment, trivial_augment

if TYPE_CHECKING:
    from collections.abc import Iterator


def chance(share: float) -> Any:
    return fn.random.coin_flip(probability=share, dtype=types.BOOL)


def dino(images: Any) -> Any:
    """Change colors, make gray and blur, each where a coin says so: by factors that change nothing elsewhere."""
    changes = fn.cast(chance(0.8), dtype=types.FLOAT)
    factors = [1 + changes * fn.random.uniform(range=[-0.4, 0.4]) for _ in range(3)]
    gray = fn.cast(chance(0.2), dtype=types.FLOAT)
    hue = changes * fn.random.uniform(range=[-36.0, 36.0])
    images = fn.color_twist(
        images, brightness=factors[0], contrast=factors[1], saturation=factors[2] * (1 - gray), hue=hue
    )
    blurred = fn.gaussian_blur(images, window_size=23, sigma=fn.random.uniform(range=[0.1, 2.0]))
    share = fn.cast(chance(0.5), dtype=types.FLOAT)
    return fn.cast_like(blurred * share + images * (1 - share), images)


def augmented(images: Any, workload: str, size: int) -> Any:
    if workload == "dino":
        return dino(images)
    if workload == "randaugment":
        return rand_augment.rand_augment(images, n=2, m=9, shape=(size, size), fill_value=0)
    return trivial_augment.trivial_augment_wide(images, shape=(size, size), fill_value=0)


@pipeline_def(enable_conditionals=True)
def images(job: Job) -> tuple:
    data, labels = fn.readers.file(
        files=job.paths, labels=job.labels.tolist(), shuffle_after_epoch=True, name="reader", pad_last_batch=False
    )
    images = fn.decoders.image_random_crop(
        data,
        device="cpu",
        output_type=types.RGB,
        random_aspect_ratio=[3 / 4, 4 / 3],
        random_area=[0.08, 1.0],
        num_attempts=10,
    )
    images = fn.resize(images, size=[job.size, job.size], interp_type=types.INTERP_LINEAR, antialias=job.antialias)
    mirror = fn.random.coin_flip(probability=0.5)
    if job.workload in ("dino", "randaugment", "trivial"):
        images = augmented(fn.flip(images, horizontal=mirror), job.workload, job.size)
        mirror = 0
    images = fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
        mirror=mirror,
    )
    return images, labels


def make(job: Job) -> Epochs:
    pipeline = images(job, batch_size=job.batch, num_threads=job.workers, device_id=None, prefetch_queue_depth=2)
    pipeline.build()

    def epoch() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        # The reader runs on without a pause; an epoch here is a count of batches, the last one filled from the next.
        for _ in range(job.batches):
            images, labels = pipeline.run()
            yield np.asarray(images.as_tensor()), np.asarray(labels.as_tensor())

    return Epochs(epoch)


if __name__ == "__main__":
    run(make, packages=("nvidia-dali-cuda120",))
