"""headrace for torch: the names of ``torch.utils.data``, and a `DataLoader` whose batches are tensors.

>>> from headrace.torch import DataLoader, TensorDataset  # in place of torch.utils.data
>>> loader = DataLoader(TensorDataset(torch.arange(6.0), torch.arange(6)), batch_size=4, num_workers=2)
>>> [labels for features, labels in loader]
[tensor([0, 1, 2, 3]), tensor([4, 5])]

Datasets and samplers are torch's own, so that what asks ``isinstance`` finds what it looks for; those of `headrace` can
be used beside them. Submodules and all other names are there too: where ``torch.utils.data`` is replaced by
``headrace.torch`` in a source file, every import works. This is the only package that imports torch.
"""

from __future__ import annotations

from typing import Any

import numpy as np  # noqa: F401  for the examples in docstrings, as torch is
import torch.utils.data
from torch.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    StackDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    get_worker_info,
    random_split,
)

from headrace.torch import namespace
from headrace.torch.accelerated import prepare
from headrace.torch.device import on_device, pinned
from headrace.torch.from_numpy import as_tensors
from headrace.torch.patching import patch
from headrace.torch.stateful_sampler import StatefulDistributedSampler
from headrace.torch.tensor_collate import default_collate, default_convert
from headrace.torch.tensor_loader import DataLoader, StatefulDataLoader

__all__ = [
    "BatchSampler",
    "ChainDataset",
    "ConcatDataset",
    "DataLoader",
    "Dataset",
    "DistributedSampler",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "StackDataset",
    "StatefulDataLoader",
    "StatefulDistributedSampler",
    "Subset",
    "SubsetRandomSampler",
    "TensorDataset",
    "WeightedRandomSampler",
    "as_tensors",
    "default_collate",
    "default_convert",
    "get_worker_info",
    "on_device",
    "patch",
    "pinned",
    "prepare",
    "random_split",
]

__all__ += [name for name in torch.utils.data.__all__ if name not in __all__]
namespace.install()


def __getattr__(name: str) -> Any:
    """Return what else torch.utils.data has: its submodules, data pipes, and names that are not public."""
    return namespace.found(torch.utils.data, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(torch.utils.data)})


# Pickles, error messages and documentation name them where users import them.
for _ours in (
    DataLoader,
    StatefulDataLoader,
    StatefulDistributedSampler,
    as_tensors,
    default_collate,
    default_convert,
    on_device,
    patch,
    pinned,
    prepare,
):
    _ours.__module__ = __name__
del _ours
