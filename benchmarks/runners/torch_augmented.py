"""torch's DataLoader over torchvision v2 on tensors, with its transforms of colors and its policies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from common import MEAN, STD, Job, run
from torch.utils.data import DataLoader, Dataset
from torch_loader import loader
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms import v2

if TYPE_CHECKING:
    from collections.abc import Callable

BEFORE: dict[str, Callable[[], list[Any]]] = {
    "dino": lambda: [
        v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        v2.RandomGrayscale(0.2),
        v2.RandomApply([v2.GaussianBlur(23, (0.1, 2.0))], p=0.5),
    ],
    "randaugment": lambda: [v2.RandAugment(2, 9)],
    "trivial": lambda: [v2.TrivialAugmentWide()],
}


class Images(Dataset):
    def __init__(self, job: Job) -> None:
        self.paths, self.labels = job.paths, job.labels
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(job.size, antialias=True),
                v2.RandomHorizontalFlip(),
                *BEFORE[job.workload](),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD, inplace=True),
                *([v2.RandomErasing(0.1)] if job.workload == "trivial" else []),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = decode_jpeg(read_file(self.paths[index]), mode=ImageReadMode.RGB)
        return self.transform(image), int(self.labels[index])


def make(job: Job) -> DataLoader:
    return loader(Images(job), job)


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision"))
