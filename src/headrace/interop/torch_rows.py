"""Whole batches of torch's own datasets over tensors: ``TensorDataset``, and ``Subset`` and ``ConcatDataset`` of it.

Gathering rows in one call gives what collating the samples would give, in a tenth of the time. Only the classes
themselves are read so: a subclass may change what a sample is. torch is never imported here.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._native.items import in_common, one_type
from headrace.context import seeds
from headrace.context.memory import Recycler
from headrace.interop import torch_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from headrace.context.memory import Empty

    Rows = range | NDArray[np.int64]

INTEGERS = frozenset({int, np.int64, np.int32})
"""The types of keys that are rows; torch indexes a tensor with others (a slice, a list, a mask) as well."""


SMALLEST = 1 << 12
"""Bytes; smaller tensors are made in memory of torch's own, in less time than it takes to lend some."""
SMALLEST_RECYCLED = 1 << 20
"""The same, where no other process is to have the memory: the allocator reuses what it has not given back."""


def reader(dataset: Any, collate: Callable[..., Any], *, arrays: bool = False) -> Callable[..., Any] | None:
    """Return what reads whole batches of a dataset, as `headrace.Dataset.read_batch` does; None if nothing does.

    >>> reader([1, 2], list) is None
    True

    ``collate`` puts samples together that have to be read one by one: where a key is not a row, or not in range.
    ``arrays``: the batches are of NumPy's arrays, and not of tensors.
    """
    columns = _columns(dataset)
    if not columns or (arrays and not all(_in_numpy(dtype) is not None for dtype, _ in columns)):
        return None

    def read_batch(keys: Sequence[Any], *, empty: Empty) -> Any:
        try:
            made = _gathered(dataset, _rows(keys), empty)
            return [tensor.numpy() for tensor in made] if arrays else made
        except IndexError:
            here = seeds.place()
            samples = []
            for row in seeds.each(len(keys)):
                here.alone = True
                samples.append(dataset[keys[row]])
            return collate(samples, empty=empty)

    return read_batch


def stacked(batch: Sequence[Any], empty: Empty) -> NDArray[Any] | None:
    """Stack plain tensors of one shape and dtype in a NumPy array; return None for others, or where there are none."""
    torch = torch_state.loaded()
    if torch is None or one_type(batch) is not torch.Tensor:
        return None
    first, dtype = batch[0], in_common(batch, "dtype")
    if dtype is None or dtype.is_complex or not first.is_cpu or (known := _in_numpy(dtype)) is None:
        return None
    try:
        column = empty((len(batch), *first.shape), known)
        torch.stack(batch, out=torch.from_numpy(column))
    except (RuntimeError, TypeError):  # of other shapes, of another layout, or with gradients
        return None
    return column


def suits(nbytes: int, empty: Empty) -> bool:
    """Say whether a tensor of so many bytes is made in lent memory."""
    if nbytes < SMALLEST or nbytes >= SMALLEST_RECYCLED:
        return nbytes >= SMALLEST
    recycled = empty is np.empty or isinstance(getattr(empty, "__self__", None), Recycler)
    return not recycled


def lent(shape: tuple[int, ...], dtype: Any, empty: Empty) -> Any:
    """Return an uninitialized tensor in lent memory."""
    torch = torch_state.loaded()
    known = _in_numpy(dtype)
    if known is not None:
        return torch.from_numpy(empty(shape, known))
    return torch.from_numpy(empty((prod(shape) * dtype.itemsize,), np.dtype(np.uint8))).view(dtype).reshape(shape)


@cache
def _in_numpy(dtype: Any) -> np.dtype[Any] | None:
    """Return NumPy's name for a dtype of torch's; None where it has none."""
    try:
        found: np.dtype[Any] = torch_state.loaded().empty(0, dtype=dtype).numpy().dtype
        return found
    except (TypeError, RuntimeError):  # the second of a quantized one
        return None


