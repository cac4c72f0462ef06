"""``headrace show PATH``: what is in a batch, in numbers and as a contact sheet."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import options, preview
from headrace.cli.image_set import image_set_of_path
from headrace.cli.output import Result, json_option, say, say_table
from headrace.cli.rows import show_rows
from headrace.cli.script_objects import running
from headrace.datasets.cifar import CifarDataset
from headrace.datasets.field_samples import FieldTuples
from headrace.datasets.packed_dataset import PackedDataset
from headrace.formatting import array_facts, count, most_common, plain, range_rows

if TYPE_CHECKING:
    from headrace.cli.image_set import Images, ImageSet
    from headrace.cli.preview import Preview


def show_script(found: Any, target: str, *, output: Path, batch_size: int, **_of_images: object) -> Result:
    """Show the first batch of a script's loader, samples of its dataset, or a batch of it."""
    from headrace.figure.showing import MOST_SHOWN
    from headrace.figure.showing import show as figure_of

    options.refuse(("size", "augment"), "the script says what its samples are")
    options.refuse(("shuffle", "seed"), "the script says which samples there are")
    with running(target):
        figure = figure_of(found, min(batch_size, MOST_SHOWN))
    say(plain(f"{target}: {figure.title}"))
    say()
    say_table([tuple(map(plain, row)) for row in figure.rows], left=figure.left)
    for name, values in figure.texts:
        say(plain(f"{name}: {values[0]}"))
    if figure.png is not None:
        preview.save(figure.png, output)
        say(f"contact sheet: {plain(str(output))}")
    heading, *rows = figure.rows
    names = ("name", "shape", "dtype", "smallest", "largest")
    of_batch = not heading[0]
    return Result(
        {
            "path": target,
            "title": figure.title,
            "parts": [dict(zip(names, row, strict=True)) for row in rows] if of_batch else [],
            "facts": {} if of_batch else {row[0]: row[1] for row in figure.rows},
            "sheet": None if figure.png is None else str(output),
        }
    )


@click.command(epilog="Example: headrace show photos --batch-size 24 --output batch.png")
@image_set_of_path(rows=show_rows, script=show_script, or_batch=True)
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
@json_option
def show(
    *,
    image_set: ImageSet,
    output: Path,
    batch_size: int,
    size: int | None,
    augment: bool,
    shuffle: bool,
    seed: int,
) -> Result:
    """Make one batch of PATH; show its shapes, dtypes, value ranges and labels, and save a contact sheet.

    The contact sheet has each image before and after the transforms, with its label; normalized values are turned
    back into colors for it. PATH may also be a file of rows that are no images (.npy, .h5, .hdf5, .mat), or
    of tokens: .bin with .idx beside it (Megatron), .bin with a header (llm.c).

    PATH may also be SCRIPT:NAME, as in train.py:loader: a loader, a dataset or a batch of a Python file, which is
    imported. Masks, boxes with the names of their classes, keypoints and soft labels are then drawn too,
    after the loader's own transforms.
    """
    size = size or image_set.side
    options.check_memory(min(batch_size, len(image_set.dataset)), size)
    if _is_one_of(image_set.dataset, output):
        raise click.UsageError(f"{plain(str(output))} is one of the images: name another file with --output")
    transform = preview.training(size) if augment else preview.evaluation(size)
    steps = preview.describe(transform)
    say(f"{plain(image_set.name)}: {image_set.summary()}")
    if isinstance(image_set.dataset, CifarDataset):
        say(_in_memory(image_set.dataset))
    say(f"{steps}; seed {seed}")
    say()
    batch = preview.preview(image_set, transform, batch_size, shuffle=shuffle, seed=seed)
    say_table(arrays(batch), left=3)
    say()
    say(f"sizes before: {most_common(_sizes(batch), most=6)}")
    say(f"labels: {most_common(_labels(batch), most=12)}")
    if batch.skipped:
        bad = count(batch.skipped, "bad image was", "bad images were")
        say(f"{bad} left out: headrace check {plain(image_set.name)}")
    png = batch.sheet(
        title=plain(image_set.title()),
        subtitle=f"{batch.shown()} of a batch of {len(batch.images)}; {image_set.summary()}. {steps}; seed {seed}.",
    )
    preview.save(png, output)
    say(f"contact sheet: {plain(str(output))}")
    return Result(
        {
            "path": image_set.name,
            "images": len(image_set.dataset),
            "classes": len(image_set.classes),
            "transforms": steps,
            "seed": seed,
            "arrays": array_facts(batch.arrays()),
            "labels": dict(_labels(batch)),
            "sizes": dict(_sizes(batch)),
            "left_out": batch.skipped,
            "sheet": str(output),
        }
    )


def _in_memory(dataset: CifarDataset) -> str:
    """Say what a dataset has in memory: what there is before any transform."""
    shapes = [f"{array.shape} {array.dtype}" for array in dataset.arrays]
    checked = "MD5 as published" if dataset.verified else "MD5 not verified"
    name = f"{type(dataset).__name__}, {dataset.split} images, {checked}"
    return f"{name}: images {shapes[0]}, labels {shapes[1]}"


def _is_one_of(dataset: Images, output: Path) -> bool:
    """Say whether saving there would overwrite an image that is shown."""
    if isinstance(dataset, CifarDataset):
        source = Path(dataset.source)
        return output.exists() and source.resolve() in (output.resolve(), output.resolve().parent)
    if isinstance(dataset, FieldTuples | PackedDataset):
        return output.exists() and any(output.samefile(shard) for shard in dataset.shards if Path(shard).exists())
    if not output.exists() or not output.resolve().is_relative_to(
        Path(dataset.root).resolve() if dataset.root else "/"
    ):
        return False
    return any(
        path.endswith(output.name) and Path(dataset.path(index)).exists() and output.samefile(dataset.path(index))
        for index, path in enumerate(dataset.paths)
    )


def arrays(batch: Preview) -> list[tuple[str, ...]]:
    """Return a table of shape, dtype and range of values of the arrays of a batch."""
    return range_rows(batch.arrays())


def _sizes(batch: Preview) -> Counter[str]:
    return Counter(f"{width} x {height}" for height, width in batch.sizes.tolist())


def _labels(batch: Preview) -> Counter[str]:
    return Counter(plain(batch.image_set.label(label)) for label in batch.labels.tolist())
