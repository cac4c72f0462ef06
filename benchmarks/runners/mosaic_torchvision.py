"""Mosaic Streaming on local MDS shards, with the transforms of torch-torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from common import Job, run
from streaming import StreamingDataset
from streaming.base.util import clean_stale_shared_memory
from torch_loader import loader
from torchvision_work import Work

if TYPE_CHECKING:
    import torch
    from torch.utils.data import DataLoader


class Images(StreamingDataset):
    def __init__(self, job: Job) -> None:
        # Without a remote; shuffle_block_size keeps its default, which is larger than an epoch.
        super().__init__(local=f"{job.folder}/mds", shuffle=job.shuffle, batch_size=job.batch)
        self.work = Work(job)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        sample: dict[str, Any] = super().__getitem__(index)
        return self.work(sample["image"]), sample["label"]


def make(job: Job) -> DataLoader:
    # What a run that was killed left in shared memory would stop this one.
    clean_stale_shared_memory()
    # The dataset shuffles.
    return loader(Images(job), job, shuffle=False)


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision", "mosaicml-streaming"))
