"""``headrace show PATH``: what is in a batch, in numbers and as a contact sheet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli.pictures import pictures_of_path
from headrace.cli.rows import show_rows
from headrace.cli.text import count, most_common, plain, ranges
from headrace.datasets.cifar import CifarDataset

if TYPE_CHECKING:
    from headrace.cli.pictures import Pictures
    from headrace.cli.preview import Preview
    from headrace.datasets.images import ImageDataset


@click.command(
    epilog="Example: headrace show photos --batch-size 24 --output batch.png",
    short_help="Show one batch, in numbers and as a picture.",
)
@pictures_of_path(rows=show_rows)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("headrace-show.png"),
    show_default=True,
    help="Where to save the contact sheet, a PNG.",
)
@click.option(
    "--batch-size",
    "-b",
    type=click.IntRange(min=1),
    metavar="N",
    default=16,
    show_default=True,
    help="Pictures in a batch.",
)
@click.option(
    "--size", "-s", type=click.IntRange(min=1), metavar="N", help="Side of the crops.  [default: 224; of CIFAR, 32]"
)
@click.option(
    "--augment/--no-augment",
    default=True,
    show_default=True,
    help="Random crops and flips, as in training, or the middle of each picture, as in evaluation.",
)
@click.option("--shuffle/--no-shuffle", default=True, show_default=True, help="Which pictures make the batch.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Fixes the order and the augmentation.",
)
def show(
    *,
    pictures: Pictures,
    output: Path,
    batch_size: int,
    size: int | None,
    augment: bool,
    shuffle: bool,
    seed: int,
) -> None:
    """Make one batch of PATH; show its shapes, dtypes, value ranges and labels, and save a contact sheet.

    The contact sheet has each picture before and after the transforms, with its label; normalised values are turned
    back into colours for it. PATH may also be a file of rows that are no pictures: .npy, .h5, .hdf5, .mat.
    """
    from headrace.cli import preview

    size = size or pictures.side
    if _is_one_of(pictures.dataset, output):
        raise click.UsageError(f"{plain(str(output))} is one of the pictures: name another file with --output")
    transform = preview.training(size) if augment else preview.evaluation(size)
    steps = preview.describe(transform)
    click.echo(f"{plain(pictures.name)}: {pictures.summary()}")
    if isinstance(pictures.dataset, CifarDataset):
        click.echo(_in_memory(pictures.dataset))
    click.echo(f"{steps}; seed {seed}")
    click.echo()
    batch = preview.preview(pictures, transform, batch_size, shuffle=shuffle, seed=seed)
    click.echo(arrays(batch))
    click.echo()
    click.echo(f"sizes before: {_sizes(batch)}")
    click.echo(f"labels: {_labels(batch)}")
    if batch.skipped:
        bad = count(batch.skipped, "bad picture was", "bad pictures were")
        click.echo(f"{bad} left out: headrace check {plain(pictures.name)}")
    png = batch.sheet(
        title=plain(pictures.title()),
        subtitle=f"{batch.shown()} of a batch of {len(batch.images)}; {pictures.summary()}. {steps}; seed {seed}.",
    )
    preview.save(png, output)
    click.echo(f"contact sheet: {plain(str(output))}")


def _in_memory(dataset: CifarDataset) -> str:
    """Say what a dataset has in memory: what there is before any transform."""
    shapes = [f"{array.shape} {array.dtype}" for array in dataset.arrays]
    checked = "MD5 as published" if dataset.verified else "MD5 not verified"
    name = f"{type(dataset).__name__}, {dataset.split} pictures, {checked}"
    return f"{name}: images {shapes[0]}, labels {shapes[1]}"


def _is_one_of(dataset: ImageDataset | CifarDataset, output: Path) -> bool:
    """Say whether saving there would overwrite a picture that is shown."""
    if isinstance(dataset, CifarDataset):
        source = Path(dataset.source)
        return output.exists() and source.resolve() in (output.resolve(), output.resolve().parent)
    if not output.exists() or not output.resolve().is_relative_to(
        Path(dataset.root).resolve() if dataset.root else "/"
    ):
        return False
    return any(
        path.endswith(output.name) and Path(dataset.path(index)).exists() and output.samefile(dataset.path(index))
        for index, path in enumerate(dataset.paths)
    )


def arrays(batch: Preview) -> str:
    """Return shape, dtype and range of values of the arrays of a batch."""
    return ranges([("images", batch.images), ("labels", batch.labels)])


def _sizes(batch: Preview) -> str:
    sizes = Counter(f"{width} x {height}" for height, width in batch.sizes.tolist())
    return most_common(sizes, most=6)


def _labels(batch: Preview) -> str:
    names = Counter(plain(batch.pictures.label(label)) for label in batch.labels.tolist())
    return most_common(names, most=12)
