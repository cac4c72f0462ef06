"""torch's DataLoader over Pillow: the classic recipe, in as few steps as Pillow allows. Antialiased."""

from __future__ import annotations

import random

import numpy as np
import torch
from common import BIAS, SCALE, Job, random_crop_box, run
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch_loader import loader

SCALES = torch.from_numpy(SCALE)[:, None, None]
BIASES = torch.from_numpy(BIAS)[:, None, None]


class Images(Dataset):
    def __init__(self, job: Job) -> None:
        self.paths, self.labels, self.size = job.paths, job.labels, job.size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.open(self.paths[index]).convert("RGB")
        top, left, height, width = random_crop_box(image.height, image.width)
        # Cropping and resizing in one call saves a copy.
        image = image.resize(
            (self.size, self.size), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height)
        )
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        # Made contiguous while still uint8, a quarter of the memory traffic.
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
        return pixels.float().mul_(SCALES).add_(BIASES), int(self.labels[index])


def make(job: Job) -> DataLoader:
    return loader(Images(job), job)


if __name__ == "__main__":
    run(make, packages=("torch", "pillow"))
