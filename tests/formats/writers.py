"""Writers of formats for tests, byte by byte."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headrace.formats.tfrecord import masked

Column = tuple[str, str, int | None]


def chunk(samples: Sequence[bytes], between: bytes = b"") -> bytes:
    """Write ``u32 n, u32 offsets[n + 1]``, what is between, and the samples."""
    begin = 4 * (len(samples) + 2) + len(between)
    offsets = [begin]
    for sample in samples:
        offsets.append(offsets[-1] + len(sample))
    return struct.pack(f"<{len(samples) + 2}I", len(samples), *offsets) + between + b"".join(samples)


def sized(values: Sequence[bytes], sizes: Sequence[int | None]) -> bytes:
    """Write the sizes of the values that have no fixed one, and the values."""
    heads = [struct.pack("<I", len(value)) for value, size in zip(values, sizes, strict=True) if not size]
    return b"".join(heads) + b"".join(values)


def write_mds(
    folder: Path,
    columns: Sequence[Column],
    shards: Sequence[Sequence[Sequence[bytes]]],
    change: Callable[[dict[str, Any]], Any] = lambda about: None,
) -> Path:
    """Write an MDS folder of shards, each of samples, each of the values of the columns."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, samples in enumerate(shards):
        data = chunk([sized(sample, [size for _, _, size in columns]) for sample in samples], b"{}")
        raw = {"basename": f"shard.{number:05}.mds", "bytes": len(data), "hashes": {}}
        (folder / raw["basename"]).write_bytes(data)  # type: ignore[operator]
        names = {
            f"column_{kind}": list(each)
            for kind, each in zip(("names", "encodings", "sizes"), zip(*columns, strict=True), strict=True)
        }
        about: dict[str, Any] = {"version": 2, "format": "mds", "samples": len(samples), "raw_data": raw, **names}
        change(about)
        listed.append({"compression": None, "hashes": [], "size_limit": 1 << 26, "zip_data": None} | about)
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": listed}))
    return folder


def write_litdata(
    folder: Path, fields: dict[str, str], chunks: Sequence[Sequence[Sequence[bytes]]], **config: Any
) -> Path:
    """Write a LitData folder of chunks, each of items, each of the values of the fields."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = []
    for number, items in enumerate(chunks):
        data = chunk([sized(item, [None] * len(fields)) for item in items])
        (folder / f"chunk-0-{number}.bin").write_bytes(data)
        listed.append({"filename": f"chunk-0-{number}.bin", "chunk_size": len(items), "chunk_bytes": len(data)})
    leaf = {"type": None, "context": None, "children_spec": []}
    spec = {"type": "builtins.dict", "context": json.dumps(list(fields)), "children_spec": [leaf] * len(fields)}
    about = {"data_format": list(fields.values()), "data_spec": json.dumps([1, spec]), "compression": None} | config
    (folder / "index.json").write_text(json.dumps({"chunks": listed, "config": about}))
    return folder


def varint(value: int) -> bytes:
    """Write an integer as protobuf does, seven bits a byte."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def part(number: int, data: bytes) -> bytes:
    """Write a field of a message: one with a length."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values: Sequence[bytes] | Sequence[float] | Sequence[int], packed: bool = True) -> bytes:
    """Write a `Feature` of bytes, floats or integers."""
    if any(isinstance(value, bytes) for value in values):
        return part(1, b"".join(part(1, value) for value in values if isinstance(value, bytes)))
    if any(isinstance(value, float) for value in values):
        floats = [struct.pack("<f", value) for value in values]
        return part(2, part(1, b"".join(floats)) if packed else b"".join(b"\x0d" + value for value in floats))
    numbers = [varint(int(value)) for value in values]
    return part(3, part(1, b"".join(numbers)) if packed else b"".join(b"\x08" + value for value in numbers))


def example(features: dict[str, bytes]) -> bytes:
    """Write a `tf.train.Example`."""
    entries = [part(1, part(1, name.encode()) + part(2, value)) for name, value in features.items()]
    return part(1, b"".join(entries))


def write_tfrecord(path: Path, records: Sequence[bytes]) -> Path:
    """Write a TFRecord file."""
    with path.open("wb") as file:
        for record in records:
            size = struct.pack("<Q", len(record))
            file.write(size + struct.pack("<I", masked(size)) + record + struct.pack("<I", masked(record)))
    return path
