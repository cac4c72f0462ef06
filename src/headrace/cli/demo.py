"""``headrace demo``: real photographs, streamed as training batches."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import options
from headrace.cli.command_errors import writing
from headrace.formatting import count, plain, size_of
from headrace.interop.parallel import usable_cpus

if TYPE_CHECKING:
    from headrace import DataLoader


@click.command(
    epilog="Example: headrace demo --images 6000 --workers 4",
    short_help="Stream real photographs as training batches.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("headrace-demo"),
    show_default=True,
    help="The folder for the images and the contact sheet.",
)
@options.images("How many to make.", least=6, default=2400)
@options.epochs(2)
@options.batch_size(64)
@options.size(224)
@options.workers
@options.seed
def demo(*, output: Path, wanted: int, epochs: int, batch_size: int, size: int, workers: int | None, seed: int) -> None:
    """Make a folder of JPEG files out of six photographs, stream it as training would, and show what came out.

    The images are random crops, in one folder a photograph; a second run uses those of the first. They are streamed
    shuffled and augmented. At the end stand the rate, where the time went, and the path of a contact sheet, a PNG with
    images before and after the augmentation.
    """
    from headrace import DataLoader
    from headrace.cli.image_set import open_folder
    from headrace.cli.preview import describe, preview, save, training
    from headrace.cli.show import arrays

    options.check_memory(min(batch_size, wanted), size)
    folder = output / "images"
    _make(folder, wanted)
    image_set = open_folder(folder)
    transform = training(size)
    loader: DataLoader[Any] = DataLoader(
        image_set.dataset.map(transform),
        batch_size,
        shuffle=True,
        num_workers=usable_cpus() if workers is None else workers,
        seed=seed,
    )
    click.echo(f"{plain(str(folder))}: {image_set.summary()}")
    click.echo(f"{describe(transform)}; batches of {batch_size}, {count(loader.num_workers, 'worker')}, seed {seed}")
    click.echo()
    with loader:
        for epoch in range(epochs):
            _stream(loader, epoch, epochs)
    click.echo()
    batch = preview(image_set, transform, batch_size, shuffle=True, seed=seed)
    click.echo(arrays(batch))
    click.echo()
    click.echo(_where_time_went(loader))
    path = output / "contact-sheet.png"
    subtitle = f"{batch.shown()} of the {len(batch.images)} in the first batch. {describe(transform)}; seed {seed}."
    save(batch.sheet(title="headrace demo", subtitle=subtitle), path)
    click.echo()
    click.echo(f"contact sheet: {plain(str(path))}")
    click.echo(f"next: headrace show YOUR-FOLDER, or headrace bench {plain(str(folder))}")


def _make(folder: Path, wanted: int) -> None:
    """Make the images, unless an earlier run made the same ones."""
    from headrace.cli.demo_images import Recipe, make_images, ready
    from headrace.cli.progress_bar import ProgressBar

    recipe = Recipe(wanted)
    with writing(folder, "choose another place with --output, or make room"):
        if ready(folder, recipe):
            click.echo("using the images that an earlier run made")
            return
        click.echo(f"making {count(wanted, 'image')} of the photographs that come with headrace")
        began = perf_counter()
        nbytes = 0
        with ProgressBar(wanted, "making") as progress:
            for size in make_images(folder, recipe):
                nbytes += size
                progress.advance()
    click.echo(f"made {size_of(nbytes)} in {perf_counter() - began:.1f} s")


def _stream(loader: DataLoader[Any], epoch: int, epochs: int) -> None:
    """Read one epoch, as a training loop would; keep one line of it."""
    from headrace.cli.progress_bar import ProgressBar

    name = f"epoch {epoch + 1}/{epochs}"
    steps = len(loader)
    with ProgressBar(len(loader.dataset), name) as progress:
        for step, (images, _labels) in enumerate(loader, start=1):
            progress.label(f"{name}, step {step}/{steps}")
            progress.advance(len(images))
    run = loader.statistics()
    click.echo(
        f"{name}: {count(run.batches, 'step')}, {count(run.samples, 'image')} in {run.seconds:.1f} s, "
        f"{run.samples_per_second:,.0f} images/s, first batch after {run.first_batch_seconds or 0:.2f} s"
    )


def _where_time_went(loader: DataLoader[Any]) -> str:
    from headrace.run.report import diagnosis, stage_table

    run = loader.statistics()
    return f"{stage_table(run.stage_seconds, images=run.samples)}\n{diagnosis(run.stage_seconds)}"
