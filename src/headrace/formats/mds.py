"""Index the shards of an MDS folder: offsets of samples, then samples that begin with the sizes of their columns.

Format: https://github.com/mosaicml/streaming (streaming/base/format/mds), version 2 of `index.json`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.formats.chunk import Listing, add_columns, add_numbers, array_from, offsets_of, scalar
from headrace.formats.reader import ShardReader
from headrace.formats.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

_KINDS = {"bytes": "bytes", "str": "txt", "json": "json", "jpeg": "jpg", "png": "png", "pil": "pixels"}
_KINDS |= {"list[jpeg]": "images in a list", "list[png]": "images in a list", "list[pil]": "pixels in a list"}
_KINDS |= {"jpeg_array": "images", "jpegarray": "images"}

_INTEGERS = {"int": "<i8", "int8": "|i1", "int16": "<i2", "int32": "<i4", "int64": "<i8"}
_INTEGERS |= {"uint8": "|u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8"}
_FLOATS = {"float16": "<f2", "float32": "<f4", "float64": "<f8"}
_TEXTS: dict[str, Callable[[str], Any]] = {"str_int": int, "str_float": float, "str_decimal": Decimal}

_DTYPES = {8: "|u1", 9: "|i1", 16: "<u2", 17: "<i2", 18: "<f2", 32: "<u4", 33: "<i4", 34: "<f4"}
_DTYPES |= {64: "<u8", 65: "<i8", 66: "<f8"}
"""By the first byte of an array without a fixed dtype."""

PICKLED = "pkl"
MOST_SHARD = 1 << 32
"""Bytes of a shard, and so of a column: the offsets in it have 32 bits."""

MOST_DIGITS = 4000
"""Of a number that is written as text: Python refuses to read longer ones."""


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What `index.json` says of a shard: its files (``packed`` is the compressed one), and its columns."""

    path: str
    size: int
    samples: int
    columns: tuple[tuple[str, str, int | None], ...]
    hashes: dict[str, str]
    packed: str | None
    algorithm: str


def shards_of(listing: Listing) -> list[ShardInfo]:
    """Return the shards of an `index.json`; raises `BadFile` for what is no MDS of version 2."""
    found = []
    for shard in listing.get(listing.value, "shards", list):
        version, form = listing.get(shard, "version", int), listing.get(shard, "format", str, "mds")
        if version != 2 or form != "mds":
            raise listing.damaged(f"a shard has the format {form!r}, version {version}", "'mds', version 2")
        raw = listing.get(shard, "raw_data", dict)
        packed = listing.get(shard, "zip_data", dict, {})
        samples, size = listing.get(shard, "samples", int), listing.get(raw, "bytes", int)
        if min(samples, size) < 0:
            raise listing.damaged(f"a shard has {samples} samples and {size} bytes", "no negative numbers")
        hashes = listing.get(raw, "hashes", dict, {})
        found.append(
            ShardInfo(
                listing.shard(listing.get(raw, "basename", str)),
                size,
                samples,
                _columns(listing, shard),
                {str(name): str(value) for name, value in hashes.items()},
                listing.shard(listing.get(packed, "basename", str)) if packed else None,
                listing.get(shard, "compression", str, "").partition(":")[0],
            )
        )
    return found


def _columns(listing: Listing, shard: Any) -> tuple[tuple[str, str, int | None], ...]:
    names = listing.fields(listing.names(shard, "column_names"))
    encodings, sizes = listing.names(shard, "column_encodings"), listing.get(shard, "column_sizes", list)
    fine = all(size is None or (type(size) is int and 0 <= size < MOST_SHARD) for size in sizes)
    if not len(names) == len(encodings) == len(sizes) or not fine:
        what = f"{len(names)} columns have {len(encodings)} encodings and the sizes {str(sizes)[:60]}"
        raise listing.damaged(what, "an encoding and a size for each column")
    # Sizes of 0 are written with each sample, as those of no fixed size are.
    columns = tuple((name, how, size or None) for name, how, size in zip(names, encodings, sizes, strict=True))
    for name, encoding, _ in columns:
        if kind_of(encoding) is None:
            raise listing.damaged(
                f"column {name!r} has the encoding {encoding[:40]!r}",
                "an encoding of MDS",
                "Write the column again with one of its encodings.",
            )
    return columns


