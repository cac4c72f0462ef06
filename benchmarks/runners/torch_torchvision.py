"""torch's DataLoader over torchvision v2 on tensors: faster than on Pillow images (2.1 against 3.2 ms each)."""

from __future__ import annotations

import torch
from common import MEAN, STD, Job, run
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2


class Images(Dataset):
    def __init__(self, job: Job) -> None:
        self.paths, self.labels = job.paths, job.labels
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(job.size, antialias=job.antialias),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD, inplace=True),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = decode_jpeg(read_file(self.paths[index]), mode=ImageReadMode.RGB)
        return self.transform(image), int(self.labels[index])


def make(job: Job) -> DataLoader:
    return DataLoader(
        Images(job),
        batch_size=job.batch,
        shuffle=True,
        num_workers=job.workers,
        prefetch_factor=4,
        persistent_workers=True,
    )


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision"))
