"""headrace.torch over the same ImageFolder, nothing changed but the import."""

from __future__ import annotations

from common import Job, run
from image_folder import images
from torch_loader import loader

from headrace.torch import DataLoader


def make(job: Job) -> DataLoader:
    return loader(images(job), job, DataLoader)


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision"))
