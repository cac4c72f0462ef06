"""Tensors in `.safetensors` files: where each lies.

Format: https://huggingface.co/docs/safetensors: u64 length of the header, the header in JSON, then the numbers.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import missing
from headrace.formats.npy import ArraySpan

if TYPE_CHECKING:
    from headrace.formats.reader import ShardReader

MOST_HEADER = 100_000_000
"""Bytes that a header may have, by the format."""

_DTYPES = {
    "BOOL": "?", "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8",
    "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8", "C64": "<c8",
}  # fmt: skip
_OTHERS = {"BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"}
_ORDER = "tensors that follow each other from the header to the end of the file"


def is_one(head: bytes) -> bool:
    """Say whether a file begins as one of this format: ``head`` are its first 9 bytes.

    >>> is_one(bytes([2, 0, 0, 0, 0, 0, 0, 0]) + b"{"), is_one(b"PK34")
    (True, False)
    """
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") <= MOST_HEADER


def index(reader: ShardReader) -> dict[str, ArraySpan]:
    """Return the tensors of an open file by name; raise `BadFile` for a file that is damaged or claims too much."""
    length = int.from_bytes(reader.read(0, 8), "little")
    if length > min(MOST_HEADER, reader.size - 8):
        raise reader.damaged(f"its header claims {length:,} bytes, and the file has {reader.size:,}", "a whole file")
    try:
        found = json.loads(reader.read(8, length), object_pairs_hook=_unique)
        arrays = {str(name): _span(about, 8 + length) for name, about in found.items() if name != "__metadata__"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise reader.damaged(f"its header cannot be read: {str(error)[:200]}", "a header of tensors") from error
    at = 8 + length
    for name, span in sorted(arrays.items(), key=lambda each: (each[1].offset, math.prod(each[1].shape))):
        if span.offset != at:
            raise reader.damaged(f"tensor {name[:80]!r} begins at byte {span.offset:,}, not {at:,}", _ORDER)
        at += math.prod(span.shape) * span.dtype.itemsize
    if at != reader.size:
        raise reader.damaged(f"its tensors end at byte {at:,} of {reader.size:,}", _ORDER)
    return arrays


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is there twice")
    return found


def _span(about: Any, start: int) -> ArraySpan:
    begin, end = about["data_offsets"]
    shape = tuple(about["shape"])
    dtype = _dtype(about["dtype"])
    if not all(type(each) is int and each >= 0 for each in (begin, end, *shape)):
        raise ValueError(f"shape {str(shape)[:60]} or offsets are no counts")
    if len(shape) > 32 or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"it claims {str(shape)[:60]} of {dtype}, and holds {end - begin:,} bytes")
    return ArraySpan(start + begin, dtype, shape)


def _dtype(name: Any) -> np.dtype[Any]:
    if name in _OTHERS:
        try:
            import ml_dtypes
        except ImportError as error:
            raise missing("ml_dtypes", extra="bfloat16", purpose=f"reading tensors of {name}") from error
        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, _OTHERS[name]))
        return found
    if name not in _DTYPES:
        raise ValueError(f"dtype {str(name)[:40]!r} is not known")
    return np.dtype(_DTYPES[name])
