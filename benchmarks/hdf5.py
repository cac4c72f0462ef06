"""Shuffled batches from an HDF5 file, by chunk beside row by row: `python benchmarks/hdf5.py` (medians; rows a second).

The file is made once and is in the page cache, so the disk is not measured.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from headrace import DataLoader
from headrace.datasets import HDF5Dataset

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 64
LAYOUTS: dict[str, dict[str, Any]] = {
    "gzip, chunks of 256 rows": {"chunks": (256, 1024), "compression": "gzip"},
    "gzip, chunks of 16 rows": {"chunks": (16, 1024), "compression": "gzip"},
    "chunks of 256 rows": {"chunks": (256, 1024)},
    "no chunks": {},
}


class RowByRow:
    """A hand-written dataset: it opens the file once and reads row by row."""

    def __init__(self, path: Path) -> None:
        self.rows = h5py.File(path, "r")["data"]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


class Sorted(RowByRow):
    """The same, a batch at a time: h5py takes a list of indices, if they are sorted and none comes twice."""

    def __getitems__(self, indices: list[int]) -> Any:
        order = np.argsort(indices)
        rows = np.empty((len(indices), self.rows.shape[1]), self.rows.dtype)
        rows[order] = self.rows[np.asarray(indices)[order]]
        return list(rows)


def rate(make: Callable[[], Any], batches: int) -> float:
    """Return the rows a second of some shuffled batches, of a dataset that has not been read before."""
    loader = iter(DataLoader(make(), BATCH, shuffle=True, seed=0))
    began = perf_counter()
    read = sum(len(batch) for batch, _ in zip(loader, range(batches), strict=False))
    return read / (perf_counter() - began)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=40_000, help="rows of 1,024 float32 (40,000: 156 MiB)")
    parser.add_argument("--batches", type=int, default=40, help=f"batches of {BATCH} rows (40)")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    data = np.random.default_rng(0).normal(size=(given.rows, 1024)).astype(np.float32).round(2)
    out = sys.stdout.write
    out(f"{given.rows:,} rows, {data.nbytes >> 20} MiB; {given.batches} batches of {BATCH}; {given.rounds} rounds\n\n")
    heads = ("", "row by row", "h5py, sorted", "headrace", "all kept", "headrace / row by row", "all kept / row by row")
    out("{:26}{:>12}{:>14}{:>12}{:>12}{:>24}{:>24}\n".format(*heads))
    with tempfile.TemporaryDirectory() as folder:
        for name, layout in LAYOUTS.items():
            path = Path(folder, "data.h5")
            with h5py.File(path, "w") as file:
                file.create_dataset("data", data=data, **layout)
            ways: list[Callable[[], Any]] = [
                lambda path=path: RowByRow(path),
                lambda path=path: Sorted(path),
                lambda path=path: HDF5Dataset(path),
                lambda path=path: HDF5Dataset(path, cache_bytes=data.nbytes),
            ]
            rounds = [[rate(way, given.batches) for way in ways] for _ in range(given.rounds)]
            hand, many, ours, kept = (median(column) for column in zip(*rounds, strict=True))
            out(f"{name:26}{hand:12,.0f}{many:14,.0f}{ours:12,.0f}{kept:12,.0f}")
            out(f"{ours / hand:23.1f}x{kept / hand:23.1f}x\n")
            path.unlink()


if __name__ == "__main__":
    main()
