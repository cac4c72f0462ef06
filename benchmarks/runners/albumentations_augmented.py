"""torch's DataLoader over albumentations, which has nine of RandAugment's changes or ones like them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import albumentations as album
import cv2
from common import MEAN, STD, Job, run
from torch.utils.data import DataLoader, Dataset
from torch_loader import loader

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


def changes() -> list[Any]:
    """Return the changes that are like torchvision's, as strong as its magnitude of 9."""
    return [
        album.Affine(shear={"x": (-5, 5), "y": (0, 0)}, p=1),
        album.Affine(shear={"x": (0, 0), "y": (-5, 5)}, p=1),
        album.Affine(translate_percent={"x": (-0.14, 0.14), "y": (-0.14, 0.14)}, p=1),
        album.Rotate(limit=9, border_mode=cv2.BORDER_CONSTANT, p=1),
        album.ColorJitter(brightness=(0.73, 1.27), contrast=(1, 1), saturation=(1, 1), hue=(0, 0), p=1),
        album.ColorJitter(brightness=(1, 1), contrast=(0.73, 1.27), saturation=(1, 1), hue=(0, 0), p=1),
        album.Posterize(num_bits=7, p=1),
        album.Solarize(p=1),
        album.Equalize(p=1),
    ]


BEFORE: dict[str, Callable[[], list[Any]]] = {
    "dino": lambda: [
        album.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
        album.ToGray(p=0.2),
        album.GaussianBlur(blur_limit=(23, 23), sigma_limit=(0.1, 2.0), p=0.5),
    ],
    "randaugment": lambda: [album.SomeOf(changes(), n=2, p=1)],
    "trivial": lambda: [album.OneOf(changes(), p=1)],
}


class Images(Dataset):
    def __init__(self, job: Job) -> None:
        self.paths, self.labels = job.paths, job.labels
        erasing = [album.Erasing(scale=(0.02, 0.33), ratio=(0.3, 3.3), p=0.1)] if job.workload == "trivial" else []
        self.transform = album.Compose(
            [
                album.RandomResizedCrop(size=(job.size, job.size)),
                album.HorizontalFlip(p=0.5),
                *BEFORE[job.workload](),
                album.Normalize(MEAN, STD),
                *erasing,
                album.ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = cv2.cvtColor(cv2.imread(self.paths[index]), cv2.COLOR_BGR2RGB)
        return self.transform(image=image)["image"], int(self.labels[index])


def one_thread_each(_worker: int) -> None:
    cv2.setNumThreads(0)


def make(job: Job) -> DataLoader:
    return loader(Images(job), job, worker_init_fn=one_thread_each)


if __name__ == "__main__":
    run(make, packages=("torch", "albumentations", "opencv-python-headless"))
