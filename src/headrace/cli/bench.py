"""``headrace bench PATH``: how fast batches come, and where the time goes."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from headrace.cli import options
from headrace.cli.free_loops import free_option
from headrace.cli.image_set import image_set_of_path
from headrace.cli.output import Result, json_option, say, say_table
from headrace.cli.script_objects import running
from headrace.datasets import protocol
from headrace.formatting import count, memory_of, plain
from headrace.interop.parallel import usable_cpus
from headrace.loader import DataLoader
from headrace.run.stats import measure, rate_rows

if TYPE_CHECKING:
    from headrace import Statistics
    from headrace.cli.image_set import ImageSet


def bench_script(
    found: Any,
    target: str,
    *,
    workers: int | None,
    batch_size: int,
    epochs: int | None,
    wanted: int | None,
    size: int | None,  # noqa: ARG001  refused where it is given
    seed: int,
    backend: str,
) -> Result:
    """Measure a script's loader as it is, or its dataset in a loader made from the options."""
    options.refuse(("size",), "the script says what its samples are")
    _one_of(epochs, wanted)
    if isinstance(found, DataLoader):
        options.refuse(("workers", "batch_size", "seed", "backend"), "the script says how its loader works")
        loader: DataLoader[Any] = found
    else:
        streams = protocol.is_iterable(found)
        usual = 1 if streams else usable_cpus()
        loader = DataLoader(
            found,
            batch_size,
            shuffle=None if streams else True,
            num_workers=0 if backend == "inline" else usual if workers is None else workers,
            backend=backend,
            seed=seed,
        )
    say(f"{plain(target)}: {loader!r}")
    with running(target):
        return _report(loader, epochs, wanted, {"path": target, "loader": repr(loader)}, "sample")


@click.command(epilog="Example: headrace bench photos --workers 4 --epochs 2")
@free_option
@image_set_of_path(script=bench_script)
@options.workers
@options.batch_size(64)
@options.epochs()
@options.images("Instead of whole epochs: stop after this many images, and start again if there are fewer.")
@options.size()
@options.seed
@options.backend
@json_option
def bench(
    *,
    image_set: ImageSet,
    workers: int | None,
    batch_size: int,
    epochs: int | None,
    wanted: int | None,
    size: int | None,
    seed: int,
    backend: str,
) -> Result:
    """Stream PATH as training would, and measure it.

    The images are shuffled and augmented (a random crop and flip, then normalized float32, channels first). The
    report gives the rate, the time to the first batch, where the workers' time goes (reading, decoding, transforming,
    collating), how long the loop waited (it does nothing else here), and the peak of memory. Bad images are replaced
    by others and counted. The first epoch also pays for a cold disk cache: compare later ones.

    Of shards behind URLs it also says what was fetched, and the bandwidth that would be enough.

    PATH may be SCRIPT:NAME: a loader is measured as the script makes it, a dataset in a loader made from the options.
    With --free, PATH is a whole training script: it is run, and the report says how fast its loops would be with a
    loader that costs nothing. Each loop ends after 128 batches.
    """
    _one_of(epochs, wanted)
    from headrace.cli.preview import describe, training

    options.check_memory(min(batch_size, len(image_set.dataset)), size or image_set.side)
    transform = training(size or image_set.side)
    loader: DataLoader[Any] = DataLoader(
        image_set.dataset.map(transform),
        batch_size,
        shuffle=True,
        num_workers=0 if backend == "inline" else usable_cpus() if workers is None else workers,
        backend=backend,
        seed=seed,
        on_error="replace",
    )
    say(f"{plain(image_set.name)}: {image_set.summary()}")
    say(f"{describe(transform)}; batches of {batch_size}, {count(loader.num_workers, 'worker')}, seed {seed}")
    about = {"path": image_set.name, "loader": repr(loader)}
    return _report(loader, epochs, wanted, about, "image")


def _one_of(epochs: int | None, wanted: int | None) -> None:
    if epochs and wanted:
        raise click.UsageError("give --epochs or --images, not both")


