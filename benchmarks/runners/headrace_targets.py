"""headrace's transforms of images with masks or boxes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import MEAN, STD, Epochs, Job, run
from targets import SIZE, boxes_of, mask_path

from headrace import DataLoader, Normalize, RandomCrop, RandomHorizontalFlip, ToCHW, ToFloat, decode
from headrace.collate import DetectionCollate
from headrace.datasets import Dataset
from headrace.transforms import ColorJitter, FixedSizeCrop, RandomAffine, RandomPhotometricDistort, ScaleJitter

if TYPE_CHECKING:
    from collections.abc import Iterator

AFFINE = RandomAffine(10, translate=(0.1, 0.1), scale=(0.8, 1.2), shear=5, interpolation="bilinear")
CHAINS: dict[str, tuple[Any, ...]] = {
    "segmentation": (
        AFFINE,
        RandomCrop(SIZE, pad_if_needed=True),
        RandomHorizontalFlip(),
        ColorJitter(0.4, 0.4, 0.4, 0.1),
    ),
    "detection": (
        ScaleJitter((SIZE, SIZE)),
        FixedSizeCrop(SIZE),
        RandomHorizontalFlip(),
        RandomPhotometricDistort(),
    ),
}


class Samples(Dataset[dict[str, Any]]):
    """Photos with their masks, or their boxes and labels."""

    suits_threads = True

    def __init__(self, job: Job) -> None:
        self.job = job
        self.photos = [Path(path) for path in job.paths]
        self.masks = [Path(mask_path(job.folder, path)) for path in job.paths]

    def __len__(self) -> int:
        return len(self.job.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = decode(self.photos[index].read_bytes())
        if self.job.workload == "segmentation":
            mask = decode(self.masks[index].read_bytes(), mode="unchanged")
            return {"image": image, "mask": mask}
        boxes, labels = boxes_of(index, *image.shape[:2])
        return {"image": image, "boxes": boxes, "labels": labels}


def make(job: Job) -> Epochs:
    dataset = Samples(job).map(*CHAINS[job.workload], ToFloat(), Normalize(MEAN, STD), ToCHW())
    loader = DataLoader(
        dataset,
        job.batch,
        shuffle=job.shuffle,
        seed=0,
        num_workers=job.workers,
        collate_fn=DetectionCollate() if job.workload == "detection" else None,
        backend="threads",
    )

    target = "boxes" if job.workload == "detection" else "mask"

    def epoch() -> Iterator[tuple[Any, Any]]:
        for batch in loader:
            yield batch["image"], batch[target]

    return Epochs(epoch)


if __name__ == "__main__":
    run(make, packages=("headrace", "numpy", "pillow"))
