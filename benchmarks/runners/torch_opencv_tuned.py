"""torch's DataLoader over OpenCV, by someone who profiled it: look-up tables straight into the sample; plain."""

from __future__ import annotations

import cv2
import torch
from common import Job, run
from opencv_by_hand import load_into
from torch.utils.data import DataLoader, Dataset
from torch_loader import loader


class Images(Dataset):
    def __init__(self, job: Job) -> None:
        self.paths, self.labels, self.size = job.paths, job.labels, job.size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = torch.empty(3, self.size, self.size)
        load_into(self.paths[index], image.numpy())
        return image, int(self.labels[index])


def one_thread_each(_worker: int) -> None:
    # Two workers on two cores: OpenCV's own pool would only get in the way.
    cv2.setNumThreads(0)


def make(job: Job) -> DataLoader:
    return loader(Images(job), job, worker_init_fn=one_thread_each)


if __name__ == "__main__":
    run(make, packages=("torch", "opencv-python-headless"))
