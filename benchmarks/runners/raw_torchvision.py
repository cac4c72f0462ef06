"""Mosaic Streaming and LitData on shards of pixels, with the transforms of torch-torchvision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from common import Job, run
from torch_loader import loader
from torchvision_work import Work

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


def make(job: Job) -> DataLoader:
    work = Work(job)

    def changed(sample: dict[str, Any]) -> tuple[torch.Tensor, int]:
        image: torch.Tensor = work.transform(torch.from_numpy(sample["image"]).permute(2, 0, 1))
        return image, sample["label"]

    if job.form == "mosaic":
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        class Mosaic(StreamingDataset):
            def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
                return changed(super().__getitem__(index))

        # What a run that was killed left in shared memory would stop this one.
        clean_stale_shared_memory()
        images = Mosaic(local=f"{job.folder}/mosaic", shuffle=job.shuffle, batch_size=job.batch)
        return loader(images, job, shuffle=False)

    import litdata

    class Lit(litdata.StreamingDataset):
        def __getitem__(self, index: Any) -> tuple[torch.Tensor, int]:
            return changed(super().__getitem__(index))

    return loader(Lit(f"{job.folder}/litdata", shuffle=job.shuffle), job, litdata.StreamingDataLoader)


PACKAGES = {"mosaic": "mosaicml-streaming", "litdata": "litdata"}

if __name__ == "__main__":
    import sys

    run(make, packages=("torch", "torchvision", PACKAGES[sys.argv[sys.argv.index("--form") + 1]]))
