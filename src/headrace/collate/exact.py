"""Dtypes that hold every value of a column exactly, and errors for columns without such a dtype.

NumPy's promotion turns int64 with uint64 into float64, which loses the last digits of 64-bit ids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._native.items import one_type
from headrace.checks import article, shown
from headrace.errors import CollateError, CollateTypeError
from headrace.interop import floats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

NUMBERS = "biufc"
LEAST, MOST = -(2**63), 2**63 - 1
WIDEST = 2**64 - 1


def numbers(batch: Sequence[Any], field: str) -> NDArray[Any]:
    """Return one array of these numbers, without losing a digit.

    >>> numbers([1, 2**63 + 1], "").dtype, numbers([1.5, 2], "").dtype
    (dtype('uint64'), dtype('float64'))

    Raises `CollateError` if no dtype holds them all, and `CollateTypeError` for values that are not numbers.
    """
    try:
        values = np.array(batch)
    except (ValueError, TypeError, OverflowError):  # numbers mixed with arrays or lists
        values = np.empty(0, object)
    kind = floats.kind(values.dtype)
    if values.shape != (len(batch),):
        raise _no_numbers(batch, field)
    if kind in "biu" or (kind in "fc" and not isinstance(batch[0], int) and len(set(map(type, batch))) == 1):
        return values
    if kind not in "mM" and all(_is_whole(sample) for sample in batch):
        whole = [int(sample) for sample in batch]
        return np.array(whole, integers(min(whole), max(whole), field))
    if kind in "fc" and all(isinstance(sample, int | float | complex | np.generic) for sample in batch):
        return _checked(values, batch, field)
    if kind in "mM" and all(isinstance(sample, (np.datetime64, np.timedelta64)) for sample in batch):
        check_kept([np.asarray(sample) for sample in batch], values, field)
        return values
    if kind == "V" and values.dtype.names and all(getattr(sample, "dtype", None) == values.dtype for sample in batch):
        return values
    raise _no_numbers(batch, field)


def of_one_type(batch: Sequence[Any]) -> NDArray[Any] | None:
    """Return an array of numbers of one type, which is quick; None for others, and for integers beyond int64."""
    kind = one_type(batch)
    if kind is None:
        return None
    dtype: np.dtype[Any] | None = _DTYPES.get(kind)
    if dtype is None and (not isinstance(batch[0], np.generic) or (dtype := batch[0].dtype).kind not in NUMBERS):
        return None
    try:
        return np.fromiter(batch, dtype, len(batch))
    except OverflowError:
        return None


_DTYPES: dict[type, np.dtype[Any]] = {kind: np.dtype(kind) for kind in (bool, float, complex)} | {int: np.dtype("i8")}


def integers(least: int, most: int, field: str) -> np.dtype[Any]:
    """Return the 64-bit dtype for a range of integers: int64 if possible, otherwise uint64."""
    if least >= LEAST and most <= MOST:
        return np.dtype(np.int64)
    if least >= 0 and most <= WIDEST:
        return np.dtype(np.uint64)
    raise CollateTypeError(
        f"integers from {shown(least)} to {shown(most)} fit neither int64 nor uint64",
        field=field,
        found=f"{shown(least)} to {shown(most)}",
        expected="integers of at most 64 bits",
        cure="give numbers that NumPy can hold, strings, or pass a collate_fn",
    )


def common_dtype(arrays: Sequence[NDArray[Any]], field: str) -> np.dtype[Any]:
    """Return the dtype for arrays of several dtypes, by NumPy's rules if the dtypes show that nothing is lost."""
    dtypes = list(dict.fromkeys(array.dtype for array in arrays))
    kinds = [floats.kind(dtype) for dtype in dtypes]
    odd = next((n for n, kind in enumerate(kinds) if _group(kind) != _group(kinds[0])), None)
    if odd is not None:
        raise _unlike(dtypes[0], dtypes[odd], field)
    try:
        dtype: np.dtype[Any] = np.result_type(*dtypes)
    except TypeError as error:
        raise _unlike(dtypes[0], dtypes[1], field) from error
    if set(kinds) <= set("biu") and dtype.kind not in "biu":
        filled = [array for array in arrays if array.size]
        least = min((int(array.min()) for array in filled), default=0)
        return integers(least, max((int(array.max()) for array in filled), default=0), field)
    if dtype.names and any(_loses(one, dtype) for one in dtypes):
        raise _unlike(dtypes[0], dtypes[1], field)
    return dtype


