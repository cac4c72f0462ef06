"""LitData on local chunks, with the transforms of torch-torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common import Job, run
from litdata import StreamingDataLoader, StreamingDataset
from torch_loader import loader
from torchvision_work import Work

if TYPE_CHECKING:
    import torch


class Images(StreamingDataset):
    def __init__(self, job: Job) -> None:
        super().__init__(f"{job.folder}/litdata", shuffle=job.shuffle)
        self.work = Work(job)

    def __getitem__(self, index: Any) -> tuple[torch.Tensor, int]:
        # It decodes images itself, by torchvision too.
        sample: dict[str, Any] = super().__getitem__(index)
        return self.work.transform(sample["image"]), sample["label"]


def make(job: Job) -> StreamingDataLoader:
    return loader(Images(job), job, StreamingDataLoader)


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision", "litdata"))
