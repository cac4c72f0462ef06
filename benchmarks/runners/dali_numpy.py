"""NVIDIA DALI's reader of .npy files, on the CPU: random crop, mirror and normalization on its own threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from common import MEAN, STD, Epochs, Job, run
from nvidia.dali import fn, pipeline_def, types

if TYPE_CHECKING:
    from collections.abc import Iterator


@pipeline_def
def images(job: Job) -> tuple:
    pixels = fn.readers.numpy(
        file_root=f"{job.folder}/packed/npy", file_filter="*.npy", shuffle_after_epoch=True, name="reader"
    )
    pixels = fn.reinterpret(pixels, layout="HWC")
    images = fn.random_resized_crop(
        pixels,
        size=[job.size, job.size],
        random_aspect_ratio=[3 / 4, 4 / 3],
        random_area=[0.08, 1.0],
        num_attempts=10,
        interp_type=types.INTERP_LINEAR,
        antialias=job.antialias,
    )
    return fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[255 * value for value in MEAN],
        std=[255 * value for value in STD],
        mirror=fn.random.coin_flip(probability=0.5),
    )


def make(job: Job) -> Epochs:
    pipeline = images(job, batch_size=job.batch, num_threads=job.workers, device_id=None, prefetch_queue_depth=2)
    pipeline.build()
    labels = np.zeros(job.batch, np.int64)  # the reader of .npy files has none

    def epoch() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for _ in range(job.batches):
            (images,) = pipeline.run()
            yield np.asarray(images.as_tensor()), labels

    return Epochs(epoch)


if __name__ == "__main__":
    run(make, packages=("nvidia-dali-cuda120",))
