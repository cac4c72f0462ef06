"""Which steps of a dataset the native kernel does at once, which go one by one, and why: `explain`."""

from __future__ import annotations

from typing import Any

from headrace.datasets import protocol


def explain(dataset: Any) -> str:
    r"""Say which steps of a dataset are fused, which go sample by sample, and why.

    >>> import numpy as np
    >>> from headrace import ArrayDataset, RandomCrop, ToFloat, explain
    >>> pictures = ArrayDataset(np.zeros((10, 32, 32, 3), np.uint8))
    >>> print(explain(pictures.map(RandomCrop(28), lambda picture: picture + 1, ToFloat())))
    Mapped: ...
      RandomCrop  fused
      <lambda>    step by step: not a headrace transform
      ToFloat     step by step: it follows an unfused transform

    Fused steps are one call of the native kernel for many samples, without Python's lock, from the JPEG file or array
    to the row of the batch; a file of another format, or a damaged one, goes step by step in the same batch. A step is
    fused if it is a transform that the kernel knows, all before it are fused, and pictures have one size after the last
    of them: crops and sizes come first, then flips, then `ToFloat`, `Normalize`, `ToCHW`, `ToDtype`. A `Subset` below
    or above makes no difference. `headrace doctor` tells whether there is a kernel.
    """
    return protocol.explain(dataset)
