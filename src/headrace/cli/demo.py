"""``headrace demo``: real photographs, streamed as training batches."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import options
from headrace.cli.bench import epoch_facts
from headrace.cli.command_errors import writing
from headrace.cli.output import Result, json_option, say, say_table
from headrace.formatting import count, duration, plain, rate, size_of
from headrace.interop.parallel import usable_cpus

if TYPE_CHECKING:
    from headrace import DataLoader, Statistics


@click.command(epilog="Example: headrace demo --images 6000 --workers 4")
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
@json_option
def demo(
    *, output: Path, wanted: int, epochs: int, batch_size: int, size: int, workers: int | None, seed: int
) -> Result:
    """Make a folder of JPEG files out of six photographs, stream it as training would, and show what came out.

    The images are random crops, in one folder a photograph; a second run uses those of the first. They are streamed
    shuffled and augmented. The report ends with where the time went, and the path of a contact sheet, a PNG with images
    before and after the augmentation.
    """
    from headrace import DataLoader
    from headrace.cli.image_set import open_folder
    from headrace.cli.preview import describe, preview, save, training
    from headrace.cli.show import arrays
    from headrace.formatting import array_facts

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
    say(f"{plain(str(folder))}: {image_set.summary()}")
    say(f"{describe(transform)}; batches of {batch_size}, {count(loader.num_workers, 'worker')}, seed {seed}")
    say()
    with loader:
        runs = [_stream(loader, epoch) for epoch in range(epochs)]
    say()
    batch = preview(image_set, transform, batch_size, shuffle=True, seed=seed)
    say_table(arrays(batch), left=3)
    say()
    say(_where_time_went(loader))
    path = output / "contact-sheet.png"
    subtitle = f"{batch.shown()} of the {len(batch.images)} in the first batch. {describe(transform)}; seed {seed}."
    save(batch.sheet(title="headrace demo", subtitle=subtitle), path)
    say()
    say(f"contact sheet: {plain(str(path))}")
    say(f"next: headrace show YOUR-FOLDER, or headrace bench {plain(str(folder))}")
    return Result(
        {
            "folder": str(folder),
            "images": len(image_set.dataset),
            "classes": len(image_set.classes),
            "epochs": [epoch_facts(run) for run in runs],
            "stage_seconds": dict(runs[-1].stage_seconds),
            "arrays": array_facts(batch.arrays()),
            "sheet": str(path),
        }
    )


def _make(folder: Path, wanted: int) -> None:
    """Make the images, unless an earlier run made the same ones."""
    from headrace.cli.demo_images import Recipe, make_images, ready
    from headrace.cli.progress_bar import ProgressBar

    recipe = Recipe(wanted)
    with writing(folder, "choose another place with --output, or make room"):
        if ready(folder, recipe):
            say("using the images that an earlier run made")
            return
        say(f"making {count(wanted, 'image')} of the photographs that come with headrace")
        began = perf_counter()
        nbytes = 0
        with ProgressBar(wanted, "making") as progress:
            for size in make_images(folder, recipe):
                nbytes += size
                progress.advance()
    say(f"made {size_of(nbytes)} in {duration(perf_counter() - began)}")


def _stream(loader: DataLoader[Any], epoch: int) -> Statistics:
    """Read one epoch, as a training loop would; keep one line of it."""
    from headrace.cli.progress_bar import ProgressBar

    name = f"epoch {epoch}"
    steps = len(loader)
    with ProgressBar(len(loader.dataset), name, run=loader.statistics) as progress:
        for step, (images, _labels) in enumerate(loader, start=1):
            progress.label(f"{name}, step {step}/{steps}")
            progress.advance(len(images))
    run = loader.statistics()
    say(
        f"{name}: {count(run.batches, 'step')}, {count(run.samples, 'image')} in {duration(run.seconds)}, "
        f"{rate(run.samples, run.seconds, 'images')}, first batch after {duration(run.first_batch_seconds or 0)}"
    )
    return run


def _where_time_went(loader: DataLoader[Any]) -> str:
    from headrace.run.report import longest_stage, stage_table

    run = loader.statistics()
    return f"{stage_table(run.stage_seconds, images=run.samples)}\n{run.diagnosis or longest_stage(run.stage_seconds)}"
