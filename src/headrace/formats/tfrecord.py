"""Index TFRecord files: the records, and the features of each `tf.train.Example` in them.

Formats: https://www.tensorflow.org/tutorials/load_data/tfrecord ("TFRecords format details"), the messages of
tensorflow/core/example (example.proto, feature.proto), and https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from array import array
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace._native import extension
from headrace.checks import article
from headrace.errors import BadFile
from headrace.formats.reader import ShardReader
from headrace.formats.shard import HIDDEN, Shard
from headrace.storage.crc32c import crc32c
from headrace.storage.files import DEFAULT_MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

RECORD, BYTES, FLOAT, INT = "record", "bytes", "float_list", "int64_list"
"""The field of a record that is no Example, and the kinds of features."""

LIST = HIDDEN + "list"
"""Ends the name of the column for features with any other number of values than one."""

_KINDS = {1: BYTES, 2: FLOAT, 3: INT}
_LISTED = 4
"""What the native extension adds to the number of a kind where a feature has any other number of values than one."""

AT_ONCE = 1 << 16
"""Records that the native extension reads in a call."""

_IMAGES = ("jpg", "jpeg", "png", "image/encoded")
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x78\x01": "zlib", b"\x78\x5e": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}

Found = tuple[str, bool, int, int]
"""A feature: its kind, whether it has one value, and where this value, or the list, begins and ends in the record."""


def index(path: str, *, verify: bool = True, features: bool = True) -> tuple[Shard, tuple[int, int]]:
    """Index a TFRecord file; returns its samples, and its size and time of modification.

    ``verify``: check the data of all records, beside their lengths. ``features``: read each record as an Example;
    else its field is the record. Raises `BadFile` for files that are damaged or compressed, and for other records.
    """
    numbers: dict[str, array[int]] = {}
    with ShardReader(path) as reader:
        shard = Shard(path, reader.size)
        walk = partial(_walked, shard, numbers, verify=verify, features=features)
        for at, size in records(reader, walk):
            row = len(shard.keys)
            shard.keys.append(str(row))
            if not features:
                shard.span(RECORD).put(row, at, size)
            if not (features or verify):
                continue
            data = reader.read(at, size + 4)
            record = data[:size]
            if verify and masked(record) != int.from_bytes(data[size:], "little"):
                raise reader.damaged(f"the checksum of record {row} at byte {at:,} does not match", "whole records")
            if features:
                try:
                    _add(shard, numbers, row, at, record)
                except ValueError as error:
                    raise _no_example(path, row, at, str(error)) from error
    for name in [name for name in shard.fields if name.endswith(LIST)]:
        shard.span(name.removesuffix(LIST))  # a field has its own column, even if each sample has a list
    for name, values in numbers.items():
        if len(values) == len(shard.keys):
            shard.numbers[name] = values
    return shard.finished(), reader.facts


def _walked(
    shard: Shard, numbers: dict[str, array[int]], reader: ShardReader, at: int, *, verify: bool, features: bool
) -> int:
    """Add the records from one on, as the native extension reads them; return where it has stopped.

    There the file ends, or has a record that is damaged or is no plain Example.
    """
    scan: Any = None if reader.is_remote else getattr(extension, "scan_records", None)
    count = AT_ONCE
    while scan is not None and count == AT_ONCE:
        at, first, size, names, *arrays = scan(
            reader.descriptor, reader.size, at, verify, features, DEFAULT_MAX_BYTES, AT_ONCE
        )
        offset, length = np.frombuffer(first, np.int64), np.frombuffer(size, np.int64)
        count, begin = len(offset), len(shard.keys)
        shard.keys += map(str, range(begin, begin + count))
        if not features and count:
            shard.span(RECORD).put_many(np.arange(begin, begin + count), offset, length)
        record, name, kind, place, bytes_, value = (np.frombuffer(each, np.int64) for each in arrays)
        for number, text in enumerate(names):
            mine = name == number
            for code in np.unique(kind[mine]).tolist():
                of_kind = mine & (kind == code)
                rows, single, what = begin + record[of_kind], code < _LISTED, _KINDS[code % _LISTED]
                if wrong := _disagreement(shard, text, what):
                    row = begin + int(record[mine][0])
                    raise _no_example(reader.path, row, int(offset[row - begin]), wrong)
                shard.span(text if single else text + LIST).put_many(rows, place[of_kind], bytes_[of_kind])
                if single and what == INT:
                    numbers.setdefault(text, array("q")).frombytes(value[of_kind].tobytes())
    return at


def records(reader: ShardReader, walked: Callable[[ShardReader, int], int] | None = None) -> Iterator[tuple[int, int]]:
    """Yield offset and length of each record: ``u64 length, u32 sum of it, data, u32 sum of the data``.

    ``walked`` is called with the place of each. It returns the place of the first one that it has not passed over.
    """
    at = 0
    while True:
        if walked is not None:
            at = walked(reader, at)
        if at >= reader.size:
            return
        head = reader.read(at, 12)
        size = int.from_bytes(head[:8], "little")
        if masked(head[:8]) != int.from_bytes(head[8:], "little"):
            raise _no_record(reader, at, head)
        if size > min(DEFAULT_MAX_BYTES, reader.size - at - 16):
            found = f"the record at byte {at:,} has {size:,} bytes; {max(0, reader.size - at - 16):,} are left"
            raise reader.damaged(found, f"a whole file, and at most {DEFAULT_MAX_BYTES:,} bytes")
        yield at + 12, size
        at += size + 16


def masked(data: bytes) -> int:
    """Return the checksum of bytes as the format writes it.

    >>> hex(masked(b"123456789"))
    '0xc78ab0e5'
    """
    value = crc32c(data)
    return ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _add(shard: Shard, numbers: dict[str, array[int]], row: int, at: int, record: bytes) -> None:
    for name, (kind, single, begin, end) in features_of(record).items():
        if wrong := _disagreement(shard, name, kind):
            raise ValueError(wrong)
        shard.span(name if single else name + LIST).put(row, at + begin, end - begin)
        if single and kind == INT:
            numbers.setdefault(name, array("q")).append(integer(record[begin:end]))


def _disagreement(shard: Shard, name: str, kind: str) -> str:
    """Note the kind of a feature; return what is wrong if it was another before."""
    what = "jpg" if kind == BYTES and name.lower().rpartition(".")[2] in _IMAGES else kind
    before = shard.kinds.setdefault(name, what)
    return f"its feature {name!r} holds {kind}, and {before} before" if before != what else ""


def features_of(record: bytes) -> dict[str, Found]:
    r"""Return the features of a `tf.train.Example`, by name; raise ValueError for any other bytes.

    >>> features_of(bytes.fromhex("0a0d0a0b0a017812061a040a020102"))
    {'x': ('int64_list', False, 11, 15)}
    """
    found = dict[str, Found]()
    for number, wire, begin, end in _parts(record, 0, len(record)):
        if (number, wire) == (2, 2):
            raise ValueError("it is a SequenceExample")
        if (number, wire) != (1, 2):
            raise ValueError("it is not a tf.train.Example")
        for inner, kind, at, stop in _parts(record, begin, end):
            if (inner, kind) != (1, 2):
                raise ValueError("it is not a tf.train.Example")
            name, feature = _entry(record, at, stop)
            if name in found:
                raise ValueError(f"it has two features {name!r}")
            if feature is not None:
                found[name] = feature
    return found


def _entry(record: bytes, begin: int, end: int) -> tuple[str, Found | None]:
    name, feature = "", None
    for number, wire, at, stop in _parts(record, begin, end):
        if (number, wire) == (1, 2):
            name = record[at:stop].decode()
        elif (number, wire) == (2, 2) and feature is None:
            feature = _feature(record, at, stop)
        else:
            raise ValueError("it is not a tf.train.Example")
    if HIDDEN in name:
        raise ValueError(f"it has a feature {name!r}, whose name has a zero byte")
    return name, feature


def _feature(record: bytes, begin: int, end: int) -> Found | None:
    """Return a feature by its list; None for one that has none."""
    lists = list(islice(_parts(record, begin, end), 2))
    if not lists:
        return None
    number, wire, at, stop = lists[0]
    if len(lists) > 1 or wire != 2 or number not in _KINDS:
        raise ValueError("it has a feature that is not a list of bytes, floats or integers")
    kind, first, count = _KINDS[number], None, 0
    for value in _values(kind, record, at, stop):  # a record may have half a billion: they are not kept
        first, count = value, count + 1
    if count == 1 and first is not None:
        return kind, True, *first
    return kind, False, at, stop


def _values(kind: str, record: bytes, begin: int, end: int) -> Iterator[tuple[int, int] | None]:
    """Yield where each value of a list is, and None for several in one run."""
    for number, wire, at, stop in _parts(record, begin, end):
        if number != 1 or wire not in {BYTES: (2,), FLOAT: (2, 5), INT: (2, 0)}[kind]:
            raise ValueError(f"it has a value in its {kind} of another type")
        if kind == BYTES or wire != 2:
            yield at, stop
        elif kind == FLOAT:
            if (stop - at) % 4:
                raise ValueError(f"it has {article(kind)} of {stop - at} bytes")
            yield (at, stop) if stop - at == 4 else None
        else:
            if stop > at and record[stop - 1] > 127:
                raise ValueError(f"it has {article(kind)} that ends within a number")
            yield (at, stop) if 0 < stop - at <= 10 and all(byte > 127 for byte in record[at : stop - 1]) else None


def _parts(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield number, wire type, begin and end of each field of a message."""
    while at < end:
        tag, at = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == 2:
            size, at = _varint(data, at, end)
            stop = at + size
        elif wire == 0:
            stop = _varint(data, at, end)[1]
        elif wire in (1, 5):
            stop = at + (8 if wire == 1 else 4)
        else:
            raise ValueError(f"it has a field of the wire type {wire}")
        if stop > end or not number:
            raise ValueError("it has a field that ends after its message")
        yield number, wire, at, stop
        at = stop


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    if at < end and data[at] < 128:  # most are
        return data[at], at + 1
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("it has a number without an end")


