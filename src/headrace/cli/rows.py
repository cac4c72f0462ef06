"""Files that hold no images, as `headrace show` has them: rows in .npy, HDF5 and MATLAB files, and token files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from headrace.cli.output import Result, say, say_table
from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.hdf5 import HDF5Dataset
from headrace.datasets.token_dataset import TokenDataset
from headrace.formats.token_layouts import HEADERS
from headrace.formatting import array_facts, count, most_common, plain, range_rows
from headrace.loader import DataLoader

ENDINGS = (".npy", ".h5", ".hdf5", ".mat")

Rows = ArrayDataset | HDF5Dataset | TokenDataset


def open_rows(path: str) -> Rows | None:
    """Open a file of rows; None for anything else, by its name."""
    place = Path(path)
    if _has_tokens(place):
        return TokenDataset(place, documents=place.with_suffix(".idx").is_file())
    if not place.is_file() or place.suffix.lower() not in ENDINGS:
        return None
    return ArrayDataset(place) if place.suffix.lower() == ".npy" else HDF5Dataset(place)


def _has_tokens(place: Path) -> bool:
    """Say whether a file is Megatron's or llm.c's: raw tokens look like anything."""
    if place.suffix not in (".bin", ".idx") or not place.is_file():
        return False
    with place.open("rb") as file:
        return place.with_suffix(".idx").is_file() or int.from_bytes(file.read(4), "little") in HEADERS


def show_rows(dataset: Rows, path: str, *, batch_size: int, shuffle: bool, seed: int, **_of_images: object) -> Result:
    """Say what is in a file of rows, and what in a batch of them."""
    if isinstance(dataset, TokenDataset):
        return _show_tokens(dataset, path, DataLoader(dataset, batch_size, shuffle=shuffle, seed=seed, collate_fn=list))
    array: Any = dataset.arrays[0] if isinstance(dataset, ArrayDataset) else dataset
    shape = f"{tuple(array.shape[1:])} {array.dtype}"
    say(f"{plain(path)}: {count(len(dataset), 'row')}, each {shape}; all of them {tuple(array.shape)}")
    about = {"path": path, "rows": len(dataset), "shape": list(array.shape), "dtype": str(array.dtype)}
    if not len(dataset):
        return Result(about | {"arrays": []})
    batch: Any = next(iter(DataLoader(dataset, batch_size, shuffle=shuffle, seed=seed)))
    rows, labels = batch if isinstance(batch, list) else (batch, None)
    say()
    named = [("rows", rows)] if labels is None else [("rows", rows), ("labels", labels)]
    say_table(range_rows(named), left=3)
    if labels is not None:
        say()
        say(f"labels: {most_common(Counter(f'label {label}' for label in labels.tolist()), most=12)}")
    return Result(about | {"arrays": array_facts(named)})


def _show_tokens(dataset: TokenDataset, path: str, loader: DataLoader[Any]) -> Result:
    """Say how many tokens there are, and what is in a batch of documents or windows."""
    noun = "document" if dataset.documents else f"window of {dataset.length:,}"
    plural = "documents" if dataset.documents else f"windows of {dataset.length:,}"
    say(f"{plain(path)}: {count(dataset.tokens, 'token')}, {count(len(dataset), noun, plural)}")
    if dataset.documents:
        lengths = dataset.lengths
        say(f"lengths: {lengths.min():,} to {lengths.max():,}, {lengths.mean():,.1f} on average")
    batch = next(iter(loader))
    say()
    named = [("tokens", np.concatenate(batch if dataset.documents else [each for each, _ in batch]))]
    say_table(range_rows(named), left=3)
    unit = "documents" if dataset.documents else "windows"
    return Result({"path": path, "tokens": dataset.tokens, unit: len(dataset), "arrays": array_facts(named)})
