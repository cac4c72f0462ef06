"""What runners with torchvision do to an encoded image: on tensors, which is faster than on Pillow images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from common import MEAN, STD
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms import v2

if TYPE_CHECKING:
    from common import Job


class Work:
    """Decodes, crops, flips and normalizes; a class, so that workers of any start method get it."""

    def __init__(self, job: Job) -> None:
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(job.size, antialias=job.antialias),
                v2.RandomHorizontalFlip(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(MEAN, STD, inplace=True),
            ]
        )

    def __call__(self, data: bytes | torch.Tensor) -> torch.Tensor:
        """Return the row of a batch for the bytes of a JPEG file; ``transform`` alone takes decoded pixels."""
        if not isinstance(data, torch.Tensor):
            data = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        image: torch.Tensor = self.transform(decode_jpeg(data, mode=ImageReadMode.RGB))
        return image
