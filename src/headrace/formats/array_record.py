"""Read the records of ArrayRecord files, by the library that Google wrote for them.

Format: https://github.com/google/array_record: chunks of records, each with checksums and usually compressed.
"""

from __future__ import annotations

import contextlib
import os
from importlib import import_module
from threading import Lock
from typing import Any

from headrace.errors import BadFile, missing
from headrace.formats.reader import COPY, ShardReader
from headrace.storage.files import DEFAULT_MAX_BYTES
from headrace.storage.spans import span_error

MAGIC = bytes.fromhex("83af70d10d884a3f")
"""The checksum of the first header, which is the same in all files."""

MOST_RECORDS = 1 << 40
_OPTIONS = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 1 << 15}

Facts = tuple[int, int]


def index(path: str) -> tuple[int, Facts]:
    """Return the number of records in a file, and its size and time of modification (ns).

    Raises `BadFile` for a file that is damaged, `MissingFile` and `UnreadableFile` for one that cannot be read.
    """
    with ShardReader(path) as shard:  # the library says of a file that is not there that it has no records
        facts = shard.facts
    reader = _opened(path)
    count: int = reader.num_records()
    if not 0 <= count < MOST_RECORDS:
        raise _damaged(path, f"it claims {count:,} records")
    _close(reader)
    return count, facts


class RecordReaders:
    """Files that stay open between reads of their records, at most ``most`` of them.

    Pickled copies are empty, and a forked process opens the files itself: the library's threads are not forked.
    """

    def __init__(self, most: int = 64) -> None:
        self._most, self._lock, self._process = most, Lock(), os.getpid()
        self._open = dict[str, tuple[Any, Lock]]()

    def __reduce__(self) -> tuple[Any, ...]:
        return RecordReaders, (self._most,)

    def read(self, path: str, row: int, facts: Facts) -> bytes:
        """Read a record; raise `BadFile` for damage, and for a file that is not what ``facts`` say."""
        _unchanged(path, facts)
        reader, lock = self._reader(path)
        try:
            with lock:
                [record] = reader.read([row])
        except (RuntimeError, ValueError, MemoryError) as error:
            with self._lock:
                self._open.pop(path, None)
            _unchanged(path, facts)
            raise _damaged(path, f"record {row} cannot be read: {str(error)[:200]}") from error
        _unchanged(path, facts)
        if len(record) > DEFAULT_MAX_BYTES:
            raise _damaged(path, f"record {row} has {len(record):,} bytes, and at most {DEFAULT_MAX_BYTES:,} are read")
        return bytes(record)

    def _reader(self, path: str) -> tuple[Any, Lock]:
        with self._lock:
            if self._process != os.getpid():
                self._process, self._forked, self._open = os.getpid(), self._open, {}
            if path not in self._open:
                while len(self._open) >= self._most:
                    del self._open[next(iter(self._open))]
                self._open[path] = _opened(path), Lock()
            return self._open[path]


def _opened(path: str) -> Any:
    """Open a file by the library, which keeps what is wrong with it until the first read, or the end."""
    try:
        module = import_module("array_record.python.array_record_module")
    except ImportError as error:
        raise missing("array-record", extra="array-record", purpose="reading ArrayRecord files") from error
    try:
        reader = module.ArrayRecordReader(path, **_OPTIONS)
        if not reader.ok():
            reader.close()  # raises what is wrong
            reader.read([0])
    except (RuntimeError, ValueError, MemoryError) as error:
        raise _damaged(path, f"it is not an ArrayRecord file, or damaged: {str(error)[:200]}") from error
    return reader


def _close(reader: Any) -> None:
    with contextlib.suppress(RuntimeError):
        reader.close()


def _unchanged(path: str, facts: Facts) -> None:
    with ShardReader(path) as shard:
        if shard.facts != facts:
            kind = "cut short" if shard.size < facts[0] else "changed"
            raise span_error(kind, path, 0, facts[0], found=shard.size)


def _damaged(path: str, what: str) -> BadFile:
    return BadFile(what, path=path, expected="a whole ArrayRecord file", cure=COPY)