def _report(
    loader: DataLoader[Any], epochs: int | None, wanted: int | None, about: dict[str, Any], item: str
) -> Result:
    """Stream a loader, and say how fast it was."""
    from headrace.run.report import longest_stage, stage_table

    with loader:
        epochs_read = _stream(loader, epochs or 1, wanted, f"{item}s")
    runs = [run for run, _ in epochs_read]
    stages: dict[str, float] = {}
    for run in runs:
        for stage, spent in run.stage_seconds.items():
            stages[stage] = stages.get(stage, 0.0) + spent
    samples, replaced, peak = (sum(run.samples for run in runs), sum(run.replaced for run in runs), peak_memory())
    say()
    say_table(rate_rows(runs, items=f"{item}s", parts=[part for _, part in epochs_read]))
    say()
    say(stage_table(stages, images=samples, item=item))
    say()
    say(f"peak memory {memory_of(peak)}")
    for run in runs:
        if run.remote is not None:
            say(f"epoch {run.epoch}: {run.remote}")
    say(str(runs[-1].diagnosis or longest_stage(stages)))
    if replaced:
        replaced_said = count(replaced, f"bad {item} was", f"bad {item}s were")
        say(f"{replaced_said} replaced by others: headrace check {plain(about['path'])}")
    return Result(
        about
        | {
            "workers": loader.num_workers,
            "batch_size": loader.batch_size,
            "seed": loader.seed,
            "epochs": [epoch_facts(run, part) for run, part in epochs_read],
            "stage_seconds": stages,
            "peak_memory_bytes": peak,
        }
    )


def epoch_facts(run: Statistics, part: float | None = 1.0) -> dict[str, Any]:
    """Return the statistics of one epoch as values for JSON; ``part``: how much of it was read, if that is known."""
    return {
        "epoch": run.epoch,
        "complete": part is not None and part >= 1.0,
        "part": part,
        "samples": run.samples,
        "batches": run.batches,
        "bytes": run.nbytes,
        "seconds": run.seconds,
        "samples_per_second": run.samples_per_second,
        "first_batch_seconds": run.first_batch_seconds,
        "wait_share": run.wait_share,
        "skipped": run.skipped,
        "replaced": run.replaced,
        "diagnosis": None if (found := run.diagnosis) is None else asdict(found),
        "remote": None if run.remote is None else asdict(run.remote) | {"hit_rate": run.remote.hit_rate},
    }


def _stream(
    loader: DataLoader[Any], epochs: int, wanted: int | None, items: str
) -> list[tuple[Statistics, float | None]]:
    """Read so many epochs, or so many samples; return the statistics of each epoch, and how much of it was read."""
    from headrace.cli.progress_bar import ProgressBar

    runs: list[tuple[Statistics, float | None]] = []
    read = 0
    steps = _steps(loader)
    total = wanted or (epochs * steps * (loader.batch_size or 1) if steps else None)
    with ProgressBar(total, "epoch", unit=items, run=loader.statistics) as progress:
        while len(runs) < epochs if wanted is None else read < wanted:
            before, part = read, None
            for batch in loader:
                rows = measure(batch)[0] if loader.batch_size or loader.batch_sampler else 1
                del batch
                if read == before:
                    progress.label(f"epoch {loader.statistics().epoch}")
                read += rows
                progress.advance(rows)
                if wanted is not None and read >= wanted:
                    run = loader.statistics()
                    part = run.batches / steps if steps else None
                    break
            else:
                part = 1.0
            runs.append((loader.statistics(), part))
            loader.close()
            if read == before:  # nothing came, and nothing would come the next time
                break
    return runs


def _steps(loader: DataLoader[Any]) -> int | None:
    """Return how many batches an epoch has; None where it is not known before."""
    try:
        return len(loader)
    except TypeError:
        return None


def peak_memory() -> int:
    """Return the most bytes of memory that this process has held at once."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
