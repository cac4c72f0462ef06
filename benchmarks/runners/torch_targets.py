"""torch's DataLoader over torchvision v2, with its tensors of masks and boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from common import MEAN, STD, Job, run
from targets import SIZE, boxes_of, collated, mask_path
from torch.utils.data import DataLoader, Dataset
from torch_loader import loader
from torchvision import tv_tensors
from torchvision.io import ImageReadMode, decode_jpeg, decode_png, read_file
from torchvision.transforms import v2

if TYPE_CHECKING:
    from collections.abc import Callable

CHAINS: dict[str, Callable[[], list[Any]]] = {
    "segmentation": lambda: [
        v2.RandomAffine(10, (0.1, 0.1), (0.8, 1.2), 5, v2.InterpolationMode.BILINEAR),
        v2.RandomCrop(SIZE, pad_if_needed=True),
        v2.RandomHorizontalFlip(),
        v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    ],
    "detection": lambda: [
        v2.ScaleJitter((SIZE, SIZE), antialias=True),
        v2.RandomCrop(SIZE, pad_if_needed=True),
        v2.RandomHorizontalFlip(),
        v2.RandomPhotometricDistort(),
        v2.SanitizeBoundingBoxes(labels_getter=lambda sample: sample[2]),
    ],
}


class Samples(Dataset):
    def __init__(self, job: Job) -> None:
        self.job = job
        self.masks = [mask_path(job.folder, path) for path in job.paths]
        scaled = v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True)
        self.transform = v2.Compose([*CHAINS[job.workload](), scaled, v2.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.job.paths)

    def __getitem__(self, index: int) -> Any:
        path = self.job.paths[index]
        image = tv_tensors.Image(decode_jpeg(read_file(path), mode=ImageReadMode.RGB))
        height, width = image.shape[-2:]
        if self.job.workload == "segmentation":
            mask = tv_tensors.Mask(decode_png(read_file(self.masks[index]))[0])
            image, mask = self.transform(image, mask)
            return torch.Tensor(image), mask.as_subclass(torch.Tensor)
        boxes, labels = boxes_of(index, height, width)
        corners = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
        image, corners, classes = self.transform(image, corners, torch.from_numpy(labels))
        return torch.Tensor(image), corners.as_subclass(torch.Tensor), classes


def make(job: Job) -> DataLoader:
    options = {} if job.workload == "segmentation" else {"collate_fn": collated}
    return loader(Samples(job), job, **options)


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision"))
