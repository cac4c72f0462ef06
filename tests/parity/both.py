"""One script, run on torch's names and on ours."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from headrace import ArrayDataset, Dataset, default_collate
from headrace.collate.default import collate, default_collate_fn_map, default_convert
from headrace.datasets.combine import ConcatDataset, StackDataset
from headrace.datasets.iterable import ChainDataset, IterableDataset
from headrace.datasets.subset import Subset, random_split
from headrace.datasets.tensors import TensorDataset
from headrace.samplers import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

if TYPE_CHECKING:
    from collections.abc import Callable

torch = pytest.importorskip("torch")

OURS = SimpleNamespace(
    ArrayDataset=ArrayDataset,
    BatchSampler=BatchSampler,
    ChainDataset=ChainDataset,
    ConcatDataset=ConcatDataset,
    Dataset=Dataset,
    DistributedSampler=DistributedSampler,
    IterableDataset=IterableDataset,
    RandomSampler=RandomSampler,
    Sampler=Sampler,
    SequentialSampler=SequentialSampler,
    StackDataset=StackDataset,
    Subset=Subset,
    SubsetRandomSampler=SubsetRandomSampler,
    TensorDataset=TensorDataset,
    WeightedRandomSampler=WeightedRandomSampler,
    collate=collate,
    default_collate=default_collate,
    default_collate_fn_map=default_collate_fn_map,
    default_convert=default_convert,
    random_split=random_split,
)


def theirs() -> Any:
    """Return torch's names, those of the collate registry among them."""
    from torch.utils.data._utils import collate as registry

    names = {name: getattr(torch.utils.data, name) for name in vars(OURS) if hasattr(torch.utils.data, name)}
    return SimpleNamespace(**names, collate=registry.collate, default_collate_fn_map=registry.default_collate_fn_map)


def plain(value: Any) -> Any:
    """Say a result in words that both have in common: arrays for tensors, with their dtype and shape."""
    if isinstance(value, torch.Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        return "array", str(value.dtype), value.shape, value.tolist()
    if isinstance(value, dict):
        return type(value).__name__, [(key, plain(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value).__name__, [plain(item) for item in value]
    return type(value).__name__, value


def outcome(script: Callable[[Any], Any], library: Any, seed: int) -> tuple[Any, type[Exception] | None, Any]:
    """Run a script: its result, or the type of its error; and where torch's global generator stands afterwards."""
    torch.manual_seed(seed)
    try:
        result, error = plain(script(library)), None
    except Exception as raised:  # noqa: BLE001  what is raised is what is compared
        result, error = None, type(raised)
    return result, error, torch.get_rng_state().tolist()


def same(script: Callable[[Any], Any], *, seed: int = 0) -> Any:
    """Run a script on both, hold them to one result, one kind of error and one state, and return the result."""
    expected, their_error, their_state = outcome(script, theirs(), seed)
    result, our_error, our_state = outcome(script, OURS, seed)
    assert (our_error is None) == (their_error is None), (our_error, their_error)
    if our_error is not None and their_error is not None:
        assert issubclass(our_error, their_error), (our_error, their_error)
    assert result == expected
    assert our_state == their_state
    return result
