"""``headrace bench PATH``: how fast batches come, and where the time goes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import options
from headrace.cli.image_set import image_set_of_path
from headrace.formatting import count, plain, size_of, table
from headrace.interop.parallel import usable_cpus
from headrace.run.stats import rate_rows

if TYPE_CHECKING:
    from headrace import DataLoader, Statistics
    from headrace.cli.image_set import ImageSet


@click.command(
    epilog="Example: headrace bench photos --workers 4 --epochs 2",
    short_help="Measure the rate, and where the time goes.",
)
@image_set_of_path()
@options.workers
@options.batch_size(64)
@options.epochs()
@options.images("Instead of whole epochs: stop after this many images, and start again if there are fewer.")
@options.size()
@options.seed
def bench(
    *,
    image_set: ImageSet,
    workers: int | None,
    batch_size: int,
    epochs: int | None,
    wanted: int | None,
    size: int | None,
    seed: int,
) -> None:
    """Stream PATH as training would, and measure it.

    The images are shuffled and augmented (a random crop and flip, then normalized float32, channels first). The
    report gives the rate, the time to the first batch, where the workers' time goes (reading, decoding, transforming,
    collating), how long the loop waited (it does nothing else here), and the peak of memory. Bad images are replaced
    by others and counted. The first epoch also pays for a cold disk cache: compare later ones.
    """
    if epochs and wanted:
        raise click.UsageError("give --epochs or --images, not both")
    from headrace import DataLoader
    from headrace.cli.preview import describe, training

    options.check_memory(min(batch_size, len(image_set.dataset)), size or image_set.side)
    transform = training(size or image_set.side)
    loader: DataLoader[Any] = DataLoader(
        image_set.dataset.map(transform),
        batch_size,
        shuffle=True,
        num_workers=usable_cpus() if workers is None else workers,
        seed=seed,
        on_error="replace",
    )
    click.echo(f"{plain(image_set.name)}: {image_set.summary()}")
    click.echo(f"{describe(transform)}; batches of {batch_size}, {count(loader.num_workers, 'worker')}, seed {seed}")
    with loader:
        runs = _stream(loader, wanted or (epochs or 1) * len(image_set.dataset))
    click.echo()
    click.echo(table(rate_rows(runs)))
    click.echo()
    click.echo(_stages(runs))
    replaced = sum(run.replaced for run in runs)
    if replaced:
        click.echo(
            f"{count(replaced, 'bad image was', 'bad images were')} replaced by others: "
            f"headrace check {plain(image_set.name)}"
        )


def _stream(loader: DataLoader[Any], wanted: int) -> list[Statistics]:
    """Read so many images, in one epoch or more; return the statistics of each."""
    from headrace.cli.progress_bar import ProgressBar

    runs: list[Statistics] = []
    left = wanted
    with ProgressBar(wanted, "epoch 1") as progress:
        while left > 0:
            progress.label(f"epoch {len(runs) + 1}")
            for batch in loader:
                rows = len(batch[0])
                del batch
                left -= rows
                progress.advance(rows)
                if left <= 0:
                    break
            runs.append(loader.statistics())
            loader.close()
    return runs


def _stages(runs: list[Statistics]) -> str:
    from headrace.run.report import diagnosis, stage_table

    stages: dict[str, float] = {}
    for run in runs:
        for stage, spent in run.stage_seconds.items():
            stages[stage] = stages.get(stage, 0.0) + spent
    return "\n".join(
        [
            stage_table(stages, images=sum(run.samples for run in runs)),
            "",
            f"peak memory {size_of(peak_memory())}",
            diagnosis(stages),
        ]
    )


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held at once."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