def index(path: str, info: ShardInfo) -> tuple[Shard, tuple[int, int]]:
    """Index a shard that is not compressed; returns its samples, and its size and time of modification.

    Raises `BadFile` for a shard that is damaged or is not what `index.json` says.
    """
    shard = Shard()
    with ShardReader(path) as reader:
        if reader.size != info.size:
            raise reader.damaged(f"it has {reader.size:,} bytes", f"{info.size:,}, as index.json says")
        offsets = offsets_of(reader, info.samples)
        add_columns(shard, reader, offsets, [(name, size) for name, _, size in info.columns])
        for name, encoding, _ in info.columns:
            shard.kinds[name] = kind_of(encoding) or "bytes"
            if encoding in _INTEGERS:
                add_numbers(shard, reader, name, _INTEGERS[encoding])
        shard.keys.extend(map(str, range(info.samples)))
        return shard, reader.facts


def kind_of(encoding: str) -> str | None:
    """Return the kind of a column: one that all datasets know, or the encoding itself; None for no encoding.

    >>> kind_of("str"), kind_of("ndarray:uint8:2,3"), kind_of("parquet")
    ('txt', 'ndarray:uint8:2,3', None)
    """
    known = encoding in _INTEGERS or encoding in _FLOATS or encoding in _TEXTS or encoding == PICKLED
    return encoding if known or _static(encoding) is not None else _KINDS.get(encoding)


def _static(encoding: str) -> tuple[str, tuple[int, ...] | None] | None:
    """Return the dtype ("" for none) and the shape that an encoding of arrays fixes; None for any other encoding."""
    name, *fixed = encoding.split(":")
    if name != "ndarray" or len(fixed) > 2 or not all(fixed):
        return None
    dtype = {np.dtype(code).name: code for code in _DTYPES.values()}.get(fixed[0]) if fixed else ""
    shape = tuple(int(n) if n.isascii() and n.isdigit() else 0 for n in fixed[1].split(",")) if fixed[1:] else None
    return None if dtype is None or (shape and (min(shape) < 1 or max(shape) >> 40)) else (dtype, shape)


def readers(kinds: Iterable[str]) -> dict[str, Callable[[bytes], Any]]:
    """Return what reads the values of MDS's own kinds; each raises ValueError for bytes that are none."""
    found = dict[str, Callable[[bytes], Any]]()
    for kind in kinds:
        if kind in _INTEGERS:
            found[kind] = partial(integer, _INTEGERS[kind])
        elif kind in _FLOATS:
            found[kind] = partial(scalar, _FLOATS[kind])
        elif kind in _TEXTS:
            found[kind] = partial(_number, kind)
        elif (static := _static(kind)) is not None:
            found[kind] = partial(_array, *static)
    return found


def integer(dtype: str, data: bytes) -> int:
    """Return the integer that bytes are."""
    return int(scalar(dtype, data))


def _number(kind: str, data: bytes) -> Any:
    if len(data) > MOST_DIGITS:
        raise ValueError(f"a number of {len(data):,} characters")
    try:
        return _TEXTS[kind](data.decode())
    except InvalidOperation as error:
        raise ValueError(f"{data[:40]!r} is not a decimal number") from error


def _array(dtype: str, shape: tuple[int, ...] | None, data: bytes) -> NDArray[Any]:
    at = 0
    if not dtype:
        code = data[0] if data else -1
        if code not in _DTYPES:
            raise ValueError(f"no dtype has the code {code}")
        dtype, at = _DTYPES[code], 1
    if shape is None:
        head = data[at] if at < len(data) else 0
        width, count = 1 << head % 4, head >> 2
        sizes, at = data[at + 1 : at + 1 + width * count], at + 1 + width * count
        if at > len(data):
            raise ValueError(f"it ends within its shape of {count} axes")
        shape = tuple(np.frombuffer(sizes, f"<u{width}").tolist())
    return array_from(data, at, dtype, shape)
