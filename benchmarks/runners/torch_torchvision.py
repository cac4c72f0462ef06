"""torch's DataLoader over torchvision v2 on tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common import Job, run
from torch.utils.data import DataLoader, Dataset
from torch_loader import loader
from torchvision.io import read_file
from torchvision_work import Work

if TYPE_CHECKING:
    import torch


class Images(Dataset):
    def __init__(self, job: Job) -> None:
        self.paths, self.labels, self.work = job.paths, job.labels, Work(job)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.work(read_file(self.paths[index])), int(self.labels[index])


def make(job: Job) -> DataLoader:
    return loader(Images(job), job)


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision"))
