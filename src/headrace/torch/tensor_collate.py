"""Samples to batches of tensors, by torch's rules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils.data
from torch.utils.data._utils import collate as torchs

from headrace._native.items import in_common, one_type
from headrace.checks import article
from headrace.collate import default as arrays
from headrace.collate.containers import like_mapping, like_sequence
from headrace.collate.default import name_of
from headrace.collate.exact import check_unmasked, numbers, of_one_type
from headrace.collate.user_types import registered
from headrace.errors import CollateError, CollateTypeError
from headrace.interop import floats, torch_rows
from headrace.torch.from_numpy import held, tensor_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from headrace.context.memory import Empty


def default_collate(
    samples: Sequence[Any], *, empty: Empty = np.empty, collate_fn_map: arrays.Functions | None = None
) -> Any:
    """Put samples together in one batch of tensors, by the rules of ``torch.utils.data.default_collate``.

    >>> default_collate([(np.zeros(3, np.float32), 7, "a"), (np.ones(3, np.float32), 8, "b")])
    [tensor([[0., 0., 0.],
            [1., 1., 1.]]), tensor([7, 8]), ['a', 'b']]

    Arrays and tensors of one shape are written into memory that a loader lends (``empty``) and uses again, and that the
    batch's tensors share. Differences from torch, knowingly made: samples that do not fit together are named in the
    error, and a key that only some of them have is an error, where torch drops it. Raises as
    `headrace.default_collate` does; the errors are RuntimeError and TypeError, as in torch.
    """
    found = _functions(collate_fn_map or arrays.NO_FUNCTIONS, torchs.default_collate_fn_map, registered())
    return arrays.collated(samples, found, empty)


def default_convert(data: Any) -> Any:
    """Make tensors of the arrays and NumPy scalars in one sample, by the rules of ``torch.utils.data.default_convert``.

    >>> default_convert((np.zeros(2, np.float32), 7, "a"))
    [tensor([0., 0.]), 7, 'a']

    torch's own knows no bfloat16 of NumPy's. Raises `CollateTypeError` for an array that cannot be a tensor.
    """
    return _converted(data, ())


def _converted(data: Any, place: tuple[Any, ...]) -> Any:
    kind = type(data)
    if kind in _AS_THEY_ARE:
        return data
    if kind is dict:
        return {key: _converted(item, (*place, key)) for key, item in data.items()}
    if kind is tuple or kind is list:
        return [_converted(item, (*place, number)) for number, item in enumerate(data)]
    if (kind is np.ndarray or issubclass(kind, np.generic)) and data.dtype.kind in "biufc":
        with suppress(TypeError, ValueError):  # a dtype that torch has not; an order of bytes
            return torch.from_numpy(np.asarray(data))
    if isinstance(data, np.ndarray | np.generic) and floats.is_bfloat16(data.dtype):
        return tensor_of(np.asarray(data))
    if isinstance(data, Mapping):
        return like_mapping(data, {key: _converted(data[key], (*place, key)) for key in data})
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return like_sequence(data, [_converted(item, (*place, number)) for number, item in enumerate(data)])
    check_unmasked(data, 0, arrays.field_of(place))
    if isinstance(data, np.ndarray) and not data.dtype.isnative:
        return held(data, arrays.field_of(place))
    if isinstance(data, np.ndarray | np.generic):
        with torch.device("cpu"):  # whatever the user's default device is
            return torch.utils.data.default_convert(data)
    return torch.utils.data.default_convert(data)


_AS_THEY_ARE = frozenset({torch.Tensor, int, float, bool, str, bytes})


def reader(dataset: Any) -> Callable[..., Any] | None:
    """Return what reads whole batches of torch's datasets over tensors, unless somebody collates these differently."""
    found = _functions(arrays.NO_FUNCTIONS, torchs.default_collate_fn_map, registered())
    ours = found.plain and found.functions[torch.Tensor] is _tensors
    return torch_rows.reader(dataset, default_collate) if ours else None


