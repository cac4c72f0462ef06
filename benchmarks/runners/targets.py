"""The masks and boxes of *segmentation* and *detection*, the same for all runners: `data.py` writes the masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIZE = 512
OBJECTS = 8


def mask_path(folder: str, path: str) -> str:
    """Return the path of a photo's mask (H, W), classes as uint8: each runner reads it with its own library."""
    return f"{folder}/masks/{Path(path).stem}.png"


def boxes_of(index: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes (N, 4) of a photo, as corners, and their labels: anywhere, and of any size."""
    rng = np.random.default_rng(index)
    count = int(rng.integers(1, OBJECTS + 1))
    ends = np.sort(rng.uniform(0, 1, (count, 2, 2)), axis=1) * (width - 2, height - 2)
    boxes = np.concatenate([ends[:, 0], ends[:, 1] + 2], axis=1).astype(np.float32)
    return boxes, rng.integers(0, 80, count)


def collated(samples: list[tuple]) -> tuple:
    """Return a batch of images as one array or tensor, and the rest of each sample in a list."""
    images = [image for image, *_ in samples]
    if isinstance(images[0], np.ndarray):
        return np.stack(images), [rest for _, *rest in samples]
    import torch

    return torch.stack(images), [rest for _, *rest in samples]
