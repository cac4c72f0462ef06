"""headrace.torch over the same ImageFolder, with native=True."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from common import run
from image_folder import images

from headrace.errors import NotNativeWarning
from headrace.torch import DataLoader

if TYPE_CHECKING:
    from common import Job


def make(job: Job) -> DataLoader:
    warnings.simplefilter("error", NotNativeWarning)  # else it would measure something else
    return DataLoader(images(job), batch_size=job.batch, shuffle=True, num_workers=job.workers, native=True)


if __name__ == "__main__":
    run(make, packages=("torch", "torchvision"))
