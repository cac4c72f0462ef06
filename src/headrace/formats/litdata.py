"""Index the chunks of a LitData folder: offsets of items, then items that begin with the sizes of their leaves.

Format: https://github.com/Lightning-AI/litdata (streaming/writer.py, streaming/serializers.py).
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import BadFile
from headrace.formats.chunk import Listing, add_columns, add_numbers, array_from, offsets_of, scalar
from headrace.formats.nested import nested
from headrace.formats.reader import ShardReader
from headrace.formats.shard import Shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

_KINDS = {"str": "txt", "text": "txt", "image": "jpg", "jpeg": "jpg", "pil": "pixels", "jpeg_array": "images"}
_KINDS |= dict.fromkeys(("bytes", "file", "video", "audio", "nifti", "mesh", "pdf", "tifffile", "tiff"), "bytes")
_OWN = ("bool", "int", "float", "json", "tensor", "numpy")
_FLAT = ("no_header_numpy", "no_header_tensor")

PICKLED = ("pickle", "graph")
ARROW = b"LDARW01\0"
"""Ends a chunk with an Arrow table of its rows."""

_NUMPY = ("|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16", "|b1")
_TORCH = (
    *("<f4", "<f4", "<f8", "<f8", "<c8", "<c8", "<c16", "<c16", "<f2", "<f2", ""),
    *("|u1", "|i1", "<i2", "<i2", "<i4", "<i4", "<i8", "<i8", "|b1", "<u2"),
)
"""By the numbers that the format gives to dtypes; bfloat16 has none in NumPy."""


@dataclass(frozen=True, slots=True)
class Chunks:
    """What `index.json` says: the path, the number of items and the bytes of each chunk, and the fields of items."""

    chunks: tuple[tuple[str, int, int], ...]
    fields: tuple[tuple[str, str], ...]
    compressed: bool


def chunks_of(listing: Listing) -> Chunks:
    """Return the chunks of an `index.json`; raises `BadFile` for what has no leaves by their range of bytes."""
    config = listing.get(listing.value, "config", dict)
    _refuse(listing, config)
    formats = listing.names(config, "data_format")
    names = listing.fields(_names(listing, config, len(formats)))
    for name, form in zip(names, formats, strict=True):
        if kind_of(form) is None:
            raise listing.damaged(
                f"field {name!r} has the format {form[:40]!r}",
                "a format of LitData that is known",
                "Write the field again as bytes, text, a number, an array or an image.",
            )
    found = []
    for chunk in listing.get(listing.value, "chunks", list):
        count, size = listing.get(chunk, "chunk_size", int), listing.get(chunk, "chunk_bytes", int, 0)
        if min(count, size) < 0:
            raise listing.damaged(f"a chunk has {count} items and {size} bytes", "no negative numbers")
        found.append((listing.shard(listing.get(chunk, "filename", str)), count, size))
    return Chunks(tuple(found), tuple(zip(names, formats, strict=True)), bool(config.get("compression")))


def _refuse(listing: Listing, config: Any) -> None:
    loader, level = config.get("item_loader"), config.get("compression_level")
    again = "Write the dataset again without it."
    if config.get("encryption"):
        raise listing.damaged("its chunks are encrypted", "chunks that are not", again)
    if loader not in (None, "PyTreeLoader"):
        what = f"its chunks are written for {str(loader)[:40]}"
        raise listing.damaged(what, "the default item loader", "Read them with litdata, or write them again.")
    if config.get("compression") and level not in (None, "chunk"):
        what = f"its items are compressed within their chunks (compression_level={str(level)[:20]!r})"
        cure = "Write it again without compression, or with compression_level='chunk'."
        raise listing.damaged(what, "chunks that are compressed as a whole, or not at all", cure)


def _names(listing: Listing, config: Any, count: int) -> list[str]:
    """Return the names of the leaves: the keys that lead to each, joined by dots."""
    text = config.get("data_spec")
    if text is None:
        return [str(number) for number in range(count)]
    try:
        names = list(_leaves(json.loads(text)[1], ""))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise listing.damaged(f"its data_spec is {str(text)[:60]!r}", "a tree of fields in JSON") from error
    if len(names) != count:
        raise listing.damaged(f"its data_spec has {len(names)} leaves, its data_format {count}", "as many of both")
    return names


def _leaves(spec: Any, name: str) -> Iterator[str]:
    children, context = spec["children_spec"], spec["context"]
    if spec["type"] is None:
        yield name or "0"
        return
    keys = json.loads(context) if context is not None else None
    if isinstance(keys, dict):
        keys = keys.get("dict_context") or keys.get("fields")
    keys = keys or range(len(children))
    for key, child in zip(keys, children, strict=True):
        yield from _leaves(child, f"{name}.{key}" if name else str(key))


def index(path: str, items: int, fields: Iterable[tuple[str, str]]) -> tuple[Shard, tuple[int, int]]:
    """Index a chunk that is not compressed; returns its samples, and its size and time of modification.

    Raises `BadFile` for a chunk that is damaged, is not what `index.json` says, or has an Arrow table of its rows.
    """
    with ShardReader(path) as reader:
        shard = Shard(path, reader.size)
        offsets = offsets_of(reader, items)
        if items and offsets[0] == offsets[-1] and reader.read(max(0, reader.size - 8), min(8, reader.size)) == ARROW:
            raise BadFile(
                "its rows are in an Arrow table",
                path=path,
                expected="the leaves of each item by themselves",
                cure="Write it again where pyarrow is not installed: litdata writes text and numbers so if it is.",
            )
        add_columns(shard, reader, offsets, [(name, None) for name, _ in fields])
        for name, form in fields:
            shard.kinds[name] = kind_of(form) or "bytes"
            if form == "int":
                add_numbers(shard, reader, name, "<i8")
        shard.keys.extend(map(str, range(items)))
        return shard, reader.facts


def kind_of(form: str) -> str | None:
    """Return the kind of a field: one that all datasets know, or the format itself; None for no format.

    >>> kind_of("str"), kind_of("image:png"), kind_of("no_header_numpy:9"), kind_of("video:mp4"), kind_of("x")
    ('txt', 'jpg', 'no_header_numpy:9', 'bytes', None)
    """
    name, _, rest = form.partition(":")
    if name in PICKLED:
        return name
    if name in _FLAT:
        return form if _dtype(name, rest) else None
    return form if form in _OWN else _KINDS.get(name)


def _dtype(name: str, number: str | int) -> str:
    """Return the dtype of a number; "" for none."""
    known = _TORCH if name.endswith("tensor") else _NUMPY
    place = int(number) if str(number).isascii() and str(number).isdigit() and len(str(number)) < 9 else len(known)
    return known[place] if place < len(known) else ""


def readers(kinds: Iterable[str]) -> dict[str, Callable[[bytes], Any]]:
    """Return what reads the values of LitData's own kinds; each raises ValueError for bytes that are none."""
    found: dict[str, Callable[[bytes], Any]] = {"bool": _bool, "int": _int, "float": _float, "json": nested}
    found |= {"tensor": partial(_array, "tensor", ">"), "numpy": partial(_array, "numpy", "<")}
    for kind in kinds:
        name, _, number = kind.partition(":")
        if name in _FLAT:
            found[kind] = partial(_flat, _dtype(name, number))
    return found


def _bool(data: bytes) -> bool:
    return bool(scalar("|u1", data))


def _int(data: bytes) -> int:
    return int(scalar("<i8", data))


def _float(data: bytes) -> float:
    return float(scalar("<f8", data))


def _flat(dtype: str, data: bytes) -> NDArray[Any]:
    return array_from(data, 0, dtype, (len(data) // np.dtype(dtype).itemsize,))


def _array(name: str, order: str, data: bytes) -> NDArray[Any]:
    """Read ``u32 dtype, u32 n, u32 shape[n], values``."""
    number, axes = struct.unpack_from(f"{order}2I", data)
    dtype, at = _dtype(name, number), 8 + 4 * axes
    if not dtype or at > len(data):
        raise ValueError(f"it claims {axes:,} axes of the dtype {number}")
    return array_from(data, at, dtype, struct.unpack_from(f"{order}{axes}I", data, 8))
