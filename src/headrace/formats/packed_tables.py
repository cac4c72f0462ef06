"""Write a packed shard: an Arrow IPC file of one record batch, by pyarrow."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from headrace.errors import missing
from headrace.formats.packed_layout import SIDES, SUMS
from headrace.storage.crc32c import crc32c

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from headrace.formats.packed_layout import FieldLayout, Layout, ShardLayout


class Stored(NamedTuple):
    """The bytes of a field of a sample; ``data`` is None for None.

    ``sides``: of pixels behind a header of ``skipped`` bytes, among encoded images. ``checksum`` is that of the bytes
    behind the header.
    """

    data: bytes | None
    checksum: int
    shape: tuple[int, ...] = ()
    sides: tuple[int, int] = (0, 0)
    skipped: int = 0


Row = list[Any]
"""A sample as it is stored: a `Stored` or a number for each field."""


def pyarrow() -> Any:
    """Return pyarrow; raise `MissingDependency` without it."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise missing("pyarrow", extra="arrow", purpose="packing a dataset") from error
    return pa


def write_shard(path: Path, shard: ShardLayout, rows: Sequence[Row]) -> None:
    """Write these samples; the same samples give the same bytes.

    Raises OSError where the file cannot be written.
    """
    pa, layout = pyarrow(), shard.layout
    parts, nulls = dict[str, int](), dict[str, int]()
    columns, features = dict[str, Any](), dict[str, Any]()
    for number, each in enumerate(layout.fields):
        column = _Column(pa, each, layout, [row[number] for row in rows])
        columns[each.name], features[each.name] = column.array(), column.feature()
        parts |= {f"{each.name}:{part}": crc32c(data.tobytes()) for part, data in column.parts.items()}
        if column.nulls:
            nulls[each.name] = column.nulls
    stored = [number for number, each in enumerate(layout.fields) if each.has_bytes]
    if stored:
        sums = np.array([[row[number].checksum for number in stored] for row in rows], "<u4")
        columns[SUMS], features[SUMS] = _fixed(pa, sums), _list_feature("uint32", len(stored))
        parts[f"{SUMS}:values"] = crc32c(sums.tobytes())
    images = [number for number in stored if layout.fields[number].kind == "image"]
    if layout.store == "smart" and images:
        sides = np.array([[row[number].sides for number in images] for row in rows], "<i4").reshape(len(rows), -1)
        columns[SIDES], features[SIDES] = _fixed(pa, sides), _list_feature("int32", sides.shape[1])
        parts[f"{SIDES}:values"] = crc32c(sides.tobytes())
    told = replace(shard, rows=len(rows), parts=parts, nulls=nulls).metadata()
    told["huggingface"] = json.dumps({"info": {"features": features}})
    schema = pa.schema([(name, array.type) for name, array in columns.items()], metadata=told)
    batch = pa.record_batch(list(columns.values()), schema=schema)
    with path.open("wb") as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(batch)