def _columns(dataset: Any) -> list[tuple[Any, Any]]:
    """Return the dtype and the shape of each column of a dataset that can be read so; empty for any other."""
    theirs = torch_state.data_module()
    if theirs is None:
        return []
    kind = type(dataset)
    if kind is theirs.Subset:
        return _columns(dataset.dataset)
    if kind is theirs.ConcatDataset:
        first, *others = map(_columns, dataset.datasets)
        return first if all(other == first for other in others) else []
    if kind is not theirs.TensorDataset or not all(map(_is_plain, dataset.tensors)):
        return []
    return [(tensor.dtype, tensor.shape[1:]) for tensor in dataset.tensors]


def _is_plain(tensor: Any) -> bool:
    torch = torch_state.loaded()
    if type(tensor) is not torch.Tensor or tensor.layout is not torch.strided or not tensor.is_cpu or not tensor.ndim:
        return False
    special = tensor.requires_grad or tensor.is_nested or tensor.is_quantized or tensor.is_conj() or tensor.is_neg()
    return not special


def _rows(keys: Any) -> Rows:
    """Return keys as rows; raises IndexError for those that are not."""
    if type(keys) is range and keys.step == 1 and keys.start >= 0:
        return keys
    if len(keys) == 1 and type(keys[0]) is int and keys[0] >= 0:
        return range(keys[0], keys[0] + 1)
    if type(keys) is np.ndarray and keys.ndim == 1 and keys.dtype.kind in "iu":
        rows = keys.astype(np.int64, copy=False)
    elif INTEGERS.issuperset(map(type, keys)):
        rows = np.fromiter(keys, np.int64, len(keys))
    else:
        raise IndexError("keys that are not integers")
    if len(rows) and rows.min() < 0:
        raise IndexError("keys that count from the end")
    return rows


def _gathered(dataset: Any, rows: Rows, empty: Empty) -> list[Any]:
    """Return the columns of these rows; raises IndexError for one that is not there."""
    if hasattr(dataset, "tensors"):
        return [_taken(tensor, rows, empty) for tensor in dataset.tensors]
    if hasattr(dataset, "indices"):
        indices = dataset.indices
        if hasattr(indices, "dtype"):  # an array or a tensor
            return _gathered(dataset.dataset, _rows(np.asarray(indices)[rows]), empty)
        return _gathered(dataset.dataset, _rows(list(map(indices.__getitem__, rows))), empty)
    return _joined(dataset, np.asarray(rows), empty)


def _joined(dataset: Any, rows: NDArray[np.int64], empty: Empty) -> list[Any]:
    """Return the columns of these rows of a ``ConcatDataset``."""
    torch = torch_state.loaded()
    ends = dataset.cumulative_sizes
    if len(rows) == 1:
        row = int(rows[0])
        part = bisect_right(ends, row)
        if part == len(ends):
            raise IndexError("a row behind the last")
        row -= ends[part - 1] if part else 0
        return _gathered(dataset.datasets[part], range(row, row + 1), empty)
    parts = np.searchsorted(ends, rows, side="right")
    made: list[Any] = []
    for part in sorted(set(parts.tolist())):
        if part == len(ends):
            raise IndexError("a row behind the last")
        places = np.flatnonzero(parts == part)
        start = ends[part - 1] if part else 0
        whole = len(places) == len(rows)
        columns = _gathered(dataset.datasets[part], rows[places] - start, empty if whole else np.empty)
        if whole:
            return columns
        made = made or [lent((len(rows), *column.shape[1:]), column.dtype, empty) for column in columns]
        for column, out in zip(columns, made, strict=True):
            out.index_copy_(0, torch.from_numpy(places), column)
    return made


def _taken(tensor: Any, rows: Rows, empty: Empty) -> Any:
    """Return the rows of a tensor, in lent memory where they are large."""
    torch = torch_state.loaded()
    size, *shape = tensor.shape
    small = len(rows) * tensor.nbytes < SMALLEST * size
    if isinstance(rows, range):
        if rows.stop > size:
            raise IndexError("a row behind the last")
        part = tensor[rows.start : rows.stop]
        if small:
            return part.clone(memory_format=torch.contiguous_format)
        return lent((len(rows), *shape), tensor.dtype, empty).copy_(part)
    index = torch.from_numpy(rows)
    if small:
        return tensor.index_select(0, index)
    return torch.index_select(tensor, 0, index, out=lent((len(rows), *shape), tensor.dtype, empty))