def integer(data: bytes) -> int:
    """Return the int64 that a varint is.

    >>> integer(bytes([172, 2])), integer(bytes([255] * 9 + [1]))
    (300, -1)
    """
    value, stop = _varint(data, 0, len(data))
    if stop != len(data):
        raise ValueError(f"{data[:20]!r} is not an integer")
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def number(data: bytes) -> np.float32:
    """Return the float32 that four bytes are."""
    if len(data) != 4:
        raise ValueError(f"float32 has 4 bytes, not {len(data)}")
    return np.float32(np.frombuffer(data, "<f4")[0])


def integers(data: bytes) -> NDArray[np.int64]:
    """Return the integers of a list, packed or one by one.

    >>> integers(bytes([10, 2, 1, 2, 8, 3]))
    array([1, 2, 3])
    """
    pieces = [data[at:stop] for _, _, at, stop in _parts(data, 0, len(data))]
    text = np.frombuffer(b"".join(pieces), np.uint8)
    ends = np.flatnonzero(text < 128) + 1
    if (ends[-1] if len(ends) else 0) != len(text):
        raise ValueError("it has a number without an end")
    begins = np.concatenate([[0], ends[:-1]]).astype(np.int64)
    sizes = ends - begins
    if (sizes > 10).any():
        raise ValueError("it has a number of more than 64 bits")
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(sizes.max(initial=0))):
        there = sizes > place
        values[there] |= (text[begins[there] + place] & np.uint8(127)).astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)


