"""headrace, as its README shows it; not called headrace.py, for a script's own folder comes first on the path."""

from __future__ import annotations

from typing import Any

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
from headrace.datasets import ArrowDataset, LitDataset, MDSDataset, WebDataset


def pairs(job: Job) -> Any:
    """Return the pairs of image and label in the shards of the job's format."""
    folder = f"{job.folder}/{job.form}"
    if job.form == "tar":
        return WebDataset(folder).tuple("jpg", "cls")
    kinds = {"mds": MDSDataset, "litdata": LitDataset, "arrow": ArrowDataset}
    return kinds[job.form](folder, decoders={"image": "jpg"}).tuple("image", "label")


def make(job: Job, *, scaled_decode: bool = False) -> DataLoader:
    if job.workload == "rows":
        dataset = ArrowDataset(f"{job.folder}/arrow").tuple("features", "label")
    elif job.images is not None:
        dataset = ArrayDataset(job.images, job.labels).map(ToFloat(), Normalize(MEAN, STD), ToCHW())
    else:
        files = pairs(job) if job.form else ImageFiles(job.paths, job.labels, scaled_decode=scaled_decode)
        dataset = files.map(
            RandomResizedCrop(job.size, antialias=job.antialias),
            RandomHorizontalFlip(),
            ToFloat(),
            Normalize(MEAN, STD),
            ToCHW(),
        )
    return DataLoader(dataset, job.batch, shuffle=job.shuffle, seed=0, num_workers=job.workers)


if __name__ == "__main__":
    run(make, packages=("headrace", "numpy", "simplejpeg", "opencv-python-headless", "pillow"))
