"""torch's DataLoader over albumentations, with masks or boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import albumentations as album
import cv2
from albumentations_augmented import one_thread_each
from common import MEAN, STD, Job, run
from targets import SIZE, boxes_of, collated, mask_path
from torch.utils.data import DataLoader, Dataset
from torch_loader import loader

if TYPE_CHECKING:
    from collections.abc import Callable

CHAINS: dict[str, Callable[[], list[Any]]] = {
    "segmentation": lambda: [
        album.Affine(
            scale=(0.8, 1.2), translate_percent=(-0.1, 0.1), rotate=(-10, 10), shear={"x": (-5, 5), "y": (0, 0)}, p=1
        ),
        album.PadIfNeeded(SIZE, SIZE, border_mode=cv2.BORDER_CONSTANT),
        album.RandomCrop(SIZE, SIZE),
        album.HorizontalFlip(p=0.5),
        album.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=1),
    ],
    "detection": lambda: [
        album.LongestMaxSize(SIZE),
        album.RandomScale((-0.9, 1.0), p=1),
        album.PadIfNeeded(SIZE, SIZE, border_mode=cv2.BORDER_CONSTANT),
        album.RandomCrop(SIZE, SIZE),
        album.HorizontalFlip(p=0.5),
        album.ColorJitter(brightness=0.125, contrast=0.5, saturation=0.5, hue=0.05, p=0.5),
    ],
}


class Samples(Dataset):
    def __init__(self, job: Job) -> None:
        self.job = job
        self.masks = [mask_path(job.folder, path) for path in job.paths]
        chain = [*CHAINS[job.workload](), album.Normalize(MEAN, STD), album.ToTensorV2()]
        boxes = album.BboxParams(format="pascal_voc", label_fields=["labels"])
        self.transform = album.Compose(chain, bbox_params=boxes if job.workload == "detection" else None)

    def __len__(self) -> int:
        return len(self.job.paths)

    def __getitem__(self, index: int) -> Any:
        path = self.job.paths[index]
        image = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        if self.job.workload == "segmentation":
            mask = cv2.imread(self.masks[index], cv2.IMREAD_UNCHANGED)
            found = self.transform(image=image, mask=mask)
            return found["image"], found["mask"]
        boxes, labels = boxes_of(index, *image.shape[:2])
        found = self.transform(image=image, bboxes=boxes, labels=labels)
        return found["image"], found["bboxes"], found["labels"]


def make(job: Job) -> DataLoader:
    options: dict[str, Any] = {} if job.workload == "segmentation" else {"collate_fn": collated}
    return loader(Samples(job), job, worker_init_fn=one_thread_each, **options)


if __name__ == "__main__":
    run(make, packages=("torch", "albumentations", "opencv-python-headless"))
