"""Floats of two bytes: float16, which NumPy has, and bfloat16, which the library ml_dtypes gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import missing

if TYPE_CHECKING:
    from numpy.typing import NDArray


def bfloat16() -> np.dtype[Any]:
    """Return the dtype bfloat16: float32 without the lower half of its bits.

    >>> bfloat16().itemsize
    2

    Raises MissingDependency where ml_dtypes is not installed.
    """
    try:
        import ml_dtypes
    except ImportError as error:
        raise missing("ml_dtypes", extra="bfloat16", purpose="bfloat16") from error
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Say whether a dtype is bfloat16, whoever defined it.

    >>> is_bfloat16(bfloat16()), is_bfloat16(np.dtype(np.float16)), is_bfloat16(np.dtype("V2"))
    (True, False, False)
    """
    return dtype.kind == "V" and dtype.name == "bfloat16"


def kind(dtype: np.dtype[Any]) -> str:
    """Return the letter that NumPy has for a kind of dtype; that of floats for bfloat16 too, which NumPy calls void.

    >>> kind(bfloat16()), kind(np.dtype(np.float16)), kind(np.dtype(np.uint8)), kind(np.dtype("V2"))
    ('f', 'f', 'u', 'V')
    """
    return "f" if is_bfloat16(dtype) else dtype.kind


def bits(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array whose memory others can be shown: itself, or of bfloat16, a view as uint16.

    NumPy exports no buffer of a dtype that is not its own.

    >>> bits(np.ones(2, bfloat16())), bits(np.ones(2))
    (array([16256, 16256], dtype=uint16), array([1., 1.]))
    """
    return array.view(np.uint16) if is_bfloat16(array.dtype) else array
