"""Which steps of a dataset the native kernel does at once, which go one by one, and why: `explain`."""

from __future__ import annotations

from typing import Any

from headrace._native import kernel
from headrace.datasets import native_batches as fused
from headrace.datasets import parts
from headrace.datasets.views import Mapped


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
    name = type(dataset).__qualname__
    if not isinstance(dataset, Mapped):
        if parts.batch_reader(dataset) is not None:
            return f"{name}: whole batches are gathered at once"
        inner = getattr(dataset, "dataset", None)
        if isinstance(inner, Mapped):
            return explain(inner)
        return f"{name}: sample by sample: there is nothing to fuse without .map(...)"
    plan = dataset._plan
    if plan is None:
        return f"{name}: sample by sample: {fused.unfit(dataset.base)}"
    rows = [
        (
            getattr(step, "__qualname__", type(step).__qualname__).rpartition(".")[2],
            f"step by step: {why}" if why else "fused",
        )
        for step, why in zip(plan.transforms, plan.why, strict=True)
    ]
    if plan.recipe is None:
        head = f"{name}: sample by sample"
    elif plan.whole:
        head = f"{name}: all fused"
    else:
        first = "the first" if plan.fused == 1 else f"the first {plan.fused}"
        head = f"{name}: {first} of its {len(rows)} steps fused, then sample by sample"
    if plan.recipe is not None and kernel is None:
        head = f"{name}: sample by sample: the native kernel was not built (headrace doctor); with it:"
    width = max((len(step) for step, _ in rows), default=0)
    return "\n".join([head, *(f"  {step:{width}}  {how}" for step, how in rows)])
