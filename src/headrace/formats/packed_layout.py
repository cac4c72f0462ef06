"""What the schema of a packed shard says of it, and where the buffers of each field are: see `PackedDataset`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.storage.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from headrace.formats.arrow import ArrowFile, Column, Type

ABOUT, SUM = "headrace", "headrace.crc32c"
"""The keys in the metadata of a schema: a text of JSON, and its CRC-32C in hexadecimal digits."""
VERSION = 1
KEY, SUMS, SIDES = "__key__", "__crc32c__", "__sides__"
"""Columns: of keys; of a CRC-32C for each field of bytes; of the height and width of pixels where images are of both
stores, and 0 for those that are encoded."""

SUFFIX = ".arrow"
LISTING = "packed.json"
"""Beside the shards: what was packed, and whether all of it is there."""


def shard_name(number: int) -> str:
    """Return the name of a shard in its folder.

    >>> shard_name(3)
    'packed-00003.arrow'
    """
    return f"packed-{number:05}{SUFFIX}"


@dataclass(frozen=True)
class FieldLayout:
    """A column: ``kind`` is image, number, text, bytes, json or array.

    ``dtype``: of a number int, float, bool or NumPy's; of an array NumPy's, of bool too. ``axes`` of an array or an
    image; ``channels`` of an image.
    """

    name: str
    kind: str
    dtype: str = ""
    axes: int = 0
    channels: int = 0

    @property
    def has_bytes(self) -> bool:
        """Whether each sample has bytes of its own length, and a checksum."""
        return self.kind != "number"

    @property
    def stored(self) -> str:
        """The dtype that is in the file; empty for bools that are bits."""
        if self.kind == "number":
            return {"int": "<i8", "float": "<f8", "bool": ""}.get(self.dtype, "" if self.dtype == "|b1" else self.dtype)
        return "|u1" if self.dtype in ("", "|b1") else self.dtype

    def is_tensor(self, store: str) -> bool:
        """Say whether it has the storage of Arrow's variable-shape tensor: values, and the shape beside them."""
        return (self.kind == "image" and store == "raw") or (self.kind == "array" and self.axes != 1)


@dataclass(frozen=True)
class Layout:
    """What all shards of a dataset have in common.

    ``structure``: of a sample, as JSON: the number of a field, ``["tuple", [parts]]`` or ``["dict", [[name, part]]]``.
    """

    store: str
    structure: Any
    fields: tuple[FieldLayout, ...]
    classes: tuple[str, ...] = ()
    max_side: int | None = None
    quality: int | None = None

    @property
    def with_bytes(self) -> list[str]:
        """The names of the fields that have a checksum, in their order."""
        return [each.name for each in self.fields if each.has_bytes]


@dataclass(frozen=True)
class ShardLayout:
    """What the schema of one shard says.

    ``first``: the number of its first sample among those packed at a time, ``rows`` how many it has; ``before``: bytes
    of images in the shards before it; ``nulls`` and ``parts``: the nulls of each field, and the CRC-32C of each buffer
    that is not bytes of samples; ``skipped``: index, place and error of each sample that was left out before its last
    one, and in the last shard also after it.
    """

    layout: Layout
    first: int
    rows: int
    before: int = 0
    nulls: Mapping[str, int] = field(default_factory=dict)
    parts: Mapping[str, int] = field(default_factory=dict)
    skipped: Sequence[Sequence[Any]] = ()

    def metadata(self) -> dict[str, str]:
        """Return it as metadata of a schema."""
        told = asdict(self)
        if not self.skipped:
            del told["skipped"]
        text = json.dumps({"version": VERSION, **told}, sort_keys=True)
        return {ABOUT: text, SUM: f"{crc32c(text.encode()):08x}"}


