"""Row groups of Parquet files: how many rows each has, and their columns as Arrow's buffers in memory, by pyarrow."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.errors import BadFile, HeadraceError, missing
from headrace.formats import arrow
from headrace.formats.parquet_footer import column_ranges
from headrace.formats.reader import COPY, ShardReader
from headrace.storage.blocks import read_url
from headrace.storage.object_file import ObjectFile
from headrace.storage.objects import is_url
from headrace.storage.spans import span_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headrace.formats.arrow import ArrowFile, Type

MOST_ROWS, MOST_BYTES = 1 << 27, 1 << 33
"""What a row group may claim: rows, and bytes before compression."""


@dataclass(frozen=True, eq=False)
class ParquetFile:
    """A file: its size and time of modification (ns), its columns, and the rows of its row groups.

    ``features`` are those of Hugging Face's `datasets`, if the schema has them.
    """

    path: str
    facts: tuple[int, int]
    types: dict[str, Type]
    features: dict[str, Any]
    rows: list[int]


def index(path: str) -> ParquetFile:
    """Read the footer of a file; raise `BadFile` for one that is damaged or claims too much."""
    with ShardReader(path) as reader:  # it refuses what is no regular file
        facts = reader.facts
    with _opened(path, facts) as file:
        about = file.metadata
        # Not their columns: pyarrow 26 ends the process for damaged statistics there (a C++ exception), not here.
        groups = [about.row_group(number) for number in range(about.num_row_groups)]
        for number, group in enumerate(groups):
            if not 0 <= group.num_rows <= MOST_ROWS or not 0 <= group.total_byte_size <= MOST_BYTES:
                raise ValueError(f"row group {number} has {group.num_rows:,} rows of {group.total_byte_size:,} bytes")
        schema = file.schema_arrow
        empty = _streamed(schema.empty_table(), path, facts)
        types = {name: column.type for name, column in empty.columns.items()}
        return ParquetFile(path, facts, types, empty.features, [group.num_rows for group in groups])


def decoded(file: ParquetFile, group: int, column: str) -> ArrowFile:
    """Decode a column of a row group; raise `BadFile` for damage, and for a file that is not what it was."""
    _unchanged(file)
    with _opened(file.path, file.facts) as opened:
        table = opened.read_row_group(group, [column], use_threads=False)
        _unchanged(file)
        if table.num_rows != file.rows[group]:
            raise ValueError(f"row group {group} has {table.num_rows:,} rows, and its footer says {file.rows[group]:,}")
        return _streamed(table, file.path, file.facts)


@contextmanager
def _opened(path: str, facts: tuple[int, int]) -> Iterator[Any]:
    """Open a file for a block; what goes wrong while it is read is a `BadFile`."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise missing("pyarrow", extra="arrow", purpose="reading Parquet files") from error
    try:
        # Without a map and without threads of its own: a cut file is an error, and a forked worker can read.
        opened = pa.PythonFile(ObjectFile(path, facts), "r") if is_url(path) else pa.OSFile(path)
        with opened as source, parquet.ParquetFile(source, pre_buffer=False) as file:
            yield file
    except HeadraceError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, IndexError) as error:
        what = f"it is not a Parquet file, or damaged: {str(error)[:200]}"
        raise BadFile(what, path=path, expected="a Parquet file", cure=COPY) from error


def ranges(file: ParquetFile) -> list[dict[str, list[tuple[int, int]]]]:
    """Return where each column of each row group of an object is; nothing for a footer that cannot be read."""
    try:
        return column_ranges(lambda offset, length: read_url(file.path, offset, length, file.facts), file.facts[0])
    except (ValueError, HeadraceError):  # whoever decodes it gets the error
        return []


def _unchanged(file: ParquetFile) -> None:
    if is_url(file.path):
        return  # each block is compared when it is read
    with ShardReader(file.path) as reader:
        if reader.facts != file.facts:
            kind = "cut short" if reader.size < file.facts[0] else "changed"
            raise span_error(kind, file.path, 0, file.facts[0], found=reader.size)


def _streamed(table: Any, path: str, facts: tuple[int, int]) -> ArrowFile:
    """Return a table as a stream in memory, which the reader of Arrow files reads."""
    import pyarrow as pa

    for number, field in enumerate(table.schema):
        kind = _simple(pa, field.type)
        if kind is not None:
            table = table.set_column(number, field.with_type(kind), table.column(number).cast(kind))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return arrow.in_memory(path, memoryview(sink.getvalue()), facts)


def _simple(pa: Any, kind: Any) -> Any:
    """Return the plain type of words in a dictionary and of views; None for other types."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if str(kind) in ("string_view", "binary_view"):
        return pa.large_string() if str(kind) == "string_view" else pa.large_binary()
    return None
