"""``headrace index PATH``: index shards ahead of the run that reads them."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from headrace.cli.command_errors import CommandError
from headrace.cli.output import Result, json_option, say
from headrace.datasets.shard_kinds import open_shards, shard_kind
from headrace.datasets.shards import SpanDataset
from headrace.datasets.span_table import at_once
from headrace.formatting import count, duration, plain, size_of
from headrace.storage.objects import facts, is_url

if TYPE_CHECKING:
    from headrace.datasets.field_samples import FieldDataset


@click.command(
    epilog='Example: headrace index "train-{0000..0099}.tar"',
)
@click.argument("path", type=click.Path())
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where to save the index; pass it to the dataset as index=.  [default: where the dataset looks for it]",
)
@json_option
def index(*, path: str, folder: Path | None) -> Result:
    """Index the shards at PATH, and say what is in them: so that no training run has to.

    PATH is a shard, a folder of shards, a pattern, or a URL of these. An index that is there already is used where no
    shard has changed.
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
    nbytes = sum(at_once(_size, dataset.shards))
    saved = _where(dataset)
    shards, samples = count(len(dataset.shards), f"{kind.name} shard"), count(len(dataset), "sample")
    say(f"{plain(path)}: {shards}, {samples}, {size_of(nbytes)}")
    say(f"fields: {plain(', '.join(dataset.fields)) or 'none'}")
    say(f"index: {'none is needed' if saved is None else plain(saved)}, ready after {duration(seconds)}")
    return Result(
        {
            "path": path,
            "format": kind.name,
            "shards": len(dataset.shards),
            "samples": len(dataset),
            "bytes": nbytes,
            "fields": list(dataset.fields),
            "index": saved,
            "seconds": seconds,
        }
    )


def _size(shard: str) -> int:
    return facts(shard)[0] if is_url(shard) else Path(shard).stat().st_size


def _where(dataset: FieldDataset) -> str | None:
    """Return where the index is; None where a format needs none."""
    if not isinstance(dataset, SpanDataset):
        return None
    if dataset.index_path is None:
        raise CommandError(
            "the index cannot be saved beside the shards, nor in the cache folder",
            path=dataset.shards[0],
            expected="a folder that can be written to",
            cure="pass --folder",
        )
    return dataset.index_path
