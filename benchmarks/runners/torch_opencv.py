"""torch's DataLoader over OpenCV, as tutorials write it: imread, crop, resize, flip, /255, normalize; plain."""

from __future__ import annotations

import random

import cv2
import numpy as np
import torch
from common import MEAN, STD, Job, random_crop_box, run
from torch.utils.data import DataLoader, Dataset
from torch_loader import loader

MEAN32, STD32 = np.array(MEAN, np.float32), np.array(STD, np.float32)


class Images(Dataset):
    def __init__(self, job: Job) -> None:
        self.paths, self.labels, self.size = job.paths, job.labels, job.size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = cv2.cvtColor(cv2.imread(self.paths[index]), cv2.COLOR_BGR2RGB)
        top, left, height, width = random_crop_box(*image.shape[:2])
        image = cv2.resize(image[top : top + height, left : left + width], (self.size, self.size))
        if random.random() < 0.5:
            image = cv2.flip(image, 1)
        image = image.astype(np.float32) / 255
        image = (image - MEAN32) / STD32
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), int(self.labels[index])


def one_thread_each(_worker: int) -> None:
    # Two workers on two cores: OpenCV's own pool would only get in the way.
    cv2.setNumThreads(0)


def make(job: Job) -> DataLoader:
    return loader(Images(job), job, prefetch_factor=2, worker_init_fn=one_thread_each)


if __name__ == "__main__":
    run(make, packages=("torch", "opencv-python-headless"))
