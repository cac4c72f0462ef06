"""Tensors over the memory of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from headrace.collate import default as arrays
from headrace.errors import CollateTypeError
from headrace.interop import floats


def as_tensors(batch: Any) -> Any:
    """Turn the arrays in a batch into tensors that share their memory; strings and bytes stay.

    >>> as_tensors({"x": np.zeros(2), "name": ["a", "b"]})
    {'x': tensor([0., 0.], dtype=torch.float64), 'name': ['a', 'b']}

    Named tuples keep their type. bfloat16 of ml_dtypes is torch's. An array of a dtype that torch has not (strings,
    objects, dates) raises TypeError.
    """
    return _as_tensors(batch, ())


def _as_tensors(batch: Any, place: tuple[Any, ...]) -> Any:
    if type(batch) is torch.Tensor:
        return batch
    if type(batch) is list:
        return [_as_tensors(value, (*place, number)) for number, value in enumerate(batch)]
    if isinstance(batch, np.ndarray):
        return held(batch, arrays.field_of(place))
    if isinstance(batch, Mapping):
        return {key: _as_tensors(value, (*place, key)) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_as_tensors(getattr(batch, name), (*place, name)) for name in batch._fields))
    if isinstance(batch, list | tuple):
        return [_as_tensors(value, (*place, number)) for number, value in enumerate(batch)]
    return batch


def tensor_of(array: Any) -> torch.Tensor:
    """Return a tensor over the memory of an array."""
    tensor = torch.from_numpy(floats.bits(array))
    return tensor.view(torch.bfloat16) if floats.is_bfloat16(array.dtype) else tensor


def held(array: Any, field: str) -> torch.Tensor:
    """Return a tensor over the memory of an array; say where in the sample it is, if torch has no such dtype."""
    try:
        return tensor_of(array)
    except (TypeError, ValueError) as error:  # a dtype that torch has not; an order of bytes
        native = array.dtype.newbyteorder("=")
        cure = "give numbers of a dtype that torch has, or pass a collate_fn"
        if native != array.dtype:
            cure = f"give them in this machine's byte order: array.astype({native.str!r})"
        raise CollateTypeError(
            f"arrays of {array.dtype.str} cannot become a tensor: {error}",
            field=field,
            found=array.dtype.str,
            expected="a dtype that torch has, in this machine's byte order",
            cure=cure,
        ) from error
