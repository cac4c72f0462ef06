"""What is no path of images, as `headrace show` has it: rows in files, token files, a loader or dataset of a script."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

from headrace.cli.command_errors import writing
from headrace.cli.script import is_target, thing_of
from headrace.datasets.arrays import ArrayDataset
from headrace.datasets.hdf5 import HDF5Dataset
from headrace.datasets.token_dataset import TokenDataset
from headrace.formats.token_layouts import HEADERS
from headrace.formatting import count, most_common, plain, ranges
from headrace.loader import DataLoader

ENDINGS = (".npy", ".h5", ".hdf5", ".mat")

Rows = ArrayDataset | HDF5Dataset | TokenDataset


class OfScript(NamedTuple):
    """What a script has under a name."""

    thing: Any


def open_rows(path: str) -> Rows | OfScript | None:
    """Open a file of rows, or run a script for what it has under a name; None for anything else."""
    if is_target(path):
        return OfScript(thing_of(path))
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


def show_rows(
    dataset: Rows | OfScript,
    path: str,
    *,
    batch_size: int,
    shuffle: bool,
    seed: int,
    output: Path,
    **_of_images: object,
) -> None:
    """Say what is in a file of rows, and what in a batch of them."""
    if isinstance(dataset, OfScript):
        _show_figure(dataset.thing, batch_size, output)
        return
    if isinstance(dataset, TokenDataset):
        _show_tokens(dataset, path, DataLoader(dataset, batch_size, shuffle=shuffle, seed=seed, collate_fn=list))
        return
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


def _show_figure(thing: Any, samples: int, output: Path) -> None:
    """Print the table of a figure, and save its contact sheet."""
    from headrace.figure.showing import MOST_SHOWN, show

    figure = show(thing, min(samples, MOST_SHOWN))
    click.echo("\n".join(map(plain, str(figure).splitlines())))
    if figure.png is None:
        click.echo("no image: nothing in it looks like images")
        return
    with writing(output, "choose another place with --output, or make room"):
        output.write_bytes(figure.png)
    click.echo(f"contact sheet: {plain(str(output))}")


def _show_tokens(dataset: TokenDataset, path: str, loader: DataLoader[Any]) -> None:
    """Say how many tokens there are, and what is in a batch of documents or windows."""
    noun = "document" if dataset.documents else f"window of {dataset.length:,}"
    plural = "documents" if dataset.documents else f"windows of {dataset.length:,}"
    click.echo(f"{plain(path)}: {count(dataset.tokens, 'token')}, {count(len(dataset), noun, plural)}")
    if dataset.documents:
        lengths = dataset.lengths
        click.echo(f"lengths: {lengths.min():,} to {lengths.max():,}, {lengths.mean():,.1f} on average")
    batch = next(iter(loader))
    click.echo()
    click.echo(ranges([("tokens", np.concatenate(batch if dataset.documents else [each for each, _ in batch]))]))
