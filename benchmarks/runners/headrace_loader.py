"""headrace, as its README shows it; not called headrace.py, for a script's own folder comes first on the path."""

from __future__ import annotations

from common import MEAN, STD, Job, run

from headrace import (
    ArrayDataset,
    DataLoader,
    ImageFiles,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    ToCHW,
    ToFloat,
)
from headrace.datasets import WebDataset


def make(job: Job, *, scaled_decode: bool = False, shards: bool = False) -> DataLoader:
    if job.images is None:
        if shards:
            files = WebDataset(job.shards).tuple("jpg", "cls")
        else:
            files = ImageFiles(job.paths, job.labels, scaled_decode=scaled_decode)
        dataset = files.map(
            RandomResizedCrop(job.size, antialias=job.antialias),
            RandomHorizontalFlip(),
            ToFloat(),
            Normalize(MEAN, STD),
            ToCHW(),
        )
    else:
        dataset = ArrayDataset(job.images, job.labels).map(ToFloat(), Normalize(MEAN, STD), ToCHW())
    return DataLoader(dataset, job.batch, shuffle=True, seed=0, num_workers=job.workers)


if __name__ == "__main__":
    run(make, packages=("headrace", "numpy", "simplejpeg", "opencv-python-headless", "pillow"))
