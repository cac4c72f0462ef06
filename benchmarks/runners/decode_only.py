"""The limit: libjpeg-turbo decodes the same files in full on as many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import simplejpeg
from common import Epochs, Job, chunks, run

if TYPE_CHECKING:
    from collections.abc import Iterator


def make(job: Job) -> Epochs:
    rng = np.random.default_rng()
    scratch = threading.local()
    pool = ThreadPoolExecutor(job.workers)

    def decode(paths: list[str]) -> None:
        for path in paths:
            with open(path, "rb") as file:  # noqa: PTH123  as lean as can be
                data = file.read()
            height, width, _, _ = simplejpeg.decode_jpeg_header(data)
            if getattr(scratch, "size", 0) < height * width * 3:
                scratch.size = height * width * 3
                scratch.pixels = np.empty(scratch.size, np.uint8)
            simplejpeg.decode_jpeg(data, buffer=scratch.pixels, strict=False)

    def epoch() -> Iterator[int]:
        order = rng.permutation(len(job.paths))
        batches = [[job.paths[key] for key in order[start:stop]] for start, stop in chunks(len(order), job.batch)]
        for batch, _ in zip(batches, pool.map(decode, batches), strict=True):
            yield len(batch)

    return Epochs(epoch)


if __name__ == "__main__":
    run(make, packages=("simplejpeg", "numpy"), has_images=False)
