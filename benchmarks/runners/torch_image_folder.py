"""torch's DataLoader over torchvision's ImageFolder and v2 transforms, as most scripts have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common import run
from image_folder import images
from torch.utils.data import DataLoader

if TYPE_CHECKING:
    from common import Job


def make(job: Job) -> DataLoader:
    return DataLoader(
        images(job),
        batch_size=job.batch,
        shuffle=True,
        num_workers=job.workers,
        prefetch_factor=4,
        persistent_workers=True,
    )


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision"))
