"""torch's DataLoader over torchvision's ImageFolder and v2 transforms, as most scripts have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common import Job, run
from image_folder import images
from torch_loader import loader

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


def make(job: Job) -> DataLoader:
    return loader(images(job), job)


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision"))