def _tensors(batch: Sequence[Any], *, collate_fn_map: arrays.Functions | None = None) -> torch.Tensor:
    first = batch[0]
    empty = collate_fn_map.empty if isinstance(collate_fn_map, arrays.Registry) else np.empty
    made = _short_tensors(batch, empty)
    if made is not None:
        return made
    field = _field(collate_fn_map)
    for row, tensor in enumerate(batch):
        if not isinstance(tensor, torch.Tensor):
            raise CollateTypeError(
                f"sample 0 of the batch is a tensor, but sample {row} is {article(name_of(tensor))}",
                rows=(0, row),
                field=field,
                found=name_of(tensor),
                expected="a tensor",
                cure="give all samples one type, or pass a collate_fn",
            )
        if tensor.is_nested or tensor.layout is not torch.strided:
            kind = "nested" if tensor.is_nested else "sparse"
            raise CollateError(
                f"Batches of {kind} tensors are not currently supported by the default collate_fn; sample {row} is one",
                rows=(row,),
                field=field,
                found=f"{article(kind)} tensor",
                expected="a dense tensor",
                cure="please provide a custom collate_fn to handle them appropriately",
            )
    shapes = [tuple(tensor.shape) for tensor in batch]
    odd = next((row for row, shape in enumerate(shapes) if shape != shapes[0]), None)
    if odd is not None:
        raise CollateError(
            f"samples 0 and {odd} of the batch differ in shape: stack expects each tensor to be equal size, but "
            f"got {list(shapes[0])} and {list(shapes[odd])}",
            rows=(0, odd),
            field=field,
            found=str(list(shapes[odd])),
            expected=str(list(shapes[0])),
            cure="give them one shape (Resize, a crop, padding), or pass a collate_fn",
        )
    plain = all(type(tensor) is torch.Tensor and not tensor.requires_grad for tensor in batch) and first.is_cpu
    if plain and any(tensor.dtype != first.dtype for tensor in batch):
        dtype = _promoted(batch, field)
        return _stacked([tensor.to(dtype) for tensor in batch], empty)
    try:
        return torch.stack(tuple(batch))
    except (RuntimeError, TypeError) as error:
        raise CollateError(
            f"tensors cannot be stacked: {error}",
            field=field,
            expected="tensors that torch.stack accepts",
            cure="give all samples tensors of one kind on one device, or pass a collate_fn",
        ) from error


def _short_tensors(batch: Sequence[Any], empty: Empty) -> torch.Tensor | None:
    first = batch[0]
    try:
        if torch_rows.suits(len(batch) * first.nbytes, empty):
            alike = one_type(batch) is torch.Tensor and in_common(batch, "dtype") is not None and first.is_cpu
            return _stacked(batch, empty) if alike else None
        made = torch.stack(batch)
    except (RuntimeError, TypeError, AttributeError):  # why they cannot be stacked is found out later
        return None
    if made.is_nested or made.layout is not torch.strided:
        return None
    # Integers of several dtypes keep their digits in the dtype that torch promotes them to; floats may not.
    exact = not made.dtype.is_floating_point and not made.dtype.is_complex
    return made if exact or in_common(batch, "dtype") is not None else None


def _short_arrays(batch: Sequence[Any], empty: Empty) -> torch.Tensor | None:
    column = arrays.short_arrays(batch, empty)
    return None if column is None or column.dtype.kind not in "biufc" else _short_held(column)


def _short_numbers(batch: Sequence[Any], empty: Empty) -> torch.Tensor | None:  # noqa: ARG001
    column = of_one_type(batch)
    return None if column is None else _short_held(column)


def _short_held(column: Any) -> torch.Tensor | None:
    try:
        return torch.from_numpy(column)
    except (TypeError, ValueError):
        return None


def _stacked(batch: Sequence[torch.Tensor], empty: Empty) -> torch.Tensor:
    """Stack tensors of one dtype in lent memory; raises RuntimeError for those that must not share it."""
    first = batch[0]
    if not torch_rows.suits(len(batch) * first.nbytes, empty):
        made = torch.stack(batch)
        if made.is_nested or made.layout is not torch.strided:
            raise RuntimeError("nested and sparse tensors have a layout of their own")
        return made
    return torch.stack(batch, out=torch_rows.lent((len(batch), *first.shape), first.dtype, empty))