def numbers_of(data: bytes) -> NDArray[np.float32]:
    """Return the floats of a list, packed or one by one."""
    pieces = b"".join(data[at:stop] for _, _, at, stop in _parts(data, 0, len(data)))
    return np.frombuffer(pieces, "<f4").astype(np.float32)


def texts(data: bytes) -> list[bytes]:
    """Return the values of a list of bytes.

    >>> texts(bytes([10, 2]) + b"ab" + bytes([10, 0]))
    [b'ab', b'']
    """
    return [data[at:stop] for _, _, at, stop in _parts(data, 0, len(data))]


def _alone(read: Callable[[bytes], Any], data: bytes) -> NDArray[Any]:
    """Return a value as a list of one."""
    return np.array([read(data)])


ONE, MANY = " of one value", " of values"

READERS: dict[str, Callable[[bytes], Any]] = {
    INT: integer,
    FLOAT: number,
    INT + ONE: partial(_alone, integer),
    FLOAT + ONE: partial(_alone, number),
    INT + MANY: integers,
    FLOAT + MANY: numbers_of,
}
"""What reads values: of features with one value in each sample, and one or several in a field that is a list."""


def _no_record(reader: ShardReader, at: int, head: bytes) -> BadFile:
    compression = _COMPRESSED.get(head[:2]) if at == 0 else None
    if compression is not None:
        return BadFile(
            f"it is compressed with {compression}",
            path=reader.path,
            expected="records that can be read one by one",
            cure="Decompress it first; images in it are compressed already.",
        )
    what = "it is not a TFRecord file: no record begins at byte 0" if at == 0 else f"no record begins at byte {at:,}"
    return reader.damaged(f"{what} (the checksum of its length does not match)", "a record")


def _no_example(path: str, row: int, at: int, why: str) -> BadFile:
    return BadFile(
        f"record {row} at byte {at:,} cannot be read: {why}",
        path=path,
        expected="a tf.train.Example in each record, whose features are of one kind each",
        cure=f"Pass features=False for the bytes of records, and decoders={{{RECORD!r}: function}} to read them.",
    )