class _Column:
    """A field of all samples of a shard, as an array of pyarrow's."""

    def __init__(self, pa: Any, each: FieldLayout, layout: Layout, values: list[Any]) -> None:
        self._pa, self._each, self._values, self._store = pa, each, values, layout.store
        self._classes = layout.classes if each.name == label_of(layout) else ()
        self.parts: dict[str, NDArray[Any]] = {}
        self.nulls = sum(value.data is None for value in values) if each.has_bytes else 0

    def feature(self) -> Any:
        """Return what Hugging Face's `datasets` calls such a column."""
        each = self._each
        if each.kind == "number":
            if self._classes:
                return {"_type": "ClassLabel", "names": list(self._classes)}
            return {"_type": "Value", "dtype": np.dtype(each.stored).name if each.stored else "bool"}
        if each.is_tensor(self._store):
            return {"data": _list_feature(np.dtype(each.stored).name), "shape": _list_feature("int32", each.axes)}
        if each.kind == "image":
            return {"_type": "Image"}
        if each.kind == "array":
            return _list_feature(np.dtype(each.stored).name)
        return {"_type": "Value", "dtype": "binary" if each.kind == "bytes" else "string"}

    def array(self) -> Any:
        """Return the array, and keep the buffers that need a checksum in ``parts``."""
        pa, each, count = self._pa, self._each, len(self._values)
        if each.kind == "number":
            return self._numbers()
        valid = self._valid()
        if each.kind in ("text", "json", "bytes"):
            kind = pa.binary() if each.kind == "bytes" else pa.string()
            return pa.Array.from_buffers(kind, count, [valid, self._offsets(1), self._data()])
        if each.kind == "image" and self._store != "raw":
            data = pa.Array.from_buffers(pa.binary(), count, [None, self._offsets(1), self._data()])
            kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
            return pa.Array.from_buffers(kind, count, [None], children=[data, pa.nulls(count, pa.string())])
        item = pa.from_numpy_dtype(np.dtype(each.stored))
        offsets, data = self._offsets(np.dtype(each.stored).itemsize), self._data()
        flat = pa.Array.from_buffers(item, data.size // np.dtype(each.stored).itemsize, [None, data])
        tensor = each.is_tensor(self._store)
        items = pa.Array.from_buffers(pa.list_(item), count, [None if tensor else valid, offsets], children=[flat])
        if not tensor:
            return items
        none = (0,) * each.axes
        shape = np.array([none if value.data is None else value.shape for value in self._values], "<i4")
        self.parts["shape"] = shape
        kind = pa.struct([("data", items.type), ("shape", pa.list_(pa.int32(), each.axes))])
        return pa.Array.from_buffers(kind, count, [valid], children=[items, _fixed(pa, shape)])

    def _numbers(self) -> Any:
        stored = self._each.stored
        if stored:
            self.parts["values"] = np.array(self._values, stored)
            kind = self._pa.from_numpy_dtype(np.dtype(stored))
        else:
            self.parts["values"] = np.packbits(np.array(self._values, bool), bitorder="little")
            kind = self._pa.bool_()
        buffer = self._pa.py_buffer(self.parts["values"])
        return self._pa.Array.from_buffers(kind, len(self._values), [None, buffer])

    def _valid(self) -> Any:
        if not self.nulls:
            return None
        there = np.array([value.data is not None for value in self._values])
        self.parts["valid"] = np.packbits(there, bitorder="little")
        return self._pa.py_buffer(self.parts["valid"])

    def _offsets(self, itemsize: int) -> Any:
        lengths = [len(value.data or b"") // itemsize for value in self._values]
        self.parts["offsets"] = np.cumsum([0, *lengths], dtype=np.int64).astype("<i4")
        return self._pa.py_buffer(self.parts["offsets"])

    def _data(self) -> Any:
        return self._pa.py_buffer(b"".join(value.data or b"" for value in self._values))


def label_of(layout: Layout) -> str | None:
    """Return the name of the one field of integers, which is the label; None where there are several, or none."""
    names = [each.name for each in layout.fields if each.kind == "number" and is_integer(each)]
    return names[0] if len(names) == 1 else None


def is_integer(each: FieldLayout) -> bool:
    """Say whether a field of numbers holds integers that fit into an int64."""
    return bool(each.stored) and np.dtype(each.stored).kind in "iu" and each.stored != "<u8"


def _fixed(pa: Any, values: NDArray[Any]) -> Any:
    flat = values.reshape(-1)
    items = pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), flat.size, [None, pa.py_buffer(flat)])
    kind = pa.list_(items.type, values.shape[1])
    return pa.Array.from_buffers(kind, len(values), [None], children=[items])


def _list_feature(dtype: str, length: int = -1) -> dict[str, Any]:
    return {"feature": {"dtype": dtype, "_type": "Value"}, "length": length, "_type": "Sequence"}
