"""Files of tokens in each layout, written by hand as their formats say."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

CODES = {"uint8": 1, "int8": 2, "int16": 3, "int32": 4, "int64": 5, "float64": 6, "float32": 7, "uint16": 8}


def llm_c(path: Path, tokens: Any, magic: int = 20240520, version: int = 1, count: int | None = None) -> Path:
    """Write a file of llm.c's."""
    header = np.zeros(256, "<i4")
    header[:3] = magic, version, len(tokens) if count is None else count
    path.write_bytes(header.tobytes() + np.asarray(tokens, {20240520: "<u2", 20240801: "<u4"}[magic]).tobytes())
    return path


def megatron(
    prefix: Path, documents: Sequence[Sequence[Any]], dtype: str = "uint16", *, modes: bool = False, **changes: Any
) -> Path:
    """Write a pair of Megatron's; a document is a list of sequences. ``changes`` replace parts of the index."""
    flat = [np.asarray(sequence, dtype) for document in documents for sequence in document]
    lengths = np.array([len(sequence) for sequence in flat], "<i4")
    bytes_of = lengths.astype("<i8") * np.dtype(dtype).itemsize
    parts: dict[str, Any] = {
        "magic": b"MMIDIDX\x00\x00",
        "version": struct.pack("<Q", 1),
        "code": bytes([CODES[dtype]]),
        "sequences": struct.pack("<Q", len(flat)),
        "count": struct.pack("<Q", len(documents) + 1),
        "lengths": lengths,
        "pointers": np.cumsum(bytes_of) - bytes_of,
        "marks": np.cumsum([0, *map(len, documents)]).astype("<i8"),
        "modes": np.zeros(len(flat) if modes else 0, np.int8),
    } | changes
    data = b"".join(part if isinstance(part, bytes) else part.tobytes() for part in parts.values())
    prefix.with_name(f"{prefix.name}.idx").write_bytes(data)
    prefix.with_name(f"{prefix.name}.bin").write_bytes(b"".join(sequence.tobytes() for sequence in flat))
    return prefix


def safetensors(path: Path, **arrays: Any) -> Path:
    """Write a file of safetensors."""
    names = {"uint16": "U16", "uint32": "U32", "int32": "I32", "int64": "I64", "uint64": "U64", "float32": "F32"}
    header, data = {}, b""
    for name, array in arrays.items():
        place = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": names[array.dtype.name], "shape": list(array.shape), "data_offsets": place}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def arrow(path: Path, documents: Sequence[Any], kind: Any = None, *, rows: int = 3, **columns: Any) -> Path:
    """Write a stream of Arrow, as `datasets` does, with a few rows in each record batch."""
    import pyarrow as pa

    ids = pa.array([None if each is None else list(each) for each in documents], kind or pa.list_(pa.int32()))
    table = pa.table({"input_ids": ids, **columns})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)
    return path
