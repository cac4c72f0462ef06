"""The limit for arrays: the same rows copied, and as many float32 written, on as many threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from common import Epochs, Job, chunks, run

if TYPE_CHECKING:
    from collections.abc import Iterator


def make(job: Job) -> Epochs:
    rng = np.random.default_rng()
    source = job.images
    scratch = threading.local()
    pool = ThreadPoolExecutor(job.workers)

    def copy(keys: np.ndarray) -> None:
        if not hasattr(scratch, "rows"):
            scratch.rows = np.empty((job.batch, *source.shape[1:]), np.uint8)
            scratch.out = np.empty(scratch.rows.shape, np.float32)
        rows, out = scratch.rows[: len(keys)], scratch.out[: len(keys)]
        # "clip" lets NumPy write straight into the rows; "raise" would go through a buffer.
        np.take(source, keys, axis=0, out=rows, mode="clip")
        np.copyto(out, rows)

    def epoch() -> Iterator[int]:
        order = rng.permutation(len(source))
        batches = [order[start:stop] for start, stop in chunks(len(order), job.batch)]
        for batch, _ in zip(batches, pool.map(copy, batches), strict=True):
            yield len(batch)

    return Epochs(epoch)


if __name__ == "__main__":
    run(make, packages=("numpy",), has_images=False)
