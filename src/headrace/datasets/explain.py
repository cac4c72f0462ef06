"""Explain which transforms of a dataset the native extension runs, and why not the others."""

from __future__ import annotations

from typing import Any

from headrace.datasets import protocol
from headrace.datasets.torchvision_datasets import examined


def explain(dataset: Any) -> str:
    r"""Explain which steps of a dataset are fused, which are grouped, which run step by step, and why.

    >>> import numpy as np
    >>> from headrace import ArrayDataset, RandomCrop, ToFloat, explain
    >>> images = ArrayDataset(np.zeros((10, 32, 32, 3), np.uint8))
    >>> print(explain(images.map(RandomCrop(28), lambda image: image + 1, ToFloat())))
    Mapped: ...
      RandomCrop  fused
      <lambda>    step by step: not a headrace transform
      ToFloat     step by step: it follows an unfused transform

    The native extension runs all fused steps in one call for many samples, without the GIL, from the JPEG file or array
    to the row of the batch. A file of another format, or a damaged one, goes step by step in the same batch. A step is
    fused if the extension knows the transform, all steps before it are fused, and images have one size after the last
    of them: crops and resizing come first, then flips, then changes of colors and policies, then `ToFloat`,
    `Normalize`, `RandomErasing`, `ToCHW`, `ToDtype`. Selections such as `Subset`, and `ConcatDataset`, make no
    difference. `headrace doctor` says whether the extension was built.

    Samples with masks or boxes, and all others that are read one by one, have *groups*: transforms that follow each
    other draw first, and then one native call makes the pixels of the image, and one those of each mask. That needs
    uint8 images of 1, 3 or 4 channels; others go step by step.

    Of a dataset of torchvision's, it says what ``DataLoader(dataset, native=True)`` recognizes.
    """
    found = examined(dataset)
    return protocol.explain(dataset) if found is None else str(found)
