"""What the three runners over torchvision's ImageFolder share: the dataset, in the words of torchvision's own guide."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from common import MEAN, STD
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

if TYPE_CHECKING:
    from common import Job

# headrace is not installed beside torchvision: it comes from this source tree.
sys.path.insert(0, str(Path(__file__).parents[2] / "src"))

_kept: list[Any] = []
"""The folder of links lives as long as the process."""


def images(job: Job) -> ImageFolder:
    """Make a folder for each class, of links to the images, and torchvision's dataset of it."""
    holder = tempfile.TemporaryDirectory()
    _kept.append(holder)
    for number, (path, label) in enumerate(zip(job.paths, job.labels.tolist(), strict=True)):
        link = Path(holder.name, f"{label:03}", f"{number:06}.jpg")
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(path)
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(job.size),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return ImageFolder(holder.name, transform)
