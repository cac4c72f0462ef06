"""The benchmark's samples in files of each format: by the format's own writer where it is installed, else by ours."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from registry import PEERS

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
SHARDS = 8
FAMILIES = {"tar": "formats", "mds": "formats", "litdata": "formats", "arrow": "datasets"}
"""The environment that has each format's own writer."""


def writer(form: str) -> str | None:
    """Return the interpreter with a format's own writer; None where it is not installed."""
    python = PEERS / FAMILIES[form] / "bin" / "python"
    return str(python) if python.exists() else None


def write(form: str, listing: Path, target: Path) -> None:
    """Write the images and labels that a list names (``path<TAB>label`` lines) as shards of a format, into a folder.

    Nothing is written for a format that only its own library writes, where that is not installed.
    """
    python = writer(form)
    if python is not None:
        command = [python, str(HERE / "write_formats.py"), form, str(listing), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"writing {form} failed: {done.stderr.strip()[-2000:]}")
    elif form != "litdata":
        _OURS[form](listing, target)


def samples(listing: Path) -> Iterator[tuple[str, bytes, int]]:
    """Yield a key, the bytes and the label of each line."""
    for number, line in enumerate(listing.read_text().splitlines()):
        path, label = line.rsplit("\t", 1)
        yield f"{number:06}", Path(path).read_bytes(), int(label)


def parts(listing: Path) -> Iterator[tuple[int, list[tuple[str, bytes, int]]]]:
    """Yield the number and the samples of each shard."""
    count = len(listing.read_text().splitlines())
    size, part, number = -(-count // SHARDS), [], 0
    for sample in samples(listing):
        part.append(sample)
        if len(part) == size:
            yield number, part
            part, number = [], number + 1
    if part:
        yield number, part


def _tar(listing: Path, target: Path) -> None:
    from headrace.formats.shard_writers import write_tar

    for number, part in parts(listing):
        write_tar(
            target / f"{number:05}.tar",
            [(key, {"jpg": data, "cls": str(label).encode()}) for key, data, label in part],
        )


def _mds(listing: Path, target: Path) -> None:
    import json

    from headrace.formats.shard_writers import mds_columns, write_mds

    told = []
    for number, part in parts(listing):
        values: list[dict[str, Any]] = [{"image": data, "label": label} for _, data, label in part]
        told.append(write_mds(target / f"shard.{number:05}.mds", mds_columns(values[0]), values))
    (target / "index.json").write_text(json.dumps({"shards": told, "version": 2}))


def _arrow(listing: Path, target: Path) -> None:
    from headrace.formats.shard_writers import write_arrow

    for number, part in parts(listing):
        write_arrow(target / f"{number:05}.arrow", [{"image": data, "label": label} for _, data, label in part])


_OURS = {"tar": _tar, "mds": _mds, "arrow": _arrow}


def write_rows(target: Path, features: np.ndarray, labels: np.ndarray) -> None:
    """Write rows of numbers as an Arrow dataset."""
    np.save(target / "features.npy", features)
    np.save(target / "labels.npy", labels)
    arrow = target / "arrow"
    arrow.mkdir()
    python = writer("arrow")
    if python is not None:
        command = [python, str(HERE / "write_formats.py"), "rows", str(target), str(arrow)]
        subprocess.run(command, check=True, capture_output=True)
        return
    import pyarrow as pa

    table = pa.table({"features": list(features), "label": labels})
    with pa.OSFile(str(arrow / "0.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=1000)
