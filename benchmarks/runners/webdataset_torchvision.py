"""webdataset, as its documentation reads shards, with the transforms of torch-torchvision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import webdataset as wds
from common import Job, run
from torch_loader import loader
from torchvision_work import Work

if TYPE_CHECKING:
    import torch

SHUFFLED = 1000
"""Samples in the buffer that webdataset shuffles."""


class Decoded:
    """What is done to each sample."""

    def __init__(self, job: Job) -> None:
        self.work = Work(job)

    def __call__(self, sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
        return self.work(sample["jpg"]), int(sample["cls"])


def make(job: Job) -> wds.WebLoader:
    shards = sorted(str(path) for path in Path(job.folder, "tar").glob("*.tar"))
    dataset = wds.WebDataset(shards, shardshuffle=len(shards), workersplitter=wds.split_by_worker)
    batches = dataset.shuffle(SHUFFLED).map(Decoded(job)).batched(job.batch)
    # The dataset shuffles and makes batches.
    return loader(batches, job, wds.WebLoader, batch_size=None, shuffle=False)


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision", "webdataset"))
