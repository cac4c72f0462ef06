"""``headrace index PATH``: index shards ahead of the run that reads them."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from headrace.cli.command_errors import CommandError
from headrace.datasets.shard_kinds import open_shards, shard_kind
from headrace.datasets.shards import SpanDataset
from headrace.formatting import count, plain

if TYPE_CHECKING:
    from headrace.datasets.field_samples import FieldDataset


@click.command(
    epilog='Example: headrace index "train-{0000..0099}.tar"',
    short_help="Index shards before a run.",
)
@click.argument("path", type=click.Path())
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to save the index; pass it to the dataset as index=.  [default: where the dataset looks for it]",
)
def index(*, path: str, folder: Path | None) -> None:
    """Index the shards at PATH, and say what is in them: so that no training run has to.

    PATH is a shard, a folder of shards or a pattern. An index that is there already is used where no shard has changed.
    Where a format needs no index (Arrow, Parquet), nothing is written.
    """
    kind = shard_kind(path) if path else None
    if kind is None:
        raise CommandError(
            "these are no shards", path=path, expected="tar, zip, TFRecord, Arrow, Parquet, MDS or LitData shards"
        )
    begun = perf_counter()
    dataset = open_shards(path) if folder is None or not kind.indexed else open_shards(path, index=folder)
    seconds = perf_counter() - begun
    nbytes = sum(Path(shard).stat().st_size for shard in dataset.shards)
    click.echo(
        f"{plain(path)}: {count(len(dataset.shards), f'{kind.name} shard')}, {count(len(dataset), 'sample')}, "
        f"{nbytes / 1e9:,.2f} GB"
    )
    click.echo(f"fields: {plain(', '.join(dataset.fields)) or 'none'}")
    click.echo(f"index: {_where(dataset)}, ready after {seconds:.2f} s")


def _where(dataset: FieldDataset) -> str:
    if not isinstance(dataset, SpanDataset):
        return "none is needed"
    if dataset.index_path is None:
        raise CommandError(
            "the index cannot be saved beside the shards, nor in the cache folder",
            path=dataset.shards[0],
            expected="a folder that can be written to",
            cure="pass --folder",
        )
    return plain(dataset.index_path)
