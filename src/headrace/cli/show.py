"""``headrace show PATH``: what is in a batch, in numbers and as a contact sheet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from headrace.cli import options
from headrace.cli.image_set import image_set_of_path
from headrace.cli.rows import show_rows
from headrace.datasets.cifar import CifarDataset
from headrace.datasets.field_samples import FieldTuples
from headrace.formatting import count, most_common, plain, ranges

if TYPE_CHECKING:
    from headrace.cli.image_set import ImageSet
    from headrace.cli.preview import Preview
    from headrace.datasets.images import ImageDataset


@click.command(
    epilog="Example: headrace show photos --batch-size 24 --output batch.png",
    short_help="Show one batch, in numbers and as an image.",
)
@image_set_of_path(rows=show_rows)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("headrace-show.png"),
    show_default=True,
    help="Where to save the contact sheet, a PNG.",
)
@options.batch_size(16)
@options.size()
@click.option(
    "--augment/--no-augment",
    default=True,
    show_default=True,
    help="Random crops and flips, as in training, or the middle of each image, as in evaluation.",
)
@click.option("--shuffle/--no-shuffle", default=True, show_default=True, help="Which images make the batch.")
@options.seed
def show(
    *,
    image_set: ImageSet,
    output: Path,
    batch_size: int,
    size: int | None,
    augment: bool,
    shuffle: bool,
    seed: int,
) -> None:
    """Make one batch of PATH; show its shapes, dtypes, value ranges and labels, and save a contact sheet.

    The contact sheet has each image before and after the transforms, with its label; normalized values are turned
    back into colors for it. PATH may also be a file of rows that are no images (.npy, .h5, .hdf5, .mat), or
    of tokens: .bin with .idx beside it (Megatron), .bin with a header (llm.c).

    PATH may also be SCRIPT:NAME, as in train.py:loader: a loader, a dataset or a batch of a Python file, which is run
    as an import runs it. Masks, boxes with the names of their classes, keypoints and soft labels are then drawn too,
    after the loader's own transforms.
    """
    from headrace.cli import preview

    size = size or image_set.side
    options.check_memory(min(batch_size, len(image_set.dataset)), size)
    if _is_one_of(image_set.dataset, output):
        raise click.UsageError(f"{plain(str(output))} is one of the images: name another file with --output")
    transform = preview.training(size) if augment else preview.evaluation(size)
    steps = preview.describe(transform)
    click.echo(f"{plain(image_set.name)}: {image_set.summary()}")
    if isinstance(image_set.dataset, CifarDataset):
        click.echo(_in_memory(image_set.dataset))
    click.echo(f"{steps}; seed {seed}")
    click.echo()
    batch = preview.preview(image_set, transform, batch_size, shuffle=shuffle, seed=seed)
    click.echo(arrays(batch))
    click.echo()
    click.echo(f"sizes before: {_sizes(batch)}")
    click.echo(f"labels: {_labels(batch)}")
    if batch.skipped:
        bad = count(batch.skipped, "bad image was", "bad images were")
        click.echo(f"{bad} left out: headrace check {plain(image_set.name)}")
    png = batch.sheet(
        title=plain(image_set.title()),
        subtitle=f"{batch.shown()} of a batch of {len(batch.images)}; {image_set.summary()}. {steps}; seed {seed}.",
    )
    preview.save(png, output)
    click.echo(f"contact sheet: {plain(str(output))}")


def _in_memory(dataset: CifarDataset) -> str:
    """Say what a dataset has in memory: what there is before any transform."""
    shapes = [f"{array.shape} {array.dtype}" for array in dataset.arrays]
    checked = "MD5 as published" if dataset.verified else "MD5 not verified"
    name = f"{type(dataset).__name__}, {dataset.split} images, {checked}"
    return f"{name}: images {shapes[0]}, labels {shapes[1]}"


def _is_one_of(dataset: ImageDataset | CifarDataset | FieldTuples, output: Path) -> bool:
    """Say whether saving there would overwrite an image that is shown."""
    if isinstance(dataset, CifarDataset):
        source = Path(dataset.source)
        return output.exists() and source.resolve() in (output.resolve(), output.resolve().parent)
    if isinstance(dataset, FieldTuples):
        return output.exists() and any(output.samefile(shard) for shard in dataset.shards if Path(shard).exists())
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
    names = Counter(plain(batch.image_set.label(label)) for label in batch.labels.tolist())
    return most_common(names, most=12)
