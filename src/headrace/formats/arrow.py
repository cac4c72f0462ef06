"""Index Arrow IPC files and streams: where the buffers of each column of each record batch lie.

Format: https://arrow.apache.org/docs/format/Columnar.html. Only metadata is read: a message for each record batch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.errors import BadFile
from headrace.formats.flatbuffer import Table
from headrace.formats.reader import MemoryReader, ShardReader
from headrace.formats.shard import LEAST_ENTRIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAGIC = b"ARROW1"
MOST_FIELDS, MOST_DEPTH = 100_000, 32

_CONTINUED = 0xFFFFFFFF
_SCHEMA, _BATCH = 1, 3
_MOST_METADATA = 1 << 28
_MOST_PACKED = 1 << 31
_UNITS = ("s", "ms", "us", "ns")


@dataclass(frozen=True, slots=True)
class Type:
    """What a column holds.

    ``layout``: how its buffers lie: ``null``, ``bool``, ``fixed``, ``binary``, ``list``, ``fixed_list``, ``struct``, or
    ``other`` for types that headrace does not read. ``stored``: the dtype in the buffer of a fixed type; ``dtype``:
    that of its values. ``width``: the bytes of a value or of an offset; the items of a list of fixed size. ``nodes``
    and ``buffers``: how many of them the metadata of a batch has for it, those of its children included.
    """

    name: str
    layout: str
    stored: str = ""
    dtype: str = ""
    width: int = 0
    zone: str = ""
    children: tuple[tuple[str, Type], ...] = ()
    nodes: int = 1
    buffers: int = 2

    @property
    def is_text(self) -> bool:
        """Whether its bytes are UTF-8."""
        return self.layout == "binary" and self.name.endswith("string")

    @property
    def is_number(self) -> bool:
        """Whether its values are integers or floats."""
        return self.layout == "fixed" and self.dtype == self.stored and self.dtype[1] in "iuf"

    @property
    def is_integer(self) -> bool:
        """Whether its values are integers that fit into an int64."""
        return self.is_number and self.dtype[1] != "f" and self.dtype != "<u8"


@dataclass(frozen=True, slots=True)
class Column:
    """A column, or a child of one: its type, and the numbers of its first node and buffer in a batch."""

    type: Type
    node: int
    buffer: int

    def child(self, name: str) -> Column:
        """Return a child of a struct."""
        node, buffer = self.node + 1, self.buffer + 1
        for each, kind in self.type.children:
            if each == name:
                return Column(kind, node, buffer)
            node, buffer = node + kind.nodes, buffer + kind.buffers
        raise KeyError(name)


@dataclass(frozen=True, eq=False)
class ArrowFile:
    """The record batches of a file.

    ``facts``: its size in bytes and time of modification (ns). ``columns`` by name, in order. ``features``: those of
    Hugging Face's `datasets`, if the schema has them. ``rows``: of each batch, (n,). ``nodes``: the rows and the nulls
    of each column and child, (n, nodes, 2). ``buffers``: offset in the file and bytes of each buffer, (n, buffers, 2).
    """

    path: str
    facts: tuple[int, int]
    columns: dict[str, Column]
    features: dict[str, Any]
    rows: NDArray[np.int64]
    nodes: NDArray[np.int64]
    buffers: NDArray[np.int64]
    data: bytes | memoryview | None = None
    """All bytes of a file that is in memory."""
    codec: str = ""
    """How each buffer is compressed, as pyarrow names it; nothing for none."""
    metadata: dict[str, str] = field(default_factory=dict)
    """What headrace wrote beside the schema, by keys that begin with its name."""


def index(path: str) -> ArrowFile:
    """Index a file in Arrow's file format (Feather version 2 too) or stream format.

    Raises `BadFile` for a file that is damaged, cut short, compressed, or no such file.
    """
    with ShardReader(path) as reader:
        try:
            return _indexed(reader)
        except BadFile:
            raise
        except (ValueError, RecursionError) as error:
            raise reader.damaged(
                f"it is not an Arrow file, or damaged: {error}", "an Arrow IPC file or stream"
            ) from error


def in_memory(path: str, data: memoryview, facts: tuple[int, int]) -> ArrowFile:
    """Index a stream in memory that was made from a file; raise ValueError for one that cannot be read."""
    return replace(_indexed(MemoryReader(path, data, facts)), data=data)


def _indexed(reader: ShardReader | MemoryReader) -> ArrowFile:
    schema: Table | None = None
    rows, nodes, buffers, bodies, codecs = list[int](), list[Any](), list[Any](), list[tuple[int, int]](), set[str]()
    for kind, head, body, size, data in _messages(reader):
        if kind == _SCHEMA and schema is None:
            schema = head
        elif kind == _BATCH:
            codecs.add(_codec(head.table(3)))
            rows.append(head.integer(0, 8))
            nodes.append(_pairs(data, head, 1))
            buffers.append(_pairs(data, head, 2))
            bodies.append((body, size))
    if schema is None:
        raise ValueError("it has no schema")
    columns = _columns(reader, schema)
    counts = [sum(getattr(column.type, what) for column in columns.values()) for what in ("nodes", "buffers")]
    of_nodes, of_buffers = _stacked(nodes, counts[0]), _stacked(buffers, counts[1])
    of_bodies = np.array(bodies, np.int64).reshape(-1, 1, 2)
    if ((of_buffers < 0) | (of_buffers > of_bodies[:, :, 1:])).any():
        raise ValueError("a buffer lies outside of its record batch")
    of_buffers[:, :, 0] += of_bodies[:, :, 0]
    of_rows = np.array(rows, np.int64).reshape(-1)
    if len(codecs) > 1:
        raise ValueError("its record batches are compressed in different ways")
    codec = "".join(codecs)
    file = ArrowFile(
        reader.path,
        reader.facts,
        columns,
        _features(schema),
        of_rows,
        of_nodes,
        of_buffers,
        codec=codec,
        metadata=_own_metadata(schema),
    )
    _check(reader, file)
    return file


def _messages(reader: ShardReader | MemoryReader) -> Iterator[tuple[int, Table, int, int, bytes]]:
    """Yield the messages: kind, header, where the body begins, its bytes, and the metadata."""
    if reader.size >= 8 and reader.read(0, 6) == MAGIC:
        yield from _of_file(reader)
        return
    at = 0
    while at < reader.size:
        message = _message(reader, at)
        if message is None:
            return
        yield message
        at = message[2] + message[3]
    raise reader.damaged("it has no end-of-stream marker, so batches may be missing", "a whole Arrow stream")


def _of_file(reader: ShardReader | MemoryReader) -> Iterator[tuple[int, Table, int, int, bytes]]:
    tail = reader.read(reader.size - 10, 10) if reader.size >= 18 else b""
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != MAGIC or not 0 < length <= min(_MOST_METADATA, reader.size - 18):
        raise reader.damaged("its end is missing", "a whole Arrow file")
    data = reader.read(reader.size - 10 - length, length)
    footer = Table.root(data)
    schema = footer.table(1)
    if schema is None:
        raise ValueError("its footer has no schema")
    yield _SCHEMA, schema, 0, 0, data
    start, count = footer.vector(3, 24)
    for at in np.frombuffer(data, "<i8", 3 * count, start)[::3].tolist() if count else ():
        message = _message(reader, at) if 0 <= at < reader.size else None
        if message is None or message[0] != _BATCH:
            raise ValueError(f"no record batch begins at byte {at:,}")
        yield message


def _message(reader: ShardReader | MemoryReader, at: int) -> tuple[int, Table, int, int, bytes] | None:
    """Return the message at an offset; None at the end of the stream."""
    length, begin = int.from_bytes(reader.read(at, 4), "little"), at + 4
    if length == _CONTINUED:
        length, begin = int.from_bytes(reader.read(begin, 4), "little"), at + 8
    if not length:
        return None
    if length > min(_MOST_METADATA, reader.size - begin):
        raise ValueError(f"a message of {length:,} bytes begins at byte {at:,} of {reader.size:,}")
    data = reader.read(begin, length)
    message = Table.root(data)
    head, size, body = message.table(2), message.integer(3, 8), begin + length
    if head is None or size < 0:
        raise ValueError(f"the message at byte {at:,} has no header")
    if size > reader.size - body:
        raise reader.damaged(f"it ends within the record batch at byte {at:,}", "a whole Arrow file")
    return message.integer(1, 1), head, body, size, data


def _pairs(data: bytes, head: Table, field: int) -> NDArray[np.int64]:
    start, count = head.vector(field, 16)
    return np.frombuffer(data, "<i8", 2 * count, start).reshape(-1, 2) if count else np.empty((0, 2), np.int64)


def _stacked(each: list[Any], count: int) -> NDArray[np.int64]:
    if any(len(pairs) != count for pairs in each):
        raise ValueError("a record batch has more or fewer buffers than its schema says")
    return np.array(each, np.int64).reshape(len(each), count, 2)


def _check(reader: ShardReader | MemoryReader, file: ArrowFile) -> None:
    """Check the counts of all batches: no more rows than bits, as many in each column, no more nulls than rows."""
    lengths, nulls = file.nodes[:, :, 0], file.nodes[:, :, 1]
    most = max(LEAST_ENTRIES, 8 * reader.size) if not file.codec else _MOST_PACKED
    tops = lengths[:, [column.node for column in file.columns.values()]]
    wrong = bool(((file.rows < 0) | (file.rows > most)).any() or (tops != file.rows[:, None]).any())
    if wrong or bool(((lengths < 0) | (lengths > most) | (nulls < 0) | (nulls > lengths)).any()):
        raise ValueError("a record batch claims rows that it cannot have")
    if int(file.rows.sum(dtype=np.float64)) > most:
        raise ValueError("its record batches claim more rows than they can have")


def _columns(reader: ShardReader | MemoryReader, schema: Table) -> dict[str, Column]:
    if schema.integer(0, 2):
        raise reader.damaged("its numbers are big-endian", "little-endian numbers")
    left, node, buffer = [MOST_FIELDS], 0, 0
    columns = dict[str, Column]()
    for each in schema.tables(1):
        name, kind = _field(each, left, 0)
        if name in columns:
            raise BadFile(
                f"two columns are named {name[:80]!r}",
                path=reader.path,
                expected="a name of its own for each column",
                cure="Rename one of them.",
            )
        columns[name] = Column(kind, node, buffer)
        node, buffer = node + kind.nodes, buffer + kind.buffers
    return columns


def _field(field: Table, left: list[int], depth: int) -> tuple[str, Type]:
    left[0] -= 1
    if left[0] < 0 or depth > MOST_DEPTH:
        raise ValueError("its schema is nested too deeply, or has too many fields")
    name = field.text(0) or ""
    children = tuple(_field(child, left, depth + 1) for child in field.tables(5))
    kind = _type(field.integer(2, 1), field.table(3) or field, children)
    if field.table(4) is not None:
        kind = Type(f"dictionary<{kind.name}>", "other")
    return name, kind


def _type(code: int, about: Table, children: tuple[tuple[str, Type], ...]) -> Type:
    nodes = 1 + sum(kind.nodes for _, kind in children)
    inside = sum(kind.buffers for _, kind in children)
    item = children[0][1].name if children else ""
    if code in _BINARY:
        name, width = _BINARY[code]
        return Type(name, "binary", width=width, buffers=3)
    if code in _LISTS and len(children) == 1:
        name, width = _LISTS[code]
        return Type(f"{name}<{item}>", "list", width=width, children=children, nodes=nodes, buffers=2 + inside)
    if code == 16 and len(children) == 1 and about.integer(0, 4) >= 0:
        size = about.integer(0, 4)
        name = f"fixed_size_list<{item}>[{size}]"
        return Type(name, "fixed_list", width=size, children=children, nodes=nodes, buffers=1 + inside)
    if code == 13:
        name = f"struct<{', '.join(f'{name}: {kind.name}' for name, kind in children)}>"
        return Type(name, "struct", children=children, nodes=nodes, buffers=1 + inside)
    if children or code in (14, 22, 23, 24):
        return _unread(code, about, nodes, inside)
    return _flat(code, about)


def _flat(code: int, about: Table) -> Type:
    """Return a type without children, whose values have one width."""
    if code == 1:
        return Type("null", "null", buffers=0)
    if code == 6:
        return Type("bool", "bool")
    stored = dtype = name = zone = ""
    if code == 2 and (bits := about.integer(0, 4)) in (8, 16, 32, 64):
        stored = f"<{'i' if about.integer(1, 1) else 'u'}{bits // 8}"
        name = np.dtype(stored).name
    elif code == 3 and 0 <= about.integer(0, 2) <= 2:
        stored = ("<f2", "<f4", "<f8")[about.integer(0, 2)]
        name = np.dtype(stored).name
    elif code == 8:
        stored, dtype = ("<i8", "<M8[ms]") if about.integer(0, 2, 1) else ("<i4", "<M8[D]")
        name = "date64" if about.integer(0, 2, 1) else "date32"
    elif code in (9, 10, 18) and 0 <= (unit := about.integer(0, 2, 0 if code == 10 else 1)) < 4:
        stored = f"<i{about.integer(1, 4, 32) // 8}" if code == 9 else "<i8"
        dtype = f"<{'M' if code == 10 else 'm'}8[{_UNITS[unit]}]"
        zone = (about.text(1) or "") if code == 10 else ""
        name = (
            f"{ {9: 'time', 10: 'timestamp', 18: 'duration'}[code] }[{', '.join(filter(None, (_UNITS[unit], zone)))}]"
        )
    elif code == 15 and (width := about.integer(0, 4)) > 0:
        stored, name = f"V{width}", f"fixed_size_binary[{width}]"
    if not stored or (stored not in _STORED and stored[0] != "V"):
        return Type(_OTHERS.get(code, f"type {code}"), "other")
    return Type(name, "fixed", stored, dtype or stored, np.dtype(stored).itemsize, zone)


def _unread(code: int, about: Table, nodes: int, inside: int) -> Type:
    """Return a type that is passed over: how many buffers it has still counts for the columns after it."""
    if code in (23, 24):
        raise ValueError(
            f"it has a column of {_OTHERS[code]}, whose number of buffers varies: write it as binary or string"
        )
    own = {14: 1 + about.integer(0, 2), 22: 0, 17: 2, 25: 3, 26: 3}.get(code, 2)
    return Type(_OTHERS.get(code, f"type {code}"), "other", nodes=nodes, buffers=own + inside)


def _features(schema: Table) -> dict[str, Any]:
    """Return the features that Hugging Face's `datasets` writes beside a schema, by column."""
    for pair in schema.tables(2):
        if pair.text(0) == "huggingface":
            try:
                found = json.loads(pair.text(1) or "")["info"]["features"]
            except (ValueError, KeyError, TypeError):
                return {}
            return found if isinstance(found, dict) else {}
    return {}


def _own_metadata(schema: Table) -> dict[str, str]:
    """Return what headrace writes beside a schema."""
    pairs = ((pair, pair.text(0) or "") for pair in schema.tables(2))
    return {key: pair.text(1) or "" for pair, key in pairs if key.startswith("headrace")}


def _codec(compression: Table | None) -> str:
    """Return how the buffers of a batch are compressed."""
    if compression is None:
        return ""
    codec = compression.integer(0, 1)
    if codec not in _CODECS or compression.integer(1, 1):
        raise ValueError("its record batches are compressed in a way that is not known")
    return _CODECS[codec]


_CODECS = {0: "lz4", 1: "zstd"}
_BINARY = {4: ("binary", 4), 5: ("string", 4), 19: ("large_binary", 8), 20: ("large_string", 8)}
_LISTS = {12: ("list", 4), 21: ("large_list", 8)}
_OTHERS = {
    7: "decimal",
    11: "interval",
    14: "union",
    17: "map",
    22: "run_end_encoded",
    23: "binary_view",
    24: "string_view",
    25: "list_view",
    26: "large_list_view",
}
_STORED = {f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)} | {"<f2", "<f4", "<f8"}