def read_layout(metadata: Mapping[str, str]) -> ShardLayout:
    """Return what the metadata of a schema says; raise ValueError for that of another file, and for a damaged one."""
    text = metadata.get(ABOUT)
    if text is None:
        raise ValueError("its schema does not say that headrace packed it")
    if metadata.get(SUM) != f"{crc32c(text.encode()):08x}":
        raise ValueError("what its schema says of it has another checksum")
    told = json.loads(text)
    if told.pop("version", None) != VERSION:
        raise ValueError(f"another version of headrace packed it, and this one reads version {VERSION}")
    try:
        inner = told.pop("layout")
        fields = tuple(FieldLayout(**each) for each in inner.pop("fields"))
        layout = Layout(fields=fields, classes=tuple(inner.pop("classes")), **inner)
        return ShardLayout(layout=layout, **told)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"what its schema says of it cannot be read: {error}") from error


@dataclass(frozen=True)
class Buffers:
    """The numbers of the buffers of a field in a record batch; ``values`` are the bytes of samples, or numbers."""

    valid: int
    values: int
    offsets: int = -1
    shape: int = -1


def buffers_of(each: FieldLayout, column: Column, store: str) -> Buffers:
    """Return which buffers a field has; raise ValueError for a column of another type."""
    if _found(column.type) != _expected(each, store):
        raise ValueError(f"column {each.name!r} holds {column.type.name}, and not what its schema says of it")
    first = column.buffer
    if each.kind == "number":
        return Buffers(first, first + 1)
    if each.is_tensor(store):
        data, shape = column.child("data"), column.child("shape")
        return Buffers(first, data.buffer + 3, data.buffer + 1, shape.buffer + 2)
    if each.kind == "image":
        data = column.child("bytes")
        return Buffers(first, data.buffer + 2, data.buffer + 1)
    return Buffers(first, first + (3 if each.kind == "array" else 2), first + 1)


def fixed_buffer(name: str, column: Column, dtype: str, width: int) -> int:
    """Return the buffer of a column of lists of one length; raise ValueError for a column of another type."""
    if _found(column.type) != ("fixed_list", width, ("fixed", dtype)):
        raise ValueError(f"column {name!r} holds {column.type.name}, and not lists of {width} numbers")
    return column.buffer + 2


def part_sizes(each: FieldLayout, rows: int, store: str, *, nulls: bool) -> dict[str, int]:
    """Return the bytes of each buffer of a field that is not bytes of samples: of those that have a checksum.

    >>> part_sizes(FieldLayout("masks", "array", "|u1", 3), 10, "jpeg", nulls=False)
    {'offsets': 44, 'shape': 120}
    """
    sizes = {"valid": -(-rows // 8)} if nulls else {}
    if each.kind == "number":
        return sizes | {"values": rows * np.dtype(each.stored).itemsize if each.stored else -(-rows // 8)}
    sizes["offsets"] = 4 * (rows + 1)
    return sizes | ({"shape": 4 * rows * each.axes} if each.is_tensor(store) else {})


def place(file: ArrowFile, buffer: int, size: int) -> int:
    """Return where a buffer begins in a file of one record batch; raise ValueError for a shorter one."""
    offset, found = file.buffers[0, buffer].tolist()
    if found < size:
        raise ValueError(f"a buffer has {found:,} bytes, and its rows need {size:,}")
    return int(offset)


def _expected(each: FieldLayout, store: str) -> tuple[Any, ...]:
    item = ("fixed", each.stored)
    if each.kind == "number":
        return item if each.stored else ("bool",)
    if each.is_tensor(store):
        shape = ("fixed_list", each.axes, ("fixed", "<i4"))
        return ("struct", ("data", ("list", item)), ("shape", shape))
    if each.kind == "image":
        return ("struct", ("bytes", ("binary",)), ("path", ("binary",)))
    return ("list", item) if each.kind == "array" else ("binary",)


def _found(kind: Type) -> tuple[Any, ...]:
    if kind.layout == "fixed":
        return ("fixed", np.dtype(kind.stored).str if kind.dtype == kind.stored else kind.name)
    if kind.layout == "struct":
        return ("struct", *((name, _found(child)) for name, child in kind.children))
    if kind.layout == "fixed_list":
        return ("fixed_list", kind.width, _found(kind.children[0][1]))
    if kind.layout == "list":
        return ("list" if kind.width == 4 else "large_list", _found(kind.children[0][1]))
    return (kind.layout if kind.layout != "binary" or kind.width == 4 else "large",)
