"""Files of rows, which are no images, as `headrace show` has them: arrays in .npy, HDF5 and MATLAB files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click

from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.hdf5 import HDF5Dataset
from headrace.formatting import count, most_common, plain, ranges
from headrace.loader import DataLoader

ENDINGS = (".npy", ".h5", ".hdf5", ".mat")

Rows = ArrayDataset | HDF5Dataset


def open_rows(path: str) -> Rows | None:
    """Open a file of rows; None for anything else, by its name."""
    place = Path(path)
    if not place.is_file() or place.suffix.lower() not in ENDINGS:
        return None
    return ArrayDataset(place) if place.suffix.lower() == ".npy" else HDF5Dataset(place)


def show_rows(dataset: Rows, path: str, *, batch_size: int, shuffle: bool, seed: int, **_of_images: object) -> None:
    """Say what is in a file of rows, and what in a batch of them."""
    array: Any = dataset.arrays[0] if isinstance(dataset, ArrayDataset) else dataset
    shape = f"{tuple(array.shape[1:])} {array.dtype}"
    click.echo(f"{plain(path)}: {count(len(dataset), 'row')}, each {shape}; all of them {tuple(array.shape)}")
    if not len(dataset):
        return
    batch: Any = next(iter(DataLoader(dataset, batch_size, shuffle=shuffle, seed=seed)))
    rows, labels = batch if isinstance(batch, list) else (batch, None)
    click.echo()
    click.echo(ranges([("rows", rows)] if labels is None else [("rows", rows), ("labels", labels)]))
    if labels is not None:
        click.echo()
        click.echo(f"labels: {most_common(Counter(f'label {label}' for label in labels.tolist()), most=12)}")