def _promoted(batch: Sequence[torch.Tensor], field: str) -> torch.dtype:
    """Return the dtype that torch promotes several to, if each tensor keeps all its digits in it."""
    dtype = batch[0].dtype
    try:
        for tensor in batch:
            dtype = torch.promote_types(dtype, tensor.dtype)
    except RuntimeError as error:
        raise CollateTypeError(
            f"tensors of {batch[0].dtype} and others have no dtype in common: {error}",
            field=field,
            found=str(dtype),
            expected="dtypes that torch promotes to one",
            cure="give all samples one dtype",
        ) from error
    for row, tensor in enumerate(batch):
        if tensor.dtype.is_floating_point or tensor.dtype.is_complex or dtype == tensor.dtype:
            continue
        if not dtype.is_floating_point and not dtype.is_complex:
            continue
        if any(complex(value) != number for value, number in _inexact(tensor, dtype)):
            raise CollateError(
                f"samples of several dtypes would lose digits in a batch of {dtype}: sample {row} of the batch is "
                f"{tensor.dtype}, with values that {dtype} cannot hold",
                rows=(0, row),
                field=field,
                found=str(tensor.dtype),
                expected="dtypes that fit together without loss",
                cure="give all samples one dtype",
            )
    return dtype


def _inexact(tensor: torch.Tensor, dtype: torch.dtype) -> Iterator[tuple[Any, int]]:
    """Return the integers too large for any float to hold all of, each as it is in a dtype and as it was."""
    digits = {torch.bfloat16: 8, torch.float16: 11, torch.float32: 24, torch.complex64: 24}.get(dtype, 53)
    flat = tensor.reshape(-1)
    if flat.dtype == torch.bool or torch.iinfo(flat.dtype).bits <= digits:
        return iter(())
    if flat.dtype != torch.uint64:  # torch cannot compare uint64
        flat = flat[(flat > 2**digits) | (flat < -(2**digits))] if torch.iinfo(flat.dtype).bits > digits else flat
    return zip(flat.to(dtype).tolist(), flat.tolist(), strict=True)


def _arrays(batch: Sequence[Any], *, collate_fn_map: arrays.Functions | None = None) -> torch.Tensor:
    dtype = batch[0].dtype
    field = _field(collate_fn_map)
    if floats.kind(dtype) in "biufc" and any(getattr(array, "dtype", None) != dtype for array in batch):
        # By torch's rules of promotion, which are not NumPy's: int32 beside float32 gives float32.
        for row, array in enumerate(batch):
            check_unmasked(array, row, field)
        tensors = [held(array, field) if isinstance(array, np.ndarray) else _as_tensor(array) for array in batch]
        return _tensors(tensors, collate_fn_map=collate_fn_map)
    return held(arrays.collate_arrays(batch, collate_fn_map=collate_fn_map), field)


def _as_tensor(array: Any) -> torch.Tensor:
    return array if isinstance(array, torch.Tensor) else torch.as_tensor(array, device="cpu")


def _numbers(batch: Sequence[Any], *, collate_fn_map: arrays.Functions | None = None) -> torch.Tensor:
    try:
        return torch.from_numpy(of_one_type(batch))
    except TypeError:  # None, or a dtype that torch has not
        return held(numbers(batch, _field(collate_fn_map)), _field(collate_fn_map))


def _field(registry: arrays.Functions | None) -> str:
    return registry.field if isinstance(registry, arrays.Registry) else ""


# What others have put into torch's registry is used as it is; its own functions are replaced by ours.
_functions = arrays.Merged(
    {
        torch.Tensor: _tensors,
        np.ndarray: _arrays,
        np.str_: arrays.default_collate_fn_map[str],
        np.bytes_: arrays.default_collate_fn_map[bytes],
        np.generic: _numbers,
        complex: _numbers,
        float: _numbers,
        int: _numbers,
        str: arrays.default_collate_fn_map[str],
        bytes: arrays.default_collate_fn_map[bytes],
    },
    without=lambda function: function.__module__ == torchs.__name__,
    shorts={_tensors: _short_tensors, _arrays: _short_arrays, _numbers: _short_numbers, **arrays.SHORT_TEXT},
)