def check_kept(arrays: Sequence[NDArray[Any]], rows: Sequence[Any] | NDArray[Any], field: str) -> None:
    """Raise if a row of a batch does not have every digit of the array that was written to it."""
    for row, array in enumerate(arrays):
        kept = np.asarray(rows[row])
        if _loses(array.dtype, kept.dtype) and not _same(array, kept):
            raise CollateError(
                f"arrays of several dtypes would lose digits in a batch of {kept.dtype}: sample {row} of the batch "
                f"is {array.dtype}, with values that {kept.dtype} cannot hold",
                rows=(0, row),
                field=field,
                found=str(array.dtype),
                expected="dtypes that fit together without loss",
                cure="give all samples one dtype",
            )


def check_unmasked(array: Any, row: int, field: str) -> None:
    """Raise for a masked array, because a batch has no mask."""
    if isinstance(array, np.ma.MaskedArray):
        raise CollateTypeError(
            f"sample {row} of the batch is a masked array, but a batch has no mask",
            rows=(row,),
            field=field,
            found="a masked array",
            expected="an array without a mask",
            cure="fill it (array.filled(0)), or give its data and its mask as two arrays",
        )


def _checked(values: NDArray[Any], batch: Sequence[Any], field: str) -> NDArray[Any]:
    """Return the floats, if each equals the number it was made from."""
    for row, (value, sample) in enumerate(zip(values.tolist(), batch, strict=True)):
        whole = _is_whole(sample)
        exact = value == int(sample) if whole else (value == sample or sample != sample)
        if not exact:
            raise CollateError(
                f"sample {row} of the batch is {shown(sample)}, which loses digits in an array of {values.dtype}, "
                "as the others need",
                rows=(0, row),
                field=field,
                found=sample,
                expected=f"a number that {values.dtype} holds exactly",
                cure="give all samples one dtype",
            )
    return values


def _is_whole(sample: Any) -> bool:
    # For isinstance, NumPy's timedelta64 is an integer.
    return isinstance(sample, int | np.integer | np.bool_) and not isinstance(sample, np.timedelta64)


def _loses(one: np.dtype[Any], whole: np.dtype[Any]) -> bool:
    """Return whether values of a dtype may change when converted to another dtype."""
    if one == whole:
        return False
    if one.names:
        fields: Any = one.fields
        into: Any = whole.fields
        return one.names != whole.names or any(_loses(fields[name][0], into[name][0]) for name in one.names)
    if one.subdtype is not None or whole.subdtype is not None:
        return one.subdtype is None or whole.subdtype is None or _loses(one.base, whole.base)
    kind, wide = floats.kind(one), floats.kind(whole)
    if kind in "iu" and wide in "fc":
        return one.itemsize * 8 - (kind == "i") > _mantissa(whole)
    if kind in "mM":
        return True
    return kind != wide and not (kind in NUMBERS and wide in NUMBERS)


def _mantissa(dtype: np.dtype[Any]) -> int:
    return 8 if floats.is_bfloat16(dtype) else int(np.finfo(dtype).nmant) + 1


def _same(array: NDArray[Any], kept: NDArray[Any]) -> bool:
    native = array.astype(array.dtype.newbyteorder("="))
    with np.errstate(all="ignore"):
        if native.dtype.kind in "mM":
            return np.array_equal(kept.astype(native.dtype).view(np.int64), native.view(np.int64))
        # Casting a number beyond the integer range depends on the machine.
        bits = native.dtype.itemsize * 8 - (native.dtype.kind == "i")
        real = kept.real.astype(np.float64) if floats.is_bfloat16(kept.dtype) else kept.real
        return bool((real < 2.0**bits).all()) and np.array_equal(real.astype(native.dtype), native)


def _group(kind: str) -> str:
    return "number" if kind in NUMBERS else kind


def _unlike(first: np.dtype[Any], other: np.dtype[Any], field: str) -> CollateTypeError:
    one: Any = first
    if _group(floats.kind(first)) == "number" != _group(floats.kind(other)):
        one = "numbers"
    return CollateTypeError(
        f"arrays of {one} and of {other} cannot be put in one batch without loss",
        field=field,
        found=str(other),
        expected=f"arrays of {one}",
        cure="give all samples one dtype",
    )


def _no_numbers(batch: Sequence[Any], field: str) -> CollateTypeError:
    odd = next((row for row, s in enumerate(batch) if not isinstance(s, int | float | complex | np.generic)), None)
    if odd is None:
        odd = next((row for row, s in enumerate(batch) if type(s) is not type(batch[0])), 0)
    kind = type(batch[odd])
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return CollateTypeError(
        f"numbers cannot be put in one array: sample 0 is {shown(batch[0])}, but sample {odd} of the batch is "
        f"{article(name)}",
        rows=(0, odd),
        field=field,
        found=name,
        expected="numbers",
        cure="give numbers that NumPy can hold",
    )
