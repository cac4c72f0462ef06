"""Writers of formats for tests, byte by byte."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

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
