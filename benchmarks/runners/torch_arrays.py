"""torch's DataLoader over tensors in memory, sample by sample, as its documentation and nearly every script has it."""

from __future__ import annotations

import torch
from common import BIAS, SCALE, Job, run
from torch.utils.data import DataLoader, Dataset
from torch_loader import loader

SCALES = torch.from_numpy(SCALE)[:, None, None]
BIASES = torch.from_numpy(BIAS)[:, None, None]


class Images(Dataset):
    def __init__(self, job: Job) -> None:
        self.images = torch.from_numpy(job.images).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(job.labels)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[index].float().mul_(SCALES).add_(BIASES), self.labels[index]


def make(job: Job) -> DataLoader:
    return loader(Images(job), job)


if __name__ == "__main__":
    run(make, packages=("torch",))
