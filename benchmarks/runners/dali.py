"""NVIDIA DALI on the CPU: its reader, its fused decode-and-crop, its own threads, no Python per image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from common import MEAN, STD, Epochs, Job, run
from nvidia.dali import fn, pipeline_def, types

if TYPE_CHECKING:
    from collections.abc import Iterator


@pipeline_def
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
    images = fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
        mirror=fn.random.coin_flip(probability=0.5),
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
