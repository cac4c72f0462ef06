"""webdataset, as its documentation reads shards, with the transforms of torch-torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import webdataset as wds
from common import MEAN, STD, Job, run
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

SHUFFLED = 1000
"""Samples in the buffer that webdataset shuffles."""


class Decoded:
    """What is done to each sample; a class, so that workers of any start method get it."""

    def __init__(self, job: Job) -> None:
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(job.size, antialias=job.antialias),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD, inplace=True),
            ]
        )

    def __call__(self, sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
        data = torch.frombuffer(bytearray(sample["jpg"]), dtype=torch.uint8)
        return self.transform(decode_jpeg(data, mode=ImageReadMode.RGB)), int(sample["cls"])


def make(job: Job) -> wds.WebLoader:
    shards = sorted(str(path) for path in Path(job.shards).glob("*.tar"))
    dataset = wds.WebDataset(shards, shardshuffle=len(shards), workersplitter=wds.split_by_worker)
    return wds.WebLoader(
        dataset.shuffle(SHUFFLED).map(Decoded(job)).batched(job.batch),
        batch_size=None,
        num_workers=job.workers,
        prefetch_factor=4,
        persistent_workers=True,
    )


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision", "webdataset"))
