"""FFCV on its .beton file: its own random crop, flip and normalization, as in its recipe for ImageNet."""

from __future__ import annotations

import numpy as np
from common import MEAN, STD, Job, run
from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage


def make(job: Job) -> Loader:
    mean, std = (255 * np.array(values) for values in (MEAN, STD))
    images = [
        RandomResizedCropRGBImageDecoder((job.size, job.size)),
        RandomHorizontalFlip(),
        NormalizeImage(mean, std, np.float32),
        ToTensor(),
        # A view: the memory stays NHWC. NCHW in memory, as others give it, would cost a copy of each batch.
        ToTorchImage(convert_back_int16=False),
    ]
    return Loader(
        f"{job.folder}/{job.form}/photos.beton",
        batch_size=job.batch,
        num_workers=job.workers,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=False,
        pipelines={"image": images, "label": [IntDecoder(), ToTensor(), Squeeze()]},
    )


if __name__ == "__main__":
    run(make, packages=("ffcv", "torch", "numba"))
